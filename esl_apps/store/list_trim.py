"""Drop the calls of more than a day ago from the lists of calls."""

from __future__ import annotations

from collections.abc import Callable

from esl_apps.store.connection import Command

#: Seconds for which an ended call can be read.
KEEP = 86400
#: Seconds between two looks for calls of more than a day ago.
TRIM_EVERY = 60.0


class ListTrim:
    def __init__(self, now: Callable[[], float | None]) -> None:
        """``now``: Redis's time, as a node whose clock is ahead would drop all calls; None if it isn't known yet."""
        self._now = now
        self._trimmed: dict[str, float] = {}
        """When each list was trimmed last."""

    def due(self, key: str) -> Command | None:
        """The command that trims a list, once a minute."""
        now = self._now()
        if now is None or now - TRIM_EVERY < self._trimmed.get(key, 0.0) <= now:
            return None
        self._trimmed[key] = now
        # References sort by time, so these are a range of names.
        oldest = f"{int((now - KEEP) * 1000):012x}"
        return "ZREMRANGEBYLEX", key, "-", f"({oldest[:8]}-{oldest[8:]}"
