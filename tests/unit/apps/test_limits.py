"""Limits in each application, by script: a leg is counted before it is dialled, and a used-up limit ends the call."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest
from gevent import GreenletExit
from msgspec import structs

from esl_apps.apps import autodial, callback, click2dial, dialthrough, disa
from esl_apps.apps.autodial import AutodialOrder
from esl_apps.apps.callback import RingBack, whom_to_call
from esl_apps.apps.context import Arrival
from esl_apps.apps.legs import LONGEST
from esl_apps.apps.ringing import Aleg, Rang, ring_aleg
from esl_apps.apps.settings import Entrance, Rules
from esl_apps.core import faults
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import SWITCH_MARGIN, Bridged, CallEnded, Ended, Leg, Progress
from esl_apps.core.cards import Account, Card, Cards
from esl_apps.core.charges import Charge
from esl_apps.core.limits import BREAKER, CALLS_PER_HOUR, MINUTES_PER_DAY, Level, Limits, Refusal, read_destination
from esl_apps.core.numbers import NumberPlan
from esl_apps.core.order import IntegratorRules
from esl_apps.core.pins import Source
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.testing import SETTINGS, Purse, ScriptedCall, ScriptedPolicy, Step, ended, host, talks

PLAN = NumberPlan("ZA", r"^\d{3,4}$", high_risk=["+1876"])
SETTINGS = replace(SETTINGS, plan=PLAN)
WITH_EMERGENCY = replace(SETTINGS, endpoints=replace(SETTINGS.endpoints, emergency="sofia/gateway/pstn/{number}"))
ACCOUNT = Account("acme", caller_id="+27115550000", limits=Limits(calls_per_hour=1))
CARD = Card("c1", "acme", "u1", "27825556666", active=True)
RULES = Rules(emergency=True)
CALLEE, HIGH_RISK = "0820001234", "0018765551234"
OVER, TRIPPED = Refusal(CALLS_PER_HOUR, "account:acme"), Refusal(BREAKER, "account:acme")


class NoPin:
    """Fails if a PIN is asked for."""

    def judge(self, source: Source, right: bool, card_id: str, *, guessed: bool, pin_id: str = "") -> str:
        raise AssertionError("no PIN is asked for")


NO_PIN = NoPin()
POLICY = ScriptedPolicy(SETTINGS, RULES)


@dataclass(frozen=True)
class Rule:
    action: str


class OneCard:
    def __init__(self, account: Account = ACCOUNT, limits: Limits | None = None) -> None:
        self.known, self.limits = account, limits

    def by_pin(self, pin: str) -> Card | None:
        return CARD

    def by_number(self, e164: str) -> Card | None:
        return structs.replace(CARD, cid=e164)

    def get(self, account_id: str, id: str) -> Card | None:
        return CARD

    def dial(self, card: Card, number: str) -> Card | None:
        return CARD

    def account(self, account_id: str) -> Account | None:
        return self.known

    def card_limits(self, account_id: str) -> Limits | None:
        return self.limits

    def last_number(self, card_id: str) -> str | None:
        return None


class Answers:
    """One caller, who keys one number, in one application."""

    def __init__(self, *steps: Step, keyed: str = CALLEE, account: Account = ACCOUNT) -> None:
        self.begun: list[Attempt] = []
        self.call = ScriptedCall(list(steps), ended(), keyed=[keyed], answered_at=1002.0)
        self.account = account
        self.settings = SETTINGS
        self.max_session = 3600.0

    def told(self) -> list[tuple[str, int, str]]:
        records = [attempt.record for attempt in self.begun]
        assert None not in records
        return [(one.end_reason, one.end_code, one.hung_up_by) for one in records if one is not None]

    def policy(self, **more: Any) -> ScriptedPolicy:
        entrance = Entrance(
            "front", self.account, None, 10, 3, 2.0, 15, disa.DIALTONE, 10.0, True, True, self.max_session
        )
        return ScriptedPolicy(
            self.settings,
            replace(RULES, cid_trust="any", max_session=self.max_session),
            guard=NO_PIN,
            number="0825556666",
            entrances={("acme", "front"): entrance},
            **{"cards": OneCard(self.account), **more},
        )

    def disa(self, usage: Purse) -> None:
        disa.arrive(self.call, Arrival(("disa", "acme", "front")), self.policy(), host(self.begun, usage))

    def dialthrough(self, usage: Purse, cards: Cards | None = None) -> None:
        policy = self.policy(cards=cards or OneCard(self.account))
        dialthrough.arrive(self.call, Arrival(("dialthrough",)), policy, host(self.begun, usage))

    def callback(self, usage: Purse) -> None:
        self.rung_back(callback.new_call(PLAN.read("0825556666"), CARD, self.account, self.policy()), usage)

    def rung_back(self, ring_back: RingBack, usage: Purse) -> None:
        self.begun.append(ring_back.attempt)
        ring_back.answered(self.call, self.policy(), host(self.begun, usage))

    def autodial(self, usage: Purse) -> None:
        order = AutodialOrder(PLAN.read("0831112222"), PLAN.read(self.call.keyed[0]), None, 0.0, False, None)
        made = autodial.new_call(order, self.account)
        self.begun.append(made.attempt)
        made.answered(self.call, self.policy(), host(self.begun, usage))


APPLICATIONS = [Answers.disa, Answers.dialthrough, Answers.callback, Answers.autodial]


def cut(usage: Purse, refusal: Refusal, *, answered: bool = True) -> Step:
    """B talks for as long as the limit allows, and the node ends it."""

    def step(progress: Progress) -> Bridged:
        leg = Leg("B", answered_at=1005.0 if answered else None, ended_at=1008.0, disposition="send_bye", q850=19)
        if answered:
            progress("answered", 1005.0, leg)
        usage.charges[-1].cut = refusal
        return Bridged(answered, 19, "ALLOTTED_TIMEOUT", bleg=leg)

    return step


@pytest.mark.parametrize("application", APPLICATIONS)
@pytest.mark.parametrize(("refusal", "code"), [(OVER, 17), (TRIPPED, 21)])
def test_refused_leg_is_not_dialled(application: Callable[[Answers, Purse], None], refusal: Refusal, code: int) -> None:
    one = Answers(talks())
    application(one, Purse(refusal))
    assert one.call.did("bridge") == []
    assert one.call.did("play")[-1] == ("limit_reached",)
    assert one.told() == [("rejected", code, "system")]


@pytest.mark.parametrize("application", APPLICATIONS)
def test_leg_is_not_dialled_while_limits_cannot_be_asked(application: Callable[[Answers, Purse], None]) -> None:
    class Away(Purse):
        def begin(self, *charges: Any) -> Refusal | None:
            raise StoreUnavailable("redis: away")

    one = Answers(talks())
    application(one, Away())
    assert one.call.did("bridge") == []
    assert one.told() == [("rejected", 21, "system")]


class Changing(OneCard):
    """Cards that change between the PIN and the number."""

    def __init__(self, card: Card | None, account: Account | None) -> None:
        super().__init__()
        self.card, self.later = card, account
        self.noted: list[str] = []
        self.asked = self.read = 0

    def by_number(self, e164: str) -> Card | None:
        return CARD

    def dial(self, card: Card, number: str) -> Card | None:
        self.read += 1
        if card == self.card and card.active:
            self.noted.append(number)
        return self.card

    def account(self, account_id: str) -> Account | None:
        self.asked += 1
        return self.later if self.asked > 1 else ACCOUNT


MOBILE_DENIED = {"mobile": Rule("deny")}


@pytest.mark.parametrize(
    ("card", "account", "code"),
    [
        (None, ACCOUNT, 57),
        (structs.replace(CARD, active=False), ACCOUNT, 57),
        (CARD, None, 57),
        (CARD, replace(ACCOUNT, call_restriction=MOBILE_DENIED), 57),
        (CARD, replace(ACCOUNT, users={"u1": MOBILE_DENIED}), 57),
        (structs.replace(CARD, user_id="u2"), replace(ACCOUNT, users={"u2": MOBILE_DENIED}), 57),
        (CARD, ACCOUNT, None),
        (structs.replace(CARD, claim="p2"), ACCOUNT, 57),
        (CARD, replace(ACCOUNT, users={"u2": MOBILE_DENIED}), None),
        (structs.replace(CARD, user_id="u2"), replace(ACCOUNT, users={"u1": MOBILE_DENIED}), 57),
        (structs.replace(CARD, user_id="u2"), ACCOUNT, None),
        (structs.replace(CARD, comment="new"), ACCOUNT, None),
    ],
)
def test_card_withdrawn_in_a_session_dials_no_further_number(
    card: Card | None, account: Account | None, code: int | None
) -> None:
    one, cards = Answers(talks()), Changing(card, account)
    one.dialthrough(Purse(), cards)
    assert len(one.call.did("bridge")) == (code is None)
    assert cards.noted == (["+27820001234"] if code is None else [])
    if code is None:
        assert cards.read == (1 if card == CARD else 2)
    else:
        assert one.told() == [("rejected", code, "system")]


def test_number_denied_to_a_card_is_not_its_last() -> None:
    cards = Changing(CARD, ACCOUNT)
    one = Answers(talks(), keyed=HIGH_RISK)
    one.dialthrough(Purse(), cards)
    assert cards.noted == []
    assert one.call.did("bridge") == []


@pytest.mark.parametrize("application", APPLICATIONS)
def test_limit_reached_while_talking_ends_the_session(
    application: Callable[[Answers, Purse], None],
) -> None:
    usage = Purse()
    one = Answers(cut(usage, Refusal(MINUTES_PER_DAY, "account:acme")), talks())
    application(one, usage)
    assert one.told()[0][::2] == ("answered", "system")
    assert len(one.told()) == 1
    assert one.call.did("play")[-1] == ("limit_reached",)
    assert all(charge.ended for charge in usage.charges)


@pytest.mark.parametrize("application", APPLICATIONS)
@pytest.mark.parametrize("answered", [True, False])
def test_session_that_a_limit_ends_is_closed(application: Callable[[Answers, Purse], None], *, answered: bool) -> None:
    usage = Purse()
    one = Answers(cut(usage, OVER, answered=answered))
    one.settings = replace(SETTINGS, session_records=frozenset({""}))
    application(one, usage)
    dialled, last = one.begun
    assert (dialled.closes, last.closes, last.follows, last.number) == (False, True, True, None)
    assert one.told()[1] == ("rejected", 17, "system")
    assert one.call.did("play")[-1] == ("limit_reached",)


@pytest.mark.parametrize("application", APPLICATIONS)
def test_breaker_that_ends_calls_ends_one_that_rings(application: Callable[[Answers, Purse], None]) -> None:
    usage = Purse()
    one = Answers(cut(usage, TRIPPED, answered=False), talks())
    application(one, usage)
    assert one.told() == [("rejected", 21, "system")]


@pytest.mark.parametrize("application", APPLICATIONS)
def test_high_risk_number_is_refused_unless_the_account_allows(
    application: Callable[[Answers, Purse], None],
) -> None:
    one = Answers(talks(), keyed=HIGH_RISK)
    application(one, Purse())
    assert one.call.did("bridge") == []
    assert one.told() == [("rejected", 57, "system")]
    allowed = Answers(talks(), keyed=HIGH_RISK, account=replace(ACCOUNT, call_restriction={"high_risk": Rule("allow")}))
    application(allowed, Purse())
    assert len(allowed.call.did("bridge")) == 1


def test_emergency_call_is_not_counted() -> None:
    one = Answers(talks(), keyed="112")
    one.settings = WITH_EMERGENCY
    one.disa(Purse(OVER))
    assert len(one.call.did("bridge")) == 1


def test_caller_who_shows_an_emergency_number_is_not_spared() -> None:
    """Anyone can show one."""
    usage, one = Purse(), Answers(talks())
    disa.arrive(one.call, Arrival(("disa", "acme", "front")), replace(one.policy(), number="112"), host([], usage))
    assert [charge.spared for charge in usage.charges] == [False]


@pytest.mark.parametrize("application", APPLICATIONS)
def test_emergency_call_outlasts_its_session(application: Callable[[Answers, Purse], None]) -> None:
    one = Answers(talks(), keyed="112")
    one.settings, one.max_session = WITH_EMERGENCY, 20.0
    application(one, Purse(OVER))
    ((leg, _endpoints, timeout, longest),) = one.call.did("bridge")
    # The rest of it, by a clock whose seconds are floats.
    assert timeout == pytest.approx(RULES.callee_timeout)
    assert (longest, one.call.did("until")) == (LONGEST, [])
    assert leg["execute_on_answer_2"] == f"sched_hangup:+{int(LONGEST) + SWITCH_MARGIN}"


@pytest.mark.parametrize("b", [CALLEE, None])
def test_autodial_of_an_emergency_number_outlasts_its_session(b: str | None) -> None:
    """It is A here, and joined with a number or a conference. B may have a limit of its own."""
    usage, one = Purse(), Answers(talks(), account=replace(ACCOUNT, limits=Limits(longest_call=60)))
    one.settings, one.max_session = WITH_EMERGENCY, 0.0
    callee = PLAN.read(b) if b is not None else None
    made = autodial.new_call(AutodialOrder(PLAN.read("112"), callee, "weekly", 0.0, False, None), one.account)
    one.begun.append(made.attempt)
    made.answered(one.call, one.policy(), host(one.begun, usage))
    talked = [*lengths(one), *(longest for _name, longest in one.call.did("conference"))]
    assert (talked, one.call.did("until")) == ([LONGEST], [])
    assert [charge.spared for charge in usage.charges] == ([True] if b else [])


def test_emergency_call_spares_the_leg_that_was_rung_back() -> None:
    """Its caller talks on if their minutes run out, and hears of it before the next number."""
    spared: list[bool] = []

    def while_they_talk(progress: Progress) -> Bridged:
        spared.extend(charge.spared for charge in charges)
        return talks()(progress)

    usage, one = Purse(), Answers(while_they_talk, while_they_talk)
    one.call.keyed, one.settings = ["112", CALLEE], WITH_EMERGENCY
    ring_back = callback.new_call(PLAN.read("0825556666"), CARD, ACCOUNT, one.policy())
    charges = ring_back.charges(one.policy())
    assert usage.begin(*charges) is None
    ring_back.attempt.pay(*charges)
    one.rung_back(ring_back, usage)
    assert spared == [True, False]


def test_number_without_a_gateway_is_refused() -> None:
    one = Answers(talks())
    policy = replace(one.policy(), settings=replace(SETTINGS, endpoints=replace(SETTINGS.endpoints, external=())))
    disa.arrive(one.call, Arrival(("disa", "acme", "front")), policy, host(one.begun, Purse()))
    assert one.call.did("bridge") == []
    assert one.told() == [("rejected", 57, "system")]


def test_talk_is_what_is_charged() -> None:
    usage = Purse()
    leg = Leg("B", answered_at=1005.0, ended_at=1047.5, disposition="recv_bye", q850=16)
    one = Answers(talks(leg))
    one.disa(usage)
    (charge,) = usage.charges
    assert charge.spent(0.0) == pytest.approx(42.5)
    assert [ticket.bound.key for ticket in charge.tickets] == ["account:acme"]


def test_ringing_back_goes_on_costing_from_number_to_number() -> None:
    usage = Purse()
    number = PLAN.read("0825556666")
    one = Answers(talks(), talks())
    one.call.keyed = [CALLEE, "0820009999"]
    ring_back = callback.new_call(number, CARD, ACCOUNT, one.policy())
    attempt = ring_back.attempt
    (aleg,) = ring_back.charges(one.policy(cards=OneCard(limits=Limits(minutes_per_day=9))))
    assert usage.begin(aleg) is None
    attempt.pay(aleg)
    one.rung_back(ring_back, usage)
    assert len(one.call.did("bridge")) == 2
    # It was up from its answer to the hang-up. B's minutes don't count for the account a second time.
    assert aleg.since is not None
    assert aleg.ended
    own = [ticket for charge in usage.charges[1:] for ticket in charge.tickets if ticket.timed]
    assert own == []


def test_callback_is_cut_while_asking_for_a_number() -> None:
    usage = Purse()
    number = PLAN.read("0825556666")
    one = Answers()
    one.call.gone_at = "collect"
    ring_back = callback.new_call(number, CARD, ACCOUNT, one.policy())
    attempt = ring_back.attempt
    (aleg,) = ring_back.charges(one.policy(cards=OneCard(limits=Limits(minutes_per_day=9))))
    assert usage.begin(aleg) is None
    attempt.pay(aleg)
    aleg.cut = OVER
    one.rung_back(ring_back, usage)
    assert one.told() == [("rejected", 17, "system")]


@pytest.mark.parametrize("keyed", [CALLEE, ""])
@pytest.mark.parametrize("changed", [True, False])
def test_callback_counts_once_a_number_is_dialled(keyed: str, *, changed: bool) -> None:
    """Anyone can forge a missed call."""
    usage = Purse()
    one = Answers(talks(), keyed=keyed, account=replace(ACCOUNT, limits=None) if changed else ACCOUNT)
    ring_back = callback.new_call(PLAN.read("0825556666"), CARD, ACCOUNT, one.policy())
    (aleg,) = ring_back.charges(one.policy())
    assert usage.begin(aleg) is None
    assert aleg.provisional
    ring_back.attempt.pay(aleg)
    one.rung_back(ring_back, usage)
    assert aleg.provisional is (keyed != CALLEE)
    assert not any(charge.provisional for charge in usage.charges[1:])


@pytest.mark.parametrize("how", ["transfer", "consultation"])
def test_first_leg_that_another_call_takes_stays_paid(how: str) -> None:
    """A transfer takes its charge along. In a consultation the call goes on, without its flow."""
    other = Attempt(app="transfer", call_dir="external")

    def leaves(_progress: Progress) -> Bridged:
        (attempt,) = one.begun
        if how == "consultation":
            attempt.followed = True
            raise GreenletExit
        attempt.drop(aleg)
        aleg.part("fs1", "A")
        other.pay(aleg)
        raise CallEnded("the leg has left")

    one, usage = Answers(leaves), Purse()
    ring_back = callback.new_call(PLAN.read("0825556666"), CARD, ACCOUNT, one.policy())
    (aleg,) = charges = ring_back.charges(one.policy())
    assert usage.begin(*charges) is None
    ring_back.attempt.pay(*charges)
    with suppress(GreenletExit):
        one.rung_back(ring_back, usage)
    assert not aleg.ended


def test_high_risk_number_is_not_rung_back() -> None:
    target = whom_to_call("+18765551234", ScriptedPolicy(SETTINGS, RULES, cards=OneCard()))
    assert target == "class high_risk is denied"
    allowing = OneCard(replace(ACCOUNT, call_restriction={"high_risk": Rule("allow")}))
    assert not isinstance(whom_to_call("+18765551234", ScriptedPolicy(SETTINGS, RULES, cards=allowing)), str)


def test_conference_is_its_accounts_own_and_is_paid_for() -> None:
    for name in ("acme", "other"):
        account = replace(ACCOUNT, id=name, limits=Limits(longest_call=90))
        one = Answers(account=account)
        order = AutodialOrder(PLAN.read("0831112222"), None, "weekly", 0.0, False, None)
        made = autodial.new_call(order, account)
        attempt, usage = made.attempt, Purse()
        charges = made.charges(one.policy())
        assert usage.begin(*charges) is None
        attempt.pay(*charges)
        made.answered(one.call, one.policy(), host(one.begun, usage))
        assert one.call.did("conference") == [(f"{name}~weekly", pytest.approx(90, abs=0.1))]
        assert attempt.record is not None
        assert attempt.record.number == "conference:weekly"
        assert usage.charges[0].since is not None
        assert usage.charges[0].ended


# Length of the first leg -------------------------------------------------------------------------------

ABROAD = "00442079460000"
A_MINUTE_ABROAD = Limits(destinations={read_destination("class:international"): Limits(longest_call=60)})


def calls_back(one: Answers, usage: Purse, cards: OneCard, number: str = ABROAD) -> None:
    """A callback whose first leg is paid for."""
    policy = one.policy(cards=cards)
    ring_back = callback.new_call(PLAN.read(number), CARD, one.account, policy)
    charges = ring_back.charges(policy)
    assert usage.begin(*charges) is None
    ring_back.attempt.pay(*charges)
    one.begun.append(ring_back.attempt)
    ring_back.answered(one.call, policy, host(one.begun, usage))


def later(usage: Purse, seconds: float, step: Step) -> Step:
    def wait(progress: Progress) -> Bridged:
        usage.now += seconds
        return step(progress)

    return wait


def lengths(one: Answers) -> list[float]:
    return [entry[3] for entry in one.call.did("bridge")]


def test_callback_abroad_lasts_as_long_as_its_first_leg_may() -> None:
    usage, account = Purse(), replace(ACCOUNT, limits=A_MINUTE_ABROAD)
    one = Answers(later(usage, 45, talks()), later(usage, 20, talks()), account=account)
    one.call.keyed = [CALLEE, "0820009999", CALLEE]
    calls_back(one, usage, OneCard(account))
    assert lengths(one) == [pytest.approx(60, abs=0.1), pytest.approx(15, abs=0.1)]
    assert one.call.keyed == [CALLEE]


def test_callback_whose_limits_change_keeps_what_it_has_talked() -> None:
    usage, account = Purse(), replace(ACCOUNT, limits=A_MINUTE_ABROAD)

    def reload(progress: Progress) -> Bridged:
        bridged = later(usage, 45, talks())(progress)
        destinations = {read_destination("class:international"): Limits(longest_call=90)}
        cards.known = replace(ACCOUNT, limits=Limits(destinations=destinations))
        return bridged

    one, cards = Answers(reload, talks(), account=account), OneCard(account)
    one.call.keyed = [CALLEE, "0820009999"]
    calls_back(one, usage, cards)
    assert lengths(one) == [pytest.approx(60, abs=0.1), pytest.approx(45, abs=0.1)]
    assert [charge.spent(usage.now) for charge in usage.charges if charge.began_as_aleg] == [45, 0]


def test_callback_with_card_limits_charges_its_first_leg_once() -> None:
    usage, one = Purse(), Answers(talks(), talks(), account=replace(ACCOUNT, limits=None))
    one.call.keyed = [CALLEE, "0820009999"]
    calls_back(one, usage, OneCard(one.account, Limits(minutes_per_day=9)), "0825556666")
    assert len(one.call.did("bridge")) == 2
    assert [charge.began_as_aleg for charge in usage.charges] == [True, False, False]


@pytest.mark.parametrize("b", [CALLEE, None])
@pytest.mark.parametrize("announcement", [20, 70])
def test_autodial_lasts_as_long_as_its_first_leg_may(
    b: str | None, announcement: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage, one = Purse(), Answers(talks(), account=replace(ACCOUNT, limits=A_MINUTE_ABROAD))
    callee = PLAN.read(b) if b is not None else None
    order = AutodialOrder(PLAN.read(ABROAD), callee, None if b else "weekly", 0.0, False, "welcome")
    made = autodial.new_call(order, one.account)
    charges = made.charges(one.policy())
    assert usage.begin(*charges) is None
    made.attempt.pay(*charges)
    one.begun.append(made.attempt)

    def play(audio: str) -> None:
        usage.now += announcement if audio == "welcome" else 0
        one.call.log.append(("play", audio))

    monkeypatch.setattr(one.call, "play", play)
    made.answered(one.call, one.policy(), host(one.begun, usage))
    talked = [*lengths(one), *(longest for _name, longest in one.call.did("conference"))]
    if announcement < 60:
        assert talked == [pytest.approx(60 - announcement, abs=0.1)]
    else:
        assert talked == []
        assert one.call.did("play")[-1] == ("time_is_up",)
        assert one.told() == [("rejected", 17, "system")]


# Click-to-dial ---------------------------------------------------------------------------------------

LEVELS = (Level("system"), Level("integrator:acme", Limits(calls_per_hour=1)))
FIELDS = {"agent": "1000", "callee": CALLEE, "outbound_id": "27115550000"}


def client(**more: Any) -> IntegratorRules:
    return IntegratorRules("acme", PLAN, levels=LEVELS, **more)


def test_both_legs_of_a_click_are_paid_for_where_both_cost() -> None:
    one = client()
    order = one.read(FIELDS)
    click = click2dial.new_call(order, one, SETTINGS)
    assert [(charge.began_as_aleg, charge.number) for charge in click.charges(POLICY)] == [(False, order.callee)]
    order = one.read({**FIELDS, "agent": "0831112222"})
    click = click2dial.new_call(order, one, SETTINGS)
    attempt, legs = click.attempt, click.charges(POLICY)
    assert [(charge.began_as_aleg, charge.number) for charge in legs] == [(True, order.agent), (False, order.callee)]
    # For the integrator it is one call, whose minutes count once.
    owners = [ticket for leg in legs for ticket in leg.tickets if ticket.bound.key == "integrator:acme"]
    assert [(ticket.bound.member, ticket.bound.timed) for ticket in owners] == [
        (attempt.call_ref, True),
        (attempt.call_ref, False),
    ]


@pytest.mark.parametrize("field", ["agent", "callee"])
def test_high_risk_number_is_no_leg_of_a_click(field: str) -> None:
    with pytest.raises(faults.Refused) as refused:
        client().read({**FIELDS, field: HIGH_RISK})
    assert [(fault.field, fault.code) for fault in refused.value.faults] == [(field, "restricted")]
    assert "high_risk" in refused.value.faults[0].message
    client(call_restriction={"high_risk": Rule("allow")}).read({**FIELDS, field: HIGH_RISK})


@pytest.mark.parametrize("agent", ["1000", "0115550001"])
def test_phone_that_dials_pays_for_the_callee_alone(agent: str) -> None:
    levels = [Level("system", Limits(minutes_per_day=100)), Level("integrator:acme", Limits(minutes_per_day=60))]
    leg = Leg("B", answered_at=1005.0, ended_at=1305.0, disposition="recv_bye", q850=16)
    call = ScriptedCall(
        [talks(leg)],
        ended(a_by="send_bye", b=leg, at=1305.0),
        variables={"sip_authorized": "true", "sip_auth_username": agent},
        headers={"Caller-Destination-Number": CALLEE},
        sip={"X-Teleforge-Outbound-ID": "27115550000"},
    )
    policy = replace(POLICY, clients={"acme": IntegratorRules("acme", PLAN, levels=levels)})
    usage = Purse()
    click2dial.arrive(call, Arrival(("click2dial",)), policy, host([], usage))
    (charge,) = usage.charges
    assert (charge.began_as_aleg, charge.spent(0.0)) == (False, 300.0)
    assert [ticket.bound.key for ticket in charge.tickets if ticket.timed] == ["system", "integrator:acme"]


@pytest.mark.parametrize(
    ("refusal", "code", "header"), [(OVER, 17, "calls_per_hour is reached"), (TRIPPED, 21, "the breaker has tripped")]
)
def test_phone_that_may_not_spend_gets_a_refusal_and_a_record(refusal: Refusal, code: int, header: str) -> None:
    call = ScriptedCall(
        [talks()],
        ended(a_by="recv_bye"),
        variables={"sip_authorized": "true", "sip_auth_username": "1000"},
        headers={"Caller-Destination-Number": CALLEE},
        sip={"X-Teleforge-Outbound-ID": "27115550000"},
    )
    begun: list[Attempt] = []
    policy = replace(POLICY, clients={"acme": client()})
    click2dial.arrive(call, Arrival(("click2dial",)), policy, host(begun, Purse(refusal)))
    assert call.did("respond") == [(400, [("X-Teleforge-Error", f"limits: {header}")])]
    assert call.did("bridge") == []
    (record,) = [attempt.record for attempt in begun]
    assert call.did("reason") == [(record and record.end_code,)]
    assert record is not None
    assert (record.end_reason, record.end_code) == ("rejected", code)


def test_click_over_its_limit_is_answered_and_ended_by_system() -> None:
    one, usage = client(), Purse()
    order = one.read(FIELDS)
    click = click2dial.new_call(order, one, SETTINGS)
    attempt, charges = click.attempt, click.charges(POLICY)
    assert usage.begin(*charges) is None
    attempt.pay(*charges)
    call = ScriptedCall([cut(usage, OVER)], ended(a_by="send_bye", b=Leg("B", answered_at=1005.0, ended_at=1008.0)))
    click.answered(call, replace(POLICY, clients={"acme": one}), host([], usage))
    assert attempt.record is not None
    assert (attempt.record.end_reason, attempt.record.hung_up_by) == ("answered", "system")
    assert all(charge.ended for charge in usage.charges)


def test_click_may_last_as_long_as_its_destination() -> None:
    limits = Limits(destinations={read_destination("class:mobile"): Limits(longest_call=75)})
    one = IntegratorRules("acme", PLAN, levels=[Level("integrator:acme", limits)])
    order, usage = one.read(FIELDS), Purse()
    click = click2dial.new_call(order, one, SETTINGS)
    attempt, charges = click.attempt, click.charges(POLICY)
    assert usage.begin(*charges) is None
    attempt.pay(*charges)
    call = ScriptedCall([talks()], ended(b=Leg("B", answered_at=1005.0, ended_at=1008.0)))
    click.answered(call, replace(POLICY, clients={"acme": one}), host([], usage))
    assert call.did("bridge")[0][3] == 75


def test_first_leg_that_rings_is_ended_as_rejected() -> None:
    one, usage = client(), Purse()
    order = one.read({**FIELDS, "agent": "0831112222"})
    click = click2dial.new_call(order, one, SETTINGS)
    attempt, charges = click.attempt, click.charges(POLICY)
    assert usage.begin(*charges) is None
    attempt.pay(*charges)

    class Line:
        rung = 0

        def is_lost(self) -> bool:
            return False

        def elsewhere(self) -> bool:
            return False

        def originate(self, command: str, deadline: float, *, phone: bool) -> Rang:
            self.rung += 1
            usage.charges[0].cut = TRIPPED
            # This cause would make it try the next gateway.
            return Rang("failed", 41)

    line = Line()
    assert not ring_aleg(line, attempt, Aleg({}, ["sofia/gateway/a/1", "sofia/gateway/b/1"], "socket(x)", 30))
    assert line.rung == 1
    assert attempt.record is not None
    assert (attempt.record.end_reason, attempt.record.end_code) == ("rejected", 21)


def test_caller_who_leaves_pays_no_further() -> None:
    usage = Purse()

    def leaves(progress: Progress) -> Bridged:
        progress("answered", 1005.0, Leg("B", answered_at=1005.0))
        raise CallEnded("the channel hung up")

    one = Answers(leaves)
    one.call.end = ended(a_by="recv_bye", b=Leg("B", answered_at=1005.0, ended_at=1010.0))
    one.dialthrough(usage)
    assert [charge.spent(0.0) for charge in usage.charges] == [pytest.approx(5.0)]
    assert all(charge.ended for charge in usage.charges)


def test_charged_call_is_freed_without_the_garbage_collector() -> None:
    attempt = Attempt(app="disa", call_dir="external")
    charge = Charge(attempt.call_ref, [Level("system", Limits(calls_per_hour=5, minutes_per_day=60))], None)
    charge.open(lambda: 0.0, lambda _charge: None)
    attempt.pay(charge)
    attempt.enter("bridged", 1.0)
    attempt.end("answered", 16, "callee", 2.0)
    gc.collect()
    gc.disable()
    try:
        del attempt, charge
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("placed", [True, False])
def test_session_without_its_socket_costs_until_its_end(monkeypatch: pytest.MonkeyPatch, *, placed: bool) -> None:
    """The two talk on: their place among the concurrent calls is taken, and the leg that was rung is paid for."""

    def loses_socket(progress: Progress) -> Bridged:
        progress("answered", 1005.0, Leg("B", answered_at=1005.0))
        raise CallEnded("the switch closed the socket", lost=True)

    left: list[tuple[str, ...]] = []
    usage, one = Purse(), Answers(loses_socket)
    ring_back = callback.new_call(PLAN.read("0825556666"), CARD, ACCOUNT, one.policy())
    (aleg,) = ring_back.charges(one.policy())
    assert usage.begin(aleg) is None

    def talk_on() -> Ended:
        assert (left, aleg.ended) == ([], False)
        usage.now += 100
        return ended(at=time.time() - 5)

    monkeypatch.setattr(usage, "leave", lambda *place: left.append(place))
    monkeypatch.setattr(one.call, "ended", talk_on)
    if placed:
        ring_back.attempt.pay(aleg)
        one.rung_back(ring_back, usage)
        assert aleg.spent(usage.now) == pytest.approx(95, abs=0.5)
    else:
        one.dialthrough(usage)
    assert left == [(CARD.holder, one.begun[0].session_ref)]


def test_charge_of_a_first_leg_goes_on_in_the_next_attempt() -> None:
    first = Attempt(app="callback", call_dir="external", switch="fs1", closes=False)
    charge = Charge(first.call_ref, [Level("system", Limits(minutes_per_day=60))], None, aleg=True)
    charge.open(lambda: 7.0, lambda _charge: None)
    first.pay(charge)
    charge.outlive(first.switch, "A")
    first.end("callee_busy", 17, "callee", 2.0)
    assert not charge.ended
    assert (charge.switch, charge.aleg_uuid) == ("fs1", "A")
    second = Attempt(app="callback", call_dir="external")
    second.pay(charge)
    assert charge.call_ref == second.call_ref
    assert second.charges == [charge]
    assert second.paid_for == [charge.essence]


def test_attempt_that_is_adopted_does_not_note_its_charges_twice() -> None:
    charge = Charge("a", [Level("system")], None)
    again = Attempt(app="disa", call_dir="external", call_ref="a", paid_for=[charge.essence])
    again.pay(charge)
    assert again.paid_for == [charge.essence]
