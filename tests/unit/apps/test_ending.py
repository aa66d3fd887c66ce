"""The record of a call, from the ends of its legs."""

from __future__ import annotations

import pytest

from esl_apps.apps.ending import conclude
from esl_apps.core import terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Ended, Leg

BEGAN, OVER = 1_700_000_000.0, 1_700_000_060.0


def concluded(a_ended: float, b_ended: float, a_disposition: str, b_disposition: str) -> tuple[float, str]:
    """When a talk ended and by whom, after the socket of its caller was lost."""
    attempt = Attempt(app="dialthrough", call_dir="external", queued_at=BEGAN)
    attempt.enter(terms.BRIDGED, BEGAN)
    aleg = Leg("a", BEGAN, BEGAN, BEGAN, a_ended, "NORMAL_CLEARING", 16, a_disposition)
    bleg = Leg("b", BEGAN, BEGAN, BEGAN, b_ended, "NORMAL_CLEARING", 16, b_disposition)
    conclude(attempt, Ended(a_ended, aleg, bleg), None, terms.CALLEE)
    assert attempt.record is not None
    return attempt.record.ended_at, attempt.record.hung_up_by


def test_ending_of_a_caller_who_goes_on_is_that_of_the_talk() -> None:
    """Handed back by the dialplan, to no node: the caller hears a prompt, and hangs up seconds later."""
    assert concluded(OVER + 2.5, OVER, "recv_bye", "recv_bye") == (OVER, terms.CALLEE)


@pytest.mark.parametrize("late", [-0.02, 0.02, 2.0])
def test_ending_by_the_caller_is_theirs_however_late_its_stamp(late: float) -> None:
    """A switch under load may stamp B's end first."""
    ended_at, by = concluded(OVER, OVER - late, "recv_bye", "send_bye")
    assert by == terms.AGENT
    assert ended_at == (OVER - late if late > 1 else OVER)


def test_ending_by_the_callee_is_as_the_caller_s_leg_says() -> None:
    assert concluded(OVER + 0.02, OVER, "send_bye", "recv_bye") == (OVER + 0.02, terms.CALLEE)
