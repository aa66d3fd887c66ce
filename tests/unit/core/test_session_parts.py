"""Closing entries of sessions whose calls have ended on several nodes."""

from __future__ import annotations

from typing import Any

import pytest

from esl_apps.core.attempt import Attempt
from esl_apps.core.notification import session_record
from esl_apps.core.session_parts import Part, whole


def part(ref: str, *apart: str, closes: bool = False, ended: float = 1030.0, **fields: Any) -> Part:
    attempt = Attempt(app="click-dial", call_dir="outbound", call_ref=ref, session_ref="held", **fields)
    attempt.dialled(1000.0)
    attempt.end("answered", 16, "agent", ended)
    assert attempt.record is not None
    return Part(ref, session_record(attempt.record, recorded=True), closes, list(apart))


HELD = part("held", "asked", "again", closes=True, a_seconds=20.0, b_seconds=18.5)
ASKED, AGAIN = part("asked", b_seconds=4.25), part("again", b_seconds=2.5, ended=1040.0)


def test_session_parts_add_up_to_the_closing_entry() -> None:
    closing = whole([ASKED, HELD, AGAIN])
    assert closing is not None
    assert (closing.session_ref, closing.calls, closing.ended_at) == ("held", 3, 1040.0)
    assert (closing.a_seconds, closing.a_rest_seconds, closing.b_seconds) == (20.0, 0.0, 25.25)


@pytest.mark.parametrize("parts", [[], [HELD], [ASKED, AGAIN], [ASKED, HELD]])
def test_session_parts_make_no_entry_before_all_are_there(parts: list[Part]) -> None:
    assert whole(parts) is None


def test_session_parts_name_further_parts() -> None:
    last, middle = part("third", "second", closes=True), part("second", "held")
    assert whole([last, middle]) is None
    closing = whole([last, middle, part("held", "third")])
    assert closing is not None
    assert closing.calls == 3


def test_session_parts_count_a_call_once() -> None:
    closing = whole([ASKED, ASKED, HELD, AGAIN, HELD])
    assert closing is not None
    assert closing.calls == 3


def test_session_parts_without_a_placed_leg_have_no_a_seconds() -> None:
    closing = whole([part("held", "asked", closes=True, b_seconds=1.0), ASKED])
    assert closing is not None
    assert (closing.a_seconds, closing.a_rest_seconds, closing.b_seconds) == (None, None, 5.25)
