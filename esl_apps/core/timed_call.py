"""Calls that a node places later, as their applications see them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TimedCall:
    """A call that is due, and that this node has taken to place it."""

    id: str
    """The same at every attempt, on whatever node."""
    number: str
    """The number to call (E.164 digits, or an extension), or another text by which it is known."""
    data: tuple[str, ...]
    """The application's own data."""
    attempt: int
    """1 at the first; an attempt that a dead node had begun counts."""
    claim: str
    """Proves to Redis that this node still has the call."""
    owner: str = ""
    """The account against whose calls that wait it counts; empty: none."""
    dropped: bool = False
    """It isn't to be placed any more, only ended."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A call that is to be placed later, for people to see."""

    number: str
    """As :class:`TimedCall`'s."""
    due_at: float
    """Unix seconds; of one that is being placed, when its node's claim ends."""
    owner: str
    data: tuple[str, ...]
    placing: bool
    """A node is placing it: too late to drop it."""


@dataclass(frozen=True, slots=True)
class Frequency:
    """How often a number may be called."""

    cool_down: float = 0.0
    """Seconds from the end of one call to the next."""
    per_day: int = 1_000_000
    """Calls a day (UTC); retries are part of one call."""
    unused_per_day: int | None = None
    """Calls a day that were of no use (``Host.used`` wasn't called): after these, one an hour. Only used calls count
    against ``per_day`` then. None: every call does."""


#: Reasons why a call isn't scheduled.
PENDING, LATE = "pending", "late"


@dataclass(frozen=True, slots=True)
class Scheduled:
    """Whether a call was scheduled; also as a bool."""

    refused: str | None = None
    """Why not: ``pending`` (the number has one), ``cool_down``, ``per_day``, ``too_many`` (its owner has as many as it
    may), ``late`` (the request was given up meanwhile); None if it was."""
    at: float = 0.0
    """When it was late, by the clock of the Redis that has the calls."""

    def __bool__(self) -> bool:
        return self.refused is None
