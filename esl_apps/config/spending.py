"""The sections that bound what calls cost: limits, and breakers."""

from __future__ import annotations

from dataclasses import replace

import phonenumbers
from msgspec import field

from esl_apps.config.fields import Count, Seconds, Section
from esl_apps.core import limits as limits_module

#: The countries that a destination can name; 001 is for numbers of no country.
COUNTRIES = frozenset({*phonenumbers.SUPPORTED_REGIONS, "001"})


class DestinationLimits(Section, frozen=True):
    calls_per_hour: Count | None = None
    """In any 60 minutes."""
    calls_per_day: Count | None = None
    """From midnight to midnight UTC."""
    minutes_per_hour: Count | None = None
    """In any 60 minutes."""
    minutes_per_day: Count | None = None
    """From midnight to midnight UTC."""
    longest_call: Seconds | None = None
    """Seconds."""

    def read(self) -> limits_module.Limits:
        return limits_module.Limits(
            calls_per_hour=self.calls_per_hour,
            calls_per_day=self.calls_per_day,
            minutes_per_hour=self.minutes_per_hour,
            minutes_per_day=self.minutes_per_day,
            longest_call=self.longest_call,
        )


class Limits(DestinationLimits, frozen=True):
    destinations: dict[str, DestinationLimits] = field(default_factory=dict)
    """The same limits for country:CU, class:international, prefix:+882 or high_risk: {country:CU: {calls_per_day:
    5}}."""

    def read(self) -> limits_module.Limits:
        named = {limits_module.read_destination(text): limits.read() for text, limits in self.destinations.items()}
        return replace(super().read(), destinations=named)


class DestinationBreaker(Section, frozen=True):
    calls_per_hour: Count | None = None
    """In any 60 minutes, since the last reset."""
    calls_per_day: Count | None = None
    """From midnight to midnight UTC, since the last reset."""
    minutes_per_hour: Count | None = None
    """In any 60 minutes, since the last reset."""
    minutes_per_day: Count | None = None
    """From midnight to midnight UTC, since the last reset."""

    def thresholds(self) -> limits_module.Limits:
        return limits_module.Limits(
            calls_per_hour=self.calls_per_hour,
            calls_per_day=self.calls_per_day,
            minutes_per_hour=self.minutes_per_hour,
            minutes_per_day=self.minutes_per_day,
        )


class Breaker(DestinationBreaker, frozen=True):
    high_risk_calls_per_hour: Count | None = None
    """To the ranges of high_risk, in any 60 minutes."""
    end_calls: bool = False
    """True: also end the calls in progress."""
    destinations: dict[str, DestinationBreaker] = field(default_factory=dict)
    """As in limits, each with its own breaker: {country:CU: {minutes_per_hour: 30}}."""

    def read(self) -> limits_module.Breaker:
        named = {
            limits_module.read_destination(text): breaker.thresholds() for text, breaker in self.destinations.items()
        }
        return limits_module.Breaker(
            replace(self.thresholds(), destinations=named), self.high_risk_calls_per_hour, self.end_calls
        )


def level(name: str, limits: Limits, breaker: Breaker) -> limits_module.Level:
    return limits_module.Level(name, limits.read(), breaker.read())


class Spending(Section, frozen=True):
    """Bounds for all calls of all integrators and accounts together."""

    high_risk: str | None = None
    """File with the number ranges that fraud dials (conf/high_risk.yml); null: the list of the package."""
    limits: Limits = field(default_factory=Limits)
    """Null: no limit. Above a limit, nothing is dialled and calls in progress are ended, until there is room again."""
    breaker: Breaker = field(default_factory=Breaker)
    """Null: no breaker. Once one has tripped, nothing is dialled until a person resets it: `esl-apps breaker --reset
    KEY`."""
