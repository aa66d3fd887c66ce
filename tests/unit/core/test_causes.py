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


def test_what_a_failure_is_by_its_number() -> None:
    known = {17: "busy", 18: "no_answer", 19: "no_answer", 102: "no_answer"}
    assert {number: causes.failure(number) for number in range(1, 128)} == dict.fromkeys(
        range(1, 128), "failed"
    ) | known


def test_next_gateway_is_tried_for_these_alone() -> None:
    assert {34, 38, 41, 42, 44} == causes.GATEWAY_FAILED


#: How the end of a leg that was not answered is read: FreeSWITCH's cause and number, the status and the Reason of a
#: refusal, and the code. Most are as FreeSWITCH 1.11.1 reported them; newer versions have more names.
ENDS = [
    # Nothing but a status.
    ("USER_BUSY", 17, 486, "", 17),
    ("NO_ROUTE_DESTINATION", 3, 604, "", 1),
    ("UNWANTED", 16, 607, "", 21),
    ("INVALID_IDENTITY", 16, 438, "", 21),
    ("ORIGINATOR_CANCEL", 16, 487, "", 31),
    ("BUSY_EVERYWHERE", 16, 600, "", 17),
    ("DECLINE", 16, 603, "", 21),
    ("DOES_NOT_EXIST_ANYWHERE", 16, 604, "", 1),
    ("NOT_ACCEPTABLE", 16, 606, "", 88),
    ("NO_IDENTITY", 16, 428, "", 21),
    ("BAD_IDENTITY_INFO", 16, 429, "", 21),
    ("NORMAL_UNSPECIFIED", 31, 433, "", 21),
    ("NORMAL_UNSPECIFIED", 31, 436, "", 21),
    ("UNSUPPORTED_CERTIFICATE", 16, 437, "", 21),
    ("MANDATORY_IE_MISSING", 96, 488, "", 88),
    # Statuses that nothing lists.
    ("NORMAL_UNSPECIFIED", 31, 499, "", 31),
    ("NORMAL_UNSPECIFIED", 31, 580, "", 41),
    ("NORMAL_UNSPECIFIED", 31, 699, "", 21),
    # A Reason that says nothing.
    ("NORMAL_CLEARING", 16, 486, 'Q.850;cause=16;text="NORMAL_CLEARING"', 17),
    ("NORMAL_UNSPECIFIED", 31, 486, "Q.850;cause=31", 17),
    ("NORMAL_CLEARING", 16, 480, "Q.850;cause=16", 18),
    ("NORMAL_CLEARING", 16, 603, "Q.850;cause=16", 21),
    ("NORMAL_CLEARING", 16, 404, "q.850;cause=16", 1),
    ("NORMAL_CLEARING", 16, 503, "Q.850;cause=16", 41),
    ("NORMAL_CLEARING", 16, 500, "Q.850;cause=16", 41),
    ("NORMAL_CLEARING", 16, 502, "Q.850;cause=16", 38),
    ("NORMAL_CLEARING", 16, 607, "Q.850;cause=16", 21),
    ("UNKNOWN", 16, 480, "Q.850;cause=999", 18),
    # A Reason that says something.
    ("USER_BUSY", 17, 503, "Q.850;cause=17", 17),
    ("NORMAL_CIRCUIT_CONGESTION", 34, 486, "Q.850;cause=34", 34),
    ("UNKNOWN", 5, 480, "Q.850;cause=5", 5),
    ("USER_NOT_REGISTERED", 16, 603, "FreeSWITCH;cause=806", 20),
    # A Reason of another protocol: FreeSWITCH read the status.
    ("USER_BUSY", 17, 486, "SIP;cause=200", 17),
    # Ended by the switch, without a refusal.
    ("NO_ANSWER", 19, 0, "", 19),
    ("PROGRESS_TIMEOUT", 16, 0, "", 38),
    ("USER_NOT_REGISTERED", 16, 0, "", 20),
    ("NORMAL_CLEARING", 16, 0, "", 16),
    ("UNKNOWN", 0, 0, "", 31),
    ("UNKNOWN", 999, 0, "", 16),
    (None, 0, 0, "", 31),
]


@pytest.mark.parametrize(("cause", "number", "status", "reason", "code"), ENDS)
def test_end_of_a_leg_is_read_from_what_says_something(
    cause: str | None, number: int, status: int, reason: str, code: int
) -> None:
    assert causes.read(cause, number, status=status, reason=reason) == code


#: RFC 3398, section 8.2.6.1, whose other rows are in this project's table above.
RFC_3398 = {
    400: 41, 401: 21, 402: 21, 403: 21, 404: 1, 405: 63, 406: 79, 407: 21, 408: 102, 410: 22, 413: 127, 414: 127,
    415: 79, 416: 127, 420: 127, 421: 127, 423: 127, 480: 18, 481: 41, 482: 25, 483: 25, 484: 28, 485: 1, 486: 17,
    500: 41, 501: 79, 502: 38, 503: 41, 504: 102, 505: 127, 513: 127, 600: 17, 603: 21, 604: 1,
}  # fmt: skip


@pytest.mark.parametrize("status", RFC_3398)
def test_status_of_a_refusal_is_read_by_rfc_3398(status: int) -> None:
    assert causes.read("NORMAL_CLEARING", 16, status=status, reason="Q.850;cause=16") == RFC_3398[status]


def test_gateway_that_never_responded_is_out_of_order() -> None:
    said = ("RECOVERY_ON_TIMER_EXPIRE", 102)
    assert causes.read(*said, status=408) == 102
    assert causes.read(*said, status=408, unheard=True) == 38


def test_codes_of_several_phones_rank_by_what_they_say() -> None:
    assert sorted([41, 21, 18, 17, 20], key=causes.weight)[:3] == [17, 18, 21]
    assert causes.weight(41) == causes.weight(20) == causes.weight(38)
