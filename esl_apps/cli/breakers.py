"""``esl-apps breaker``: which breakers have tripped, what would trip the others, and changing that by hand."""

from __future__ import annotations

import argparse
import getpass
import os
import socket
import sys

from esl_apps.cli.exit_status import Exit
from esl_apps.cli.output import print_error, print_json, print_line, report_result
from esl_apps.cli.times import shown_time
from esl_apps.config.model import Config
from esl_apps.operations import breakers as operations
from esl_apps.store import redis_client
from esl_apps.store.redis_client import Client


def run(config: Config, arguments: argparse.Namespace) -> int:
    if arguments.end_calls and arguments.trip is None:
        print_error("--end-calls goes with --trip")
        return Exit.WRONG
    client = redis_client.connect(config.redis.url)
    if arguments.trip is not None:
        return _trip(config, client, arguments)
    if arguments.reset is not None:
        return _reset(config, client, arguments)
    found = operations.listed(config, client)
    if arguments.json:
        for kind, rows in found.items():
            for row in rows:
                print_json({"type": kind, **row})
        return Exit.OK
    for trip in found["tripped"]:
        ends = ", its calls were ended" if trip["end_calls"] else ""
        at = shown_time(trip["at"], utc=True)
        print_line(f"TRIPPED {trip['scope']}: {trip['why']}, by {trip['by']}, {at} UTC{ends}")
    for breaker in found["ok"]:
        print_line(f"ok      {breaker['scope']}: trips over {breaker['trips_over']}")
    for line in found["log"]:
        why = f": {line['why']}" if line["why"] else ""
        at = shown_time(line["at"], utc=True)
        print_line(f"log     {at} UTC  {line['scope']} {line['what']} by {line['by']}{why}")
    print(f"{len(found['tripped'])} tripped", file=sys.stderr)
    return Exit.OK


def _trip(config: Config, client: Client, arguments: argparse.Namespace) -> int:
    scope = arguments.trip
    user = _user()
    try:
        new = operations.trip(config, client, scope, user, end_calls=arguments.end_calls)
    except ValueError as error:
        print_error(f"{scope!r}: {error}")
        return Exit.WRONG
    text = f"{scope}: tripped by {user}" if new else f"{scope}: has tripped already"
    report_result({"scope": scope, "tripped": True, "changed": new}, text, as_json=arguments.json)
    return Exit.OK if new else Exit.FAILED


def _reset(config: Config, client: Client, arguments: argparse.Namespace) -> int:
    scope = arguments.reset
    user = _user()
    if not operations.reset(config, client, scope, user):
        print_error(f"{scope}: has not tripped")
        return Exit.FAILED
    item = {"scope": scope, "tripped": False, "changed": True}
    report_result(item, f"{scope}: reset by {user}", as_json=arguments.json)
    return Exit.OK


def _user() -> str:
    """user@host, recorded in the breaker log."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
