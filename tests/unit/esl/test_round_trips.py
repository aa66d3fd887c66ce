"""The round trips that the switch tells of each leg."""

from __future__ import annotations

import pytest

from esl_apps.core.call import Leg
from esl_apps.core.quality import LegQuality
from esl_apps.esl.round_trips import RoundTrips
from esl_apps.esl.wire import EVENT_PLAIN, Event

A = "11111111-1111-4111-8111-111111111111"


def report(average: str, uuid: str = A) -> Event:
    lines = f"Event-Name: RECV_RTCP_MESSAGE\nUnique-ID: {uuid}\nRtt0-Avg: {average}\n"
    return Event(b"", lines.encode(), EVENT_PLAIN)


def measured(*reports: Event) -> float | None:
    trips, leg = RoundTrips(), Leg(A, quality=LegQuality(leg=A))
    for one in reports:
        trips.hear(one)
    trips.add_to(leg)
    assert leg.quality is not None
    return leg.quality.round_trip


def test_leg_has_its_latest_average_in_milliseconds() -> None:
    assert measured(report("0.014572"), report("0.019989")) == 20.0


def test_phone_that_has_heard_no_report_yet_tells_nothing() -> None:
    assert measured(report("0.014572"), report("0.000000")) == 14.6
    assert measured(report("0.000000")) is None


@pytest.mark.parametrize("average", ["", "nan", "-1.0", "1e5", "9999.0", "0.1.2", "9" * 30])
def test_average_that_can_not_be_is_left_out(average: str) -> None:
    assert measured(report(average)) is None


def test_report_of_another_leg_says_nothing_of_this_one() -> None:
    assert measured(report("0.5", A.replace("1", "2"))) is None


def test_leg_without_a_quality_is_left_alone() -> None:
    trips = RoundTrips()
    trips.hear(report("0.5"))
    trips.add_to(Leg(A))
    trips.add_to(None)
