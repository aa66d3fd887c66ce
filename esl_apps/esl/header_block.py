"""Headers that FreeSWITCH always writes together."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence


class HeaderBlock:
    """Consecutive headers of an event, of which some are wanted.

    If they are in the order in which FreeSWITCH 1.11 writes them, one expression reads them all, in a quarter of the
    time that it takes to search for each.
    """

    def __init__(self, names: Sequence[bytes], wanted: Sequence[bytes], longest: int) -> None:
        """``names``: of all headers, in order; ``wanted``: of those to read. ``longest``: bytes that the block takes at
        most, if another version writes more into it."""
        self.first = b"\n%b: " % names[0]
        self._keys = [b"\n%b: " % name for name in names if name in wanted]
        lines = [b"\n%b: ([^\n]*)" % name if name in wanted else b"\n[^\n]*" for name in names]
        self._match: Callable[[bytes, int], re.Match[bytes] | None] = re.compile(b"".join(lines)).match
        self._longest = longest

    def read(self, lines: bytes, start: int) -> Sequence[bytes | None]:
        """Return the values of the wanted headers, in the block's order; None if one is absent.

        ``start``: of the block, where :attr:`first` is; -1 if that is absent.
        """
        if start < 0:
            return [_value(lines, key) for key in self._keys]
        match = self._match(lines, start)
        if match is not None:
            return match.groups()
        block = lines[start : start + self._longest]
        return [_value(block, key) for key in self._keys]


def _value(lines: bytes, key: bytes) -> bytes | None:
    start = lines.find(key)
    if start < 0:
        return None
    start += len(key)
    stop = lines.find(b"\n", start)
    return lines[start:] if stop < 0 else lines[start:stop]
