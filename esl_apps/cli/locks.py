"""``esl-apps locks``: what wrong PINs have locked."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from esl_apps.cli.exit_status import Exit
from esl_apps.cli.output import print_error, print_list, report_result
from esl_apps.config.model import Config
from esl_apps.store import redis_client
from esl_apps.store.pin_guard import Locks


def run(config: Config, arguments: argparse.Namespace) -> int:
    locks = Locks(redis_client.connect(config.redis.url))
    if arguments.lift is not None:
        return _lift(locks, arguments)
    listed = [asdict(lock) for lock in locks.list()]
    print_list(listed, lambda lock: f"{lock['name']:<40} {lock['seconds']:6d} s left", "locked", as_json=arguments.json)
    return Exit.OK


def _lift(locks: Locks, arguments: argparse.Namespace) -> int:
    name = arguments.lift
    if not locks.lift(name):
        print_error(f"not locked: {name} (`esl-apps locks` lists what is)")
        return Exit.FAILED
    report_result({"name": name, "lifted": True}, f"lifted {name}", as_json=arguments.json)
    return Exit.OK
