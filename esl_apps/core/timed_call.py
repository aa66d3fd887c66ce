"""Calls that a node places later, as their applications see them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TimedCall:
    """A call that is due, and that this node has taken to place it."""

    id: str
    """The same at every attempt, on whatever node."""
    number: str
    """The number to call: E.164 digits, or an extension."""
    data: tuple[str, ...]
    """The application's own data."""
    attempt: int
    """1 at the first; an attempt that a dead node had begun counts."""
    claim: str
    """Proves to Redis that this node still has the call."""


@dataclass(frozen=True, slots=True)
class Frequency:
    """How often a number may be called."""

    cool_down: float = 0.0
    """Seconds from the end of one call to the next."""
    per_day: int = 1_000_000
    """Calls a day (UTC); retries are part of one call."""


@dataclass(frozen=True, slots=True)
class Scheduled:
    """Whether a call was scheduled; also as a bool."""

    refused: str | None = None
    """Why not: ``pending`` (the number has one), ``cool_down``, ``per_day``; None if it was."""

    def __bool__(self) -> bool:
        return self.refused is None
