"""Remember the fields of ended calls by which lists are filtered, so that a list needn't read and decode them again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

#: Calls to remember: those that some clients' lists look through. Each takes 400 bytes.
MOST = 10_000
#: Seconds until a call is read again. An ended call doesn't change, unless the node that ended it was wrong.
TRUSTED = 10.0
_ENDED = "ended"
_FIELDS = ("state", "agent", "contact_ref")


class EndedCalls:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: By reference: when to read it again, and the values of ``_FIELDS``.
        self._calls: dict[str, tuple[float, dict[str, Any]]] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def excludes(self, ref: str, wanted: Mapping[str, str]) -> bool:
        """Whether a call is known not to have these values."""
        known = self._calls.get(ref)
        if known is None:
            return False
        until, fields = known
        if until <= self._clock():
            del self._calls[ref]
            return False
        return any(field in fields and fields[field] != text for field, text in wanted.items())

    def remember(self, call: Mapping[str, Any]) -> None:
        """Note a call that was read, if it has ended."""
        if call["state"] != _ENDED:
            return
        fields = {field: call.get(field) for field in _FIELDS}
        self._calls[call["call_ref"]] = self._clock() + TRUSTED, fields
        if len(self._calls) > MOST:
            del self._calls[next(iter(self._calls))]
