"""An entry of the registry: everything that the rest of esl_apps needs to know about an application."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from esl_apps.apps.context import AppPolicy, Arrival, Host, Placed, Restored
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import API_VERSION, Call, Leg
from esl_apps.core.terms import CALLEE
from esl_apps.core.timed_call import TimedCall

_NAME = re.compile(r"[A-Za-z0-9._-]{1,32}")

Arrive = Callable[[Call, Arrival, AppPolicy, Host], None]
Restore = Callable[[Attempt, Call, AppPolicy], Restored | None]
Due = Callable[[TimedCall, AppPolicy], Placed | str]
RetryIn = Callable[[Attempt, TimedCall, AppPolicy], float | None]
Joined = Callable[[Attempt, float, Leg, Callable[[Attempt, str, int], None]], None]


class Extension(NamedTuple):
    """An extension of the dialplan: these numbers reach this path."""

    path: Sequence[str]
    """Its parts, each of letters, digits and ``._-``."""
    numbers: Sequence[object]
    """As the configuration has them: the dialplan's generator reads and checks them."""
    key: str
    """Where the configuration has the numbers, for errors."""
    about: str = ""
    """Added to the extension's name if one path has several extensions."""


def _no_retry(_attempt: Attempt, _timed: TimedCall, _policy: AppPolicy) -> float | None:
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Timed:
    """An application that calls back later."""

    due: Due
    """A call is due: the call to place, or why it is dropped."""
    store: str
    """The name of its store in Redis."""
    retry_in: RetryIn = field(default=_no_retry)
    """Seconds until the next try after one that has ended; None: no more."""
    unplaced: Callable[[TimedCall, AppPolicy], Attempt] | None = None
    """The attempt of a call that isn't placed, which ends as rejected, or as cancelled if it was dropped. None: it has
    no record."""
    exclusive: bool = True
    """A call to a number that is in a call is dropped: it would ring a second phone of the same person."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Application:
    ref: str
    """Its name in records, metrics and logs."""
    path: str
    """The first part of its path on the event socket."""
    api: int = API_VERSION[0]
    """The major version of the interface that it was written for."""
    title: str
    """One line for people: what its callers get."""
    arrive: Arrive | None = None
    """Serves a caller whom the dialplan sends to ``path``. None: the dialplan sends none."""
    restore: Restore | None = None
    """Reads a call whose A-leg another process rang; None if what it needs is gone. An application has this if nodes
    ring its A-legs: then a leg that answered and that no node takes is hung up, and another node goes on with the
    call."""
    timed: Timed | None = None
    extensions: Callable[[Mapping[str, Any]], Iterable[Extension]] | None = None
    """The dialplan's extensions, from the whole configuration as plain data. An application with ``arrive`` has this or
    ``headers``."""
    headers: Sequence[str] = ()
    """SIP headers with which registered phones reach it, whatever number they dial."""
    settings: type[msgspec.Struct] | None = None
    """The type of its own section of the configuration, ``applications.REF``. Without the section it is switched
    off."""
    refuses: bool = False
    """Its callers are refused unanswered, so that only their hang-up needs to be heard."""
    session: bool = False
    """One caller dials several numbers, each with a record of its own."""
    recorded: bool = False
    """The talk is recorded if its integrator asks for that."""
    holds: bool = False
    """``hold_time`` also counts the hold by the agent's phone."""
    second_party: str = CALLEE
    """The party on the B-leg: ``callee``, or ``agent`` if the caller rang the agents."""
    joined: Joined | None = None
    """Notes that B has answered, at this time on this leg, and announces it."""
    fared: Callable[[Attempt, Sequence[Leg]], None] | None = None
    """Notes how each of its B-legs ended, just before its attempt ends."""

    def check(self) -> None:
        """:raises ValueError: a part is missing or malformed; the message names it."""
        for name, value in (("ref", self.ref), ("path", self.path)):
            if not _NAME.fullmatch(value):
                raise ValueError(f"{name}: expected letters, digits and ._-, not {value!r}")
        if self.api != API_VERSION[0]:
            raise ValueError(f"api: written for version {self.api}, this esl_apps has {API_VERSION[0]}")
        if not self.title:
            raise ValueError("title: expected a line for people")
        if self.arrive is None and self.restore is None:
            raise ValueError("arrive: neither the dialplan nor a node starts its calls; it needs arrive or restore")
        if self.arrive is not None and self.extensions is None and not self.headers:
            raise ValueError("extensions: the dialplan sends it callers, so it needs extensions or headers")
        if self.timed is not None and self.restore is None:
            raise ValueError("restore: a node that goes on with a timed call needs it")
        if self.timed is not None and not _NAME.fullmatch(self.timed.store):
            raise ValueError(f"timed.store: expected letters, digits and ._-, not {self.timed.store!r}")

    @property
    def placed(self) -> bool:
        """Whether nodes ring its A-legs."""
        return self.restore is not None
