"""Remember what ended calls are filtered by, so that a list needn't read and decode them again."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from esl_apps.core.status import METADATA, values_by

#: Calls to remember: those that some clients' lists look through. Each takes 400 bytes.
MOST = 10_000
#: Seconds until a call is read again. An ended call doesn't change, unless the node that ended it was wrong.
TRUSTED = 10.0
_ENDED = "ended"
#: The fields of filters, besides those of the metadata.
_FIELDS = ("state", "agent", "contact_ref", "app", "callee", "session_ref", "switch")


class EndedCalls:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: By reference: when to read it again, and the hashes of its fields with their values.
        self._calls: dict[str, tuple[float, array[int]]] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def excludes(self, ref: str, wanted: Mapping[str, str]) -> bool:
        """Whether a call is known not to have these values."""
        known = self._calls.get(ref)
        if known is None:
            return False
        until, hashes = known
        if until <= self._clock():
            del self._calls[ref]
            return False
        return any(hash(pair) not in hashes for pair in wanted.items() if _is_remembered(pair[0]))

    def remember(self, call: Mapping[str, Any]) -> None:
        """Note a call that was read, if it has ended."""
        if call["state"] != _ENDED:
            return
        self._calls[call["call_ref"]] = self._clock() + TRUSTED, array("q", map(hash, _pairs(call)))
        if len(self._calls) > MOST:
            del self._calls[next(iter(self._calls))]


def _is_remembered(field: str) -> bool:
    return field in _FIELDS or field.startswith(METADATA)


def _pairs(call: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for field in _FIELDS:
        for value in values_by(field, call):
            if isinstance(value, str):
                yield field, value
    for name, value in (call.get("metadata") or {}).items():
        if isinstance(value, str):
            yield METADATA + name, value
