"""A receiver of webhooks that misbehaves when it is told to, and the comparison of what it took with the records."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from typing import Any

from standardwebhooks import Webhook

from tests.chaos.accounts import DOUBLED, MISSING, WRONG, Finding
from tests.chaos.notified import Key, key_of
from tests.support.ports import free_port

HOST = "127.0.0.1"
SECRETS = ["whsec_" + base64.b64encode(letter * 32).decode() for letter in (b"o", b"n")]
#: How it misbehaves. ``dies``: nothing listens, and its connections are reset.
MANNERS = ("answers 500", "hangs", "resets", "redirects", "dies")

_OK = b"HTTP/1.1 204 No Content\r\n\r\n"
_ANSWERS = {
    "answers 500": b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n",
    "redirects": b"HTTP/1.1 307 Elsewhere\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n",
}


@dataclass(frozen=True)
class Taken:
    """A message that was answered with a 2xx."""

    id: str
    key: Key
    seq: int
    at: float


class Receiver:
    name = "receiver"

    def __init__(self) -> None:
        self.port = free_port()
        self.taken: list[Taken] = []
        self.payloads: dict[Key, dict[str, Any]] = {}
        """The latest of each notification."""
        self.faults: list[str] = []
        """Posts that no sender should make."""
        self.lock = threading.Lock()
        """Held while it is disturbed."""
        self.manner = ""
        self.patience = 0.0
        """Seconds until it answers."""
        self._connections: set[socket.socket] = set()
        self._listener = self._listen()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/hook"

    def webhook(self, name: str) -> dict[str, Any]:
        allowed = {"allow_http": True, "allow_private": True}
        return {"name": name, "url": self.url, "secrets": SECRETS, **allowed}

    def misbehave(self, manner: str) -> None:
        self.manner = manner
        if manner == "dies":
            self._listener.close()
            self._reset_all()

    def mend(self) -> None:
        manner, self.manner = self.manner, ""
        if manner == "dies":
            self._listener = self._listen()
        if manner == "hangs":
            self._reset_all()

    def close(self) -> None:
        self._listener.close()
        self._reset_all()

    def _listen(self) -> socket.socket:
        listener = socket.create_server((HOST, self.port), backlog=64)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _address = listener.accept()
                self._connections.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            file = connection.makefile("rb")
            while (request := _read(file)) is not None:
                path, headers, body = request
                answer = self._answer(path, headers, body)
                if answer is None:
                    continue
                if not answer:
                    _reset(connection)
                    break
                connection.sendall(answer)
        self._connections.discard(connection)

    def _answer(self, path: str, headers: dict[str, str], body: bytes) -> bytes | None:
        """The answer; empty: a reset, None: none."""
        try:
            for secret in SECRETS:
                Webhook(secret).verify(body, headers)
        except Exception as error:
            self.faults.append(f"not verified: {error!r}")
        if path != "/hook":
            self.faults.append(f"a post to {path}")
        manner = self.manner
        if manner == "hangs":
            return None
        if manner in ("resets", "dies"):
            return b""
        if manner:
            return _ANSWERS[manner]
        time.sleep(self.patience)
        message = json.loads(body)
        key, payload = key_of(message), message["payload"]
        self.payloads[key] = payload
        self.taken.append(Taken(headers["webhook-id"], key, payload["seq"], time.time()))
        return _OK

    def _reset_all(self) -> None:
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                _reset(connection)


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # Also ends a read that waits in another thread.
    connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def _read(file: Any) -> tuple[str, dict[str, str], bytes] | None:
    first = file.readline().decode()
    if not first:
        return None
    headers = {}
    while (line := file.readline().decode().rstrip("\r\n")) != "":
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return first.split()[1], headers, file.read(int(headers["content-length"]))


def compare(
    taken: Iterable[Taken],
    due: Set[Key],
    recorded: Set[Key],
    faults: Iterable[str],
    lost: Callable[[float], bool],
) -> list[Finding]:
    """Compare what a receiver took with the notifications in Redis. A message may come twice, with one id; the first
    times must be in order.

    ``due``: what must have come; ``recorded``: all that came out of Redis. ``lost``: whether Redis may have
    lost its latest writes shortly before a time, after which it counts again.
    """
    first: dict[Key, Taken] = {}
    findings = [Finding(WRONG, "webhook", fault) for fault in faults]
    last = 0
    for one in taken:
        before = first.setdefault(one.key, one)
        if before.id != one.id:
            findings.append(Finding(DOUBLED, "webhook", f"came as {before.id} and {one.id}", one.key[1:], at=one.at))
        if before is not one:
            continue
        if one.seq <= last and not lost(one.at):
            findings.append(Finding(WRONG, "webhook", f"seq {one.seq} came after {last}", one.key[1:], at=one.at))
        last = one.seq
    missing, unknown = due - first.keys(), first.keys() - recorded
    findings += [Finding(MISSING, "webhook", f"a {kind} was not posted", (ref,)) for kind, ref in sorted(missing)]
    findings += [Finding(WRONG, "webhook", f"a {kind} that isn't in Redis", (ref,)) for kind, ref in sorted(unknown)]
    return findings
