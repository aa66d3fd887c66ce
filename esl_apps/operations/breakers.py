"""Breakers: which have tripped, what would trip the others, and changing that by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import structs

from esl_apps.config.model import Config
from esl_apps.config.spending import COUNTRIES, Breaker, DestinationBreaker
from esl_apps.core.limits import BREAKER, HIGH_RISK_CALLS, SYSTEM, read_scope
from esl_apps.core.number_classes import CLASSES
from esl_apps.store import keys
from esl_apps.store.breakers import Breakers
from esl_apps.store.card_fields import CARD_ID
from esl_apps.store.cards import CardStore
from esl_apps.store.redis_client import Client

_THRESHOLDS = ("calls_per_hour", "calls_per_day", "minutes_per_hour", "minutes_per_day", "high_risk_calls_per_hour")


def listed(config: Config, client: Client) -> dict[str, list[dict[str, Any]]]:
    """The tripped breakers, the others that are configured, and the log, newest first.

    :raises StoreUnavailable: Redis is down.
    """
    breakers = Breakers(client, config.node.name)
    # All questions first: what fails then has answered nothing.
    tripped, log = breakers.tripped, breakers.log()
    return {
        "tripped": [{"scope": scope, **structs.asdict(trip)} for scope, trip in sorted(tripped.items())],
        "ok": [
            {"scope": scope, "trips_over": words} for scope, words in thresholds(config).items() if scope not in tripped
        ],
        "log": [{field: value for field, value in structs.asdict(line).items() if field != "trip"} for line in log],
    }


def trip(config: Config, client: Client, scope: str, by: str, *, end_calls: bool = False) -> bool:
    """Trip a breaker by hand, or have a tripped one end its calls, too. False: nothing has changed.

    :raises ValueError: the scope names nothing that exists. :raises StoreUnavailable: Redis is down.
    """
    check_scope(config, client, scope)
    return Breakers(client, config.node.name).trip(scope, "by hand", by=by, end_calls=end_calls)


def reset(config: Config, client: Client, scope: str, by: str) -> bool:
    """Reset a breaker, and let it count from zero. False: it has not tripped. :raises StoreUnavailable: Redis is
    down."""
    breakers = Breakers(client, config.node.name)
    if scope not in breakers.tripped:
        return False
    # Its counters first, or the next call would trip it again.
    clear_counters(client, scope)
    return breakers.reset(scope, by=by)


def check_scope(config: Config, client: Client, scope: str) -> None:
    """Check that a scope names something that exists: a breaker that is misspelt would stop no call.

    :raises ValueError: it doesn't. :raises StoreUnavailable: Redis is down.
    """
    level, destination = read_scope(scope)
    kind, _, name = level.partition(":")
    if kind == "integrator" and config.integrator(name) is None:
        raise ValueError("no such integrator")
    if kind == "account":
        cards = CardStore(client, None, config.plan(), config.accounts)
        if cards.account(name) is None:
            raise ValueError("no such account")
    if kind == "card" and not CARD_ID.fullmatch(name):
        raise ValueError("expected a card's id: 32 hex digits")
    if destination is not None and destination.kind == "class":
        classes = {*CLASSES, *config.dial.classifiers}
        if destination.value not in classes:
            raise ValueError(f"unknown class; expected one of {', '.join(sorted(classes))}")
    if destination is not None and destination.kind == "country" and destination.value not in COUNTRIES:
        raise ValueError("unknown country; expected an ISO 3166 code")


def thresholds(config: Config) -> dict[str, str]:
    """Return what trips each breaker that is configured, in words."""
    return dict(_thresholds(config))


def _thresholds(config: Config) -> Iterator[tuple[str, str]]:
    levels: list[tuple[str, Breaker]] = [(SYSTEM, config.spending.breaker)]
    levels += [(f"integrator:{integrator.name}", integrator.breaker) for integrator in config.integrators]
    levels += [(f"account:{id}", account.breaker) for id, account in config.accounts.items()]
    for name, breaker in levels:
        if words := _words(breaker):
            yield name, words
        for destination, own in breaker.destinations.items():
            if words := _words(own):
                yield f"{name}/{destination}", words


def _words(breaker: Breaker | DestinationBreaker) -> str:
    limits = [(name, value) for name in _THRESHOLDS if (value := getattr(breaker, name, None)) is not None]
    return ", ".join(f"{name} {value}" for name, value in limits)


def clear_counters(client: Client, scope: str) -> None:
    """Let a breaker count from zero. :raises StoreUnavailable: Redis is down."""
    for counted in (f"{BREAKER}:{scope}", f"{BREAKER}:{scope}/{HIGH_RISK_CALLS}"):
        # One at a time: in a cluster they are on different slots.
        client.delete(keys.usage_calls(counted))
        client.delete(keys.usage_sums(counted))
