"""A minimal event-socket client."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
from urllib.parse import unquote

from tests.rig.base import HOST, RigError


@dataclasses.dataclass(frozen=True)
class Frame:
    headers: dict[str, str]
    body: bytes
    raw: bytes

    @property
    def event(self) -> dict[str, str]:
        """A plain event's headers, decoded."""
        lines = self.body.decode("utf-8", "replace").split("\n\n")[0].split("\n")
        pairs = (line.partition(": ") for line in lines)
        return {name: unquote(value) for name, _, value in pairs}


class EslClient:
    """One inbound event-socket connection, one thread at a time."""

    def __init__(self, port: int, password: str, timeout: float) -> None:
        self.socket = socket.create_connection((HOST, port), timeout)
        self.local_port: int = self.socket.getsockname()[1]
        self.file = self.socket.makefile("rb")
        try:
            if self.read().headers.get("Content-Type") != "auth/request":
                raise RigError("this is not an event socket")
            reply = self.command(f"auth {password}").headers.get("Reply-Text", "")
            if not reply.startswith("+OK"):
                raise RigError(f"event socket: {reply}")
        except BaseException:
            self.close()
            raise

    def read(self) -> Frame:
        """Return the next frame. :raises OSError: there is none to come."""
        headers: dict[str, str] = {}
        raw = b""
        while (line := self.file.readline()) != b"\n":
            if not line:
                raise ConnectionError("the event socket closed")
            raw += line
            name, _, value = line.decode("utf-8", "replace").rstrip("\n").partition(": ")
            headers[name] = unquote(value)
        body = self.file.read(int(headers.get("Content-Length", 0)))
        return Frame(headers, body, raw + b"\n" + body)

    def command(self, text: str) -> Frame:
        self.socket.sendall(text.encode() + b"\n\n")
        while True:
            frame = self.read()
            if frame.headers.get("Content-Type") in ("command/reply", "api/response"):
                return frame

    def close(self) -> None:
        self.file.close()
        self.socket.close()


class EventTap:
    """Another client, which collects its events from ``listen_events`` until ``close``."""

    def __init__(self, client: EslClient, names: str) -> None:
        self.client = client
        self.local_port = client.local_port
        self.frames: list[Frame] = []
        client.command(f"event plain {names}")
        client.socket.settimeout(None)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while True:
                self.frames.append(self.client.read())

    @property
    def events(self) -> list[dict[str, str]]:
        frames = list(self.frames)
        return [frame.event for frame in frames if frame.headers.get("Content-Type") == "text/event-plain"]

    @property
    def raw(self) -> bytes:
        """All received bytes."""
        return b"".join(frame.raw for frame in list(self.frames))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.client.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join(2)
        self.client.close()

    def __enter__(self) -> EventTap:
        return self

    def __exit__(self, *how: object) -> None:
        self.close()
