"""Blocking event-socket clients, inbound and outbound, for tests that check a switch frame by frame."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.rig.sandbox import SandboxRig
from tests.support import captures
from tests.support.captures import Frame

UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
EXTERNAL = "sofia/gateway/pstn/"


class Client:
    """One end of an event socket, which blocks and reads frame by frame."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(6)
        self.file = sock.makefile("rb")
        self.uuid = ""

    def send(self, text: str | bytes) -> None:
        self.sock.sendall(text if isinstance(text, bytes) else text.encode() + b"\n\n")

    def read_raw(self) -> bytes:
        head = b""
        while not head.endswith(b"\n\n"):
            line = self.file.readline()
            if not line:
                raise EOFError
            head += line
        length = re.search(rb"^Content-Length: (\d+)$", head, re.MULTILINE)
        return head + (self.file.read(int(length[1])) if length else b"")

    def read(self) -> Frame:
        return captures.frame(self.read_raw())

    def ask(self, text: str) -> Frame:
        """Send a command and return its reply."""
        self.send(text)
        while True:
            frame = self.read()
            if frame.get("Content-Type") in ("command/reply", "api/response"):
                return frame

    def execute(self, app: str, argument: str = "", *, uuid: str = "", lock: bool = False) -> None:
        lines = ["sendmsg", "call-command: execute", f"execute-app-name: {app}"]
        lines += [f"execute-app-arg: {argument}"] if argument else []
        lines += [f"Event-UUID: {uuid}"] if uuid else []
        lines += ["event-lock: true"] if lock else []
        self.send("\n".join(lines))

    def run(self, app: str, argument: str = "") -> Frame:
        """Execute an application and wait for its completion."""
        uuid = f"done-{time.monotonic()}"
        self.execute(app, argument, uuid=uuid)
        return self.until(lambda frame: frame.get("Application-UUID") == uuid, "CHANNEL_EXECUTE_COMPLETE")

    def until(self, match: Callable[[Frame], Any] | None = None, kind: str = "") -> Frame:
        """Return the next frame of a kind that matches."""
        while True:
            frame = self.read()
            if (not kind or frame.kind == kind) and (match is None or match(frame)):
                return frame

    def begin(self, names: str = "all") -> Frame:
        """Send ``connect`` and subscribe to this channel's events."""
        data = self.ask("connect")
        self.uuid = data.get("Unique-ID")
        self.ask("linger 5")
        self.ask(f"event plain {names}")
        self.ask(f"filter Unique-ID {self.uuid}")
        return data

    def ended(self) -> bool:
        """Read until the far end closes."""
        try:
            while True:
                self.read_raw()
        except (EOFError, ConnectionError):
            return True

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.file.close()
        self.sock.close()


class Node(threading.Thread):
    """An application that accepts connections and runs one function on each."""

    def __init__(self, steps: Callable[[Client], object] | None = None) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.steps = steps
        self.error: BaseException | None = None
        self.clients: list[Client] = []
        if steps:
            self.start()

    def accept(self) -> Client:
        self.listener.settimeout(30)
        client = Client(self.listener.accept()[0])
        self.clients.append(client)
        return client

    def run(self) -> None:
        assert self.steps
        try:
            client = self.accept()
            try:
                self.steps(client)
            finally:
                client.close()
        except BaseException as error:
            self.error = error

    def finish(self, within: float = 8) -> None:
        self.join(within)
        assert not self.is_alive(), "the application's script did not end"
        if self.error:
            raise self.error


def inbound(rig: SandboxRig, names: str = "") -> Client:
    """Return an authenticated inbound connection."""
    host, port = rig.esl_address.split(":")
    client = Client(socket.create_connection((host, int(port)), 5))
    assert client.read().get("Content-Type") == "auth/request"
    assert client.ask(f"auth {rig.esl_password}").get("Reply-Text") == "+OK accepted"
    if names:
        client.ask(f"event plain {names}")
    return client
