"""Q.850 numbers, and what they mean for a record (hazard 23)."""

from __future__ import annotations

import pytest

from esl_apps.core import causes


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("NORMAL_CLEARING", 16),
        ("USER_BUSY", 17),
        ("NO_USER_RESPONSE", 18),
        ("NO_ANSWER", 19),
        ("SUBSCRIBER_ABSENT", 20),
        ("USER_NOT_REGISTERED", 20),
        ("CALL_REJECTED", 21),
        ("NUMBER_CHANGED", 22),
        ("UNALLOCATED_NUMBER", 1),
        ("NORMAL_CIRCUIT_CONGESTION", 34),
        ("NETWORK_OUT_OF_ORDER", 38),
        ("INVALID_GATEWAY", 38),
        ("GATEWAY_DOWN", 38),
        ("NORMAL_TEMPORARY_FAILURE", 41),
        ("SWITCH_CONGESTION", 42),
        ("REQUESTED_CHAN_UNAVAIL", 44),
        ("BEARERCAPABILITY_NOTAUTH", 57),
        ("INCOMPATIBLE_DESTINATION", 88),
        ("RECOVERY_ON_TIMER_EXPIRE", 102),
        ("INTERWORKING", 127),
        ("ORIGINATOR_CANCEL", 16),
        ("LOSE_RACE", 16),
    ],
)
def test_number_of_a_name(name: str, number: int) -> None:
    assert causes.q850(name) == number


@pytest.mark.parametrize("name", [None, "", "NO_SUCH_CAUSE", "user_busy"])
def test_name_that_says_nothing_is_31(name: str | None) -> None:
    assert causes.q850(name) == 31


def test_every_name_has_a_number_that_a_record_may_show() -> None:
    assert all(1 <= number <= 127 for number in causes.Q850.values())


@pytest.mark.parametrize(("number", "shown"), [(1, 1), (127, 127), (0, 16), (-1, 16), (128, 16), (487, 16)])
def test_codes_outside_q850_read_as_16(number: int, shown: int) -> None:
    assert causes.code(number) == shown


@pytest.mark.parametrize("number", range(1, 128))
def test_what_a_failure_is_by_its_number(number: int) -> None:
    expected = {17: "busy", 18: "no_answer", 19: "no_answer", 102: "no_answer"}.get(number, "failed")
    assert causes.failure(number) == expected


def test_next_gateway_is_tried_for_these_alone() -> None:
    assert {34, 38, 41, 42, 44} == causes.GATEWAY_FAILED
