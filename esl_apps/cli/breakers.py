"""What ``esl-apps breaker`` asks beside the breakers' state: which there may be, and what would trip them."""

from __future__ import annotations

from collections.abc import Iterator

from esl_apps.config.model import Config
from esl_apps.config.spending import COUNTRIES, Breaker, DestinationBreaker
from esl_apps.core.limits import BREAKER, SYSTEM, read_scope
from esl_apps.core.numbers import CLASSES, HIGH_RISK
from esl_apps.store import keys
from esl_apps.store.card_fields import CARD_ID
from esl_apps.store.cards import CardStore
from esl_apps.store.redis_client import Client

_THRESHOLDS = ("calls_per_hour", "calls_per_day", "minutes_per_hour", "minutes_per_day", "high_risk_calls_per_hour")


def names(config: Config, client: Client, scope: str) -> None:
    """Whether there is what a breaker would be for: one that is misspelt would stop nobody.

    :raises ValueError: there is not. :raises StoreUnavailable: Redis is away.
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
        plan = {*CLASSES, *config.dial.classifiers}
        if destination.value not in plan:
            raise ValueError(f"unknown class; expected one of {', '.join(sorted(plan))}")
    if destination is not None and destination.kind == "country" and destination.value not in COUNTRIES:
        raise ValueError("unknown country; expected an ISO 3166 code")


def thresholds(config: Config) -> dict[str, str]:
    """What trips each breaker that is configured, in words."""
    return dict(_thresholds(config))


def _thresholds(config: Config) -> Iterator[tuple[str, str]]:
    levels: list[tuple[str, Breaker]] = [(SYSTEM, config.spending.breaker)]
    levels += [(f"integrator:{one.name}", one.breaker) for one in config.integrators]
    levels += [(f"account:{id}", account.breaker) for id, account in config.accounts.items()]
    for name, breaker in levels:
        if words := _words(breaker):
            yield name, words
        for destination, own in breaker.destinations.items():
            if words := _words(own):
                yield f"{name}/{destination}", words


def _words(breaker: Breaker | DestinationBreaker) -> str:
    found = [(name, value) for name in _THRESHOLDS if (value := getattr(breaker, name, None)) is not None]
    return ", ".join(f"{name} {value}" for name, value in found)


def forget(client: Client, scope: str) -> None:
    """A breaker counts from nothing. :raises StoreUnavailable: Redis is away."""
    for counted in (f"{BREAKER}:{scope}", f"{BREAKER}:{scope}/{HIGH_RISK}"):
        # One at a time: in a cluster they are on different slots.
        client.delete(keys.usage_calls(counted))
        client.delete(keys.usage_sums(counted))
