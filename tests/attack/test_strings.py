"""Injection: texts from HTTP and from Redis reach the event socket as values or not at all.

``grammar`` parses what is written, as FreeSWITCH would; it must be the intended endpoints and variables. Values in
Redis are unchecked, as those of a hacked or an older one would be.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import structs

from esl_apps.apps import autodial, callback, click2dial, dialthrough, disa, inbound, transfer
from esl_apps.apps.context import Arrival
from esl_apps.apps.ringing import Aleg, Rang, ring_aleg
from esl_apps.apps.settings import Entrance, Queue, Rules
from esl_apps.core.attempt import Attempt
from esl_apps.core.cards import Account, Card
from esl_apps.core.faults import Refused
from esl_apps.core.number_text import NotDialable
from esl_apps.core.order import IntegratorRules
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.http.autodial import read_order
from esl_apps.prompts import is_media
from esl_apps.store import keys
from esl_apps.store.cards import CardStore
from esl_apps.store.script import sha_of, text_of
from esl_apps.testing import PLAN, ScriptedPolicy, host
from tests.attack import grammar
from tests.attack.switchboard import Caller, Switchboard, channel
from tests.support.card_table import CardTable
from tests.support.dial_strings import SETTINGS
from tests.support.peer import UUID

RULES = Rules(redial_code="*0", prompt_delay=0.0, cid_trust="any", default_caller_id="27115550000")
CALLER, CALLEE, E164 = "0825556666", "0820001234", "27820001234"
TARGET = f"sofia/gateway/pstn/{E164}"
SOCKET = "socket(127.0.0.1:8084/click2dial async full)"

ATTACKS = (
    "'a}sofia/gateway/gw/0900123456 ",
    "a}[x=1]sofia/gateway/gw/0900",
    "},user/1001",
    "a|b=1",
    "a,b=1",
    "a:_:b",
    "!b=2!c=3",
    "^^:a=1",
    "${system(id)}",
    "$${domain}",
    "\\'",
    '"',
    "'",
    "\n\napi hupall\n\n",
    "\r\n\r\n",
    "\0",
    "<a=1>",
    "[leg_timeout=1]",
    "%7D",
    "%0A%0Aapi",
    "{",
    " &park()",
    "é\u2028",
    "=;",
    "~|!;",
    "+27900123456}",
    "1000@evil",
    "^^|esl_app=x",
    "x\nexecute-app-name: system\nexecute-app-arg: id",
    "../../etc/passwd",
    "tone_stream://%(1,1,1)",
    "0900123456,sofia/gateway/pstn/0900123456",
    "conference:x@default+flags{moderator}",
    "tvc_x}",
    "-bleg",
    "9" * 400,
)

known = st.sampled_from(ATTACKS)
hostile = st.one_of(known, st.text(max_size=40), st.builds("{}{}".format, known, st.text(max_size=9)))
numbers = st.one_of(hostile, st.sampled_from([CALLER, "+27115550000", "1000", "112", "0900123456"]))
few = settings(max_examples=150)


# Output --------------------------------------------------------------------------------------------------

_APIS = re.compile(
    rf"api (sched_hangup \+\d+ {UUID}|sched_del {UUID}|uuid_break {UUID} all|uuid_setvar {UUID} last_matching_digits|"
    rf"uuid_recv_dtmf {UUID} [0-9A-D*#]+|hupall [A-Z_]+ esl_bleg [0-9a-f-]+)"
)
_OTHERS = re.compile(
    rf"connect|linger 5|exit|divert_events (?:on|off)|filter Unique-ID {UUID}|filter variable_esl_bleg [0-9a-f-]+|"
    r"filter Application-UUID -0|event plain [A-Z_ ]+"
)
_PLAIN = {
    "answer": r"",
    "hangup": r"[A-Z_]+",
    "playback": r"(file_string://)?/prompts/[a-z0-9_-]+\.wav(!/prompts/[a-z0-9_-]+\.wav)*|tone_stream://[%(),0-9;a-z=]+",
    "start_dtmf": "",
    "stop_dtmf": "",
    "bind_digit_action": r"(keys|talk),[~^().$*]+,key,x",
    "clear_digit_action": "all",
    "ring_ready": "",
    "pre_answer": "",
    "conference": r"[A-Za-z0-9._~%-]+@default",
}


_EXECUTE = {"call-command", "execute-app-name", "Event-UUID", "event-lock", "content-type", "content-length"}


def left(board: Switchboard) -> tuple[list[grammar.Attempt], list[dict[str, str]]]:
    """The endpoints that a flow dialled and the variables that it set; check that it wrote nothing unusual besides."""
    dialled: list[grammar.Attempt] = []
    assigned: list[dict[str, str]] = []
    for command in grammar.commands(board.sent):
        if not command.startswith("sendmsg\n"):
            assert _APIS.fullmatch(command) or _OTHERS.fullmatch(command), command
            continue
        head, _, argument = command.partition("\n\n")
        headers = dict(line.split(": ", 1) for line in head.split("\n")[1:])
        assert headers.keys() <= _EXECUTE
        app = headers["execute-app-name"]
        if app == "bridge":
            dialled += grammar.dialled(argument)
        elif app == "multiset":
            assigned.append(grammar.multiset(argument))
        else:
            assert re.fullmatch(_PLAIN[app], argument), command
    return dialled, assigned


def says(variables: Mapping[str, str], name: str, value: str | None) -> bool:
    """Whether a variable has the intended value, or isn't set if the value is empty."""
    return unquote(variables.get(name, "")) == (value or "")


_OURS = {
    "esl_app",
    "esl_call_ref",
    "esl_contact_ref",
    "esl_account_id",
    "esl_user_id",
    "presence_data",
    "esl_node",
    "esl_bleg",
    "deny_refer_requests",
    "force_transfer_context",
    "confirm_blind_transfer",
    "execute_on_blind_transfer",
    "origination_caller_id_number",
    "origination_caller_id_name",
    "origination_privacy",
    "outbound_redirect_fatal",
    "ignore_early_media",
    "media_mix_inbound_outbound_codecs",
    "originate_timeout",
    "sip_h_Diversion",
    "sip_h_X-Lead",
    "esl_callee_digits",
    "execute_on_answer_3",
    "origination_callee_id_name",
    "hangup_after_bridge",
    "continue_on_fail",
    "transfer_ringback",
    "instant_ringback",
    "rtp_rewrite_timestamps",
    "sensitive_dtmf",
    "sip_disable_recording",
    "sip_watch_headers",
    "playback_terminators",
    "bind_digit_digit_timeout",
    "execute_on_answer",
    "RECORD_MIN_SEC",
    "RECORD_STEREO",
    "RECORD_STEREO_SWAP",
    "record_sample_rate",
    "esl_callee",
    "esl_outbound_id",
    "execute_on_answer_2",
    "app_uuid",
    "sip_copy_custom_headers",
    "sip_copy_multipart",
    "esl_session_ref",
}


def meant(board: Switchboard, target: str | None, **values: str | None) -> None:
    """Check that at most one endpoint was dialled and that only variables of ours are set.

    B's leg carries ``values``; the caller's leg carries them or, before the caller is known, nothing.
    """
    dialled, assigned = left(board)
    assert [one.endpoint for one in dialled] in ([target], [])
    for variables in [*(one.variables for one in dialled), *assigned]:
        assert variables.keys() <= _OURS, variables
    for name, value in values.items():
        assert all(says(one.variables, name, value) for one in dialled), (name, value, dialled)
        assert all(says(one, name, value) or not one[name] for one in assigned if name in one), (name, value, assigned)


class Line:
    """The switch's inbound socket, for originates only."""

    def __init__(self) -> None:
        self.commands: list[str] = []

    def is_lost(self) -> bool:
        return False

    def elsewhere(self) -> bool:
        return False

    def originate(self, command: str, _deadline: float, *, phone: bool) -> Rang:
        self.commands.append(command)
        return Rang("failed", 17)


def originates(aleg: Aleg, attempt: Attempt, **values: str | None) -> None:
    """Check that A-legs ring only at these endpoints and are answered only by our application."""
    line = Line()
    ring_aleg(line, attempt, aleg)
    assert len(line.commands) == 1
    attempts, application = grammar.originated(line.commands[0])
    assert [one.endpoint for one in attempts] == list(aleg.endpoints)[:1]
    assert application == SOCKET
    assert attempts[0].variables.keys() <= _OURS
    for name, value in values.items():
        assert says(attempts[0].variables, name, value), (name, value)


def test_grammar_sees_what_hazard_15_says() -> None:
    """The parser finds what strings really dial that seem to dial something else."""
    assert [one.endpoint for one in grammar.dialled("{n=a}user/1,user/2")] == ["user/1", "user/2"]
    assert [one.endpoint for one in grammar.dialled("{a=1}x/1:_:{a=2}y/2|z/3")] == ["x/1", "y/2", "z/3"]
    quoted = "{n='a}sofia/gateway/gw/900 '}user/1000"
    for text in (quoted, "{n=${system(id)}}user/1", "{a=1", "user/1 &park()", "{n=a}b}user/1"):
        with pytest.raises(grammar.NotUnderstood):
            grammar.dialled(text)
    with pytest.raises(grammar.NotUnderstood):
        grammar.commands(b"api status\n\napi x\r\n\n")
    assert grammar.multiset("^^|a=1|b=2") == {"a": "1", "b": "2"}


# Redis ---------------------------------------------------------------------------------------------------


_READING = {sha_of(text_of(name)) for name in ("cards_read", "card_dial")}


class StoredCards:
    """A Redis with one card and one account of any content."""

    def __init__(self, card: object, account: object, last: bytes = b"") -> None:
        self.card, self.account, self.last = msgspec.json.encode(card), msgspec.json.encode(account), last

    def hget(self, key: str, _field: str) -> bytes | None:
        return {keys.CARDS: self.card, keys.LAST_NUMBERS: self.last or None}.get(key)

    def hgetall(self, _key: str) -> dict[bytes, bytes]:
        return {b"account": self.account, b"user:x": b"{}"}

    def execute_command(self, _evalsha: str, sha: str, *_keys: object) -> object:
        return [b"c" + PLAN.read(CALLER).e164.encode(), self.card] if sha in _READING else 1


class Free:
    """A ``Usage`` without limits."""

    def enter(self, _holder: str, _limit: int, _ref: str) -> bool:
        return True

    def leave(self, _holder: str, _ref: str) -> None: ...

    def begin(self, *_charges: object) -> None:
        return None

    def tripped(self, *_charges: object) -> None:
        return None

    def check(self, *_charges: object) -> None:
        return None


accounts = st.fixed_dictionaries(
    {"name": hostile, "realm": hostile, "caller_id": st.none() | numbers, "caller_id_name": st.none() | hostile}
)
stored_cards = st.tuples(hostile, hostile, st.none() | hostile, st.just(True), st.booleans(), st.just(1), hostile)


def begin(_attempt: Attempt) -> None: ...


@few
@given(stored_cards, accounts, st.sampled_from([CALLEE, "*0"]), numbers)
def test_card_dials_what_is_keyed_and_nothing_else(
    card: tuple[Any, ...], account: dict[str, Any], keyed: str, last: str
) -> None:
    """Attack with every text of the card and of its account, and with the last dialled number."""
    redis = StoredCards(card, account, last.encode())
    store = CardStore(redis, "key", PLAN, {})
    board = Switchboard([keyed + "#", "", ""])
    call = channel(board)
    attempts: list[Attempt] = []
    policy = ScriptedPolicy(SETTINGS, RULES, cards=store, number=CALLER)
    dialthrough.arrive(call, Arrival(("dialthrough",)), policy, host(attempts, Free()))
    target: str | None = TARGET
    if keyed == "*0":
        try:
            again = PLAN.read(last)
            target = SETTINGS.endpoints.of(again, as_asked=False)[0] if not again.is_emergency else None
        except NotDialable:
            target = None
    meant(board, target, esl_user_id=card[2], esl_account_id=card[1], esl_app="dialthrough")
    assert attempts
    for attempt in attempts:
        assert attempt.record is not None
        assert attempt.number is None or re.fullmatch(r"\+?\d{1,32}", attempt.number)
    if keyed == CALLEE:
        assert len(left(board)[0]) == 1


@few
@given(stored_cards, accounts)
def test_card_is_called_back_at_its_own_number_only(card: tuple[Any, ...], account: dict[str, Any]) -> None:
    store = CardStore(StoredCards(card, account), "key", PLAN, {})
    target = callback.whom_to_call("+" + E164, ScriptedPolicy(SETTINGS, RULES, cards=store))
    assert not isinstance(target, str)
    number, found = target
    of = Account(id=card[1], caller_id=account["caller_id"])
    policy = ScriptedPolicy(SETTINGS, RULES)
    shown = policy.caller_of(of).number
    ring_back = callback.new_call(number, found, of, policy)
    aleg = ring_back.aleg(policy, SOCKET)
    originates(aleg, ring_back.attempt, esl_user_id=card[2], esl_account_id=card[1], origination_caller_id_number=shown)
    assert aleg.endpoints == (TARGET,)


@few
@given(hostile, accounts, hostile, numbers)
def test_account_texts_reach_a_disa_unchanged(name: str, account: dict[str, Any], integrator: str, caller: str) -> None:
    of = Account(id=name, integrator=integrator, **account)
    entrance = Entrance(name, of, None, 10, 3, 3.0, 15, disa.DIALTONE, 10.0, False, True, 60.0)
    board = Switchboard([CALLEE + "#", "", "", ""])
    policy = ScriptedPolicy(SETTINGS, RULES, number=caller, entrances={("acme", "front"): entrance})
    arrival = Arrival(("disa", "acme", "front"), "01a20000-0000-7000-8000-000000000000")
    disa.arrive(channel(board), arrival, policy, structs.replace(host([], Free()), begin=begin))
    meant(board, TARGET, esl_account_id=name or integrator, esl_user_id="")
    assert left(board)[0]


@few
@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=20))
def test_card_unreadable_opens_nothing(card: bytes, account: bytes, last: bytes) -> None:
    redis = StoredCards(0, 0, last)
    redis.card, redis.account = card, account
    store = CardStore(redis, "key", PLAN, {})
    board = Switchboard([CALLEE + "#", "", ""])
    made: list[Attempt] = []
    policy = ScriptedPolicy(SETTINGS, RULES, cards=store, number=CALLER)
    dialthrough.arrive(channel(board), Arrival(("dialthrough",)), policy, host(made, Free()))
    assert left(board)[0] == []
    assert made[0].record is not None
    assert made[0].record.end_reason == "rejected"
    for question in (lambda: store.by_pin("1"), lambda: store.account("a"), lambda: store.get("a", "b")):
        with pytest.raises(StoreUnavailable):
            question()


# HTTP ----------------------------------------------------------------------------------------------------

#: An integrator whose patterns let everything pass.
LOOSE = IntegratorRules(
    "acme",
    PLAN,
    patterns=dict.fromkeys(("agent", "callee", "outbound_id", "contact_ref"), r"(?s).*"),
    campaigns={"x": "27115550000"},
    record=True,
)
STRICT = IntegratorRules("acme", PLAN, campaigns={"x": "27115550000"}, caller_ids=["27115550000"], record=True)
fields = st.fixed_dictionaries(
    {"agent": numbers, "callee": numbers, "outbound_id": numbers | st.just("tvc_x"), "contact_ref": hostile}
)


@pytest.mark.parametrize("client", [LOOSE, STRICT], ids=["loose", "strict"])
@few
@given(fields)
def test_click2dial_fields_are_numbers_or_values(client: IntegratorRules, body: dict[str, str]) -> None:
    """Check both legs, even if the configuration's patterns let everything pass."""
    try:
        order = client.read(body)
    except Refused:
        return
    click = click2dial.new_call(order, client, SETTINGS)
    aleg = click.aleg(ScriptedPolicy(SETTINGS), SOCKET)
    endpoints = aleg.endpoints
    ref = order.contact_ref or click.attempt.call_ref
    originates(
        aleg,
        click.attempt,
        esl_contact_ref=ref,
        esl_callee=body["callee"],
        esl_user_id=body["agent"],
    )
    assert endpoints[0] in (f"user/{body['agent']}@127.0.0.1", f"sofia/gateway/pstn/{body['agent']}")
    again = click2dial.new_call(order, client, SETTINGS)
    board = Switchboard([])
    policy = ScriptedPolicy(SETTINGS, clients={"acme": client})
    again.answered(channel(board), policy, structs.replace(host([], Free()), begin=begin))
    outside = f"sofia/gateway/pstn/{body['callee']}"
    target = f"user/{body['callee']}@127.0.0.1" if order.callee.is_extension else outside
    meant(board, target, esl_contact_ref=order.contact_ref or again.attempt.call_ref, esl_user_id=body["agent"])
    # An agent outside presses no key here.
    assert bool(left(board)[0]) is not client.confirms(order)


leg_headers = st.dictionaries(st.just("X-Lead"), hostile, max_size=1)
options = st.fixed_dictionaries(
    {"callee": st.just(CALLEE) | st.builds("{}{}{}".format, st.just(CALLEE), st.sampled_from(",;="), hostile)},
    optional={
        "callee_name": hostile,
        "outbound_name": hostile,
        "ringback": hostile,
        "announce": hostile,
        "headers": st.fixed_dictionaries({}, optional={"agent": leg_headers, "callee": leg_headers}),
        "metadata": st.dictionaries(hostile, hostile, max_size=2),
    },
)


@few
@given(options)
@example({"callee": f"{CALLEE},1", "callee_name": "a", "headers": {"agent": {"X-Lead": "a b"}}})
def test_click2dial_options_stay_in_their_places(body: dict[str, Any]) -> None:
    client = IntegratorRules("acme", PLAN, names=True, headers=["X-Lead"])
    try:
        order = client.read({"agent": "1000", "outbound_id": "27115550000", **body})
    except Refused:
        return
    click = click2dial.new_call(order, client, SETTINGS)
    aleg = click.aleg(ScriptedPolicy(SETTINGS), SOCKET)
    originates(aleg, click.attempt, esl_callee=CALLEE)
    assert aleg.endpoints == ("user/1000@127.0.0.1",)
    board = Switchboard([])
    policy = ScriptedPolicy(SETTINGS, clients={"acme": client})
    click.answered(channel(board), policy, structs.replace(host([], Free()), begin=begin))
    meant(board, f"sofia/gateway/pstn/{CALLEE}", esl_user_id="1000")


@pytest.mark.parametrize("client", [LOOSE, STRICT], ids=["loose", "strict"])
@few
@given(numbers)
def test_transfer_target_is_a_number_or_nothing(client: IntegratorRules, to: str) -> None:
    try:
        target = client.read_target(to)
    except Refused:
        return
    body = {"agent": "1000", "callee": CALLEE, "outbound_id": "27115550000"}
    old = click2dial.new_call(client.read(body), client, SETTINGS).attempt
    held = "bbbbbbbb-2222-4333-8444-555555555555"
    for made in (
        transfer.new_call(old, target, "agent", client, PLAN),
        transfer.new_consultation(old, target, "agent", held, client, PLAN),
    ):
        board = Switchboard([])
        policy = ScriptedPolicy(SETTINGS, clients={"acme": client})
        made.answered(channel(board), policy, structs.replace(host([], Free()), begin=begin))
        outside = f"sofia/gateway/pstn/{target.dialled}"
        meant(board, f"user/{target.dialled}@127.0.0.1" if target.is_extension else outside)


@few
@given(fields)
@example({"agent": "1000", "callee": CALLEE, "outbound_id": "27115550000", "contact_ref": "${system(id)}"})
def test_click2dial_from_a_phone_fields_are_numbers_or_values(body: dict[str, str]) -> None:
    board = Switchboard([])
    caller = Caller(
        variables={"sip_authorized": "true", "sip_auth_username": body["agent"]},
        headers={"Caller-Destination-Number": body["callee"]},
        sip_headers={"x-teleforge-outbound-id": body["outbound_id"], "x-teleforge-contact-ref": body["contact_ref"]},
    )
    call = channel(board, caller)
    made: list[Attempt] = []
    policy = ScriptedPolicy(SETTINGS, clients={"acme": LOOSE})
    click2dial.arrive(call, Arrival(("click2dial",)), policy, host(made, Free()))
    record = made[0].record
    assert record is not None
    if record.end_reason == "rejected":
        assert b"execute-app-name: bridge" not in board.sent
        for text in (record.extension, record.number):
            assert text is None or re.fullmatch(r"\+?\d{1,32}", text)
        return
    target = f"sofia/gateway/pstn/{body['callee']}"
    meant(board, target if len(body["callee"]) > 4 else f"user/{body['callee']}@127.0.0.1", esl_user_id=body["agent"])


POLICY: Any = SimpleNamespace(
    settings=SETTINGS,
    rules=RULES,
    is_media=lambda name: is_media(name, None, "en", ["https://prompts.example/a.wav"]),
)
rooms = st.one_of(hostile.map("conference:{}".format), st.just("conference:room"))
autodials = st.fixed_dictionaries(
    {"a_leg_number": numbers, "b_leg_number": numbers | rooms},
    optional={"media_id": hostile | st.just("announcement"), "callback_delay": st.floats(), "retain_cid": hostile},
)


@few
@given(autodials, hostile, accounts)
def test_autodial_fields_are_numbers_rooms_or_prompts(body: dict[str, Any], name: str, texts: dict[str, Any]) -> None:
    account = Account(id=name, **texts)
    try:
        order = read_order(POLICY, account, body)
    except Refused:
        return
    made = autodial.new_call(order, account)
    policy = ScriptedPolicy(SETTINGS, RULES, cards=CardTable(known=account))
    originates(made.aleg(policy, SOCKET), made.attempt, esl_account_id=name)
    board = Switchboard([])
    again = autodial.new_call(order, account)
    again.answered(channel(board), policy, structs.replace(host([], Free()), begin=begin))
    target = SETTINGS.endpoints.of(order.b, as_asked=False)[0] if order.b else None
    meant(board, target, esl_account_id=name)
    if order.media_id is not None:
        assert re.search(rb"\n\n/prompts/[A-Za-z0-9_-]+\.wav(sendmsg|$)", board.sent)


@few
@given(numbers, numbers)
def test_inbound_caller_is_shown_as_a_number(caller: str, did: str) -> None:
    try:
        e164 = PLAN.read(did).e164
    except NotDialable:
        return
    queue = Queue(PLAN.read("27115550000"), "acme", (PLAN.read("1000"), PLAN.read("1001")), 20, 60, True)
    board = Switchboard([])
    call = channel(board, Caller(headers={"Caller-Destination-Number": did}))
    policy = ScriptedPolicy(SETTINGS, queues={e164: queue}, number=caller)
    inbound.arrive(
        call,
        Arrival(("inbound",)),
        policy,
        structs.replace(host([], Free(), announce=lambda *_call: None), begin=begin),
    )
    dialled, assigned = left(board)
    # An agent who calls isn't rung.
    agents = [agent for agent in ("1000", "1001") if not PLAN.same(caller, agent)]
    assert [one.endpoint for one in dialled] == [f"user/{agent}@127.0.0.1" for agent in agents]
    assert all(one.variables.keys() <= _OURS for one in dialled)
    assert all(variables.keys() <= _OURS for variables in assigned)


@few
@given(st.dictionaries(st.sampled_from(["pin", "cid", "user_id", "active", "retain_cid", "comment", "x"]), hostile))
def test_card_fields_are_stored_as_checked_or_not_at_all(body: dict[str, Any]) -> None:
    store = CardStore(StoredCards(0, 0), "key", PLAN, {})
    try:
        card: Card = store.create("acme", body)
    except Refused:
        return
    assert card.cid is None or re.fullmatch(r"\d{3,32}", card.cid)
    assert card.user_id is None or re.fullmatch(r"[A-Za-z0-9._-]{1,64}", card.user_id)


@few
@given(numbers, st.none() | numbers, st.none() | hostile, st.none() | hostile)
def test_adopted_order_is_checked_again(a: str, b: str | None, conference: str | None, media_id: str | None) -> None:
    """An autodial that another process left in Redis, whose A-leg answers here."""
    account = Account(id="acme", caller_id="+27115550000")
    cards: Any = SimpleNamespace(account=lambda _id: account)
    policy = ScriptedPolicy(SETTINGS, RULES, cards=cards)
    attempt = Attempt(app="autodial", extension="1000", call_dir="external", account_id="acme")
    order = {"a": a, "b": b, "conference": conference, "retain_cid": False, "media_id": media_id}
    attempt.order = order
    board = Switchboard([])
    call = channel(board)
    placed = autodial.restore(attempt, call, policy)
    if placed is None:
        return
    placed.answered(call, policy, structs.replace(host([], Free()), begin=begin))
    dialled, _assigned = left(board)
    assert b or re.fullmatch(r"[A-Za-z0-9._-]{1,64}", conference or "")
    targets = list(SETTINGS.endpoints.of(PLAN.read(b), as_asked=False)) if b else []
    assert [one.endpoint for one in dialled] in ([], targets)
