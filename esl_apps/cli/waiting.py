"""``esl-apps waiting``: the callbacks and autodials that wait to be placed, and dropping one."""

from __future__ import annotations

import argparse
import sys

from esl_apps.cli.exit_status import Exit
from esl_apps.cli.output import print_error, print_json, print_line, report, report_json
from esl_apps.config.model import Config
from esl_apps.node.policy import own_settings
from esl_apps.operations import waiting
from esl_apps.store import redis_client


def run(config: Config, arguments: argparse.Namespace) -> int:
    # Adds the applications of other packages to the registry.
    own_settings(config)
    stores = waiting.stores(config, redis_client.connect(config.redis.url))
    if arguments.drop is not None:
        return _drop(waiting.drop(stores, arguments.drop), arguments)
    listed = waiting.listed(stores)
    for call in listed:
        if arguments.json:
            print_json(call)
        else:
            state = "being placed" if call["placing"] else f"in {call['due_in']:.1f} s"
            print_line(f"{call['key']:<48} {state:>16}  {call['account'] or '-'}")
    if not arguments.json:
        print(f"{len(listed)} waiting", file=sys.stderr)
    return Exit.OK


def _drop(dropped: bool | None, arguments: argparse.Namespace) -> int:
    if not dropped:
        why = "is being placed (`esl-apps calls` lists it)" if dropped is None else "not waiting"
        print_error(f"{why}: {arguments.drop} (`esl-apps waiting` lists what waits)")
        return Exit.FAILED
    if arguments.json:
        report_json({"key": arguments.drop, "dropped": True})
    else:
        report(f"dropped {arguments.drop}")
    return Exit.OK
