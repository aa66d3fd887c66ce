"""Log once that a key is of another type or holds garbage: a person has to mend it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

log = logging.getLogger(__name__)

#: The most uses of keys of which it is remembered that they were logged.
_MOST = 1000
#: Keys that the log names.
_NAMED = 4

_said: set[str] = set()


def say(use: str, error: Exception, keys: Sequence[str]) -> None:
    """``use``: what failed. ``keys``: one of them is unreadable."""
    if use not in _said and len(_said) < _MOST:
        _said.add(use)
        log.error("key_unreadable", extra={"key": " ".join(keys[:_NAMED]), "reason": str(error)})


def are_known() -> bool:
    """Whether any key is unreadable, as far as this process has seen."""
    return bool(_said)


def mended(use: str) -> None:
    """Note that it has not failed this time: the next failure is logged again."""
    _said.discard(use)
