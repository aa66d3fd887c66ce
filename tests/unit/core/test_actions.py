"""An action's outcome, on its way from one node to another."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from esl_apps.core.actions import CallState, Outcome, Undone, not_now, outcome_of, result, state_of, was_recorded
from esl_apps.core.attempt import Attempt

REF = "01900000-0000-7000-8000-000000000000"


def across(outcome: Outcome) -> CallState:
    return result(msgspec.json.decode(msgspec.json.encode(outcome), type=Outcome))


def test_outcome_of_a_done_action_is_the_calls_state() -> None:
    attempt = Attempt(app="click-dial", call_dir="outbound", call_ref=REF, held=True, muted=["agent"])
    assert across(Outcome(state_of(attempt))) == CallState(REF, "queued", True, ["agent"], "off")


def test_outcome_of_an_undone_action_says_why() -> None:
    attempt = Attempt(app="click-dial", call_dir="outbound")
    with pytest.raises(Undone) as error:
        across(outcome_of(not_now(attempt, "not yet")))
    undone = error.value
    assert (undone.status, undone.code, undone.message, undone.state) == (409, "state", "not yet", "queued")


def test_outcome_that_says_nothing_is_unavailable() -> None:
    with pytest.raises(Undone) as error:
        across(Outcome())
    assert (error.value.status, error.value.code) == (503, "unavailable")


@pytest.mark.parametrize(
    ("url", "steps", "on"),
    [
        ("a.wav", [], True),
        (None, [], False),
        ("a.wav", ["pause"], False),
        ("a.wav", ["pause", "resume"], True),
        ("a.wav", ["pause", "resume", "stop"], False),
        (None, ["stop", "start"], True),
    ],
)
def test_was_recorded_goes_by_the_last_step_of_a_client(url: str | None, steps: list[str], on: bool) -> None:
    decisions: list[dict[str, Any]] = [{"what": "record", "detail": step} for step in steps]
    decisions.append({"what": "hold", "detail": ""})
    assert was_recorded({"decisions": decisions, "record": {"recording_url": url}}) is on
    assert not was_recorded({})
