"""``esl-apps calls`` and ``esl-apps trace``: the live calls, and one call's timeline."""

from __future__ import annotations

import argparse
import sys
import time
from operator import attrgetter

from esl_apps.cli.output import print_error, print_json
from esl_apps.config.model import Config
from esl_apps.core.status import snapshot
from esl_apps.node.snapshot import timeline
from esl_apps.store import membership, redis_client
from esl_apps.store.calls import CallStore
from esl_apps.store.essence import restored


def run_calls(config: Config, arguments: argparse.Namespace) -> int:
    client = redis_client.connect(config.redis.url)
    store = CallStore(client)
    live = store.live(membership.boots(client))
    calls = sorted((call for process in live.values() for call in process), key=attrgetter("call_ref"))
    for call in calls:
        age = time.time() - call.queued_at
        if arguments.json:
            # As the HTTP API names its fields; Redis has the timelines apart, for `trace`.
            status = snapshot(restored(call)) | {"age": round(age, 1)}
            print_json({key: value for key, value in status.items() if key not in ("timeline", "decisions")})
        else:
            print(
                f"{call.call_ref}  {call.state:<15} {age:7.1f} s  {call.app:<12} "
                f"{call.extension or '-'} -> {call.number or '-'}  {call.integrator or '-'}  {call.switch or '-'}"
            )
    if not arguments.json:
        print(f"{len(calls)} live", file=sys.stderr)
    for key, reason in store.unreadable.items():
        # A process's calls that something else has taken the place of. Those of the others are shown.
        print_error(f"Redis: {key}: {reason}")
    return 1 if store.unreadable else 0


def run_trace(config: Config, arguments: argparse.Namespace) -> int:
    call = CallStore(redis_client.connect(config.redis.url)).call(arguments.call_ref)
    if call is None:
        print_error(f"no such call: {arguments.call_ref} (calls are kept for a day)")
        return 1
    if arguments.json:
        print_json(call)
    else:
        print("\n".join(timeline(call)))
    return 0
