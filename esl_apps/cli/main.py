"""The command line: ``serve``, ``check``, ``sandbox``, ``demo``, ``import``, ``hash-pin``, ``hash-token``, ``calls``,
``trace``, ``locks``, ``dialplan``,
``breaker``."""

from __future__ import annotations

import argparse
import gc
import os
import re
import signal
import sys
import time
from typing import TYPE_CHECKING

import gevent

from esl_apps import __version__
from esl_apps.config import load
from esl_apps.config.model import Config
from esl_apps.config.problems import ConfigError
from esl_apps.config.tokens import hash_token
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.node.snapshot import timeline
from esl_apps.observe import logs
from esl_apps.store import membership, redis_client
from esl_apps.store.calls import Store

if TYPE_CHECKING:
    from esl_apps.store.breakers import Breakers

_MOST_WORKERS = 256
_DEFAULT_CONFIG = "/etc/esl_apps/esl_apps.yml"


def main(argv: list[str]) -> int:
    """Run a command; its exit status."""
    parser = argparse.ArgumentParser(prog="esl-apps", description="Calling cards and click-to-dial for FreeSWITCH")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, what: str, *, config: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=what, description=what)
        if config:
            sub.add_argument(
                "-c",
                "--config",
                default=os.environ.get("ESL_APPS_CONFIG", _DEFAULT_CONFIG),
                metavar="FILE",
                help="the configuration (default: $ESL_APPS_CONFIG, else %(default)s)",
            )
        return sub

    serve = command("serve", "run a node until SIGTERM; SIGHUP reloads the configuration")
    serve.add_argument(
        "--workers", type=_count, default=1, metavar="N", help="processes on the same ports: one a core (1)"
    )
    serve.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    command("check", "read the configuration and try everything that it names")
    command("calls", "the live calls of all nodes")
    command("trace", "one call's timeline, with every decision").add_argument("call_ref")
    locking = command("locks", "what is locked because of wrong PINs, on all nodes")
    locking.add_argument("--lift", metavar="KEY", help="open one, and forget the wrong PINs that led to it")
    importing = command("import", "load Kazoo's documents, as exported from CouchDB: JSON, one or many a file")
    importing.add_argument("files", nargs="+", metavar="FILE")
    command("hash-pin", "read a PIN from the terminal or standard input; print its keyed hash, for pin_hash")
    breaker = command("breaker", "the breakers: which have tripped, and what would trip the others")
    change = breaker.add_mutually_exclusive_group()
    change.add_argument(
        "--trip",
        metavar="KEY",
        help="let nothing of KEY be dialled from now on: system, account:NAME, integrator:NAME or card:ID, alone or "
        "with /country:XX, /class:NAME, /prefix:+DIGITS or /high_risk behind it",
    )
    change.add_argument("--reset", metavar="KEY", help="let it be dialled again, and count from nothing")
    breaker.add_argument("--end-calls", action="store_true", help="with --trip: end the calls that are up, too")
    command("hash-token", "read a token from the terminal or standard input; print its hash", config=False)
    dialplan = command("dialplan", "print the dialplan files with this configuration's numbers")
    dialplan.add_argument("-o", "--output", metavar="FOLDER", help="write them there instead")
    command("demo", "an embedded Redis, a sandbox and a node: one call through each application", config=False)
    command("sandbox", "a stand-in for FreeSWITCH; --help after it lists its own options", config=False)
    if argv[:1] == ["sandbox"]:
        from esl_apps import sandbox

        return sandbox.run(argv[1:])
    arguments = parser.parse_args(argv)
    if arguments.command == "demo":
        from esl_apps.cli import demo

        return demo.run()
    if arguments.command == "hash-token":
        return _hash_token()
    try:
        config = load(arguments.config)
        actions = {
            "serve": _serve,
            "check": _check,
            "calls": _calls,
            "trace": _trace,
            "locks": _locks,
            "import": _import,
            "hash-pin": _hash_pin,
            "dialplan": _dialplan,
            "breaker": _breaker,
        }
        return actions[arguments.command](config, arguments)
    except ConfigError as error:
        if arguments.command == "check":
            for problem in error.problems:
                print(f"FAIL configuration: {problem}")
            return 1
        for problem in error.problems:
            print(f"esl-apps: {problem}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # ``esl-apps calls | head``: the reader has what it wanted.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except StoreUnavailable as error:
        print(f"esl-apps: Redis: {str(error).removeprefix('redis: ')}", file=sys.stderr)
        return 1


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to {_MOST_WORKERS}")
    return int(text)


def _serve(config: Config, arguments: argparse.Namespace) -> int:
    from esl_apps.http.ports import Ports
    from esl_apps.node.node import Node
    from esl_apps.node.workers import Share, Supervisor

    logs.setup(arguments.log_level)
    share = Share.inherited()
    if arguments.workers > 1 and share is None:
        return Supervisor(config, arguments.workers).run()
    # Who spawned what is for debugging: it is looked for at each spawn, and kept with each greenlet.
    gevent.config.track_greenlet_tree = False
    node = Node(config, share)
    ports = Ports(node)
    # First, so that a node whose ports are taken never takes a call; a request meanwhile gets 503.
    ports.open()
    node.start()
    # What was built so far lives as long as the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    # And seldom at what is new: a call leaves no circle behind, and is freed by its last reference.
    gc.set_threshold(5000)

    def stop() -> None:
        gevent.spawn(ports.shut_down)

    def reload() -> None:
        gevent.spawn(ports.reload, arguments.config)

    # gevent runs these in the hub, between greenlets: they only start one (huey's rule).
    gevent.signal_handler(signal.SIGTERM, stop)
    gevent.signal_handler(signal.SIGINT, stop)
    gevent.signal_handler(signal.SIGHUP, reload)
    if share is None:
        print(f"esl-apps: node {config.node.name} ready", file=sys.stderr, flush=True)
    else:
        share.say_ready()
        gevent.spawn(share.wait_alone).link(lambda _greenlet: stop())
    node.services.readiness.stopped.wait()
    return 0


def _check(config: Config, _arguments: argparse.Namespace) -> int:
    from esl_apps.cli.check import run

    failed = False
    for result in run(config):
        failed = failed or not result.ok
        word = "WARN" if result.warning else "ok  " if result.ok else "FAIL"
        print(f"{word} {result.what}: {result.message}")
    return 1 if failed else 0


def _calls(config: Config, _arguments: argparse.Namespace) -> int:
    client = redis_client.connect(config.redis.url)
    live = Store(client).live(membership.boots(client))
    calls = sorted((call for found in live.values() for call in found), key=lambda call: call.call_ref)
    for call in calls:
        age = time.time() - call.queued_at
        print(
            f"{call.call_ref}  {call.state:<15} {age:7.1f} s  {call.app:<12} "
            f"{call.extension or '-'} -> {call.number or '-'}  {call.integrator or '-'}  {call.switch or '-'}"
        )
    print(f"{len(calls)} live", file=sys.stderr)
    return 0


def _trace(config: Config, arguments: argparse.Namespace) -> int:
    call = Store(redis_client.connect(config.redis.url)).call(arguments.call_ref)
    if call is None:
        print("esl-apps: no such call (calls are kept for a day)", file=sys.stderr)
        return 1
    print("\n".join(timeline(call)))
    return 0


def _locks(config: Config, arguments: argparse.Namespace) -> int:
    from esl_apps.store.pin_guard import Locks

    locks = Locks(redis_client.connect(config.redis.url))
    if arguments.lift is not None:
        if locks.lift(arguments.lift):
            print(f"lifted {arguments.lift}")
            return 0
        print(f"esl-apps: not locked: {arguments.lift} (`esl-apps locks` lists what is)", file=sys.stderr)
        return 1
    found = locks.list()
    for lock in found:
        print(f"{lock.name:<40} {lock.seconds:6d} s left")
    print(f"{len(found)} locked", file=sys.stderr)
    return 0


def _import(config: Config, arguments: argparse.Namespace) -> int:
    from esl_apps.cli import kazoo_import

    count = dict.fromkeys((kazoo_import.TOOK, kazoo_import.SAME, kazoo_import.LEFT, kazoo_import.FAILED), 0)
    for result in kazoo_import.run(arguments.files, config, redis_client.connect(config.redis.url)):
        count[result.outcome] += 1
        print(result, flush=True)
    print(", ".join(f"{number} {outcome}" for outcome, number in count.items()), file=sys.stderr)
    return 1 if count[kazoo_import.FAILED] else 0


def _hash_pin(config: Config, arguments: argparse.Namespace) -> int:
    from getpass import getpass

    from esl_apps.store.cards import hash_pin

    if not config.pin_key:
        raise ConfigError("missing; a PIN's hash is keyed with it", "pin_key", file=arguments.config)
    # Never an argument: those stand in the shell's history and in every user's process list.
    pin = getpass("PIN: ") if sys.stdin.isatty() else sys.stdin.readline().strip()
    if not (pin.isascii() and pin.isdigit()):
        print("esl-apps: expected a PIN: digits", file=sys.stderr)
        return 1
    print(hash_pin(config.pin_key, pin))
    return 0


def _breaker(config: Config, arguments: argparse.Namespace) -> int:
    from esl_apps.cli.breakers import thresholds
    from esl_apps.store.breakers import Breakers

    client = redis_client.connect(config.redis.url)
    breakers = Breakers(client, config.node.name)
    if arguments.trip is not None:
        return _trip(config, client, breakers, arguments)
    if arguments.end_calls:
        print("esl-apps: --end-calls goes with --trip", file=sys.stderr)
        return 2
    if arguments.reset is not None:
        return _reset(client, breakers, arguments.reset)
    tripped = breakers.tripped
    for scope, trip in sorted(tripped.items()):
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(trip.at))
        ends = ", its calls were ended" if trip.end_calls else ""
        print(f"TRIPPED {scope}: {trip.why}, by {trip.by}, {at} UTC{ends}")
    for scope, what in thresholds(config).items():
        if scope not in tripped:
            print(f"ok      {scope}: trips over {what}")
    for line in breakers.log():
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(line.at))
        print(f"log     {at} UTC  {line.scope} {line.what} by {line.by}{': ' + line.why if line.why else ''}")
    return 0


def _trip(config: Config, client: redis_client.Client, breakers: Breakers, arguments: argparse.Namespace) -> int:
    from esl_apps.cli.breakers import names

    try:
        names(config, client, arguments.trip)
    except ValueError as error:
        print(f"esl-apps: {arguments.trip!r}: {error}", file=sys.stderr)
        return 2
    who = _who()
    new = breakers.trip(arguments.trip, "by hand", by=who, end_calls=arguments.end_calls)
    print(f"{arguments.trip}: tripped by {who}" if new else f"{arguments.trip}: has tripped already")
    return 0 if new else 1


def _reset(client: redis_client.Client, breakers: Breakers, scope: str) -> int:
    from esl_apps.cli.breakers import forget

    if scope not in breakers.tripped:
        print(f"esl-apps: {scope}: has not tripped", file=sys.stderr)
        return 1
    # What it has counted goes first, or the next call would trip it again.
    forget(client, scope)
    who = _who()
    breakers.reset(scope, by=who)
    print(f"{scope}: reset by {who}")
    return 0


def _who() -> str:
    """Who is at the keyboard: it stands in the breakers' log."""
    import getpass
    import socket

    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


#: Characters. The hash of a shorter token is found by trying all of them.
_SHORT_TOKEN = 16


def _hash_token() -> int:
    from getpass import getpass

    token = getpass("Token: ") if sys.stdin.isatty() else sys.stdin.readline().strip()
    if len(token) < _SHORT_TOKEN or not re.fullmatch("[!-~]+", token):
        print(f"esl-apps: expected {_SHORT_TOKEN} printable characters at least, no spaces", file=sys.stderr)
        return 1
    print(hash_token(token))
    return 0


def _dialplan(config: Config, arguments: argparse.Namespace) -> int:
    import msgspec

    from esl_apps.cli.dialplan import render
    from esl_apps.prompts import PROMPTS

    try:
        files = render(msgspec.to_builtins(config), prompts=str(PROMPTS))
    except ValueError as error:
        raise ConfigError(str(error), file=arguments.config) from None
    for name, text in files.items():
        if arguments.output is not None:
            os.makedirs(arguments.output, exist_ok=True)
            with open(os.path.join(arguments.output, name), "w", encoding="utf-8") as file:
                file.write(text)
        else:
            print(f"<!-- dialplan/{name} -->\n{text}")
    return 0
