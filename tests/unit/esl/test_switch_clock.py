"""A switch's clock is learnt from events that it made between two times of this node."""

from __future__ import annotations

import pytest

from esl_apps.esl.switch_clock import SwitchClock
from esl_apps.esl.wire import EVENT_PLAIN, Event

HERE = 1_700_000_000.0


def stamped(at: float) -> Event:
    text = f"Event-Name: BACKGROUND_JOB\nEvent-Date-Timestamp: {int(at * 1e6)}\n"
    return Event(b"", text.encode(), EVENT_PLAIN)


@pytest.mark.parametrize("ahead", [-86_400.0, -3600.0, -1.5, 1.5, 3600.0, 86_400.0])
def test_switch_clock_that_is_wrong_is_learnt_at_once(ahead: float) -> None:
    clock = SwitchClock()
    clock.hear(stamped(HERE + 0.02 + ahead), HERE, HERE + 0.04)
    assert abs(clock.ahead - ahead) < 0.05
    assert abs(clock.here(HERE + ahead) - HERE) < 0.05


def test_switch_clock_that_is_right_changes_no_time() -> None:
    """Times of a switch on this machine are taken as they are."""
    clock = SwitchClock()
    for late in (0.0, 0.03, 5.0):
        clock.hear(stamped(HERE + 0.02), HERE, HERE + 0.02 + late)
    assert clock.here(HERE) == HERE


@pytest.mark.parametrize("step", [-3600.0, -2.0, 2.0, 3600.0])
def test_switch_clock_that_steps_is_followed(step: float) -> None:
    clock = SwitchClock(ahead=10.0)
    clock.hear(stamped(HERE + 10.02 + step), HERE, HERE + 0.04)
    assert abs(clock.ahead - (10.0 + step)) < 0.05


def test_switch_clock_late_event_proves_little() -> None:
    """This node was stopped for 6 s with the event unread."""
    clock = SwitchClock(ahead=3600.0)
    clock.hear(stamped(HERE + 3600.02), HERE, HERE + 6.0)
    assert clock.ahead == 3600.0


def test_switch_clock_event_without_a_stamp_is_ignored() -> None:
    clock = SwitchClock(ahead=7.0)
    clock.hear(Event(b"", b"Event-Name: BACKGROUND_JOB\n", EVENT_PLAIN), HERE, HERE)
    assert clock.ahead == 7.0
