"""A session asks for what is in force before each number: rules, card, account, entrance, limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from msgspec import structs

from esl_apps.apps import autodial, callback, click2dial, dialthrough, disa
from esl_apps.apps.autodial import AutodialOrder
from esl_apps.apps.context import Arrival, Host
from esl_apps.apps.legs import LONGEST
from esl_apps.apps.session import Session
from esl_apps.apps.settings import Entrance, Rules
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Bridged, CallEnded, Leg, Progress
from esl_apps.core.cards import Account, Card
from esl_apps.core.charges import Charge
from esl_apps.core.dialstring import Endpoints
from esl_apps.core.limits import BREAKER, MINUTES_PER_DAY, Level, Limits, Refusal
from esl_apps.core.numbers import Number
from esl_apps.core.order import IntegratorRules
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.testing import PLAN, SETTINGS, Purse, ScriptedCall, ScriptedPolicy, ended, host, talks
from tests.support.card_table import ACCOUNT, CARD, PIN, CardTable

MOBILE, CALLER = "0820001234", "0825556666"


@dataclass(frozen=True)
class Rule:
    action: str


DENIED = {"mobile": Rule("deny")}
ENTRANCE = Entrance(
    "front", ACCOUNT, "#4821907356", 10, 3, 2.0, 15, disa.DIALTONE, 10.0, True, True, 3600.0, pin_mark="4821907356"
)
ENROLLED = Card("c2", "acme", "u1", "27825556666", active=True, claim="c27825556666")
RULES = Rules(cid_trust="any", prompt_delay=0.0)


@dataclass
class Reloaded:
    """A host whose policy is another one from the first talk on."""

    before: ScriptedPolicy
    after: ScriptedPolicy
    usage: Purse = field(default_factory=Purse)
    begun: list[Attempt] = field(default_factory=list)
    talked: int = 0

    @property
    def host(self) -> Host:
        return host(self.begun, self.usage, policy=lambda: self.after if self.talked else self.before)

    def talk(self, progress: Progress) -> Bridged:
        self.talked += 1
        return talks()(progress)

    def call(self, *keyed: str) -> ScriptedCall:
        return ScriptedCall([self.talk] * 4, ended(a_by="recv_bye"), keyed=list(keyed))

    def told(self) -> list[tuple[str, int] | None]:
        return [None if one.record is None else (one.record.end_reason, one.record.end_code) for one in self.begun]


def policy(**more: Any) -> ScriptedPolicy:
    given: dict[str, Any] = {
        "rules": RULES,
        "cards": CardTable(numbers={"27825556666": ENROLLED}),
        "entrances": {("acme", "front"): ENTRANCE},
        "number": CALLER,
    }
    return ScriptedPolicy(**{**given, **more})


def entrance(**changes: Any) -> dict[str, Any]:
    return {"entrances": {("acme", "front"): structs.replace(ENTRANCE, **changes)}}


def enrolled(**changes: Any) -> dict[str, Any]:
    return {"cards": CardTable(numbers={"27825556666": structs.replace(ENROLLED, **changes)})}


BARRED = replace(ACCOUNT, call_restriction=DENIED)
#: For every session: what a reload or the API changed, as it is in force for the second number.
CHANGES: dict[str, dict[str, Any]] = {
    "number is this installation's own now": {"rules": replace(RULES, own_numbers=frozenset({"27820001234"}))},
    "gateways are gone": {"settings": replace(SETTINGS, endpoints=Endpoints("user/{number}", ()))},
}
OF_DISAS: dict[str, dict[str, Any]] = {
    "DISA is gone": {"entrances": {}},
    "class is denied": entrance(account=BARRED),
    "PIN is another": entrance(pin_hash="#1111111111", pin_mark="1111111111"),
    "PIN is gone": entrance(pin_hash=None, pin_mark=None),
}
OF_CARDS: dict[str, dict[str, Any]] = {
    "card is deleted": {"cards": CardTable()},
    "card is inactive": enrolled(active=False),
    "card has another number": enrolled(claim="c27830000000"),
    "card may have no call": enrolled(max_concurrent_calls_per_user=0),
    "account is removed": {"cards": CardTable(numbers={"27825556666": ENROLLED}, known=None)},
    "class is denied": {"cards": CardTable(numbers={"27825556666": ENROLLED}, known=BARRED)},
    "user is denied": {
        "cards": CardTable(numbers={"27825556666": ENROLLED}, known=replace(ACCOUNT, users={"u1": DENIED}))
    },
    "user is another, who is denied": {
        "cards": CardTable(
            numbers={"27825556666": structs.replace(ENROLLED, user_id="u2")},
            known=replace(ACCOUNT, users={"u2": DENIED}),
        )
    },
}


class NoPlace(Purse):
    """Refuses calls of holders that may have none."""

    def enter(self, holder: str, limit: int, call_ref: str) -> bool:
        return limit > 0


def by_disa(reloaded: Reloaded, call: ScriptedCall) -> None:
    call.keyed.insert(0, "4821907356")
    disa.arrive(call, Arrival(("disa", "acme", "front")), reloaded.before, reloaded.host)


def by_dialthrough(reloaded: Reloaded, call: ScriptedCall) -> None:
    dialthrough.arrive(call, Arrival(("dialthrough",)), reloaded.before, reloaded.host)


def by_callback(reloaded: Reloaded, call: ScriptedCall) -> None:
    ring_back = callback.new_call(PLAN.read(CALLER), ENROLLED, ACCOUNT, reloaded.before)
    reloaded.begun.append(ring_back.attempt)
    ring_back.answered(call, reloaded.before, reloaded.host)


Flow = Callable[[Reloaded, ScriptedCall], None]
CASES: list[Any] = [
    pytest.param(flow, change, id=f"{flow.__name__}: {what}")
    for flow, changes in (
        (by_disa, {**CHANGES, **OF_DISAS}),
        (by_dialthrough, {**CHANGES, **OF_CARDS}),
        (by_callback, {**CHANGES, **OF_CARDS}),
    )
    for what, change in changes.items()
]


@pytest.mark.parametrize(("flow", "change"), CASES)
def test_session_after_a_change_dials_no_further_number(flow: Flow, change: dict[str, Any]) -> None:
    reloaded = Reloaded(policy(), policy(**change), NoPlace())
    call = reloaded.call(MOBILE, MOBILE, MOBILE)
    after = reloaded.after.cards
    assert isinstance(after, CardTable)
    after.dialled.clear()
    flow(reloaded, call)
    assert (reloaded.talked, after.dialled) == (1, [])
    assert len(call.did("bridge")) == 1
    assert [told and told[0] for told in reloaded.told()] == ["answered", "rejected"]


class Away(CardTable):
    """Redis is down."""

    def account(self, account_id: str) -> Account | None:
        raise StoreUnavailable("redis: away")

    def dial(self, card: Card, number: str) -> Card | None:
        raise StoreUnavailable("redis: away")


class Unruled(ScriptedPolicy):
    """The policy of a reload while Redis is down: its rules can't be read."""

    def __getattribute__(self, name: str) -> Any:
        if name == "rules":
            raise StoreUnavailable("redis: away")
        return super().__getattribute__(name)


WITH_EMERGENCY = replace(SETTINGS, endpoints=replace(SETTINGS.endpoints, emergency="sofia/gateway/sos/{number}"))
SOS = {"settings": WITH_EMERGENCY, "rules": replace(RULES, emergency=True)}
AFTER: dict[str, ScriptedPolicy] = {
    **{what: policy(**{**SOS, **change}) for what, change in {**OF_DISAS, **OF_CARDS}.items()},
    "number opens nothing": policy(**{**SOS, "rules": replace(RULES, emergency=True, cid_trust="pin")}),
    "Redis is down": policy(**{**SOS, "cards": Away()}),
    "rules can't be read": Unruled(cards=Away()),
}


@pytest.mark.parametrize("flow", [by_disa, by_dialthrough, by_callback])
@pytest.mark.parametrize("after", AFTER.values(), ids=AFTER)
def test_session_after_a_change_dials_an_emergency_number(flow: Flow, after: ScriptedPolicy) -> None:
    reloaded = Reloaded(policy(**SOS), after, NoPlace())
    call = reloaded.call(MOBILE, "112")
    flow(reloaded, call)
    assert call.did("bridge")[1][1] == [("sofia/gateway/sos/112", None)]


@pytest.mark.parametrize("flow", [by_dialthrough, by_callback])
def test_emergency_number_is_noted_as_the_last_after_the_call(flow: Flow) -> None:
    """A frozen Redis holds each question up for two seconds."""
    cards = CardTable(numbers={"27825556666": ENROLLED})
    reloaded = Reloaded(policy(**SOS, cards=cards), policy(**SOS, cards=cards))

    def leaves(_progress: Progress) -> Bridged:
        assert cards.dialled == []
        raise CallEnded("the caller has left")

    call = ScriptedCall([leaves], ended(a_by="recv_bye"), keyed=["112"])
    flow(reloaded, call)
    assert len(call.did("bridge")) == 1
    assert cards.dialled == ["112"]


def test_emergency_number_without_a_dial_string_now_is_refused() -> None:
    reloaded = Reloaded(policy(**SOS), policy(cards=CardTable(known=None)))
    by_dialthrough(reloaded, call := reloaded.call(MOBILE, "112"))
    assert reloaded.talked == 1
    assert call.did("play")[-1] == ("emergency_refused",)


@pytest.mark.parametrize("flow", [by_disa, by_dialthrough, by_callback])
def test_emergency_number_keyed_as_time_runs_out_is_dialled(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    reloaded = Reloaded(policy(**SOS), policy(**SOS))
    call = reloaded.call("112", MOBILE)
    collect = call.collect

    def late(*asked: Any) -> str:
        monkeypatch.setattr(Session, "left", 0.0)
        return collect(*asked)

    monkeypatch.setattr(call, "collect", late)
    flow(reloaded, call)
    assert [endpoints for _leg, endpoints, *_ in call.did("bridge")] == [[("sofia/gateway/sos/112", None)]]


@pytest.mark.parametrize("flow", [by_disa, by_dialthrough, by_callback])
def test_session_without_a_change_dials_on(flow: Flow) -> None:
    reloaded = Reloaded(policy(), policy())
    flow(reloaded, reloaded.call(MOBILE, MOBILE, MOBILE))
    assert reloaded.talked == 3


@pytest.mark.parametrize("flow", [by_disa, by_dialthrough, by_callback])
@pytest.mark.parametrize("closes", [False, True])
def test_session_record_names_the_integrator_in_force(flow: Flow, *, closes: bool) -> None:
    moved = replace(ACCOUNT, integrator="beta")
    cards = CardTable(numbers={"27825556666": ENROLLED}, known=moved)
    settings = replace(SETTINGS, session_records=frozenset(["", "beta"] if closes else []))
    after = policy(cards=cards, settings=settings, **entrance(account=moved))
    reloaded = Reloaded(policy(settings=settings), after)
    flow(reloaded, reloaded.call(MOBILE, MOBILE))
    first, second = [one.record.integrator for one in reloaded.begun if one.record is not None and one.number]
    assert (first, second) == (None, "beta")


@pytest.mark.parametrize("flow", [by_dialthrough, by_callback])
def test_session_record_names_the_user_of_the_card_in_force(flow: Flow) -> None:
    reloaded = Reloaded(policy(), policy(**enrolled(user_id="u2")))
    call = reloaded.call(MOBILE, MOBILE)
    flow(reloaded, call)
    assert [one.user_id for one in reloaded.begun] == ["u1", "u2"]
    assert [one.holder for one in reloaded.begun] == ["user:acme:u1", "user:acme:u2"]
    assert call.did("set")[-1] == ({"esl_user_id": "u2"},)
    assert [leg["esl_user_id"] for leg, *_ in call.did("bridge")] == ["u1", "u2"]


@pytest.mark.parametrize(
    ("trust", "callee", "dials"),
    [
        ("any", "00441234567890", True),
        ("national", "00441234567890", False),
        ("national", MOBILE, True),
        ("pin", MOBILE, False),
        ("attested", MOBILE, False),
    ],
)
def test_session_opened_by_number_follows_cid_trust(trust: str, callee: str, dials: bool) -> None:
    reloaded = Reloaded(policy(), policy(rules=replace(RULES, cid_trust=trust)))
    by_dialthrough(reloaded, reloaded.call(MOBILE, callee))
    assert (reloaded.talked == 2) is dials


@pytest.mark.parametrize(("caller", "dials"), [(CALLER, True), ("0845550000", False)])
def test_session_opened_by_pin_follows_pin_from(caller: str, dials: bool) -> None:
    cards = CardTable(pins={PIN: CARD}, numbers={"27825556666": ENROLLED})
    before = policy(rules=replace(RULES, cid_trust="pin"), cards=cards, number=caller)
    after = replace(before, rules=replace(before.rules, pin_from_enrolled=True))
    reloaded = Reloaded(before, after)
    by_dialthrough(reloaded, reloaded.call(PIN, MOBILE, MOBILE))
    assert (reloaded.talked == 2) is dials


def test_session_longer_than_a_new_max_session_ends() -> None:
    reloaded = Reloaded(policy(), policy(**entrance(max_session=0.0)))
    by_disa(reloaded, reloaded.call(MOBILE, MOBILE))
    assert reloaded.talked == 1


def test_callback_with_new_limits_pays_by_them() -> None:
    """The first leg pays for the minutes of both, so it must know of a limit that is new."""
    limited = replace(ACCOUNT, limits=Limits(minutes_per_day=10))
    cards = CardTable(numbers={"27825556666": ENROLLED}, known=limited)
    reloaded = Reloaded(policy(), policy(cards=cards))
    ring_back = callback.new_call(PLAN.read(CALLER), ENROLLED, ACCOUNT, reloaded.before)
    reloaded.begun.append(ring_back.attempt)
    (first,) = ring_back.charges(reloaded.before)
    reloaded.usage.begin(first)
    ring_back.attempt.pay(first)
    first.talk()
    ring_back.answered(reloaded.call(MOBILE, MOBILE), reloaded.before, reloaded.host)
    second = [charge for charge in reloaded.usage.charges if charge.began_as_aleg][-1]
    assert first.ended
    assert [ticket.bound.key for ticket in second.tickets if ticket.timed] == ["account:acme"]
    assert second.since is not None


# Autodial and click-to-dial: between A's answer and B -----------------------------------------------------

ORDER = AutodialOrder(PLAN.read(CALLER), PLAN.read(MOBILE), None, 0.0, retain_cid=False, media_id=None)


@pytest.mark.parametrize(
    "change",
    [
        *CHANGES.values(),
        {"cards": CardTable(known=None)},
        {"cards": CardTable(known=BARRED)},
        {"rules": replace(RULES, allowed_callee=lambda _e164: False)},
    ],
)
@pytest.mark.parametrize("order", [ORDER, replace(ORDER, b=None, conference="weekly")])
def test_autodial_after_a_change_dials_no_b(order: AutodialOrder, change: dict[str, Any]) -> None:
    reloaded = Reloaded(policy(), policy(**change), talked=1)
    made = autodial.new_call(order, ACCOUNT)
    call = reloaded.call()
    made.answered(call, reloaded.before, reloaded.host)
    gone = "cards" in change and change["cards"].known is None
    assert call.did("bridge") == []
    assert bool(call.did("conference")) is (order.b is None and not gone)
    if order.b is not None or gone:
        assert made.attempt.record is not None
        assert made.attempt.record.end_reason == "rejected"


@pytest.mark.parametrize("after", [policy(**{**SOS, "cards": cards}) for cards in (CardTable(known=None), Away())])
@pytest.mark.parametrize(
    "order",
    [replace(ORDER, b=PLAN.read("112")), replace(ORDER, a=PLAN.read("112"), b=None, conference="weekly")],
)
def test_autodial_after_a_change_dials_an_emergency_number(order: AutodialOrder, after: ScriptedPolicy) -> None:
    reloaded = Reloaded(policy(**SOS), after, talked=1)
    call = reloaded.call()
    autodial.new_call(order, ACCOUNT).answered(call, reloaded.before, reloaded.host)
    assert [endpoints for _leg, endpoints, *_ in call.did("bridge")] == (
        [[("sofia/gateway/sos/112", None)]] if order.b is not None else []
    )
    assert [name for name, _longest in call.did("conference")] == ([] if order.b is not None else ["acme~weekly"])


@pytest.mark.parametrize("order", [ORDER, replace(ORDER, b=None, conference="weekly")])
def test_autodial_record_names_the_integrator_in_force(order: AutodialOrder) -> None:
    cards = CardTable(known=replace(ACCOUNT, integrator="beta"))
    reloaded = Reloaded(policy(), policy(cards=cards), talked=1)
    made = autodial.new_call(order, ACCOUNT)
    made.answered(reloaded.call(), reloaded.before, reloaded.host)
    assert made.attempt.record is not None
    assert made.attempt.record.integrator == "beta"


FIELDS = {"agent": "1000", "callee": MOBILE, "outbound_id": "0115550000"}
LEVELS = (Level("system"), Level("integrator:acme", Limits(calls_per_hour=9)))


def client(**more: Any) -> IntegratorRules:
    return IntegratorRules("acme", PLAN, **{"levels": LEVELS, **more})


def own(number: Number) -> bool:
    return number.e164 == "27820001234"


@pytest.mark.parametrize(
    ("clients", "code"),
    [
        ({}, 57),
        ({"acme": client(call_restriction=DENIED)}, 57),
        ({"acme": client(outside=False)}, 57),
        ({"acme": client(is_own=own)}, 57),
        ({"acme": client(caller_ids=["0115559999"])}, 21),
        ({"acme": client(patterns={"callee": r"\d{3}"})}, 21),
    ],
)
def test_click_after_a_change_dials_no_callee(clients: dict[str, IntegratorRules], code: int) -> None:
    click = click2dial.new_call(client().read(FIELDS), client(), SETTINGS)
    call = ScriptedCall([talks()], ended(a_by="send_bye"))
    click.answered(call, policy(clients=clients), host([], Purse()))
    assert call.did("bridge") == []
    assert call.did("play") == [("unauthorized_call",)]
    assert click.attempt.record is not None
    assert (click.attempt.record.end_reason, click.attempt.record.end_code) == ("rejected", code)


def paid_click(usage: Purse, agent: str = "1000") -> click2dial.ClickCall:
    click = click2dial.new_call(client().read({**FIELDS, "agent": agent}), client(), SETTINGS)
    charges = click.charges(policy())
    usage.begin(*charges)
    click.attempt.pay(*charges)
    return click


def test_click_with_new_limits_pays_by_them() -> None:
    usage = Purse()
    click = paid_click(usage, agent="0831112222")
    before = list(click.attempt.charges)
    limited = client(levels=(Level("system"), Level("integrator:acme", Limits(minutes_per_day=10))))
    call = ScriptedCall([talks()], ended(a_by="recv_bye"), keyed=["1"])
    click.answered(call, policy(clients={"acme": limited}), host([], usage))
    assert len(call.did("bridge")) == 1
    assert all(charge.ended for charge in before)
    assert {id(charge) for charge in click.attempt.charges}.isdisjoint(id(charge) for charge in before)
    timed = [ticket.bound.key for charge in click.attempt.charges for ticket in charge.tickets if ticket.timed]
    assert timed == ["integrator:acme"]


@pytest.mark.parametrize(
    ("levels", "refusal", "code"),
    [
        (LEVELS, Refusal(BREAKER, "system"), 21),
        ((Level("system"), Level("integrator:acme", Limits(calls_per_hour=0))), Refusal(MINUTES_PER_DAY, "system"), 17),
    ],
)
def test_click_spent_before_the_answer_dials_no_callee(levels: tuple[Level, ...], refusal: Refusal, code: int) -> None:
    usage = Purse()
    click = paid_click(usage)
    usage.refusal = refusal
    call = ScriptedCall([talks()], ended(a_by="send_bye"))
    click.answered(call, policy(clients={"acme": client(levels=levels)}), host([], usage))
    assert call.did("bridge") == []
    assert call.did("play") == [("limit_reached",)]
    assert click.attempt.record is not None
    assert (click.attempt.record.end_reason, click.attempt.record.end_code) == ("rejected", code)


def test_click_to_an_emergency_number_pays_for_an_agent_outside() -> None:
    """Otherwise a callee of 112 would make every agent's leg free."""
    order = client(emergency=True).read({**FIELDS, "agent": "0831112222", "callee": "112"})
    click = click2dial.new_call(order, client(), SETTINGS)
    charges: list[Charge] = click.charges(policy())
    click.attempt.pay(*charges)
    assert [(charge.began_as_aleg, charge.number, charge.spared) for charge in charges] == [(True, order.agent, True)]


def test_click_to_an_emergency_number_has_no_limits() -> None:
    """Nor is it refused once an agent outside has answered."""
    integrator = client(emergency=True)
    order = integrator.read({**FIELDS, "agent": "0831112222", "callee": "112", "max_duration": 5})
    click = click2dial.new_call(order, integrator, SETTINGS)
    call = ScriptedCall([talks()], ended(b=Leg("B", answered_at=1005.0, ended_at=1008.0)), keyed=["1"])
    settings = replace(SETTINGS, endpoints=replace(SETTINGS.endpoints, emergency="sofia/gateway/pstn/{number}"))
    tripped = Purse(Refusal(BREAKER, "system"))
    click.answered(call, replace(policy(clients={"acme": integrator}), settings=settings), host([], tripped))
    assert call.did("bridge")[0][3] == LONGEST


def test_session_without_rules_begins_no_attempt() -> None:
    """It would have a record that says ``lost``, and the caller is refused."""
    begun: list[Attempt] = []
    with pytest.raises(StoreUnavailable):
        Session.open(ScriptedCall(), "probe", Arrival(("probe",)), Unruled(), host(begun))
    assert begun == []


def test_click_that_another_node_goes_on_with_is_checked_there() -> None:
    """Its rules may be others than those of the node that rang the agent."""
    attempt = click2dial.new_call(client().read(FIELDS), client(), SETTINGS).attempt
    variables = {"esl_user_id": "1000", "esl_callee": MOBILE, "esl_outbound_id": "0115550000"}
    call = ScriptedCall([talks()], ended(a_by="send_bye"), variables=variables)
    there = policy(clients={"acme": client(call_restriction=DENIED)})
    click = click2dial.restore(attempt, call, there)
    assert click is not None
    click.answered(call, there, host([], Purse()))
    assert call.did("bridge") == []
    assert attempt.record is not None
    assert (attempt.record.end_reason, attempt.record.end_code) == ("rejected", 57)
