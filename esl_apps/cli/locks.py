"""``esl-apps locks``: what wrong PINs have locked."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

from esl_apps.cli.exit_status import Exit
from esl_apps.cli.output import print_error, print_json, print_line, report, report_json
from esl_apps.config.model import Config
from esl_apps.store import redis_client
from esl_apps.store.pin_guard import Locks


def run(config: Config, arguments: argparse.Namespace) -> int:
    locks = Locks(redis_client.connect(config.redis.url))
    if arguments.lift is not None:
        return _lift(locks, arguments)
    listed = locks.list()
    for lock in listed:
        if arguments.json:
            print_json(asdict(lock))
        else:
            print_line(f"{lock.name:<40} {lock.seconds:6d} s left")
    if not arguments.json:
        print(f"{len(listed)} locked", file=sys.stderr)
    return Exit.OK


def _lift(locks: Locks, arguments: argparse.Namespace) -> int:
    name = arguments.lift
    if not locks.lift(name):
        print_error(f"not locked: {name} (`esl-apps locks` lists what is)")
        return Exit.FAILED
    if arguments.json:
        report_json({"name": name, "lifted": True})
    else:
        report(f"lifted {name}")
    return Exit.OK
