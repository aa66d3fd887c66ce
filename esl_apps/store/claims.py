"""Which process does what is asked of a call, if two have it: one that was stopped and is back, and its heir."""

from __future__ import annotations

from contextlib import suppress

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store import keys
from esl_apps.store.redis_client import Client

#: Seconds for which a claim holds: longer than a switch takes to tell all nodes of one event.
KEEP = 60


class Claims:
    def __init__(self, client: Client) -> None:
        self._client = client

    def take(self, asked: str) -> bool:
        """Claim what was asked, by an id that is the same for all processes. False: another one does it. If Redis can't
        say, each does."""
        return self._is_first(asked, unknown=True)

    def withdraw(self, asked: str) -> bool:
        """Have no process do any more what was asked. False: one may do it already."""
        return self._is_first(asked, unknown=False)

    def _is_first(self, asked: str, *, unknown: bool) -> bool:
        key = keys.claims(asked)
        with suppress(StoreUnavailable):
            count, _ = self._client.send_all([("INCR", key), ("EXPIRE", key, KEEP)])
            return bool(count == 1)
        return unknown
