"""Headers that are written together are read at once, or one by one if the switch writes them in another way."""

from __future__ import annotations

import pytest

from esl_apps.esl.header_block import HeaderBlock

NAMES = (b"Created", b"Answered", b"Hangup", b"Hold")
BLOCK = HeaderBlock(b"A-", NAMES, (b"Created", b"Hangup"), 100)
BEFORE, AFTER = b"\nUnique-ID: x", b"\nPrivacy: no\n\n"


@pytest.mark.parametrize(
    ("block", "values"),
    [
        (b"\nA-Created: 1\nA-Answered: 2\nA-Hangup: 3\nA-Hold: 4", [b"1", b"3"]),
        (b"\nA-Created: 1\nA-Answered: 2\nA-Transferred: 9\nA-Hangup: 3\nA-Hold: 4", [b"1", b"3"]),
        (b"\nA-Created: 1\nA-Hold: 4\nA-Hangup: 3\nA-Answered: 2", [b"1", b"3"]),
        (b"\nA-Created: 1\nA-Hangup: \nA-Hold: 4", [b"1", b""]),
        (b"\nA-Created: 1\nA-Answered: 2", [b"1", b""]),
        (b"\nA-Answered: 2\nA-Hangup: 3", [b"", b"3"]),
        (b"", [b"", b""]),
    ],
    ids=["as 1.11 writes it", "one more", "in another order", "an empty one", "cut off", "without the first", "none"],
)
def test_block_has_its_values_in_any_order(block: bytes, values: list[bytes]) -> None:
    lines = BEFORE + block + AFTER
    assert list(BLOCK.read(lines, lines.find(BLOCK.first))) == values


def test_block_ends_where_the_event_ends() -> None:
    assert list(BLOCK.read(b"\nA-Created: 1\nA-Answered: 2\nA-Hangup: 3", 0)) == [b"1", b"3"]


def test_header_far_behind_the_block_is_not_of_it() -> None:
    lines = b"\nA-Created: 1" + b"\nvariable_x: y" * 20 + b"\nA-Hangup: 3\n\n"
    assert list(BLOCK.read(lines, 0)) == [b"1", b""]
