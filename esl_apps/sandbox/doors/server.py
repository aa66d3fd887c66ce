"""The sandbox's command: its options, its ports, its shutdown."""

from __future__ import annotations

import argparse
import logging
import re
import signal
import socket as stdlib_socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import gevent
from gevent import socket
from gevent.event import Event as Flag
from gevent.server import StreamServer

from esl_apps.sandbox import applications, commands
from esl_apps.sandbox.doors.control import ControlServer
from esl_apps.sandbox.doors.listener import Listener
from esl_apps.sandbox.report.legs import Legs
from esl_apps.sandbox.run.sleeper import at_most
from esl_apps.sandbox.switch import Switch


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, with a port up to 65535")
    return host.strip("[]") or "127.0.0.1", int(port)


def _milliseconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of milliseconds")
    return float(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="esl-apps sandbox",
        description="A simulated FreeSWITCH: event socket, scripted phones, no PBX.",
        epilog="Extensions 1000-1019 are registered and answer after a second. Numbers behind the gateway "
        "`pstn` answer, too; those that end in 486, 603, 404, 480 or 503 are refused so, 408 never answers, 183 "
        "has early media, 302 redirects, 777 sends digits. With --control, see GET / there.",
    )
    parser.add_argument(
        "--listen", type=_address, default=("127.0.0.1", 8021), help="event socket, HOST:PORT (127.0.0.1:8021)"
    )
    parser.add_argument("--password", default="ClueCon", help="password of the event socket")
    parser.add_argument("--tick", type=_milliseconds, default=20.0, help="milliseconds of a frame; 0 for none (20)")
    parser.add_argument(
        "--control", type=_address, help="control port, JSON over HTTP, HOST:PORT; port 0 picks one and prints it"
    )
    parser.add_argument("--recordings", type=Path, help="folder that ${recordings_dir} names")
    parser.add_argument("--spool", type=Path, help="folder for one JSON CDR per leg")
    parser.add_argument("--legs", type=Path, help="file for one line of JSON per leg that ended, as the switch saw it")
    parser.add_argument(
        "--dialplan",
        action="append",
        default=[],
        metavar="CONTEXT=FILE",
        help="extensions in XML for a context (public, default), as `esl-apps dialplan` prints them; may be repeated",
    )
    parser.add_argument("--empty", action="store_true", help="no extensions and no numbers but those defined")
    parser.add_argument("--verbose", action="store_true", help="log what the switch does")
    return parser


def _listening(host: str, port: int) -> bool:
    """Whether something listens there already. Binding alone would not tell (SO_REUSEADDR)."""
    if not port:
        return False
    try:
        with socket.create_connection((host, port), timeout=0.5):
            return True
    except OSError:
        return False


class EventSocketServer:
    """Accepts inbound event-socket connections for a switch."""

    def __init__(self, switch: Switch, host: str, port: int) -> None:
        self.switch = switch
        self.server = StreamServer((host, port), self._accepted, backlog=512)
        self.server.start()

    @property
    def address(self) -> tuple[str, int]:
        """The address on which it listens."""
        return str(self.server.address[0]), int(self.server.address[1])

    def _accepted(self, sock: Any, address: Any) -> None:
        del address
        sock.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)
        Listener(self.switch, sock).serve()

    def stop(self) -> None:
        """Stop accepting."""
        self.server.stop()


def _refuse(message: str) -> int:
    print(f"esl-apps sandbox: {message}", file=sys.stderr)
    return 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run until told to stop."""
    options = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.ERROR,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    host, port = options.listen
    if _listening(host, port):
        return _refuse(f"{host}:{port}: something listens there already")
    recordings = options.recordings or Path(tempfile.gettempdir())
    try:
        for folder in (recordings, options.spool):
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
        legs = Legs(options.legs) if options.legs else None
    except OSError as error:
        return _refuse(f"{error.filename}: {error.strerror}")
    switch = Switch(
        applications.table(),
        commands.table(),
        password=options.password,
        tick=options.tick / 1000,
        recordings=recordings,
        spool=options.spool,
        legs=legs,
        defaults=not options.empty,
    )
    try:
        for text in options.dialplan:
            context, _, file = text.partition("=")
            switch.load_dialplan(context, Path(file))
    except (OSError, ValueError, ElementTree.ParseError) as error:
        return _refuse(f"--dialplan {text}: {error}")
    try:
        events = EventSocketServer(switch, host, port)
    except OSError as error:
        return _refuse(f"can't listen on {host}:{port}: {error.strerror}")
    try:
        control = ControlServer(switch, *options.control) if options.control else None
    except OSError as error:
        return _refuse("can't listen on {}:{}: {}".format(*options.control, error.strerror))
    shown, shown_port = events.address
    print(f"sandbox: event socket on {shown}:{shown_port}", flush=True)
    if control is not None:
        print(f"sandbox: control on http://{control.address[0]}:{control.address[1]}/", flush=True)
    stopped = Flag()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, stopped.set)
    stopped.wait()
    events.stop()
    for channel in list(switch.channels.values()):
        channel.hangup("SYSTEM_SHUTDOWN")
    # Wait for the CDRs of the last legs.
    with at_most(1.0):
        while switch.channels:
            gevent.sleep(0.01)
    for listener in list(switch.listeners):
        listener.cut()
    return 0
