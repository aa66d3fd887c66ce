"""The flow, against a caller who follows a script."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import wakeup

from esl_apps.apps.interface import Account, Arrival, Attempt, Frequency, Scheduled, TimedCall, now
from esl_apps.testing import PLAN, ScriptedCall, ScriptedPolicy, host

OWN = wakeup.Settings(number="0115553000", account="acme", longest=90)
ACCOUNT = Account(id="acme", caller_id="+27115550000")


def policy(number: str | None = "0825556666", account: Account | None = ACCOUNT) -> ScriptedPolicy:
    cards: Any = SimpleNamespace(account=lambda _id: account)
    return ScriptedPolicy(cards=cards, number=number, own_settings={"wakeup": OWN})


class Caller:
    """Dials the number and keys these digits; what comes of it."""

    def __init__(self, keyed: list[str], asks: ScriptedPolicy, refused: str | None = None) -> None:
        self.attempts: list[Attempt] = []
        self.scheduled: list[tuple[str, list[str], float]] = []
        self.call = ScriptedCall(keyed=keyed)

        def schedule(number: str, data: list[str], due_at: float, _frequency: Frequency) -> Scheduled:
            if refused is None:
                self.scheduled.append((number, data, due_at))
            return Scheduled(refused)

        wakeup.arrive(self.call, Arrival(("wakeup",)), asks, host(self.attempts, schedule=schedule))


def test_minutes_keyed_schedule_a_call() -> None:
    caller = Caller(["30"], policy())
    ((number, data, due_at),) = caller.scheduled
    assert (number, data) == ("27825556666", ["0825556666"])
    assert due_at == pytest.approx(now() + 1800, abs=5)
    assert caller.call.did("play") == [("goodbye",)]
    assert len(caller.attempts) == 1
    assert caller.attempts[0].record is not None
    assert caller.attempts[0].record.answered_at == caller.call.answered_at


def test_minutes_go_by_the_nodes_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's may be set at any time."""
    monkeypatch.setattr("time.time", lambda: 0.0)
    ((_number, _data, due_at),) = Caller(["30"], policy()).scheduled
    assert due_at == pytest.approx(now() + 1800, abs=5)


@pytest.mark.parametrize("keyed", ["", "0", "91", "*0", "1#"])
def test_no_usable_minutes_in_three_tries_schedules_nothing(keyed: str) -> None:
    caller = Caller([keyed] * 3, policy())
    assert caller.scheduled == []
    assert caller.call.did("play") == [("invalid_extension",)] * 3 + [("retries_exceeded",)]
    assert caller.attempts[0].record is not None
    assert caller.attempts[0].record.end_reason == "rejected"


@pytest.mark.parametrize("number", [None, "0900123456", "00442079460000", "112", "not a number"])
def test_a_number_that_may_not_be_rung_is_refused(number: str | None) -> None:
    caller = Caller(["30"], policy(number))
    assert caller.scheduled == []
    assert caller.call.did("play") == [("unauthorized_call",)]


def test_a_number_over_its_frequency_is_told_so() -> None:
    caller = Caller(["30"], policy(), refused="per_day")
    assert caller.call.did("play") == [("limit_reached",)]


def test_due_rings_with_the_accounts_number_and_charges_it() -> None:
    placed = wakeup.due(TimedCall("id", "27825556666", ("0825556666",), 1, "claim"), policy())
    assert isinstance(placed, wakeup.WakeupCall)
    aleg = placed.aleg(policy(), "socket(x)")
    assert aleg.variables["origination_caller_id_number"] == "+27115550000"
    assert aleg.endpoints[0] == "sofia/gateway/pstn/27825556666"
    assert [charge.number for charge in placed.charges(policy())] == [PLAN.read("0825556666")]


def test_due_drops_a_call_whose_account_is_gone() -> None:
    assert isinstance(wakeup.due(TimedCall("id", "27825556666", ("0825556666",), 1, "c"), policy(account=None)), str)


def test_answered_plays_the_prompt_and_ends_as_answered() -> None:
    placed = wakeup.due(TimedCall("id", "27825556666", ("0825556666",), 1, "claim"), policy())
    assert isinstance(placed, wakeup.WakeupCall)
    call = ScriptedCall()
    placed.answered(call, policy(), host([]))
    assert call.did("play") == [("announcement",)]
    assert placed.attempt.record is not None
    assert placed.attempt.record.end_reason == "answered"


def test_restore_reads_a_call_of_another_node() -> None:
    placed = wakeup.due(TimedCall("id", "27825556666", ("0825556666",), 1, "claim"), policy())
    assert isinstance(placed, wakeup.WakeupCall)
    assert wakeup.restore(placed.attempt, ScriptedCall(), policy()) == placed
