"""Protocols of a leg, its far end, its switch and its event socket, as other parts of the sandbox need them.

They keep imports pointing one way: a recording, a route or a CDR knows a `Leg`; only code that dials or runs legs knows
the `Channel` itself, which is made of such parts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from esl_apps.sandbox.leg.profile import CallerProfile
from esl_apps.sandbox.leg.state import Executed, State, Tones
from esl_apps.sandbox.run.scheduler import Scheduler
from esl_apps.sandbox.run.sleeper import Handle
from esl_apps.sandbox.wire.events import Bus, Event, Source
from esl_apps.sandbox.wire.wire import Command


class Endpoint(Protocol):
    """The far end of a channel, as the switch controls it. No method blocks."""

    kind: str
    """``sofia`` or ``loopback``: the ``originate_endpoint``."""

    def ring(self) -> None:
        """Tell a caller that the callee rings (180)."""

    def progress(self) -> None:
        """Give a caller early media (183)."""

    def answer(self) -> None:
        """Answer a caller (200)."""

    def respond(self, status: int, reason: str) -> None:
        """Refuse a caller with this response."""

    def hangup(self, cause: str) -> None:
        """End the call by a BYE, a CANCEL or a refusal, and set the variables that say which."""

    def digit(self, digit: str) -> None:
        """Play a digit to the far end."""

    def hold(self, on: bool) -> None:
        """Put the far end on hold, or take it off."""

    def referred(self, status: int) -> None:
        """Tell the far end how its REFER ended (NOTIFY)."""


class Door(Protocol):
    """The event-socket connection that controls a leg."""

    def take_diverted(self) -> None:
        """Note that events for this session only are queued."""

    def channel_down(self) -> None:
        """Note that the controlled channel hung up."""

    def cut(self) -> None:
        """Drop the connection without a goodbye."""


class Board(Protocol):
    """The switch, as seen by one of its legs."""

    tick: float
    domain: str
    globals: dict[str, str]
    recordings: Path | None
    log: logging.Logger
    bus: Bus
    scheduler: Scheduler

    @property
    def channels(self) -> Mapping[str, Leg]:
        """All legs by UUID."""

    def next_session_id(self) -> int:
        """Return the number of a new session, counted from one."""

    def make_uuid(self) -> str:
        """Return a random UUID."""

    def locate(self, uuid: str) -> Leg | None:
        """Find a leg that is up."""

    def api_text(self, command: str, argument: str) -> str:
        """Return an API command's output without the final newline."""

    def is_quick(self, app: str) -> bool:
        """Whether an application never waits."""

    def report(self, where: str, error: BaseException) -> None:
        """Log a fault of the sandbox itself."""

    def tones_from(self, leg: Leg) -> Tones:
        """Return the frequencies that a leg's far end sends."""

    def directory_has(self, user: str) -> bool:
        """Whether the directory has a user of this number."""


class Leg(Source, Protocol):
    """One leg of a call, as seen by its recordings, bindings, routes and reports."""

    direction: str
    profile: CallerProfile
    endpoint: Endpoint
    other: tuple[str, CallerProfile] | None
    hold_record: list[list[int]]
    muted: bool
    applications: list[Executed]

    @property
    def switch(self) -> Board:
        """The switch that it belongs to."""

    @property
    def state(self) -> State:
        """Its state."""

    @property
    def down(self) -> bool:
        """It has hung up, though it may still exist."""

    @property
    def partner(self) -> Leg | None:
        """The leg that this one is bridged with."""

    @property
    def machine(self) -> object:
        """Its digit bindings."""

    def set(self, name: str, value: str | None) -> None:
        """Set a variable; None removes it."""

    def true(self, name: str) -> bool:
        """Whether a variable is true."""

    def variables(self) -> list[tuple[str, str]]:
        """Return all variables in order."""

    def lookup(self, name: str) -> str | None:
        """Return a variable as ``${name}`` finds it."""

    def expand(self, value: str) -> str:
        """Expand ``${…}`` in an argument."""

    def fire(self, name: str, before: Iterable[tuple[str, str]] = (), after: Iterable[tuple[str, str]] = ()) -> None:
        """Fire an event of this leg."""

    def queue_event(self, event: Event) -> None:
        """Queue an event for this session only."""

    def queue_command(self, command: Command) -> None:
        """Queue a command for the leg."""

    def run_inline(self, value: str) -> None:
        """Run ``app data``, at once if it can't block."""

    def accept_digit(self, digit: str, duration: int = 2000, source: str = "RTP") -> None:
        """Take a digit that no binding took."""

    def stop_playing(self, *, flush: bool = False) -> None:
        """Stop what plays."""

    def drop_recording(self, recording: object) -> None:
        """Drop a recording that has stopped."""

    def tones(self) -> Tones:
        """Return the frequencies that reach its far end."""

    def at(self, seconds: float, function: Callable[..., object], *args: Any) -> Handle:
        """Call later, unless the leg has ended."""
