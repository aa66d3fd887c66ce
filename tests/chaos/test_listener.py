"""The comparison of events and history with the records: each disagreement is found."""

from __future__ import annotations

import pytest

from tests.chaos.accounts import DOUBLED, MISSING, WRONG
from tests.chaos.listener import Heard, compare, compare_history

QUEUED, ENDED, RECORD = ("call", "queued"), ("call", "ended"), ("record", "ended")


def kinds(*events: tuple[tuple[str, str], int], due: str = "a", recorded: str = "a", lost: bool = False) -> list[str]:
    heard = [Heard((id, 0), kind, "a", state, 100.0) for (kind, state), id in events]
    return [finding.kind for finding in compare(heard, set(due), set(recorded), [], lambda _at: lost)]


def test_listener_that_heard_all_in_order_agrees() -> None:
    assert kinds((QUEUED, 1), (("inbound", "bridged"), 2), (ENDED, 3), (RECORD, 4)) == []


@pytest.mark.parametrize(
    ("events", "found"),
    [
        ([(QUEUED, 1), (ENDED, 2)], [MISSING]),
        ([(QUEUED, 1), (ENDED, 2), (ENDED, 3), (RECORD, 4)], [DOUBLED]),
        ([(ENDED, 1), (QUEUED, 2), (RECORD, 3)], [DOUBLED]),
        ([(QUEUED, 1), (ENDED, 2), (RECORD, 2)], [DOUBLED]),
    ],
)
def test_listener_disagreements_are_found(events: list[tuple[tuple[str, str], int]], found: list[str]) -> None:
    assert kinds(*events) == found


def test_listener_repetition_after_a_lost_redis_is_expected() -> None:
    assert kinds((QUEUED, 1), (ENDED, 2), (ENDED, 1), (RECORD, 2), lost=True) == []


def test_listener_that_heard_of_an_unknown_record_or_a_gap() -> None:
    assert kinds((RECORD, 1), due="", recorded="") == [WRONG]
    assert [finding.kind for finding in compare([], set(), set(), [("a gap", 1.0)], lambda _at: False)] == [WRONG]


def test_history_disagreements_are_found() -> None:
    assert compare_history(["a", "b"], {"a"}, {"a", "b"}) == []
    found = compare_history(["a", "a", "c"], {"a", "b"}, {"a", "b"})
    assert [finding.kind for finding in found] == [DOUBLED, MISSING, WRONG]
