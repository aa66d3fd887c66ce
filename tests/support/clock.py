"""A clock that tests set."""

from __future__ import annotations


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0
        """Seconds."""

    def __call__(self) -> float:
        return self.now
