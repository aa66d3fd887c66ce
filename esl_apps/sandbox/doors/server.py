"""The sandbox's command: its options, its ports, its shutdown."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket as stdlib_socket
import sys
import tempfile
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


def _reason(error: OSError) -> str:
    """Return the reason alone: gevent adds the address to ``strerror``."""
    return os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error)


def main(options: argparse.Namespace) -> int:
    """Run until told to stop. ``options``: what ``arguments.add_to`` describes."""
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
    except OSError as error:
        return _refuse(f"--dialplan {text}: {_reason(error)}")
    except (ValueError, ElementTree.ParseError) as error:
        return _refuse(f"--dialplan {text}: {error}")
    try:
        events = EventSocketServer(switch, host, port)
    except OSError as error:
        return _refuse(f"can't listen on {host}:{port}: {_reason(error)}")
    try:
        control = ControlServer(switch, *options.control) if options.control else None
    except OSError as error:
        return _refuse("can't listen on {}:{}: {}".format(*options.control, _reason(error)))
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
