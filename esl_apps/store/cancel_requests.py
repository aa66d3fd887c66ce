"""Cancels of calls by nodes that don't reach the calls' switches. Every process reads them with each beat."""

from __future__ import annotations

from esl_apps.store import keys
from esl_apps.store.redis_client import Client

#: Requests that are kept, and that are read at a time. A process reads within about a second; one that was stopped for
#: longer looks at its calls instead.
_KEPT = 1000


class CancelRequests:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._read = "0-0"

    def add(self, ref: str) -> None:
        """:raises StoreUnavailable: Redis is down."""
        self._client.send_all([("XADD", keys.CANCELS, "MAXLEN", "~", _KEPT, "*", "ref", ref)])

    def new(self) -> list[str]:
        """The references of the calls to cancel that this process hasn't read yet. :raises StoreUnavailable: Redis is
        down."""
        (found,) = self._client.send_all([("XRANGE", keys.CANCELS, f"({self._read}", "+", "COUNT", _KEPT)])
        refs = []
        for id, fields in found or ():
            self._read = id.decode()
            # redis-py makes a mapping of it.
            refs.append((fields[b"ref"] if isinstance(fields, dict) else fields[1]).decode())
        return refs
