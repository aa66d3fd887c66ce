"""The comparison of what a receiver took with the records: each disagreement is found."""

from __future__ import annotations

import pytest

from tests.chaos.accounts import DOUBLED, MISSING, WRONG
from tests.chaos.receiver import Taken, compare


def taken(*seqs: int) -> list[Taken]:
    return [Taken(f"cdr_{seq}", ("cdr", str(seq)), seq, 100.0) for seq in seqs]


def kinds(seqs: tuple[int, ...], refs: str, *, lost: bool = False) -> list[str]:
    keys = {("cdr", ref) for ref in refs}
    return [finding.kind for finding in compare(taken(*seqs), keys, keys, [], lambda _at: lost)]


@pytest.mark.parametrize("seqs", [(1, 2, 3), (1, 2, 2, 3), (1, 2, 1, 2, 3)])
def test_receiver_that_took_all_in_order_agrees(seqs: tuple[int, ...]) -> None:
    assert kinds(seqs, "123") == []


def test_receiver_disagreements_are_found() -> None:
    assert kinds((1, 3), "123") == [MISSING]
    assert kinds((2, 1, 3), "123") == [WRONG]
    assert kinds((2, 1, 3), "123", lost=True) == []
    assert kinds((1, 2, 3, 4), "123") == [WRONG]
    # A call's session is another notification than its record.
    keys = {("cdr", "1"), ("session", "1")}
    other = Taken("cdr_x", ("cdr", "1"), 1, 100.0)
    found = compare([*taken(1), other], keys, keys, ["bad"], lambda _at: False)
    assert [finding.kind for finding in found] == [WRONG, DOUBLED, MISSING]
