"""Calls that this process had and has no more: Redis may have them again, as this process's.

Redis loses its latest writes when it is killed, or when a replica that lags becomes the master. And it may have done a
write whose answer was lost. Other nodes take such a call for one that is up, as long as this process lives, and don't
call its numbers back.

Only calls that are known to be gone are removed. That a call isn't among the live ones says little: this process may be
just taking it over, or its caller is back and hasn't chosen a number yet.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from esl_apps.store.connection import Command
from esl_apps.store.redis_client import Client

log = logging.getLogger(__name__)

#: Calls to remember: twice as many as those whose end may wait to be written (``write_behind.MOST``). 4 MB.
MOST = 20_000
#: The latest ends whose statuses are kept, each some 2 KB: what Redis loses in some seconds.
ENDS = 1000


class End(NamedTuple):
    ref: str
    list: str
    """The list in which the call is."""
    status: Command
    """Writes it as ended."""


class GoneCalls:
    def __init__(self, client: Client, key: str) -> None:
        """``key``: this process's live calls."""
        self._client = client
        self._key = key
        self._refs: dict[str, None] = {}
        self._ends: dict[str, End] = {}

    def add(self, ref: str) -> None:
        self._refs[ref] = None
        if len(self._refs) > MOST:
            self.discard(next(iter(self._refs)))

    def ended(self, end: End) -> None:
        self.add(end.ref)
        self._ends[end.ref] = end
        if len(self._ends) > ENDS:
            del self._ends[next(iter(self._ends))]

    def discard(self, ref: str) -> None:
        """This process has the call after all, or is about to take it over."""
        self._refs.pop(ref, None)
        self._ends.pop(ref, None)

    def remove(self, is_written: Callable[[str], bool]) -> list[End]:
        """Remove from Redis what it has again; return those ends of them that are kept.

        ``is_written``: whether no write about a call waits. :raises StoreUnavailable: Redis is down.
        """
        if not self._refs:
            return []
        names = [raw.decode("utf-8", "replace") for raw in self._client.hkeys(self._key)]
        again = [ref for ref in names if ref in self._refs and is_written(ref)]
        # Fewer: an end was on its way.
        if again and self._client.hdel(self._key, *again):
            log.warning("ended_calls_removed", extra={"calls": len(again)})
        return [self._ends[ref] for ref in again if ref in self._ends]
