"""Headers that FreeSWITCH always writes together."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence


class HeaderBlock:
    """Consecutive headers of an event, of which some are wanted.

    If they are in the order in which FreeSWITCH 1.11 writes them, one expression reads them all, in a quarter of the
    time that it takes to search for each.
    """

    def __init__(self, prefix: bytes, names: Sequence[bytes], wanted: Sequence[bytes], longest: int) -> None:
        """``names``: of all headers, in order, without their common ``prefix``; ``wanted``: of those to read.
        ``longest``: bytes that the block takes at most, if another version writes more into it."""
        self.first = b"\n%b%b: " % (prefix, names[0])
        self._keys = [b"\n%b%b: " % (prefix, name) for name in names if name in wanted]
        lines = [b"\n%b%b: ([^\n]*)" % (prefix, name) if name in wanted else b"\n[^\n]*" for name in names]
        self._match: Callable[[bytes, int], re.Match[bytes] | None] = re.compile(b"".join(lines)).match
        self._longest = longest

    def read(self, lines: bytes, start: int) -> Sequence[bytes]:
        """Return the values of the wanted headers, in the block's order; empty if one is absent.

        ``start``: of the block, where :attr:`first` is; -1 if that is absent.
        """
        if start < 0:
            return [value_at(lines, lines.find(key), key) for key in self._keys]
        match = self._match(lines, start)
        if match is not None:
            return match.groups()
        block = lines[start : start + self._longest]
        return [value_at(block, block.find(key), key) for key in self._keys]


def value_at(lines: bytes, start: int, key: bytes) -> bytes:
    """Return the value of a header that begins at this offset; empty if there is none, and the offset is -1."""
    if start < 0:
        return b""
    start += len(key)
    stop = lines.find(b"\n", start)
    return lines[start:] if stop < 0 else lines[start:stop]
