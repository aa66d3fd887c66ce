"""A body that is sent while it is made, to clients that read, read late, don't read, and leave."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent import socket, ssl
from gevent.event import Event
from gevent.queue import Queue

from esl_apps.http.live_body import LiveBody
from esl_apps.http.server import Server, serve
from esl_apps.net import tls
from tests.support import TLS
from tests.support.peer import eventually

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
END = b"event: end\n\n"


class Body(LiveBody):
    """Sends what a test puts into its queue, up to an empty part."""

    patience = 0.3

    def __init__(self) -> None:
        self.parts: Queue[bytes] = Queue()
        self.closed = Event()

    def __iter__(self) -> Iterator[bytes]:
        while part := self.parts.get():
            yield part

    def too_slow(self) -> bytes:
        return END

    def close(self) -> None:
        self.closed.set()


class Stage:
    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.body = Body()
        self.server: Server = serve(("127.0.0.1", 0), self._app, tls=context)

    def _app(self, _environ: dict[str, Any], start_response: Any) -> LiveBody:
        start_response("200 OK", [("content-type", "text/event-stream")])
        return self.body

    def connect(self, buffer: int = 0) -> socket.socket:
        sock = socket.socket()
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.settimeout(5)
        sock.connect(self.server.address[:2])
        return sock


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    with gevent.Timeout(20):
        yield made
    made.server.stop(1)


def read_to(sock: socket.socket, end: bytes) -> bytes:
    found = b""
    while not found.endswith(end) and (chunk := sock.recv(65536)):
        found += chunk
    return found


def test_live_body_is_sent_part_by_part(stage: Stage) -> None:
    with stage.connect() as sock:
        sock.sendall(GET)
        head = read_to(sock, b"\r\n\r\n")
        assert b"connection: close" in head
        assert b"content-length" not in head
        for part in (b"one\n\n", b"two\n\n"):
            stage.body.parts.put(part)
            assert read_to(sock, b"\n\n") == part
        stage.body.parts.put(b"")
        assert sock.recv(100) == b""
    assert stage.body.closed.wait(5)


def test_live_body_over_tls_is_sent_part_by_part() -> None:
    stage = Stage(tls.context(str(TLS / "one.pem"), str(TLS / "one.key"), ssl.SSLContext))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with gevent.Timeout(20), context.wrap_socket(stage.connect()) as sock:
        sock.sendall(GET)
        read_to(sock, b"\r\n\r\n")
        stage.body.parts.put(b"one\n\n")
        assert read_to(sock, b"\n\n") == b"one\n\n"
    stage.body.parts.put(b"x")
    stage.body.parts.put(b"x")
    assert stage.body.closed.wait(5)
    stage.server.stop(1)


def test_live_body_of_a_client_that_left_is_closed(stage: Stage) -> None:
    with stage.connect() as sock:
        sock.sendall(GET)
        read_to(sock, b"\r\n\r\n")
    for _ in range(3):
        stage.body.parts.put(b"x" * 1000)
        gevent.sleep(0)
    assert stage.body.closed.wait(5)
    eventually(lambda: stage.server.connection_count == 0)


def test_live_body_for_a_late_reader_ends_with_a_reason(stage: Stage) -> None:
    with stage.connect(4096) as sock:
        sock.sendall(GET)
        read_to(sock, b"\r\n\r\n")
        for _ in range(100):
            stage.body.parts.put(b"x" * 65536)
        left = stage.body.parts.qsize
        gevent.sleep(1.5 * Body.patience)
        # Not even the system's buffers hold all of it.
        assert left() > 50
        found = read_to(sock, END)
        assert found.endswith(END)
        assert sock.recv(100) == b""
    assert stage.body.closed.wait(5)


def test_live_body_for_a_client_that_never_reads_is_closed(stage: Stage) -> None:
    with stage.connect(4096) as sock:
        sock.sendall(GET)
        for _ in range(100):
            stage.body.parts.put(b"x" * 65536)
        assert stage.body.closed.wait(5)
        eventually(lambda: stage.server.connection_count == 0)
