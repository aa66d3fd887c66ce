"""A switch's clock is learnt from events that it made between two times of this node."""

from __future__ import annotations

import pytest

from esl_apps.core.node_clock import NodeClock, clock
from esl_apps.esl.switch_clock import SwitchClock
from esl_apps.esl.wire import EVENT_PLAIN, Event

#: A time of the monotonic clock, and of this node's.
ASKED = 1000.0
HERE = clock.origin + ASKED


def stamped(at: float) -> Event:
    text = f"Event-Name: BACKGROUND_JOB\nEvent-Date-Timestamp: {int(at * 1e6)}\n"
    return Event(b"", text.encode(), EVENT_PLAIN)


@pytest.mark.parametrize("ahead", [-86_400.0, -3600.0, -1.5, 1.5, 3600.0, 86_400.0])
def test_switch_clock_that_is_wrong_is_learnt_at_once(ahead: float) -> None:
    switch = SwitchClock()
    switch.hear(stamped(HERE + 0.02 + ahead), ASKED, ASKED + 0.04)
    assert abs(switch.ahead - ahead) < 0.05
    assert abs(switch.here(HERE + ahead) - HERE) < 0.05


def test_switch_clock_that_is_right_changes_no_time() -> None:
    """Times of a switch on this machine are taken as they are."""
    switch = SwitchClock()
    for late in (0.0, 0.03, 5.0):
        switch.hear(stamped(HERE + 0.02), ASKED, ASKED + 0.02 + late)
    assert switch.here(HERE) == HERE


@pytest.mark.parametrize("step", [-3600.0, -2.0, 2.0, 3600.0])
def test_switch_clock_that_steps_is_followed(step: float) -> None:
    switch = SwitchClock(ahead=10.0)
    switch.hear(stamped(HERE + 10.02 + step), ASKED, ASKED + 0.04)
    assert abs(switch.ahead - (10.0 + step)) < 0.05


def test_switch_clock_late_event_proves_little() -> None:
    """This node was stopped for 6 s with the event unread."""
    switch = SwitchClock(ahead=3600.0)
    switch.hear(stamped(HERE + 3600.02), ASKED, ASKED + 6.0)
    assert switch.ahead == 3600.0


@pytest.mark.parametrize("step", [-30.0, 30.0])
def test_switch_clock_job_across_a_step_of_the_node_is_fair(step: float) -> None:
    """An originate was sent, the node's clock was set, and the phone answered 9 s later."""
    own = NodeClock()
    switch = SwitchClock(own=own)
    own.follow(step)
    switch.hear(stamped(own.origin + ASKED + 9.0), ASKED, ASKED + 9.01)
    assert switch.ahead == pytest.approx(0.0)
    assert switch.ahead_of_system == pytest.approx(-step)


def test_switch_clock_event_without_a_stamp_is_ignored() -> None:
    switch = SwitchClock(ahead=7.0)
    switch.hear(Event(b"", b"Event-Name: BACKGROUND_JOB\n", EVENT_PLAIN), ASKED, ASKED)
    assert switch.ahead == pytest.approx(7.0)
