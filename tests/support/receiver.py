"""A receiver of webhooks that answers as a test wants: takes, refuses, hangs, resets, or is gone."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import gevent
from gevent import socket
from gevent.server import StreamServer

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def answer(status: int, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"HTTP/1.1 {status} As Asked", *headers, f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def reset(sock: Any) -> None:
    """Close a connection with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def hang(_sock: Any) -> None:
    gevent.sleep(3600)


class Post(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def payload(self) -> dict[str, Any]:
        payload: dict[str, Any] = json.loads(self.body)["payload"]
        return payload


Act = bytes | Callable[[Any], None]


class Receiver:
    """On loopback. ``acts``: what the next requests get, each a whole answer or a function of the socket; then OK."""

    def __init__(self, *acts: Act, tls: Any = None, host: str = "127.0.0.1") -> None:
        self.acts = list(acts)
        self.posts: list[Post] = []
        """All requests, whatever they got."""
        self.taken: list[Post] = []
        """Those that were answered with a 2xx."""
        self.connections = 0
        options = {} if tls is None else {"ssl_context": tls}
        self._server = StreamServer((host, 0), self._serve, **options)
        self._server.start()
        self.host = host
        self.port = self._server.server_port
        self._scheme = "http" if tls is None else "https"

    @property
    def url(self) -> str:
        return f"{self._scheme}://{self.host}:{self.port}/hook"

    def close(self) -> None:
        self._server.stop(timeout=0.01)

    def _serve(self, sock: Any, _address: Any) -> None:
        self.connections += 1
        try:
            while (post := _read(sock)) is not None:
                self.posts.append(post)
                act = self.acts.pop(0) if self.acts else OK
                if callable(act):
                    act(sock)
                    continue
                if act.startswith(b"HTTP/1.1 2"):
                    self.taken.append(post)
                sock.sendall(act)
        except OSError:
            pass


def _read(sock: Any) -> Post | None:
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(65536)
        if not part:
            return None
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers["content-length"]):
        body += sock.recv(65536)
    return Post(first.split()[1], headers, body)
