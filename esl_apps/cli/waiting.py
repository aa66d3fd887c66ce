"""``esl-apps waiting``: the callbacks and autodials that wait to be placed, and dropping one."""

from __future__ import annotations

import argparse
import sys
import time

from esl_apps.apps import APPLICATIONS
from esl_apps.cli.output import print_error, print_json
from esl_apps.config.model import Config
from esl_apps.node.policy import own_settings
from esl_apps.store import redis_client
from esl_apps.store.timed_calls import TimedCalls


def run(config: Config, arguments: argparse.Namespace) -> int:
    # Adds the applications of other packages to the registry.
    own_settings(config)
    client = redis_client.connect(config.redis.url)
    stores = {
        app.ref: TimedCalls(client, config.node.name, app.timed.store) for app in APPLICATIONS.values() if app.timed
    }
    if arguments.drop is not None:
        return _drop(stores, arguments)
    listed = [(f"{app}/{call.number}", call) for app, store in stores.items() for call in store.waiting()]
    for key, call in sorted(listed, key=lambda entry: entry[1].due_at):
        seconds = round(call.due_at - time.time(), 1)
        if arguments.json:
            print_json({"key": key, "account": call.owner or None, "due_in": seconds, "placing": call.placing})
        else:
            state = "being placed" if call.placing else f"in {seconds:.1f} s"
            print(f"{key:<48} {state:>16}  {call.owner or '-'}")
    if not arguments.json:
        print(f"{len(listed)} waiting", file=sys.stderr)
    return 0


def _drop(stores: dict[str, TimedCalls], arguments: argparse.Namespace) -> int:
    app, _, number = arguments.drop.partition("/")
    waiting = stores[app].waiting() if app in stores else []
    owner = next((call.owner for call in waiting if call.number == number), None)
    dropped = False if owner is None else stores[app].drop(number, owner)
    if not dropped:
        why = "is being placed (`esl-apps calls` lists it)" if dropped is None else "not waiting"
        print_error(f"{why}: {arguments.drop} (`esl-apps waiting` lists what waits)")
        return 1
    if arguments.json:
        print_json({"key": arguments.drop, "dropped": True})
    else:
        print(f"dropped {arguments.drop}")
    return 0
