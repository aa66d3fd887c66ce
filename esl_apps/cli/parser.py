"""The command line, described: ``parser()`` makes help, completions, the manual page and the documentation.

Nothing here imports more than argparse, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Iterable, Sequence

from esl_apps import __version__
from esl_apps.cli.exit_status import Exit
from esl_apps.sandbox import arguments as sandbox

_MOST_WORKERS = 256
_DEFAULT_CONFIG = "/etc/esl_apps/esl_apps.yml"


def parser() -> Parser:
    """Return the parser of the whole command line."""
    root = Parser(prog="esl-apps", description="Calling cards and click-to-dial for FreeSWITCH")
    root.add_argument("--version", action="version", version=__version__)
    commands = _Commands(root)
    _add_running(commands)
    _add_showing(commands)
    _add_changing(commands)
    _add_trying(commands)
    return root


class Parser(argparse.ArgumentParser):
    """argparse's, which also says what a misspelt command or option may have meant."""

    commands: dict[str, Parser]
    """A root's."""
    formats: argparse._MutuallyExclusiveGroup
    """``--json`` and what excludes it, of a command that has it."""

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """Read a command line; without any, print the help. :raises SystemExit: there is nothing else to do."""
        if not argv:
            self.print_help()
            self.exit(Exit.OK)
        named = argv[0]
        if not named.startswith("-") and named not in self.commands:
            self.error(f"no command {named!r}{near(named, self.commands)}")
        found, unknown = self.parse_known_args(argv)
        if unknown:
            command = self.commands[found.command]
            known = [option for action in command._actions for option in action.option_strings]
            option = unknown[0].partition("=")[0]
            command.error(f"unrecognized arguments: {' '.join(unknown)}{near(option, known)}")
        return found


def near(word: str, known: Iterable[str]) -> str:
    """Return what a misspelt word may have meant, to be put behind the message about it."""
    found = difflib.get_close_matches(word, list(known), 1, 0.6)
    return f"; did you mean {found[0]}?" if found else ""


class _Commands:
    def __init__(self, root: Parser) -> None:
        self._subparsers = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
        root.commands = self._subparsers.choices

    def add(self, name: str, run: str, what: str, *, config: bool = True, json: str = "", waits: bool = True) -> Parser:
        """Add a command. ``run``: its module and function; ``json``: what ``--json`` prints a line of; ``waits``: it
        waits for others, with gevent."""
        sub = self._subparsers.add_parser(name, help=what, description=what)
        sub.set_defaults(run=run, waits=waits)
        if config:
            sub.add_argument(
                "-c",
                "--config",
                default=os.environ.get("ESL_APPS_CONFIG") or _DEFAULT_CONFIG,
                metavar="FILE",
                help="the configuration (default: $ESL_APPS_CONFIG, else %(default)s)",
            )
        if json:
            sub.formats = sub.add_mutually_exclusive_group()
            sub.formats.add_argument("--json", action="store_true", help=f"print a line of JSON for {json}")
        return sub


def _add_running(commands: _Commands) -> None:
    serve = commands.add("serve", "serve:run", "run a node until SIGTERM; SIGHUP reloads the configuration")
    serve.add_argument(
        "--workers", type=_count, default=1, metavar="N", help="processes on the same ports: one per core (1)"
    )
    serve.add_argument(
        "--log-level",
        type=str.upper,
        default="INFO",
        choices=["DEBUG", "INFO", "WARNING", "ERROR"],
        help="what is logged, from this level on, in any case (INFO)",
    )
    serve.add_argument(
        "--log-format", default="json", choices=["json", "text"], help="lines of JSON, or text for people (json)"
    )
    check = commands.add(
        "check", "check:run", "read the configuration and try everything that it names", json="each result"
    )
    check.add_argument("--offline", action="store_true", help="only read it: no switch, Redis or folder is tried")


def _add_showing(commands: _Commands) -> None:
    commands.add("calls", "calls:run_calls", "list the live calls of all nodes", json="each call")
    trace = commands.add("trace", "calls:run_trace", "show one call's timeline, with every decision", json="the call")
    trace.add_argument("call_ref", type=_text)
    _add_records(commands)
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


def _add_records(commands: _Commands) -> None:
    records = commands.add(
        "records",
        "records:run",
        "list the records of calls that have ended, the latest first, of all integrators and accounts",
        json="each record",
    )
    records.formats.add_argument("--csv", action="store_true", help="print a table, for spreadsheets and bills")
    records.add_argument(
        "--since",
        metavar="TIME",
        type=_time,
        help="calls that began then or later: 2026-11-29, 2026-11-29T12:00, 24h or 7d ago",
    )
    records.add_argument("--until", metavar="TIME", type=_time, help="calls that began before")
    records.add_argument("--integrator", metavar="NAME", help="calls of this integrator; '': of none")
    records.add_argument("--account", metavar="ID", type=_text, help="calls of this account")
    records.add_argument("--agent", metavar="NUMBER", type=_text, help="calls of this agent or caller")
    records.add_argument("--number", metavar="NUMBER", type=_text, help="calls to this number, as dialled or in E.164")
    records.add_argument("--end-reason", metavar="REASON", type=_text, help="as answered, or callee_busy")


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
    webhook = commands.add(
        "webhook",
        "webhooks:run",
        "list the webhooks, post a test message to one, or deliver its notifications again",
        json="each webhook, or the result",
    )
    webhook.add_argument(
        "action",
        choices=["list", "test", "replay"],
        help="test posts from this machine, past what waits; replay also switches on what a 410 has switched off",
    )
    webhook.add_argument("name", nargs="?", metavar="NAME", type=_text, help="of the webhook, for test and replay")
    webhook.add_argument(
        "--since", metavar="TIME", type=_time, help="with replay: as 2026-11-29T12:00, 2h, 3d, or Unix seconds"
    )
    commands.add(
        "hash-pin",
        "hashes:run_pin",
        "read a PIN from the terminal or standard input; print its hash, for pin_hash",
        waits=False,
    )
    commands.add(
        "hash-token",
        "hashes:run_token",
        "read a token from the terminal or standard input; print its hash",
        config=False,
        waits=False,
    )
    dialplan = commands.add(
        "dialplan",
        "dialplan:run",
        "print the dialplan files with this configuration's numbers",
        json="all files: an object of names and texts",
        waits=False,
    )
    dialplan.formats.add_argument(
        "-o", "--output", metavar="FOLDER", type=_text, help="write them to this folder instead"
    )

    _add_init(commands)
    files = commands.add(
        "files",
        "files:run",
        "list the files that the package brings: for FreeSWITCH, systemd, monitoring, the shell; or print some",
        config=False,
        json="each file: its name and, if it is to be printed, its text",
        waits=False,
    )
    files.add_argument("names", nargs="*", metavar="NAME", help="print this file; without one, list all")
    files.formats.add_argument(
        "-o", "--output", metavar="FOLDER", type=_text, help="write them below this folder instead"
    )


def _add_init(commands: _Commands) -> None:
    init = commands.add(
        "init",
        "init:run",
        "write a configuration with fresh secrets, and the files that put it in place; asks for what isn't given",
        config=False,
    )
    init.add_argument("folder", metavar="DIR", type=_text, help="the folder to write to, as /etc/esl_apps")
    init.add_argument("--yes", action="store_true", help="ask nothing: take what is found, and the defaults")
    init.add_argument("--dry-run", action="store_true", help="print the files instead of writing them")
    init.add_argument("--freeswitch", metavar="FOLDER", help="where FreeSWITCH's configuration is (found if usual)")
    init.add_argument("--switch", metavar="HOST:PORT", help="FreeSWITCH's event socket (as in its configuration)")
    init.add_argument("--switch-password", metavar="PASSWORD", help="its password (a new one if it is ClueCon)")
    init.add_argument("--region", metavar="CC", help="country whose dialling rules apply to numbers without +, as ZA")
    init.add_argument("--domain", help="domain that the phones register with (as the switch says)")
    init.add_argument("--gateway", help="gateway to dial out (the switch's first; '' for none)")
    init.add_argument("--integrator", metavar="NAME", help="name of the first client of the API (acme)")
    init.add_argument("--redis", metavar="URL", help="Redis (redis://127.0.0.1:6379/0)")


def _add_trying(commands: _Commands) -> None:
    demo = commands.add(
        "demo",
        "demo:run",
        "start a Redis, a sandbox and a node, and place one call through each application",
        config=False,
        json="each notification, as it comes out of Redis",
    )
    demo.add_argument("--keep", action="store_true", help="then stay up until Ctrl-C, to be tried by hand")
    sandbox.add_to(commands.add("sandbox", "sandbox:run", "a stand-in for FreeSWITCH", config=False))


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text[:9]) <= _MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to {_MOST_WORKERS}")
    return int(text)


def _time(text: str) -> float:
    from esl_apps.cli.times import read_time

    return read_time(text)


def _text(text: str) -> str:
    if not text or not text.isprintable():
        raise argparse.ArgumentTypeError("expected printable characters")
    return text
