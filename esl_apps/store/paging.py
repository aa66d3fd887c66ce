"""Bound the bytes that are read for a client at a time. Clients choose what their calls carry, up to 50 KB each, and
hundreds of them may ask at once, or not read what they get."""

from __future__ import annotations

from collections.abc import Sequence, Sized

#: Bytes of a page: the client gets the rest with the next one.
PAGE_BYTES = 1 << 20
#: Bytes of one read, if its entries are as large as those of the read before.
_READ_BYTES = 1 << 19


class ReadCount:
    """How many entries to read at a time: few at first, then as many as their size allows."""

    def __init__(self, first: int, most: int) -> None:
        self.count = min(first, most)
        self._most = most

    def learn(self, entries: Sequence[Sized]) -> None:
        """Learn from a read how large entries are."""
        size = sum(map(len, entries))
        fit = _READ_BYTES * len(entries) // size if size else self._most
        self.count = max(1, min(self._most, 4 * self.count, fit))
