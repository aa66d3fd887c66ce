"""The first leg of a session is divided between its records, and the rest is in the attempt that closes it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from esl_apps.apps import autodial, callback
from esl_apps.apps.autodial import AutodialOrder
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import CallEnded, Ended, Leg
from esl_apps.core.cards import Account, Card
from esl_apps.testing import PLAN, SETTINGS, ScriptedCall, ScriptedPolicy, Step, fails, host, talks
from tests.support.card_table import CardTable

ACCOUNT = Account("acme", caller_id="+27115550000")
CARD = Card("0" * 31 + "1", "acme", "u1", None, active=True)
CLOSES = replace(SETTINGS, session_records=frozenset({""}))


class Caller(ScriptedCall):
    """Leaves when asked for a number with no more keys to press."""

    def collect(self, *args: Any, **more: Any) -> str:
        if not self.keyed:
            raise CallEnded("the channel hung up")
        return super().collect(*args, **more)


def aleg(at: float) -> Leg:
    return Leg("A", created_at=1000.0, answered_at=1002.0, ended_at=at, disposition="recv_bye")


def bleg(answered_at: float, ended_at: float) -> Leg:
    return Leg("B", answered_at=answered_at, ended_at=ended_at, q850=16, disposition="recv_bye")


def rung_back(*steps: Step, keyed: list[str], end: Ended, closes: bool = True) -> list[Attempt]:
    policy = ScriptedPolicy(settings=CLOSES if closes else SETTINGS, cards=CardTable({"1": CARD}, known=ACCOUNT))
    made = callback.new_call(PLAN.read("0825556666"), CARD, ACCOUNT, policy)
    made.attempt.dialled(1000.0)
    attempts = [made.attempt]
    made.answered(Caller(list(steps), end, keyed=keyed), policy, host(attempts, used=lambda _number: None))
    return attempts


def test_session_rest_of_the_first_leg_is_in_its_last_attempt() -> None:
    steps = talks(bleg(1010.0, 1020.0)), talks(bleg(1030.0, 1040.5))
    # The last B-leg is still known at the end, but the attempt that closes has none.
    end = Ended(1043.0, aleg(1043.0), bleg(1030.0, 1040.5))
    attempts = rung_back(*steps, keyed=["0820001234", "0820001235"], end=end)
    assert [one.a_seconds for one in attempts] == [18.0, 20.5, 2.5]
    assert [one.b_seconds for one in attempts] == [10.0, 10.5, None]
    assert [one.closes for one in attempts] == [False, False, True]
    last = attempts[-1].record
    assert last is not None
    assert (last.number, last.end_reason, last.before and last.before.calls) == (None, "abandoned", 2)


def test_session_that_is_not_closed_begins_no_further_attempt() -> None:
    end = Ended(1043.0, aleg(1043.0), bleg(1010.0, 1020.0))
    (only,) = rung_back(talks(bleg(1010.0, 1020.0)), keyed=["0820001234"], end=end, closes=False)
    assert (only.a_seconds, only.record and only.record.end_reason) == (18.0, "answered")


def test_session_whose_caller_goes_on_elsewhere_is_not_closed() -> None:
    end = Ended(1043.0, replace(aleg(1043.0), ended_at=None), None)
    attempts = rung_back(talks(bleg(1010.0, 1020.0)), keyed=["0820001234"], end=end)
    assert [one.closes for one in attempts] == [False, False]


@pytest.mark.parametrize("step", [talks(bleg(1010.0, 1020.0)), fails("USER_BUSY")])
def test_autodial_record_has_all_of_its_first_leg(step: Step) -> None:
    order = AutodialOrder(PLAN.read("0825556666"), PLAN.read("0820001234"), None, 0.0, retain_cid=False, media_id=None)
    made = autodial.new_call(order, ACCOUNT)
    made.attempt.dialled(1000.0)
    attempts = [made.attempt]
    policy = ScriptedPolicy(settings=CLOSES, cards=CardTable({}, known=ACCOUNT))
    made.answered(ScriptedCall([step], Ended(1020.4, aleg(1020.4), None)), policy, host(attempts))
    (only,) = attempts
    assert only.a_seconds == pytest.approx(18.4)
    assert only.closes
    assert only.record is not None
    assert only.record.end_reason in ("answered", "callee_busy")
