"""Callback by script: who is rung back, what a missed call hears, and what is tried again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from esl_apps.apps import callback
from esl_apps.apps.callback import RingBack, whom_to_call
from esl_apps.apps.context import Arrival
from esl_apps.apps.settings import Rules
from esl_apps.core.cards import Account, Card
from esl_apps.core.dialstring import Endpoints
from esl_apps.core.limits import Limits
from esl_apps.core.timed_call import Frequency, Scheduled, TimedCall
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.testing import SETTINGS, ScriptedCall, ScriptedPolicy, ended, host, talks
from tests.support.card_table import CardTable

NUMBER = "27825556666"
CARD = Card("c1", "acme", None, NUMBER, active=True)


class Away:
    """Cards whose Redis is away."""

    def by_pin(self, pin: str) -> Card | None:
        raise StoreUnavailable("redis: away")

    def by_number(self, e164: str) -> Card | None:
        raise StoreUnavailable("redis: away")

    def get(self, account_id: str, id: str) -> Card | None:
        raise StoreUnavailable("redis: away")

    def account(self, account_id: str) -> Account | None:
        raise StoreUnavailable("redis: away")

    def card_limits(self, account_id: str) -> Limits | None:
        return None

    def last_number(self, card_id: str) -> str | None:
        raise StoreUnavailable("redis: away")

    def dial(self, card: Card, number: str) -> Card | None:
        raise StoreUnavailable("redis: away")


class Known(Away):
    """One card, of one account."""

    def by_number(self, e164: str) -> Card | None:
        return CARD if e164 == NUMBER else None

    def account(self, account_id: str) -> Account | None:
        return Account("acme")


def test_enrolled_number_is_rung_back() -> None:
    target = whom_to_call("0825556666", ScriptedPolicy(rules=Rules(), cards=Known()))
    assert not isinstance(target, str)
    number, card = target
    assert (number.e164, card) == (NUMBER, CARD)


@pytest.mark.parametrize(
    ("caller", "why"),
    [
        (None, "withheld"),
        ("anonymous", "can't be read"),
        ("1000", "of this installation"),
        ("112", "of this installation"),
        ("0115552000", "of this installation"),
        ("0845550000", "not enrolled"),
    ],
)
def test_number_that_must_not_be_rung_back_has_a_reason(caller: str | None, why: str) -> None:
    rules = Rules(own_numbers=frozenset({"27115552000"}))
    target = whom_to_call(caller, ScriptedPolicy(rules=rules, cards=Known()))
    assert isinstance(target, str)
    assert why in target


def test_number_without_a_gateway_is_not_rung_back() -> None:
    settings = replace(SETTINGS, endpoints=Endpoints("user/{number}", ()))
    policy = ScriptedPolicy(settings, Rules(), cards=Known())
    assert whom_to_call("0825556666", policy) == "dial.external is empty"


def test_redis_that_is_away_is_no_reason_to_drop_a_callback() -> None:
    with pytest.raises(StoreUnavailable):
        whom_to_call("0825556666", ScriptedPolicy(rules=Rules(), cards=Away()))


# The missed call --------------------------------------------------------------------------------------


class Scheduler:
    """A host that notes what is to be called later."""

    def __init__(self, refused: str | None = None) -> None:
        self.refused = refused
        self.calls: list[tuple[str, list[str]]] = []

    def schedule(self, number: str, data: Sequence[str], due_at: float, frequency: Frequency) -> Scheduled:
        self.calls.append((number, list(data)))
        return Scheduled(self.refused)


def missed(
    scheduler: Scheduler, *, caller: str | None = "0825556666", answer_after: float = 0.0, **call: Any
) -> ScriptedCall:
    headers = {"Caller-Destination-Number": "27115552000"}
    made = ScriptedCall(end=ended(a_by="recv_cancel"), headers=headers, **{"answered_at": None, **call})
    settings = replace(SETTINGS, callback_answer_after=answer_after)
    policy = ScriptedPolicy(settings, cards=CardTable(numbers={NUMBER: CARD}), number=caller)
    callback.arrive(made, Arrival(("callback",)), policy, host([], schedule=scheduler.schedule))
    return made


@pytest.mark.parametrize(("caller", "scheduled"), [("0825556666", True), ("0845550000", False), (None, False)])
def test_missed_call_is_busy_whether_returned_or_not(caller: str | None, scheduled: bool) -> None:
    scheduler = Scheduler()
    call = missed(scheduler, caller=caller)
    assert call.log == [("hangup", "USER_BUSY")]
    assert scheduler.calls == ([(NUMBER, ["c1", "27115552000"])] if scheduled else [])


def test_missed_calls_in_two_forms_of_a_number_are_one_callback() -> None:
    """Argentina's +54 9 … and +54 … are one phone, which had two callbacks and twice as many a day."""
    scheduler = Scheduler()
    numbers = dict.fromkeys(("5491123456789", "541123456789"), CARD)
    policy = ScriptedPolicy(cards=CardTable(numbers=numbers))
    for caller in ("+5491123456789", "+541123456789"):
        callback.arrive(
            ScriptedCall(end=ended(a_by="recv_cancel"), answered_at=None),
            Arrival(("callback",)),
            replace(policy, number=caller),
            host([], schedule=scheduler.schedule),
        )
    assert [number for number, _data in scheduler.calls] == ["541123456789"] * 2
    for (number, data), dialled in zip(scheduler.calls, ("+5491123456789", "+541123456789"), strict=True):
        placed = callback.due(TimedCall("id-1", number, tuple(data), 1, "claim"), policy)
        assert isinstance(placed, callback.RingBack)
        assert placed.number.plus == dialled


def test_missed_call_over_its_frequency_is_refused_alike() -> None:
    scheduler = Scheduler(refused="per_day")
    assert missed(scheduler).log == [("hangup", "USER_BUSY")]
    assert len(scheduler.calls) == 1


def test_caller_who_stays_is_answered_as_by_dialthrough() -> None:
    scheduler = Scheduler()
    call = missed(scheduler, answer_after=5.0, gone_at="answer")
    assert [entry[0] for entry in call.log] == ["ring", "wait_for_hangup", "set", "answer"]
    assert scheduler.calls == []


@pytest.mark.parametrize("answer_after", [0.0, 5.0])
def test_caller_whose_node_died_after_the_answer_goes_on(answer_after: float) -> None:
    scheduler = Scheduler()
    call = missed(scheduler, answer_after=answer_after, answered_at=1002.0)
    assert [entry[0] for entry in call.log[:2]] == ["set", "answer"]
    assert scheduler.calls == []


def test_caller_who_does_not_stay_is_called_back() -> None:
    scheduler = Scheduler()
    missed(scheduler, answer_after=5.0, gone_at="wait_for_hangup")
    assert len(scheduler.calls) == 1


# When it is due ---------------------------------------------------------------------------------------

TIMED = TimedCall("id-1", NUMBER, ("c1", "27115552000"), 1, "claim")


def ring_back(**more: Any) -> RingBack:
    policy = ScriptedPolicy(cards=CardTable(numbers={NUMBER: CARD}))
    made = callback.due(TIMED, policy)
    assert isinstance(made, RingBack)
    return made


def test_callback_that_is_due_is_checked_again() -> None:
    made = ring_back()
    assert (made.attempt.extension, made.attempt.dial_number) == ("+27825556666", "+27115550000")
    assert callback.due(TIMED, ScriptedPolicy(cards=CardTable())) == "not enrolled"
    inactive = CardTable(numbers={NUMBER: structs.replace(CARD, active=False)})
    assert callback.due(TIMED, ScriptedPolicy(cards=inactive)) == "not enrolled"
    orphaned = CardTable(numbers={NUMBER: CARD}, known=None)
    assert callback.due(TIMED, ScriptedPolicy(cards=orphaned)) == "the card's account is not known"


def test_leg_that_rings_back_outlives_its_talks() -> None:
    made = ring_back()
    aleg = made.aleg(ScriptedPolicy(), "socket(x)")
    assert aleg.variables["hangup_after_bridge"] == "false"
    assert aleg.variables["origination_caller_id_number"] == "+27115550000"
    assert aleg.endpoints[0] == "sofia/gateway/pstn/27825556666"


@pytest.mark.parametrize(
    ("reason", "code", "attempt", "retry"),
    [
        ("agent_no_answer", 19, 1, 60.0),
        ("agent_busy", 17, 2, 60.0),
        ("lost", 31, 1, 60.0),
        ("agent_failed", 41, 1, 60.0),
        ("agent_failed", 20, 1, 60.0),  # a phone that is switched off
        ("agent_failed", 1, 1, None),
        ("rejected", 21, 1, None),
        ("agent_no_answer", 19, 3, None),
    ],
)
def test_callback_is_tried_again_if_nobody_was_reached(
    reason: str, code: int, attempt: int, retry: float | None
) -> None:
    made = ring_back()
    made.attempt.end(reason, code, "agent", 1010.0)
    assert callback.retry_in(made.attempt, replace(TIMED, attempt=attempt), ScriptedPolicy()) == retry


def test_callback_that_was_answered_is_not_tried_again() -> None:
    made = ring_back()
    made.attempt.enter("agent_answered", 1005.0)
    made.attempt.end("lost", 31, "system", 1010.0)
    assert callback.retry_in(made.attempt, TIMED, ScriptedPolicy()) is None


@pytest.mark.parametrize(
    ("keyed", "dials"),
    [
        (["1", "0820001234"], 1),
        (["5", "1", "0820001234"], 1),
        ([""], 0),
        # A mailbox's greeting: a number, one that begins with the key, one after another.
        (["08", "20", "0820001234"], 0),
        (["10", "", "0820001234"], 0),
        (["11", "12", "0820001234"], 0),
        (["#", "", "0820001234"], 0),
    ],
)
def test_confirmed_callback_asks_for_a_key_before_a_number(keyed: list[str], dials: int) -> None:
    made = ring_back()
    policy = ScriptedPolicy(replace(SETTINGS, callback_confirm=True), cards=CardTable(numbers={NUMBER: CARD}))
    call = ScriptedCall([talks()], ended(a_by="recv_bye" if dials else "send_bye"), keyed=keyed)
    made.answered(call, policy, host([]))
    assert call.did("collect")[0] == ("confirm_callback",)
    # What was keyed before the prompt isn't meant for it, nor what follows the key for the next one.
    steps = [entry for entry in call.log if entry[0] in ("collect", "drop_keys")]
    assert steps[:3] == [("drop_keys",), ("collect", "confirm_callback"), ("drop_keys",)]
    assert len(call.did("bridge")) == dials
    if not dials:
        assert call.did("play") == [("goodbye",)]
        record = made.attempt.record
        assert record is not None
        assert (record.end_reason, record.end_code, record.hung_up_by) == ("agent_unconfirmed", 19, "system")


@pytest.mark.parametrize("gone_at", ["wait_for_hangup", "drop_keys", "collect", "play"])
def test_callback_left_before_the_key_is_unconfirmed(gone_at: str) -> None:
    made = ring_back()
    policy = ScriptedPolicy(replace(SETTINGS, callback_confirm=True), cards=CardTable(numbers={NUMBER: CARD}))
    made.answered(ScriptedCall([], ended(a_by="recv_bye"), gone_at=gone_at), policy, host([]))
    record = made.attempt.record
    assert record is not None
    assert (record.end_reason, record.end_code, record.hung_up_by) == ("agent_unconfirmed", 19, "agent")


@pytest.mark.parametrize(("cancelled_by", "lost", "reason"), [("api", False, "cancelled"), (None, True, "lost")])
def test_unconfirmed_callback_ends_as_it_was_ended(cancelled_by: str | None, lost: bool, reason: str) -> None:
    made = ring_back()
    made.attempt.cancelled_by = cancelled_by
    policy = ScriptedPolicy(replace(SETTINGS, callback_confirm=True), cards=CardTable(numbers={NUMBER: CARD}))
    made.answered(ScriptedCall([], ended(lost=lost), gone_at="collect"), policy, host([]))
    assert made.attempt.record is not None
    assert made.attempt.record.end_reason == reason


def test_callback_forgets_the_keys_of_a_greeting() -> None:
    made = ring_back()
    call = ScriptedCall([talks()], ended(a_by="recv_bye"), keyed=["0820001234"])
    made.answered(call, ScriptedPolicy(cards=CardTable(numbers={NUMBER: CARD})), host([]))
    steps = [entry for entry in call.log if entry[0] in ("answer", "wait_for_hangup", "collect", "drop_keys")]
    assert [entry[0] for entry in steps[:4]] == ["answer", "wait_for_hangup", "drop_keys", "collect"]


@pytest.mark.parametrize(("keyed", "counted"), [(["0820001234"], [NUMBER]), ([], []), (["1"], [])])
def test_callback_counts_once_a_number_is_dialled(keyed: list[str], counted: list[str]) -> None:
    """Anyone can forge a missed call, and the person who is rung may pick up and wonder."""
    used: list[str] = []
    call = ScriptedCall([talks()], ended(a_by="recv_bye"), keyed=keyed)
    policy = ScriptedPolicy(cards=CardTable(numbers={NUMBER: CARD}))
    ring_back().answered(call, policy, host([], used=used.append))
    assert used == counted


def test_callback_that_cannot_be_counted_ends_as_any_other() -> None:
    def away(_number: str) -> None:
        raise StoreUnavailable("redis: away")

    made = ring_back()
    call = ScriptedCall([talks()], ended(a_by="recv_bye"), keyed=["0820001234"])
    made.answered(call, ScriptedPolicy(cards=CardTable(numbers={NUMBER: CARD})), host([], used=away))
    assert made.attempt.ended


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, True),
        ({"order": None}, False),
        ({"order": {"card": "another"}}, False),
        ({"order": {}}, False),
        ({"extension": "not a number"}, False),
    ],
)
def test_restore_finds_the_card_of_a_callback(changes: dict[str, Any], found: bool) -> None:
    attempt = ring_back().attempt
    for name, value in changes.items():
        setattr(attempt, name, value)
    again = callback.restore(attempt, ScriptedCall(), ScriptedPolicy(cards=CardTable(numbers={NUMBER: CARD})))
    assert (again is not None) == found


def test_restore_needs_the_account_and_an_active_card() -> None:
    attempt = ring_back().attempt
    for cards in (
        CardTable(pins={}, numbers={NUMBER: structs.replace(CARD, active=False)}),
        CardTable(numbers={NUMBER: CARD}, known=None),
    ):
        assert callback.restore(attempt, ScriptedCall(), ScriptedPolicy(cards=cards)) is None
