"""``esl-apps waiting``: the callbacks and autodials that wait to be placed, and dropping one."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from esl_apps.cli.exit_status import Exit
from esl_apps.cli.output import print_error, print_list, report_result
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
    print_list(waiting.listed(stores), _line, "waiting", as_json=arguments.json)
    return Exit.OK


def _line(call: Mapping[str, Any]) -> str:
    state = "being placed" if call["placing"] else f"in {call['due_in']:.1f} s"
    return f"{call['key']:<48} {state:>16}  {call['account'] or '-'}"


def _drop(dropped: bool | None, arguments: argparse.Namespace) -> int:
    if not dropped:
        why = "is being placed (`esl-apps calls` lists it)" if dropped is None else "not waiting"
        print_error(f"{why}: {arguments.drop} (`esl-apps waiting` lists what waits)")
        return Exit.FAILED
    report_result({"key": arguments.drop, "dropped": True}, f"dropped {arguments.drop}", as_json=arguments.json)
    return Exit.OK
