"""``esl-apps calls`` and ``esl-apps trace``: the live calls, and one call's timeline."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from esl_apps.cli.exit_status import Exit
from esl_apps.cli.output import print_error, print_json, print_line, print_list
from esl_apps.config.model import Config
from esl_apps.node.snapshot import timeline
from esl_apps.operations import captures
from esl_apps.operations.calls import live_calls
from esl_apps.store import membership, redis_client
from esl_apps.store.calls import CallStore


def run_calls(config: Config, arguments: argparse.Namespace) -> int:
    client = redis_client.connect(config.redis.url)
    store = CallStore(client)
    calls, _more = live_calls(store, membership.boots(client), {})
    print_list(calls[::-1], _line, "live", as_json=arguments.json)
    for key, reason in store.unreadable.items():
        # A process's calls that something else has taken the place of. Those of the others are shown.
        print_error(f"Redis: {key}: {reason}")
    return Exit.FAILED if store.unreadable else Exit.OK


def _line(call: Mapping[str, Any]) -> str:
    return (
        f"{call['call_ref']}  {call['state']:<15} {call['age']:7.1f} s  {call['app']:<12} "
        f"{call['agent'] or '-'} -> {call['callee'] or '-'}  {call['integrator'] or '-'}  {call['switch'] or '-'}"
    )


def run_trace(config: Config, arguments: argparse.Namespace) -> int:
    call = CallStore(redis_client.connect(config.redis.url)).call(arguments.call_ref)
    if call is None:
        print_error(f"no such call: {arguments.call_ref} (calls are kept for a day)")
        return Exit.FAILED
    if arguments.json:
        print_json(call)
    else:
        for line in [*timeline(call), *captures.lines(call, config.records.capture_url)]:
            print_line(line)
    return Exit.OK
