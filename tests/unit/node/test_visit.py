"""A channel that the dialplan hands back: what becomes of the call that it was in, and in which it goes on."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest

from esl_apps.core import node_clock, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.call_fields import Before
from esl_apps.core.notification import INBOUND_LIST
from esl_apps.core.status import document
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.esl import switch_cdr
from esl_apps.node import charging, lost_socket
from esl_apps.node import visit as visit_module
from esl_apps.store import keys
from esl_apps.store.essence import Essence
from esl_apps.store.membership import BEAT
from tests.support.bench import (
    DID,
    E164,
    PIN,
    Bench,
    Build,
    Visitor,
    essence_of,
    leave_behind,
    probe,
    show_legs,
    write_cdr,
)
from tests.support.call_switch import AT, B, C, answers, at, ends, rings
from tests.support.peer import UUID, eventually

REF = "01a20447-2be6-705d-bfcb-64432c6ce89b"
SESSION = "01a20447-2be6-705d-bfcb-64432c6ce89c"
ACME = {"acme": {"token": "acme-cards-token", "integrator": "acme"}}
BACK: dict[str, Any] = {"variable_esl_call_ref": REF, "variable_esl_session_ref": REF, "variable_esl_app": "disa"}


def back(bench: Bench, path: str = "disa/acme/front", **headers: Any) -> Visitor:
    """The channel comes back, goes on in its application, and its caller leaves there."""
    visitor = bench.visit(path, **{**BACK, **headers})
    visitor.types(PIN)
    eventually(lambda: visitor.greenlet.dead or visitor.switch.executed)
    visitor.leaves()
    return visitor.served()


def left_by_dead_node(bench: Bench, **fields: Any) -> None:
    leave_behind(
        bench, essence_of(**{"call_ref": REF, "state": terms.AGENT_ANSWERED, "answered_at": AT + 1.0, **fields})
    )


def dialled(**fields: Any) -> dict[str, Any]:
    return {"number": E164, "state": terms.CALLEE_RINGING, "dialed_at": AT + 0.5, **fields}


@pytest.mark.parametrize("path", ["disa/acme/front", "dialthrough", "inbound", "click2dial"])
def test_visit_is_known_with_its_time_from_the_start(bench: Bench, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """The node may die at once. The next one would take the time at which it took the call over."""
    noted: list[bytes] = []
    monkeypatch.setattr(bench.services.call_log, "note", noted.append)
    visitor = bench.visit(path)
    eventually(lambda: noted)
    assert json.loads(noted[0])["dialed_at"] == AT
    visitor.leaves()
    visitor.served()


# From a node that died ----------------------------------------------------------------------------------


def test_visit_that_had_dialled_nothing_goes_on_in_the_same_call(bench: Bench) -> None:
    left_by_dead_node(bench, contact_ref="contact", dialed_at=AT + 0.5)
    back(bench)
    found = bench.record()
    assert (found["call_ref"], found["contact_ref"], found["dialed_at"]) == (REF, "contact", AT)
    assert (found["end_reason"], found["session_ref"]) == (terms.ABANDONED, REF)


@pytest.mark.parametrize("answer_after", [0, 60])
def test_visit_answered_on_the_callback_number_goes_on(build: Build, answer_after: int) -> None:
    bench = build(callback={"answer_after": answer_after}, accounts=ACME).connect()
    bench.services.policy.cards.create("acme", {"cid": "0825556666", "active": True})
    left_by_dead_node(bench, app="dialthrough")
    visitor = bench.visit(
        "callback",
        **{**BACK, "variable_esl_app": "dialthrough", "Caller-Channel-Answered-Time": at(1.0)},
        **{"Caller-Caller-ID-Number": "0825556666", "variable_sip_from_user": "0825556666"},
    )
    eventually(lambda: visitor.greenlet.dead or any(app == "playback" for app, _argument in visitor.switch.executed))
    visitor.leaves()
    visitor.served()
    assert not any(app == "ring_ready" for app, _argument in visitor.switch.executed)
    assert [(found["call_ref"], found["end_reason"]) for found in bench.records()] == [(REF, terms.ABANDONED)]
    assert not bench.redis_server.client.exists(keys.timed_pending("callbacks"))


def test_visit_whose_application_begins_nothing_has_a_record(bench: Bench) -> None:
    left_by_dead_node(bench, app="dialthrough")
    visitor = bench.visit("callback", **BACK, **{"Caller-Channel-Answered-Time": "0"}).served()
    assert visitor.hangup_cause == "USER_BUSY"
    assert [(found["call_ref"], found["end_reason"]) for found in bench.records()] == [(REF, terms.LOST)]
    assert bench.live == {}


@pytest.mark.parametrize(
    ("known", "named"), [({"account_id": "acme", "integrator": "acme"}, {}), ({}, {"variable_esl_account_id": "acme"})]
)
def test_visit_of_a_caller_who_was_known_stays_their_accounts(
    build: Build, known: dict[str, str], named: dict[str, str]
) -> None:
    """They leave before they say again who they are: the record still goes to their integrator."""
    bench = build(accounts=ACME).connect()
    left_by_dead_node(bench, app="dialthrough", **known)
    back(bench, "dialthrough", variable_esl_app="dialthrough", **named)
    bench.flush()
    call = bench.services.store.call(REF)
    assert call is not None
    assert (call["state"], call["integrator"]) == (terms.ENDED, "acme")


def prompt_heard(visitor: Visitor) -> str:
    """Leave at the first prompt, and return it."""
    eventually(lambda: any(app == "playback" for app, _ in visitor.switch.executed))
    visitor.leaves()
    return next(argument for app, argument in visitor.served().switch.executed if app == "playback")


def test_visit_goes_on_in_the_language_of_its_call(bench: Bench) -> None:
    left_by_dead_node(bench, language="fr")
    assert "/fr/8000/enter_pin" in prompt_heard(bench.visit("disa/acme/front", **BACK))


def test_visit_is_in_the_language_of_the_number_dialled(build: Build) -> None:
    bench = build(prompts={"recorded": False, "numbers": {DID: "de"}})
    visitor = bench.visit()
    visitor.types("0", "1")
    assert "/de/8000/enter_pin" in prompt_heard(visitor)


def test_visit_whose_number_was_not_yet_dialled_is_lost(bench: Bench) -> None:
    left_by_dead_node(bench, **dialled())
    back(bench)
    found = bench.record()
    assert (found["call_ref"], found["end_reason"], found["number"]) == (REF, terms.LOST, E164)


def test_visit_of_a_dead_nodes_call_pays_for_its_talk_alone(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """That node had paid ahead, and no other one adopts the call."""
    monkeypatch.setattr(charging, "DEAD", -2 * BEAT)
    bench = build(
        accounts={
            "acme": {"token": "acme-cards-token", "limits": {"minutes_per_day": 9}, "disa": {"front": {"pin": PIN}}}
        }
    ).connect()
    now = int(time.time())
    taken = [40.0, [[30.0, str(now // 86400), str(now // 60)]]]
    paid = {"levels": ["account:acme"], "number": E164, "aleg": False, "owner": True, "whole": False, "id": "x"}
    left_by_dead_node(
        bench,
        **dialled(number=None, account_id="acme"),
        paid_for=[{**paid, "paid": {"tickets": {"account:acme": taken}}}],
    )
    client = bench.redis_server.client
    client.hset(keys.usage_sums("account:acme"), f"d{now // 86400}", "40")
    back(bench)

    def is_settled() -> bool:
        bench.services.usage.settle()
        return bool(client.hget(keys.usage_sums("account:acme"), f"d{now // 86400}") == "10.000")

    eventually(is_settled)


def test_visit_whose_talk_is_over_records_it_as_answered(bench: Bench) -> None:
    left_by_dead_node(bench, **dialled(state=terms.BRIDGED, bridged_at=AT + 3.0))
    back(bench, variable_last_bridge_hangup_cause="NORMAL_CLEARING", variable_last_bridge_to=B)
    found = bench.record()
    assert (found["end_reason"], found["hung_up_by"], found["bridged_at"]) == ("answered", "callee", AT + 3.0)


@pytest.mark.parametrize(
    ("variables", "reason", "code"),
    [
        ({"originate_disposition": "USER_BUSY"}, "callee_busy", 17),
        ({"originate_disposition": "NO_ANSWER", "last_bridge_hangup_cause": "NORMAL_CLEARING"}, "callee_no_answer", 19),
        ({"originate_disposition": "SUCCESS", "last_bridge_hangup_cause": "CALL_REJECTED"}, "callee_failed", 21),
        ({"originate_disposition": "NO_SUCH_CAUSE"}, "callee_failed", 31),
    ],
)
def test_visit_whose_number_failed_records_why(bench: Bench, variables: dict[str, str], reason: str, code: int) -> None:
    left_by_dead_node(bench, **dialled())
    back(bench, **{f"variable_{name}": value for name, value in variables.items()})
    found = bench.record()
    assert (found["call_ref"], found["end_reason"], found["end_code"]) == (REF, reason, code)


def test_visit_reads_bs_end_from_the_switchs_cdr(bench: Bench) -> None:
    left_by_dead_node(bench, **dialled())
    write_cdr(
        bench, B, ref=REF, answered=4, esl_bleg=REF, hangup_cause="NORMAL_CLEARING", sip_hangup_disposition="recv_bye"
    )
    write_cdr(bench, "no-answer", ref=REF, q850=19, esl_bleg=REF, hangup_cause="NO_ANSWER")
    back(bench)
    found = bench.record()
    assert (found["end_reason"], found["bridged_at"], found["ended_at"]) == ("answered", AT + 4.0, AT + 8.0)


@pytest.mark.parametrize("known", [{"state": terms.BRIDGED, "bridged_at": AT + 3.0}, {}], ids=["talk", "ringing"])
@pytest.mark.parametrize("late", [True, False])
def test_visit_does_not_take_a_failed_gateway_for_bs_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, known: dict[str, Any], late: bool
) -> None:
    """Its file was there before that of the leg that answered at the next gateway."""
    monkeypatch.setattr(visit_module, "_CDR_WRITTEN", 5.0)
    write_cdr(bench, C, ref=REF, q850=38, esl_bleg=REF)
    left_by_dead_node(bench, **dialled(**known))
    talk: dict[str, Any] = {"ref": REF, "answered": 3, "esl_bleg": REF, "sip_hangup_disposition": "recv_bye"}
    if not late:
        write_cdr(bench, B, **talk)
    else:
        gevent.spawn_later(0.1, write_cdr, bench, B, **talk)
    back(bench, variable_last_bridge_to=B)
    found = bench.records()[0]
    assert (found["end_reason"], found["end_code"], found["bridged_at"]) == ("answered", 16, AT + 3.0)


@pytest.mark.parametrize("hung_up", [{}, {"variable_sip_hangup_disposition": "recv_bye"}])
def test_visit_whose_b_had_failed_says_so(bench: Bench, hung_up: dict[str, str]) -> None:
    """The caller may hang up before a slow node asks for the channel."""
    left_by_dead_node(bench, **dialled())
    write_cdr(bench, B, ref=REF, q850=38, esl_bleg=REF, hangup_cause="NETWORK_OUT_OF_ORDER")
    back(bench, **hung_up)
    found = bench.record()
    assert (found["end_reason"], found["end_code"], found["ended_at"]) == ("callee_failed", 38, AT + 8.0)


def test_visit_waits_for_bs_cdr_a_moment_only(bench: Bench) -> None:
    left_by_dead_node(bench, **dialled())
    Path(bench.config.spool.dir).mkdir()
    back(bench)
    assert bench.record()["end_reason"] == terms.LOST


def test_visit_follows_the_session_without_a_second_empty_record(bench: Bench) -> None:
    """The session's number has its record; the caller who then leaves without dialling needs none."""
    left_by_dead_node(bench, **dialled(), session_ref="first")
    visitor = bench.visit(**BACK)
    visitor.types(PIN, "0820009999")
    visitor.switch.scripts["bridge"] = lambda _uuid: visitor.hung_up("NORMAL_CLEARING", 16)
    visitor.served()
    first, second = bench.records()
    assert (first["call_ref"], second["number"]) == (REF, "+27820009999")
    assert first["session_ref"] == second["session_ref"] == "first"


def test_visit_gives_the_place_among_concurrent_calls_back(bench: Bench) -> None:
    usage = bench.services.usage
    usage.leases.hold("acme:u1", REF)
    left_by_dead_node(bench, **dialled(), holder="acme:u1")
    back(bench)
    assert usage.enter("acme:u1", 1, "another")


def test_visit_handed_back_while_redis_is_away_keeps_its_session(bench: Bench) -> None:
    """The call's record is written by the node that adopts it; this one must not write another."""
    left_by_dead_node(bench, **dialled())
    bench.redis.break_after(0)
    seen: list[tuple[str, bool]] = []

    def settle(visit: visit_module.Visit) -> None:
        original(visit)
        seen.append((visit.session_ref, visit.has_record))

    original = visit_module.Visit.settle
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(visit_module.Visit, "settle", settle)
        bench.visit(**BACK).served()
    assert seen == [(REF, True)]
    bench.redis.mend()
    assert bench.records() == []


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "refused"])
def test_visit_of_an_ended_call_is_new_in_its_session(bench: Bench, ended: bool) -> None:
    """No process has it, though Redis may have refused to write that it has ended."""
    attempt = Attempt(app="disa", call_dir="external", call_ref=REF)
    if ended:
        attempt.end(terms.LOST, 31, terms.SYSTEM, AT)
    bench.services.store.save(REF, lambda: document(attempt), None)
    bench.flush()
    visitor = back(bench, variable_esl_session_ref=SESSION)
    assert visitor.error is None
    # The process that ended the call wrote the session's record.
    assert bench.records() == []


@pytest.mark.parametrize("told_by", ["channel", "file"])
def test_visit_of_a_talk_that_redis_refused_leaves_it(build: Build, told_by: str) -> None:
    """Redis has the call as it was before the talk: the process that had it records the talk."""
    bench = build().connect()
    left_by_dead_node(bench)
    own: dict[str, Any] = {"variable_last_bridge_to": B} if told_by == "channel" else {}
    if told_by == "file":
        write_cdr(bench, B, ref=REF, answered=4, esl_bleg=REF, sip_hangup_disposition="recv_bye")
    back(bench, **own)
    assert bench.records() == []
    assert not bench.redis_server.client.exists(keys.gone_on(REF))


def goes_on(bench: Bench, numbers: tuple[str, ...]) -> None:
    """Let the caller of a dead process key a PIN and these numbers here, and hang up."""
    visitor = bench.visit(**{**BACK, "variable_esl_session_ref": SESSION})
    visitor.types(PIN, *numbers)
    visitor.switch.scripts["bridge"] = lambda _uuid: visitor.hung_up("NORMAL_CLEARING", 16)
    eventually(lambda: visitor.greenlet.dead or visitor.switch.executed)
    if not numbers:
        visitor.leaves()
    visitor.served()


@pytest.mark.parametrize("writes", [True, False], ids=["writes", "refuses"])
@pytest.mark.parametrize("numbers", [(), ("0820001234",)], ids=["none", "one"])
def test_visit_before_redis_had_the_call_has_one_record(
    build: Build, monkeypatch: pytest.MonkeyPatch, numbers: tuple[str, ...], writes: bool
) -> None:
    """The dead process's next run finds the call in its call log, and sees that another goes on with the session.
    ``writes``: or Redis was read-only when that process died and the caller came here."""
    died = build(name="app2")
    died.services.call_log.note(msgspec.json.encode(essence_of(call_ref=REF, session_ref=SESSION)))
    died.die()
    bench = build().connect()
    membership, refused = bench.services.membership, [] if writes else ["once"]
    say = membership.say

    def maybe_refused(**options: Any) -> None:
        if refused:
            raise StoreUnavailable(f"redis: READONLY {refused.pop()}")
        say(**options)

    monkeypatch.setattr(membership, "say", maybe_refused)
    goes_on(bench, numbers)
    (found,) = bench.records()
    assert (found["session_ref"], found["number"] is None) == (SESSION, not numbers)
    again = build(name="app2", known=bench.switches).connect()
    again.adoption.beat()
    eventually(lambda: not again.live)
    assert again.records() == []


def test_visit_after_a_dialled_number_needs_no_empty_record(bench: Bench) -> None:
    """The process died as the session's next call began: Redis knows the first one alone, whose record comes."""
    first = Attempt(app="disa", call_dir="external", call_ref=SESSION, number=E164)
    bench.services.store.save(SESSION, lambda: document(first), None)
    bench.flush()
    assert back(bench, variable_esl_session_ref=SESSION).error is None
    assert bench.records() == []


def test_visit_whose_channel_has_dialled_needs_no_empty_record(bench: Bench) -> None:
    """Redis refused to hear even of the number: only the channel tells."""
    assert back(bench, variable_esl_session_ref=SESSION, variable_last_bridge_to=B).error is None
    assert bench.records() == []


@pytest.mark.parametrize("numbers", [(), ("0820001234",)], ids=["none", "one"])
def test_visit_closes_a_session_with_what_a_dead_node_had(build: Build, numbers: tuple[str, ...]) -> None:
    """Redis doesn't know the call that its caller was in: the dead node's next run does."""
    wanted = {"records": {"session_records": True}}
    died = build(name="app2", **wanted)
    before = Before(1, 0.0, 6.0)
    died.services.call_log.note(msgspec.json.encode(essence_of(call_ref=REF, session_ref=SESSION, before=before)))
    died.die()
    bench = build(**wanted).connect()
    first = Attempt(app="disa", call_dir="external", call_ref=SESSION, number=E164)
    bench.services.store.save(SESSION, lambda: document(first), None)
    bench.flush()
    goes_on(bench, numbers)
    pushed = bench.records()
    again = build(name="app2", known=bench.switches, **wanted).connect()
    again.adoption.beat()
    eventually(lambda: not again.live)
    pushed += again.records()
    assert [one.get("calls") for one in pushed] == [*[None] * len(numbers), 1 + len(numbers)]
    assert pushed[-1]["b_seconds"] == 6.0


def test_visit_that_dials_says_so_once_redis_is_back(build: Build) -> None:
    """Redis couldn't say what became of the call: the session has a record as soon as it dials."""
    bench = build().connect()
    attempt = Attempt(app="disa", call_dir="external", continues=REF)
    bench.services.calls.begin(attempt, bench.services.switches[0])
    bench.flush()
    assert not bench.redis_server.client.exists(keys.gone_on(REF))
    attempt.number = E164
    attempt.save()
    bench.flush()
    said = bench.redis_server.client.get(keys.gone_on(REF))
    assert said == f"{attempt.call_ref} {bench.services.membership.boot}"


def test_visit_takes_over_from_a_process_younger_than_a_beat(bench: Bench) -> None:
    bench.services.membership.say()
    left_by_dead_node(bench, **dialled())
    assert set(bench.services.membership.peers) == {bench.services.membership.boot}
    back(bench)
    assert bench.record()["call_ref"] == REF


def test_visit_with_an_unreadable_essence_goes_on_alone(bench: Bench) -> None:
    """Written by another version, or by hand."""
    boot = leave_behind(bench)
    bench.redis_server.client.hset(keys.live(boot), REF, '{"call_ref": 7, "colour": "blue"}')
    assert back(bench).error is None
    assert bench.record()["session_ref"] == REF


def test_visit_with_keys_of_a_newer_version_is_settled(bench: Bench) -> None:
    left_by_dead_node(bench, **dialled())
    (key,) = bench.redis_server.client.keys(keys.live("*"))
    raw = json.loads(str(bench.redis_server.client.hget(key, REF)))
    bench.redis_server.client.hset(key, REF, json.dumps({**raw, "colour": ["blue"]}))
    back(bench)
    assert bench.record()["call_ref"] == REF


@pytest.mark.parametrize("path", ["nowhere", "disa/acme/gone"])
def test_visit_that_can_go_on_nowhere_records_its_call_as_lost(bench: Bench, path: str) -> None:
    """The configuration has changed since: the caller is refused, and the call that was taken over has its record."""
    left_by_dead_node(bench)
    bench.visit(path, **BACK).served()
    assert bench.reason() == (terms.LOST, 31, terms.SYSTEM)
    assert bench.live == {}


def test_visit_whose_application_fails_records_its_call_as_lost(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def arrive(*_parts: object) -> None:
        raise RuntimeError("a fault of the application's")

    probe(monkeypatch, arrive)
    bench = build().connect()
    left_by_dead_node(bench, app="probe")
    bench.visit("probe", **{**BACK, "variable_esl_app": "probe"}).served()
    assert bench.reason() == (terms.LOST, 31, terms.SYSTEM)


@pytest.mark.parametrize("odd", [{"paid_for": [{}]}, {"state": "transferred"}, {"recording_url": "x.wav"}])
def test_visit_of_a_call_with_odd_values_is_settled(bench: Bench, odd: dict[str, Any]) -> None:
    left_by_dead_node(bench, **dialled(bridged_at=AT + 3.0, **odd))
    back(bench)
    assert bench.reason() == ("answered", 16, "callee")


# Inbound ------------------------------------------------------------------------------------------------


def inbound(**fields: Any) -> dict[str, Any]:
    return {"app": "inbound", "integrator": "acme", "extension": "1000", "number": "+27825556666", **fields}


def test_visit_of_a_waiting_customer_rings_the_agents_again(bench: Bench) -> None:
    left_by_dead_node(bench, **inbound(state=terms.AGENT_RINGING, answered_at=None, dialed_at=AT + 0.5))
    visitor = bench.visit("inbound", **{**BACK, "variable_esl_app": "inbound"})
    visitor.switch.scripts["bridge"] = lambda _uuid: visitor.hung_up("NORMAL_CLEARING", 16)
    visitor.served()
    assert bench.record()["call_ref"] == REF


def test_visit_whose_agent_had_answered_is_announced_once(bench: Bench) -> None:
    left_by_dead_node(bench, **inbound(state=terms.AGENT_RINGING, answered_at=None, dialed_at=AT + 0.5))
    write_cdr(bench, B, ref=REF, answered=4, esl_bleg=REF, esl_user_id="1000", sip_hangup_disposition="recv_bye")
    bench.visit("inbound", **{**BACK, "variable_esl_app": "inbound"}).leaves()
    bench.visitors[0].served()
    (found, *others) = bench.records()
    assert (found["call_ref"], found["end_reason"], found["hung_up_by"]) == (REF, "answered", "agent")
    assert [one["call_ref"] for one in others if one["call_ref"] == REF] == []
    assert len(bench.pushed(INBOUND_LIST)) == 1


# From this node -----------------------------------------------------------------------------------------


def socket_lost(bench: Bench, *numbers: str, bridge: bytes = b"") -> tuple[Visitor, Attempt]:
    """A DISA caller whose socket breaks while this node lives."""
    visitor = bench.visit()
    visitor.types(PIN, *numbers)
    visitor.switch.scripts["bridge"] = lambda _uuid: bridge
    app = "bridge" if numbers else "playback"
    eventually(lambda: any(name == app and (numbers or "tone" in arg) for name, arg in visitor.switch.executed))
    gevent.sleep(0.005)
    (live,) = bench.live.values()
    show_legs(bench.switch, {"Unique-ID": UUID, "variable_esl_call_ref": live.attempt.call_ref})
    visitor.loses_socket()
    return visitor, live.attempt


def test_visit_of_own_call_that_dialled_nothing_has_one_record(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first, attempt = socket_lost(bench)
    noted: list[Essence] = []
    monkeypatch.setattr(
        bench.services.call_log, "note", lambda raw: noted.append(msgspec.json.decode(raw, type=Essence))
    )
    back(bench, variable_esl_call_ref=attempt.call_ref)
    first.served()
    found = bench.record()
    assert found["session_ref"] == attempt.session_ref
    assert found["call_ref"] != attempt.call_ref
    # Had this process died in between, its next run would not have written a second one either.
    assert any(call.follows for call in noted if call.call_ref == attempt.call_ref)
    # Nor another process that found the call in Redis as it was before, because Redis refused to write it.
    assert bench.services.store.gone_on(attempt.call_ref, []) == found["call_ref"]


def test_visit_of_own_call_keeps_its_place(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flow that has lost the socket gives it back, before the one that goes on takes it."""
    monkeypatch.setattr(lost_socket, "_APART", 0.3)
    monkeypatch.setattr(visit_module, "_SETTLE", 5.0)
    bench = build(accounts=ACME).connect()
    usage, held = bench.services.usage, bench.services.usage.leases._held
    card = bench.services.policy.cards.create("acme", {"pin": PIN, "active": True})
    first = bench.visit("dialthrough")
    first.types(PIN)
    eventually(lambda: held)
    (live,) = bench.live.values()
    tags = {"variable_esl_call_ref": live.attempt.call_ref, "variable_esl_session_ref": live.attempt.session_ref}
    show_legs(bench.switch, {"Unique-ID": UUID, **tags})
    first.loses_socket()
    again = bench.visit("dialthrough", variable_esl_app="dialthrough", **tags)
    again.types(PIN)
    first.served()
    eventually(lambda: any("enter_number" in argument for _app, argument in again.switch.executed))
    assert held == {(card.holder, live.attempt.session_ref)}
    assert not usage.enter(card.holder, 1, "another")
    again.leaves()
    again.served()
    assert usage.enter(card.holder, 1, "another")


def test_visit_that_another_process_goes_on_with_is_its_own(build: Build) -> None:
    """This process lives, and its flow hears of the end of the leg that another one has by now."""
    bench = build().connect()
    first, attempt = socket_lost(bench)
    bench.flush()
    other = build(name="app3", known=bench.switches).connect()
    visitor = other.visit(**{**BACK, "variable_esl_call_ref": attempt.call_ref})
    visitor.types(PIN)
    eventually(lambda: visitor.switch.executed)
    other.flush()
    # A node that was stopped for seconds makes its calls known again.
    bench.services.records.save_all()
    bench.flush()
    visitor.leaves()
    tags: dict[str, Any] = {"variable_esl_call_ref": attempt.call_ref}
    bench.switch.connections[0].say(ends("NORMAL_CLEARING", 16, uuid=UUID, **tags))
    first.served()
    assert bench.records() == []
    assert bench.services.call_log._read() == []
    visitor.served()
    assert other.record()["call_ref"] == attempt.call_ref
    assert other.redis_server.client.keys(keys.live("*")) == []


def test_visit_of_own_customer_for_whom_none_rang_goes_on(bench: Bench) -> None:
    first = bench.visit("inbound")
    first.switch.scripts["bridge"] = lambda _uuid: b""
    eventually(lambda: any(app == "bridge" for app, _arg in first.switch.executed))
    (live,) = bench.live.values()
    attempt = live.attempt
    first.loses_socket()
    tags = {"variable_esl_call_ref": attempt.call_ref, "variable_esl_session_ref": attempt.session_ref}
    again = bench.visit("inbound", variable_esl_app="inbound", **tags)
    again.switch.scripts["bridge"] = lambda _uuid: b""
    first.served()
    eventually(lambda: any(app == "bridge" for app, _arg in again.switch.executed))
    again.leaves()
    again.served()
    assert bench.record()["call_ref"] == attempt.call_ref


def test_visit_of_own_call_in_a_talk_ends_it_first(bench: Bench) -> None:
    first, attempt = socket_lost(bench, "0820001234", bridge=rings() + answers())
    again = bench.visit(
        variable_esl_call_ref=attempt.call_ref,
        variable_esl_app="disa",
        variable_last_bridge_to=B,
        variable_bridge_uepoch=at(3),
        variable_last_bridge_hangup_cause="NORMAL_CLEARING",
    )
    again.types(PIN)
    first.served()
    assert attempt.ended
    eventually(lambda: again.switch.executed)
    again.leaves()
    again.served()
    assert [(found["call_ref"], found["end_reason"]) for found in bench.records()] == [(attempt.call_ref, "answered")]


def test_visit_of_own_call_in_a_talk_ends_when_b_did(bench: Bench) -> None:
    """The dialplan waits for seconds before it hands a caller back whom no node took at first."""
    first, attempt = socket_lost(bench, "0820001234", bridge=rings() + answers())
    write_cdr(
        bench, B, ref=attempt.call_ref, answered=4, esl_bleg=attempt.session_ref, sip_hangup_disposition="recv_bye"
    )
    again = bench.visit(variable_esl_call_ref=attempt.call_ref, variable_esl_app="disa", variable_last_bridge_to=B)
    again.types(PIN)
    first.served()
    found = bench.record()
    assert (found["end_reason"], found["hung_up_by"], found["ended_at"]) == ("answered", "callee", AT + 8.0)
    eventually(lambda: again.switch.executed)
    again.leaves()
    again.served()


def test_visit_of_an_adopted_call_is_settled_by_ends_heard(bench: Bench) -> None:
    left_by_dead_node(bench, **dialled())
    show_legs(bench.switch, {"Unique-ID": UUID, "variable_esl_call_ref": REF})
    bench.adoption.beat()
    eventually(lambda: "api show channels as json" in bench.switch.heard)
    tags: dict[str, Any] = {"variable_esl_call_ref": REF, "variable_esl_bleg": REF}
    bench.switch.say(ends("USER_BUSY", 17, **tags))
    eventually(lambda: B in bench.live[REF].ends)
    back(bench)
    assert bench.reason() == ("callee_busy", 17, "callee")


# The end of a channel whose socket was lost -------------------------------------------------------------


def test_visit_of_a_released_call_looks_for_no_end(bench: Bench) -> None:
    visitor = bench.visit()
    visitor.types(PIN)
    eventually(lambda: any("tone" in arg for _app, arg in visitor.switch.executed))
    (live,) = bench.live.values()
    bench.services.calls.release(live)
    visitor.loses_socket()
    visitor.served()
    assert live.attempt.ended
    assert not any(text.startswith("api uuid_exists") for text in bench.switch.heard)
    assert bench.records() == []


def test_visit_finds_the_end_on_the_inbound_connection(bench: Bench) -> None:
    first, attempt = socket_lost(bench, "0820001234", bridge=rings())
    tags: dict[str, Any] = {"variable_esl_call_ref": attempt.call_ref}
    bench.switch.say(
        ends("NORMAL_CLEARING", 16, answered=True, variable_esl_bleg=attempt.session_ref, **tags),
        ends("NORMAL_CLEARING", 16, uuid=UUID, variable_sip_hangup_disposition="recv_bye", **tags),
    )
    first.served()
    assert bench.reason() == ("answered", 16, "agent")


def test_visit_waits_for_the_end_of_the_leg_that_rang(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier gateway has failed, and its leg's end says nothing of the callee."""
    monkeypatch.setattr(lost_socket, "_APART", 5.0)
    first, attempt = socket_lost(bench, "0820001234", bridge=rings())
    tags: dict[str, Any] = {"variable_esl_call_ref": attempt.call_ref}
    bleg = {"variable_esl_bleg": attempt.session_ref, **tags}
    bench.switch.say(ends("NETWORK_OUT_OF_ORDER", 38, uuid=C, **bleg), ends("NORMAL_CLEARING", 16, uuid=UUID, **tags))
    gevent.sleep(0.05)
    bench.switch.say(ends("NO_ANSWER", 19, **bleg))
    first.served()
    assert bench.reason()[:2] == ("callee_no_answer", 19)


def test_visit_reads_the_end_from_the_cdr_if_no_event_came(bench: Bench) -> None:
    first, attempt = socket_lost(bench, "0820001234", bridge=rings())
    write_cdr(
        bench, B, ref=attempt.call_ref, answered=4, esl_bleg=attempt.session_ref, sip_hangup_disposition="recv_bye"
    )
    write_cdr(bench, UUID, ref=attempt.call_ref, answered=1)
    show_legs(bench.switch)
    # The switch says that the leg is gone, and nothing of how.
    bench.switch.drop()
    first.served()
    assert bench.reason() == ("answered", 16, "callee")


def test_visit_waits_for_the_file_of_a_leg_that_rang(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """FreeSWITCH writes each leg's file in that leg's thread: B's may come after A's."""
    monkeypatch.setattr(switch_cdr, "WRITTEN", 5.0)
    first, attempt = socket_lost(bench, "0820001234", bridge=rings())
    write_cdr(bench, UUID, ref=attempt.call_ref, answered=1)
    show_legs(bench.switch)
    bench.switch.drop()
    eventually(lambda: bench.services.switch_cdr.legs(attempt.call_ref))
    gevent.sleep(0.05)
    assert not first.greenlet.dead
    write_cdr(bench, B, ref=attempt.call_ref, q850=19, esl_bleg=attempt.session_ref)
    first.served()
    assert bench.reason()[:2] == ("callee_no_answer", 19)


def test_visit_without_its_socket_is_lost_when_its_switch_was(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two have talked for ten minutes without it, and these cost what they cost."""
    first, attempt = socket_lost(bench, "0820001234", bridge=rings() + answers())
    eventually(lambda: "api show channels as json" in bench.switch.heard)
    gevent.sleep(0.05)
    monkeypatch.setattr(node_clock.clock, "origin", node_clock.clock.origin + 600)
    bench.switch.core_uuid = "core-2"
    bench.switch.drop()
    first.served()
    record = bench.record()
    assert (record["call_ref"], record["end_reason"]) == (attempt.call_ref, terms.LOST)
    assert record["ended_at"] == pytest.approx(node_clock.now(), abs=5.0)


def test_visit_of_a_switch_that_restarted_is_lost(bench: Bench) -> None:
    first, _attempt = socket_lost(bench, "0820001234", bridge=rings())
    bench.switch.core_uuid = "core-2"
    bench.switch.drop()
    first.served()
    assert bench.reason() == (terms.LOST, 31, terms.SYSTEM)


def test_visit_of_a_switch_not_known_again_yet_is_found(build: Build) -> None:
    """FreeSWITCH has started again, and its first call comes before the connection to it is up."""
    bench = build(switches=("fs1", "fs2"))
    first, second = bench.services.switches
    bench.switches["fs2"].core_uuid = "core-2"
    first.start()
    assert first.wait_up(5)
    visitor = bench.visit(**{"Core-UUID": "core-2"})
    visitor.types(PIN)
    eventually(lambda: any("tone" in arg for _app, arg in visitor.switch.executed))
    (live,) = bench.live.values()
    assert (live.switch, live.core_uuid) == (second, "core-2")
    show_legs(bench.switches["fs2"], {"Unique-ID": UUID, "variable_esl_call_ref": live.attempt.call_ref})
    visitor.loses_socket()
    second.start()
    eventually(lambda: any("uuid_exists" in text for text in bench.switches["fs2"].heard))
    tags: dict[str, Any] = {"variable_esl_call_ref": live.attempt.call_ref}
    bench.switches["fs2"].say(
        ends("NORMAL_CLEARING", 16, uuid=UUID, variable_sip_hangup_disposition="recv_bye", **tags)
    )
    visitor.served()
    assert bench.reason() == (terms.ABANDONED, 16, terms.AGENT)


def test_visit_of_the_wrong_one_of_two_switches_is_put_right(build: Build) -> None:
    """Both were away, so the switch could only be guessed."""
    bench = build(switches=("fs1", "fs2"))
    first, second = bench.services.switches
    bench.switches["fs2"].core_uuid = "core-2"
    visitor = bench.visit(**{"Core-UUID": "core-2"})
    visitor.types(PIN)
    eventually(lambda: any("tone" in arg for _app, arg in visitor.switch.executed))
    (live,) = bench.live.values()
    first.start()
    assert first.wait_up(5)
    assert live.switch is first
    second.start()
    assert second.wait_up(5)
    assert (live.switch, live.clock, live.attempt.switch) == (second, second.clock, "fs2")
    visitor.leaves()
    visitor.served()
    assert bench.record()["switch"] == "fs2"
