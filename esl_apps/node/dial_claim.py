"""The claim by which a call is this process's to dial. If the process is silent, others take the call over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from esl_apps.core.unavailable import StoreUnavailable


@dataclass(frozen=True, slots=True)
class DialClaim:
    """This process's claim on one call: without it, nothing more is dialled."""

    sure: Callable[[], bool]
    """Return whether no other process can have taken it over yet, as this one has not been silent."""
    still: Callable[[], bool]
    """Ask Redis whether it is still this process's. :raises StoreUnavailable: Redis is down."""

    def is_lost(self) -> bool:
        """Return whether another process may have it: this one was stopped, or away from Redis."""
        if self.sure():
            return False
        try:
            return not self.still()
        except StoreUnavailable:
            return True
