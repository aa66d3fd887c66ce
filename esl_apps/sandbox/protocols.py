"""What the parts of the sandbox need of each other: a leg, its far end, its switch and its event socket.

They stand between `leg.channel` and what a channel is made of, so that imports point one way: a recording, a route or a
CDR knows a `Leg`, and only what dials or runs legs knows the `Channel` itself.
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
    """The far end of a channel: what the switch can tell it. Nothing in here blocks."""

    kind: str
    """``sofia`` or ``loopback``: the ``originate_endpoint``."""

    def ring(self) -> None:
        """Tell a caller that the callee rings (180)."""

    def progress(self) -> None:
        """Give a caller early media (183)."""

    def answer(self) -> None:
        """Answer a caller (200)."""

    def respond(self, status: int, reason: str) -> None:
        """Refuse a caller with this very response."""

    def hangup(self, cause: str) -> None:
        """End the call: BYE, CANCEL or a refusal, and the variables that say which."""

    def digit(self, digit: str) -> None:
        """Play a digit to the far end."""

    def hold(self, on: bool) -> None:
        """Put the far end on hold, or take it off."""


class Door(Protocol):
    """The event-socket connection that controls a leg."""

    def take_diverted(self) -> None:
        """Events for this session alone are there."""

    def channel_down(self) -> None:
        """The controlled channel hung up."""

    def cut(self) -> None:
        """Drop the connection without a goodbye."""


class Board(Protocol):
    """The switch, as far as one of its legs needs it."""

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
        """Sessions are counted from one."""

    def make_uuid(self) -> str:
        """A random UUID."""

    def locate(self, uuid: str) -> Leg | None:
        """A leg that is up."""

    def api_text(self, command: str, argument: str) -> str:
        """What an API command answers, without the line's end."""

    def is_quick(self, app: str) -> bool:
        """Whether an application never waits."""

    def report(self, where: str, error: BaseException) -> None:
        """A fault of the sandbox itself."""

    def tones_from(self, leg: Leg) -> Tones:
        """The frequencies that a leg's far end sends."""

    def directory_has(self, user: str) -> bool:
        """Whether a number is a user's."""


class Leg(Source, Protocol):
    """One leg of a call, as its recordings, bindings, routes and reports see it."""

    direction: str
    profile: CallerProfile
    endpoint: Endpoint
    other: tuple[str, CallerProfile] | None
    hold_record: list[list[int]]
    applications: list[Executed]

    @property
    def switch(self) -> Board:
        """The switch that it belongs to."""

    @property
    def state(self) -> State:
        """What it is to do."""

    @property
    def down(self) -> bool:
        """Hung up, though perhaps not yet gone."""

    @property
    def partner(self) -> Leg | None:
        """The leg that this one is bridged with."""

    @property
    def machine(self) -> object:
        """What matches its digits."""

    def set(self, name: str, value: str | None) -> None:
        """Set a variable; None removes it."""

    def true(self, name: str) -> bool:
        """Whether a variable says yes."""

    def variables(self) -> list[tuple[str, str]]:
        """All variables in order."""

    def lookup(self, name: str) -> str | None:
        """A variable as ``${name}`` finds it."""

    def expand(self, value: str) -> str:
        """``${…}`` in an argument."""

    def fire(self, name: str, before: Iterable[tuple[str, str]] = (), after: Iterable[tuple[str, str]] = ()) -> None:
        """Fire an event of this leg."""

    def queue_event(self, event: Event) -> None:
        """An event for this session alone."""

    def queue_command(self, command: Command) -> None:
        """Have a command run by the leg."""

    def run_inline(self, value: str) -> None:
        """Run ``app data``, at once if it cannot wait."""

    def accept_digit(self, digit: str, duration: int = 2000, source: str = "RTP") -> None:
        """A digit that no bound action took."""

    def stop_playing(self, *, flush: bool = False) -> None:
        """End what plays."""

    def drop_recording(self, recording: object) -> None:
        """A recording has stopped."""

    def tones(self) -> Tones:
        """The frequencies that reach its far end."""

    def at(self, seconds: float, function: Callable[..., object], *args: Any) -> Handle:
        """Call later, unless the leg has ended."""
