"""``esl-apps demo``: one call through each application, on a Redis, a switch and a node of its own."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from esl_apps.cli.demo import by_hand, report
from esl_apps.cli.demo.script import CALLS
from esl_apps.cli.demo.stage import DemoFailed, Stage, last_lines, open_stage
from esl_apps.cli.exit_status import Exit
from esl_apps.cli.output import explain, print_error, print_json
from esl_apps.core.unavailable import StoreUnavailable


def run(arguments: argparse.Namespace) -> int:
    """Return ``Exit.OK`` only if all calls came out as they should."""
    # Without a handler, SIGTERM would leave the parts running.
    previous = signal.signal(signal.SIGTERM, _terminated)
    try:
        _run(_Demo(raw=arguments.json), keep=arguments.keep)
    except DemoFailed as error:
        return _failed(str(error))
    except BrokenPipeError:
        raise  # The reader of the output is gone, which is for main to end quietly.
    except OSError as error:
        return _failed(explain(error))
    except StoreUnavailable as error:
        return _failed(f"Redis: {str(error).removeprefix('redis: ')}")
    finally:
        signal.signal(signal.SIGTERM, previous)
    return Exit.OK


def _run(demo: _Demo, *, keep: bool) -> None:
    demo.say("Starting, on free ports of this machine:")
    with open_stage(demo.say, demo.notified) as stage:
        demo.place_calls(stage)
        if keep:
            demo.keep(stage)
    if not keep:
        demo.say_all(_what_next())


def _failed(message: str) -> int:
    for line in message.splitlines():
        print_error(f"demo: {line}")
    return Exit.FAILED


class _Demo:
    def __init__(self, *, raw: bool) -> None:
        """``raw``: standard output gets the notifications alone, as they are; the rest goes to standard error."""
        self._raw = raw
        self._notifications: list[tuple[str, dict[str, Any]]] = []

    def say(self, line: str) -> None:
        print(line, file=sys.stderr if self._raw else sys.stdout, flush=True)

    def say_all(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.say(line)

    def notified(self, key: str, body: bytes) -> None:
        if self._raw:
            print(body.decode(), flush=True)
        self._notifications.append((key, json.loads(body)["payload"]))

    def place_calls(self, stage: Stage) -> None:
        """:raises DemoFailed: one came out otherwise; with the end of the node's log."""
        for number, call in enumerate(CALLS.values(), 1):
            self.say_all(report.heading(number, len(CALLS), call))
            self._notifications.clear()
            try:
                placed = stage.ended_call(call.place(stage)["call_ref"])
            except DemoFailed as error:
                log = last_lines(stage.node_log)
                raise DemoFailed(f"{call.title}: {error}" + (f"\nThe node's log ends:\n{log}" if log else "")) from None
            if not self._raw:
                self.say_all(report.timeline(placed))
                for key, payload in self._notifications:
                    self.say_all(report.notification(key, payload))
        self.say(f"\nAll {len(CALLS)} calls came out as they should.")

    def keep(self, stage: Stage) -> None:
        """Stay up until SIGINT or SIGTERM."""
        by_hand.prepare(stage)
        if self._raw:
            print_json({"type": "access", "payload": by_hand.access(stage)})
        self.say("")
        self.say_all(by_hand.instructions(stage))
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            self.say("\nStopping.")


def _terminated(*_: object) -> NoReturn:
    sys.exit(Exit.TERMINATED)


def _what_next() -> Iterable[str]:
    program = sys.argv[0] if not sys.argv[0].endswith("__main__.py") else "python -m esl_apps"
    yield ""
    yield "Next:"
    yield f"  {program} demo --keep"
    yield "      leaves all this running and prints the commands to place calls by hand"
    if Path("docs/tutorials/freeswitch.rst").is_file():
        yield "  docs/tutorials/freeswitch.rst"
        yield "      your first call on a FreeSWITCH of your own"
        yield "  conf/esl_apps.yml"
        yield "      every setting, with its default and what it does"
    yield f"  {program} --help"
    yield "      all commands"
