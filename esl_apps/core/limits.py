"""Limits and breakers: how much may be dialled, where to, and the refusal when it is used up."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec import Struct

from esl_apps.core import causes
from esl_apps.core.number_classes import HIGH_RISK
from esl_apps.core.numbers import Number

#: The level that every call belongs to.
SYSTEM = "system"

CALLS_PER_HOUR, CALLS_PER_DAY = "calls_per_hour", "calls_per_day"
MINUTES_PER_HOUR, MINUTES_PER_DAY = "minutes_per_hour", "minutes_per_day"
BREAKER = "breaker"
#: Ends the key of ``high_risk_calls_per_hour``. The breaker of the destination ``high_risk`` has its own count.
HIGH_RISK_CALLS = "high_risk_calls"

_DESTINATION = re.compile(r"country:(?:[A-Z]{2}|001)|class:[A-Za-z0-9._-]+|prefix:\+[1-9][0-9]{0,14}|high_risk")
_LEVEL = re.compile(r"system|(?:account|integrator|card):[A-Za-z0-9._-]{1,64}")
DESTINATION_EXPECTED = "expected country:XX (ISO 3166), class:NAME, prefix:+DIGITS or high_risk"
SCOPE_EXPECTED = (
    "expected system, account:NAME, integrator:NAME or card:ID, alone or with a destination behind a slash: "
    "account:NAME/country:XX, /class:NAME, /prefix:+DIGITS or /high_risk"
)


@dataclass(frozen=True, slots=True)
class Destination:
    """``country:CU``, ``class:international``, ``prefix:+882``, ``high_risk``."""

    kind: str
    value: str = ""

    def matches(self, number: Number) -> bool:
        if self.kind == HIGH_RISK:
            return number.high_risk
        if self.kind == "country":
            return number.country == self.value
        if self.kind == "class":
            return number.is_of(self.value)
        return number.country != "" and number.plus.startswith(self.value)

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}" if self.value else self.kind


def read_destination(text: str) -> Destination:
    """Read a destination. :raises ValueError: says what was expected."""
    if not _DESTINATION.fullmatch(text):
        raise ValueError(DESTINATION_EXPECTED)
    kind, _, value = text.partition(":")
    return Destination(kind, value)


def read_scope(text: str) -> tuple[str, Destination | None]:
    """Read a breaker's name as level and destination. :raises ValueError: says what was expected."""
    level, slash, destination = text.partition("/")
    try:
        if _LEVEL.fullmatch(level):
            return level, read_destination(destination) if slash else None
    except ValueError:
        pass
    raise ValueError(SCOPE_EXPECTED)


def _seconds(minutes: int | None) -> int | None:
    return None if minutes is None else minutes * 60


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be dialled. None: any amount."""

    calls_per_hour: int | None = None
    minutes_per_day: int | None = None
    longest_call: float | None = None
    """Seconds."""
    calls_per_day: int | None = None
    minutes_per_hour: int | None = None
    destinations: Mapping[Destination, Limits] = field(default_factory=dict)
    """Limits of single destinations, on top."""
    timed: bool = field(init=False, repr=False, compare=False)
    """Whether seconds have to be counted."""
    counts: bool = field(init=False, repr=False, compare=False)
    """Whether calls or seconds have to be counted."""
    texts: tuple[str, str, str, str] = field(init=False, repr=False, compare=False)
    """Calls per hour and per day, seconds per hour and per day; empty: any number."""

    def __post_init__(self) -> None:
        # Once, and not for each leg.
        timed = self.minutes_per_hour is not None or self.minutes_per_day is not None
        object.__setattr__(self, "timed", timed)
        counts = timed or self.calls_per_hour is not None or self.calls_per_day is not None
        object.__setattr__(self, "counts", counts)
        seconds = [_seconds(self.minutes_per_hour), _seconds(self.minutes_per_day)]
        bounds = [self.calls_per_hour, self.calls_per_day, *seconds]
        object.__setattr__(self, "texts", tuple(["" if bound is None else str(bound) for bound in bounds]))

    @property
    def empty(self) -> bool:
        """Whether it bounds nothing but perhaps single destinations."""
        return not self.counts and self.longest_call is None


@dataclass(frozen=True, slots=True)
class Breaker:
    """Trips when more than ``thresholds`` is used: then nothing of its scope is dialled until a person resets it."""

    thresholds: Limits
    high_risk_calls_per_hour: int | None = None
    end_calls: bool = False
    """Whether it also ends the calls that are up."""


class Level(Struct, frozen=True):
    """A payer: ``system``, ``integrator:NAME``, ``account:ID`` or ``card:ID``."""

    name: str
    limits: Limits | None = None
    breaker: Breaker | None = None


class Bound(Struct, frozen=True):
    """One counter that a leg is counted against."""

    key: str
    """The counter's key, the same on all nodes."""
    member: str
    """The call that is counted. One that is in the counter already doesn't count again."""
    limits: Limits
    trips: str = ""
    """The breaker that trips when this is used up; empty for a limit, which only refuses."""
    end_calls: bool = False
    timed: bool = True
    """Whether this leg's seconds count. If two legs of a call have the same payer, those of one count."""

    @property
    def scope(self) -> str:
        return self.trips or self.key


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call isn't dialled, or is ended."""

    what: str
    """The limit, as ``calls_per_hour``, or ``breaker``."""
    scope: str
    """Whose limit it is, for the operator."""

    @property
    def code(self) -> int:
        """Q.850: 17 over a limit, 21 if a breaker has tripped."""
        return causes.CALL_REJECTED if self.what == BREAKER else causes.USER_BUSY

    @property
    def message(self) -> str:
        """For a client. It doesn't say whose limit it is."""
        return "the breaker has tripped" if self.what == BREAKER else f"{self.what} is reached"

    def __str__(self) -> str:
        return f"{self.message}: {self.scope}"


def covers(scope: str, levels: Sequence[str], number: Number | None) -> bool:
    """Return whether a breaker's scope is one of the levels and, if it has a destination, includes the number."""
    try:
        level, destination = read_scope(scope)
    except ValueError:
        # Unknown scope (newer version, or edited by hand): fail closed.
        return True
    if level not in levels:
        return False
    return destination is None or (number is not None and destination.matches(number))


def bounds(levels: Sequence[Level], number: Number | None, ref: str, *, aleg: bool, owner: bool) -> Iterator[Bound]:
    """Yield the counters of a leg to ``number``.

    ``owner``: whether its seconds count for the levels themselves. They always count for destinations.
    """
    # A call with two legs is one call of its account, but two calls to a country that both legs are in.
    leg_ref = f"{ref}/a" if aleg else ref
    for level in levels:
        named: list[tuple[str, str, Limits, bool]] = []
        if level.limits is not None:
            named.append(("", "", level.limits, False))
        breaker = level.breaker
        if breaker is not None:
            named.append((f"{BREAKER}:", level.name, breaker.thresholds, breaker.end_calls))
            if breaker.high_risk_calls_per_hour is not None and number is not None and number.high_risk:
                risky = Limits(calls_per_hour=breaker.high_risk_calls_per_hour)
                yield Bound(f"{BREAKER}:{level.name}/{HIGH_RISK_CALLS}", leg_ref, risky, level.name, breaker.end_calls)
        for prefix, trips, limits, end_calls in named:
            if not limits.empty:
                yield Bound(prefix + level.name, ref, limits, trips, end_calls, owner)
            for destination, own in limits.destinations.items():
                if number is not None and destination.matches(number):
                    scope = f"{level.name}/{destination}"
                    yield Bound(prefix + scope, leg_ref, own, scope if trips else "", end_calls)
