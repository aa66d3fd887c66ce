"""``esl-apps breaker``: which breakers have tripped, what would trip the others, and changing that by hand."""

from __future__ import annotations

import argparse
import getpass
import os
import socket
import sys

from msgspec import structs

from esl_apps.cli.exit_status import Exit
from esl_apps.cli.output import print_error, print_json, print_line
from esl_apps.cli.times import shown_time
from esl_apps.config.model import Config
from esl_apps.operations import breakers as operations
from esl_apps.store import redis_client
from esl_apps.store.breakers import Breakers
from esl_apps.store.redis_client import Client


def run(config: Config, arguments: argparse.Namespace) -> int:
    if arguments.end_calls and arguments.trip is None:
        print_error("--end-calls goes with --trip")
        return Exit.WRONG
    client = redis_client.connect(config.redis.url)
    breakers = Breakers(client, config.node.name)
    if arguments.trip is not None:
        return _trip(config, client, arguments)
    if arguments.reset is not None:
        return _reset(config, client, arguments)
    # All questions first: what fails then has printed nothing.
    tripped, log = breakers.tripped, breakers.log()
    if arguments.json:
        for scope, trip in sorted(tripped.items()):
            print_json({"type": "tripped", "scope": scope, **structs.asdict(trip)})
        for scope, words in operations.thresholds(config).items():
            if scope not in tripped:
                print_json({"type": "ok", "scope": scope, "trips_over": words})
        for line in log:
            print_json({"type": "log", **structs.asdict(line)})
        return Exit.OK
    for scope, trip in sorted(tripped.items()):
        ends = ", its calls were ended" if trip.end_calls else ""
        print_line(f"TRIPPED {scope}: {trip.why}, by {trip.by}, {shown_time(trip.at, utc=True)} UTC{ends}")
    for scope, words in operations.thresholds(config).items():
        if scope not in tripped:
            print_line(f"ok      {scope}: trips over {words}")
    for line in log:
        why = f": {line.why}" if line.why else ""
        print_line(f"log     {shown_time(line.at, utc=True)} UTC  {line.scope} {line.what} by {line.by}{why}")
    print(f"{len(tripped)} tripped", file=sys.stderr)
    return Exit.OK


def _trip(config: Config, client: Client, arguments: argparse.Namespace) -> int:
    scope = arguments.trip
    user = _user()
    try:
        new = operations.trip(config, client, scope, user, end_calls=arguments.end_calls)
    except ValueError as error:
        print_error(f"{scope!r}: {error}")
        return Exit.WRONG
    if arguments.json:
        print_json({"scope": scope, "tripped": True, "changed": new})
    else:
        print(f"{scope}: tripped by {user}" if new else f"{scope}: has tripped already")
    return Exit.OK if new else Exit.FAILED


def _reset(config: Config, client: Client, arguments: argparse.Namespace) -> int:
    scope = arguments.reset
    user = _user()
    if not operations.reset(config, client, scope, user):
        print_error(f"{scope}: has not tripped")
        return Exit.FAILED
    if arguments.json:
        print_json({"scope": scope, "tripped": False, "changed": True})
    else:
        print(f"{scope}: reset by {user}")
    return Exit.OK


def _user() -> str:
    """user@host, recorded in the breaker log."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
