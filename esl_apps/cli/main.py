"""The command line. ``parser()`` describes it; each command has a module of its own, imported when it is used.

Nothing here imports gevent or redis: ``--help`` answers at once, and the documentation is made from the parser.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from typing import Any

from esl_apps import __version__
from esl_apps.cli.output import explain, print_error

_MOST_WORKERS = 256
_DEFAULT_CONFIG = "/etc/esl_apps/esl_apps.yml"
_INTERRUPTED = 130  # as a shell reports SIGINT


def main(argv: list[str]) -> int:
    """Run a command and return its exit status."""
    if argv[:1] == ["sandbox"]:
        # It has a parser of its own.
        return _guarded(argparse.Namespace(command="sandbox", run="sandbox:run", argv=argv[1:]))
    return _guarded(parser().parse_args(argv))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    root = argparse.ArgumentParser(prog="esl-apps", description="Calling cards and click-to-dial for FreeSWITCH")
    root.add_argument("--version", action="version", version=__version__)
    commands = _Commands(root)
    _add_running(commands)
    _add_showing(commands)
    _add_changing(commands)
    _add_trying(commands)
    return root


class _Commands:
    def __init__(self, root: argparse.ArgumentParser) -> None:
        self._subparsers = root.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(self, name: str, run: str, what: str, *, config: bool = True, json: str = "") -> argparse.ArgumentParser:
        """Add a command. ``run``: its module and function; ``json``: what ``--json`` prints a line of."""
        sub = self._subparsers.add_parser(name, help=what, description=what)
        sub.set_defaults(run=run)
        if config:
            sub.add_argument(
                "-c",
                "--config",
                default=os.environ.get("ESL_APPS_CONFIG") or _DEFAULT_CONFIG,
                metavar="FILE",
                help="the configuration (default: $ESL_APPS_CONFIG, else %(default)s)",
            )
        if json:
            sub.add_argument("--json", action="store_true", help=f"print a line of JSON for {json}")
        return sub


def _add_running(commands: _Commands) -> None:
    serve = commands.add("serve", "serve:run", "run a node until SIGTERM; SIGHUP reloads the configuration")
    serve.add_argument(
        "--workers", type=_count, default=1, metavar="N", help="processes on the same ports: one per core (1)"
    )
    serve.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    commands.add("check", "check:run", "read the configuration and try everything that it names", json="each result")


def _add_showing(commands: _Commands) -> None:
    commands.add("calls", "calls:run_calls", "list the live calls of all nodes", json="each call")
    trace = commands.add("trace", "calls:run_trace", "show one call's timeline, with every decision", json="the call")
    trace.add_argument("call_ref", type=_text)
    locks = commands.add(
        "locks",
        "locks:run",
        "list what is locked because of wrong PINs, on all nodes",
        json="each lock, or the lifted one",
    )
    locks.add_argument(
        "--lift", metavar="KEY", type=_text, help="open a lock, and forget the wrong PINs that led to it"
    )

    waiting = commands.add(
        "waiting",
        "waiting:run",
        "list the callbacks and autodials that wait to be placed, on any node",
        json="each call, or the dropped one",
    )
    waiting.add_argument("--drop", metavar="KEY", type=_text, help="don't place this call")


def _add_changing(commands: _Commands) -> None:
    importing = commands.add(
        "import",
        "kazoo_import:run",
        "load Kazoo's documents, as exported from CouchDB: JSON, one or more per file",
        json="each document",
    )
    importing.add_argument("files", nargs="+", metavar="FILE")
    breaker = commands.add(
        "breaker",
        "breakers:run",
        "list the breakers: those that have tripped, and what would trip the others",
        json="each breaker and log entry, or the changed one",
    )
    change = breaker.add_mutually_exclusive_group()
    change.add_argument(
        "--trip",
        metavar="KEY",
        type=_text,
        help="refuse all calls of KEY from now on: system, account:NAME, integrator:NAME or card:ID, optionally "
        "followed by /country:XX, /class:NAME, /prefix:+DIGITS or /high_risk",
    )
    change.add_argument("--reset", metavar="KEY", type=_text, help="allow the calls of KEY again, and count from zero")
    breaker.add_argument("--end-calls", action="store_true", help="with --trip: also end the calls that are up")
    commands.add(
        "hash-pin", "hashes:run_pin", "read a PIN from the terminal or standard input; print its hash, for pin_hash"
    )
    commands.add(
        "hash-token",
        "hashes:run_token",
        "read a token from the terminal or standard input; print its hash",
        config=False,
    )
    dialplan = commands.add(
        "dialplan",
        "dialplan:run",
        "print the dialplan files with this configuration's numbers",
        json="all files: an object of names and texts",
    )
    dialplan.add_argument("-o", "--output", metavar="FOLDER", type=_text, help="write them to this folder instead")


def _add_trying(commands: _Commands) -> None:
    demo = commands.add(
        "demo",
        "demo:run",
        "start a Redis, a sandbox and a node, and place one call through each application",
        config=False,
        json="each notification, as it comes out of Redis",
    )
    demo.add_argument("--keep", action="store_true", help="then stay up until Ctrl-C, to be tried by hand")
    commands.add(
        "sandbox", "sandbox:run", "a stand-in for FreeSWITCH; --help after it lists its own options", config=False
    )


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text[:9]) <= _MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to {_MOST_WORKERS}")
    return int(text)


def _text(text: str) -> str:
    if not text or not text.isprintable():
        raise argparse.ArgumentTypeError("expected printable characters")
    return text


def _guarded(arguments: argparse.Namespace) -> int:
    """Run a command. If the environment refuses something, print a line and return a status, without a traceback."""
    try:
        status = _run(arguments)
        # Here, and not when the interpreter ends, where an error can only be printed.
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print_error("interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        # As with ``esl-apps calls | head``: the reader has enough.
        _end_output()
        return 0
    except OSError as error:
        print_error(explain(error))
        _end_output()
        return 1


def _run(arguments: argparse.Namespace) -> int:
    from esl_apps.core.unavailable import StoreUnavailable

    module, _, function = arguments.run.partition(":")
    run: Any = getattr(import_module(f"esl_apps.cli.{module}"), function)
    try:
        if not hasattr(arguments, "config"):
            return int(run(arguments))
        return _run_configured(run, arguments)
    except StoreUnavailable as error:
        print_error(f"Redis: {str(error).removeprefix('redis: ')}")
        return 1


def _run_configured(run: Any, arguments: argparse.Namespace) -> int:
    from esl_apps.config import load
    from esl_apps.config.problems import ConfigError

    try:
        return int(run(load(arguments.config), arguments))
    except ConfigError as error:
        if arguments.command == "check":
            from esl_apps.cli.check import print_problems

            return print_problems(error, as_json=arguments.json)
        for problem in error.problems:
            print_error(str(problem))
        return 2


def _end_output() -> None:
    """Write what is left; if it can't be, discard it, or the interpreter's last flush would fail again and say so."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
