"""``esl-apps breaker``: which breakers have tripped, what would trip the others, and changing that by hand."""

from __future__ import annotations

import argparse
import getpass
import os
import socket
import time
from collections.abc import Iterator

from msgspec import structs

from esl_apps.cli.output import print_error, print_json
from esl_apps.config.model import Config
from esl_apps.config.spending import COUNTRIES, Breaker, DestinationBreaker
from esl_apps.core.limits import BREAKER, SYSTEM, read_scope
from esl_apps.core.number_classes import CLASSES, HIGH_RISK
from esl_apps.store import keys, redis_client
from esl_apps.store.breakers import Breakers
from esl_apps.store.card_fields import CARD_ID
from esl_apps.store.cards import CardStore
from esl_apps.store.redis_client import Client

_THRESHOLDS = ("calls_per_hour", "calls_per_day", "minutes_per_hour", "minutes_per_day", "high_risk_calls_per_hour")


def run(config: Config, arguments: argparse.Namespace) -> int:
    if arguments.end_calls and arguments.trip is None:
        print_error("--end-calls goes with --trip")
        return 2
    client = redis_client.connect(config.redis.url)
    breakers = Breakers(client, config.node.name)
    if arguments.trip is not None:
        return _trip(config, client, breakers, arguments)
    if arguments.reset is not None:
        return _reset(client, breakers, arguments)
    # All questions first: what fails then has printed nothing.
    tripped, log = breakers.tripped, breakers.log()
    if arguments.json:
        for scope, trip in sorted(tripped.items()):
            print_json({"type": "tripped", "scope": scope, **structs.asdict(trip)})
        for scope, words in thresholds(config).items():
            if scope not in tripped:
                print_json({"type": "ok", "scope": scope, "trips_over": words})
        for line in log:
            print_json({"type": "log", **structs.asdict(line)})
        return 0
    for scope, trip in sorted(tripped.items()):
        ends = ", its calls were ended" if trip.end_calls else ""
        print(f"TRIPPED {scope}: {trip.why}, by {trip.by}, {_utc(trip.at)} UTC{ends}")
    for scope, words in thresholds(config).items():
        if scope not in tripped:
            print(f"ok      {scope}: trips over {words}")
    for line in log:
        why = f": {line.why}" if line.why else ""
        print(f"log     {_utc(line.at)} UTC  {line.scope} {line.what} by {line.by}{why}")
    return 0


def _trip(config: Config, client: Client, breakers: Breakers, arguments: argparse.Namespace) -> int:
    scope = arguments.trip
    try:
        check_scope(config, client, scope)
    except ValueError as error:
        print_error(f"{scope!r}: {error}")
        return 2
    user = _user()
    new = breakers.trip(scope, "by hand", by=user, end_calls=arguments.end_calls)
    if arguments.json:
        print_json({"scope": scope, "tripped": True, "changed": new})
    else:
        print(f"{scope}: tripped by {user}" if new else f"{scope}: has tripped already")
    return 0 if new else 1


def _reset(client: Client, breakers: Breakers, arguments: argparse.Namespace) -> int:
    scope = arguments.reset
    if scope not in breakers.tripped:
        print_error(f"{scope}: has not tripped")
        return 1
    # Its counters first, or the next call would trip it again.
    clear_counters(client, scope)
    user = _user()
    breakers.reset(scope, by=user)
    if arguments.json:
        print_json({"scope": scope, "tripped": False, "changed": True})
    else:
        print(f"{scope}: reset by {user}")
    return 0


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
    for counted in (f"{BREAKER}:{scope}", f"{BREAKER}:{scope}/{HIGH_RISK}"):
        # One at a time: in a cluster they are on different slots.
        client.delete(keys.usage_calls(counted))
        client.delete(keys.usage_sums(counted))


def _utc(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))


def _user() -> str:
    """user@host, recorded in the breaker log."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
