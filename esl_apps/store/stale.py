"""Answers to fall back on while Redis is down."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store.errors import Fault, Unreadable

#: Answers that are kept (``redis.stale_cards``).
_STALE_MOST = 10000

T = TypeVar("T")


class Stale:
    """The last answers of Redis, used for ``redis.stale_cards`` seconds while it is down. Bounded in number."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._kept: dict[str, tuple[float, Any]] = {}

    def ask(self, key: str, ask: Callable[[], T]) -> T:
        """Ask Redis, or fall back on its last answer. :raises StoreUnavailable: Redis is down, and that is too old."""
        try:
            found = ask()
        except (Fault, Unreadable):
            # Redis answers, but has something else there, which must not allow anything.
            self._kept.pop(key, None)
            raise
        except StoreUnavailable:
            at, kept = self._kept.get(key, (-math.inf, None))
            if self._clock() - at > self.seconds:
                raise
            return cast(T, kept)
        if found is None:
            # It was deleted, so it must not allow anything from now on.
            self._kept.pop(key, None)
        else:
            self.keep(key, found)
        return found

    def keep(self, key: str, found: Any) -> None:
        if self.seconds:
            self._kept.pop(key, None)
            self._kept[key] = self._clock(), found
            if len(self._kept) > _STALE_MOST:
                del self._kept[next(iter(self._kept))]
