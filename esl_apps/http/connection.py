"""The connection of one client: read its requests, ask the application, and send the answers."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from itertools import chain
from ssl import SSLContext
from typing import Any, Protocol

import msgspec
from gevent import socket

from esl_apps.http.live_body import LiveBody
from esl_apps.http.request import BadRequest, Need, Parser, Request
from esl_apps.net.tls_stream import TlsStream
from esl_apps.net.turns import take_turn

log = logging.getLogger(__name__)

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_RECEIVE = 16384
#: Bytes to read from a refused client before closing. With unread bytes TCP resets the connection, and the client never
#: sees the answer.
_LINGER = 262144

#: Statuses of answers that have no body, and whose Content-Length would mean another's (RFC 9110, section 8.6).
_WITHOUT_LENGTH = ("204", "304")
_REASONS = {
    400: "Bad Request",
    408: "Request Timeout",
    414: "URI Too Long",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@dataclass
class Bounds:
    """Limits for clients. Times are seconds."""

    #: Connections of the port, and of one address (for IPv6 its /64). A full port drops the longest idle one.
    connections: int = 1000
    per_address: int = 500
    #: Requests a second of one address, and how many seconds' worth may arrive at once. None: no limit.
    rate: float | None = None
    burst: float = 10.0
    #: For the TLS handshake, for a request up to the end of its headers, and for its body.
    handshake: float = 10.0
    head: float = 10.0
    body: float = 15.0
    #: Until the first byte of a request.
    idle: float = 30.0
    #: For each part of an answer (16 KB at most) to be sent.
    write: float = 30.0
    linger: float = 2.0
    #: Interval between checks of the deadlines. One check of all connections costs less than a timer for each.
    look: float = 0.5


class _Gone(Exception):
    """The client left or was cut off, so no answer can be sent."""


class TooMany(BadRequest):
    """The client's address has sent too many requests. ``wait``: seconds until it may send another."""

    def __init__(self, wait: float) -> None:
        super().__init__(429, "too_many", "too many requests of this address")
        self.wait = wait


class Host(Protocol):
    """The server of a connection."""

    app: Wsgi
    bounds: Bounds
    tls: SSLContext | None
    on_refused: Callable[[int], None]
    base: dict[str, Any]
    """The part of WSGI's environ that all requests share."""

    def charge(self, source: str) -> float:
        """Count a request against an address. Return 0, or the seconds until it may send another."""

    def say(self, reason: str, client: str) -> None:
        """Log a refused or broken connection."""

    def forget(self, connection: Connection) -> None:
        """Called when a connection has ended."""


class Connection:
    """The connection of one client."""

    def __init__(self, server: Host, sock: socket.socket, address: tuple[Any, ...], source: str) -> None:
        self.source = source
        #: When the wait for the client began, and when it ends. No deadline while the application works.
        self.since = time.monotonic()
        self.deadline: float | None = self.since + server.bounds.handshake
        self.late = False
        #: Waiting for the client to read, not to send.
        self._writing = False
        #: The connection has paid for its first request, and for its handshake.
        self._paid = True
        #: Connections of an address share their turns.
        self._peer = id(server), source
        self._server = server
        self._bounds = server.bounds
        #: Sent with answers. A second less than the idle time: a client that uses the connection until then doesn't
        #: meet its end.
        self._hint = f"timeout={max(1, int(server.bounds.idle) - 1)}"
        self._socket: socket.socket | TlsStream = sock
        self._address = address
        self._parser = Parser()

    def cut(self) -> None:
        """Wait no longer. Called from another greenlet. A client that had to send something may still get an answer."""
        self.late = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR if self._writing else socket.SHUT_RD)

    def run(self) -> None:
        try:
            # Without it the end of an answer waits until its beginning is acknowledged, which takes 40 ms.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tls = self._server.tls
            if tls is not None:
                self._shake_hands(tls)
            self._socket.settimeout(self._bounds.write)
            while self._serve():
                pass
        except _Gone:
            pass
        except OSError as error:
            if not self.late:
                self._server.say(str(error), str(self._address[0]))
        finally:
            self._socket.close()
            self._server.forget(self)

    def _shake_hands(self, tls: SSLContext) -> None:
        """:raises OSError: the client doesn't speak TLS. :raises _Gone: it took too long."""
        assert isinstance(self._socket, socket.socket)
        self._socket = secured = TlsStream(self._socket, tls, server_side=True, turn=lambda: take_turn(self._peer))
        try:
            secured.do_handshake()
        except OSError:
            if self.late:
                raise _Gone from None
            raise

    def _serve(self) -> bool:
        """Answer one request; return whether the connection can carry another."""
        try:
            request = self._read()
        except BadRequest as refused:
            self.deadline = None
            self._server.say(str(refused), str(self._address[0]))
            self._server.on_refused(refused.status)
            self._send(answer_of(refused))
            self._linger()
            return False
        self.deadline = None
        keep = self._answer(request)
        if not request.whole:
            self._linger()
        return keep

    # Reading ------------------------------------------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        self.since = time.monotonic()
        self.deadline = self.since + seconds

    def _read(self) -> Request:
        """Return the next request.

        :raises BadRequest: it is answered by the port itself. :raises _Gone: there is none.
        """
        parser, bounds = self._parser, self._bounds
        if parser.begun:
            take_turn(self._peer)
        else:
            self._wait(bounds.idle)
            self._receive()
        if not self._paid and (wait := self._server.charge(self.source)):
            raise TooMany(wait)
        self._paid = False
        waiting: Need | None = None
        while isinstance(event := parser.next(), Need):
            if event is Need.CONTINUE:
                self._send(b"HTTP/1.1 100 Continue\r\n\r\n")
                continue
            if event is Need.TURN:
                take_turn(self._peer)
                continue
            if event is not waiting:
                # Set once for each part of a request: a byte now and then doesn't move it.
                waiting = event
                self._wait(bounds.body if event is Need.BODY else bounds.head)
            self._receive()
        return event

    def _receive(self) -> None:
        """Feed the parser.

        :raises _Gone: no more comes. :raises BadRequest: it came too late, or ends within a body.
        """
        try:
            data = self._socket.recv(_RECEIVE)
        except OSError as error:
            self.late = self.late or isinstance(error, TimeoutError)
            if not self.late:
                raise
            data = b""
        if self.late:
            if not self._parser.begun:
                raise _Gone
            raise BadRequest(408, "timeout", "the request took too long")
        if not data:
            # It may have closed its own direction only, and still be listening.
            self._parser.close()
            raise _Gone
        take_turn(self._peer)
        self._parser.feed(data)

    def _linger(self) -> None:
        """Read what is still arriving, so that the client sees our answer and not a reset (see ``_LINGER``)."""
        self._wait(self._bounds.linger)
        left = _LINGER
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            while left > 0 and not self.late and (data := self._socket.recv(_RECEIVE)):
                left -= len(data)
                take_turn(self._peer)

    # Answering ----------------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        """:raises OSError: the client is gone, or too slow."""
        self._writing = True
        self._wait(self._bounds.write)
        self._socket.sendall(data)
        self._writing = False
        self.deadline = None

    def _send_live(self, head: bytes, body: LiveBody) -> None:
        """Send parts as they come, until the body or the client ends.

        :raises OSError: the client is gone. :raises _Gone: it doesn't read.
        """
        self._writing = True
        for part in chain([head], body):
            take_turn(self._peer)
            if rest := self._send_within(part, body.patience):
                # It may read on, and should learn why it is cut off.
                self._send_within(bytes(rest) + body.too_slow(), body.patience)
                raise _Gone

    def _send_within(self, data: bytes, seconds: float) -> memoryview:
        """Send what the client takes within some seconds, and return the rest. :raises OSError: it is gone."""
        rest = memoryview(data)
        end = time.monotonic() + seconds
        while rest and (left := end - time.monotonic()) > 0:
            self._socket.settimeout(left)
            with contextlib.suppress(TimeoutError):
                rest = rest[self._socket.send(rest) :]
        return rest

    def _answer(self, request: Request) -> bool:
        """Ask the application and send its answer; return whether the connection can carry another request."""
        keep = request.keep_alive and request.whole
        environ = {
            **self._server.base,
            **request.headers,
            "REQUEST_METHOD": request.method,
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query,
            "SERVER_PROTOCOL": request.version,
            "REMOTE_ADDR": str(self._address[0]),
            "REMOTE_PORT": str(self._address[1]),
            "wsgi.input": BytesIO(request.body),
        }
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> Callable[..., Any]:
            started[:] = [(status, headers)]
            return _no_write

        sent = False
        result: Iterable[bytes] = ()
        try:
            try:
                result = self._server.app(environ, start_response)
                ((status, headers),) = started
                declared = next((int(value) for name, value in headers if name.lower() == "content-length"), None)
                if declared is None and isinstance(result, (list, tuple)):
                    declared = sum(map(len, result))
                    if status[:3] not in _WITHOUT_LENGTH:
                        headers = [*headers, ("content-length", str(declared))]
                keep = keep and declared is not None
                data = _head_of(status, headers, self._hint if keep else "")
                if isinstance(result, LiveBody):
                    sent = True
                    self._send_live(data, result)
                    return False
                length = 0
                for part in result:
                    data += part
                    length += len(part)
                    if len(data) >= _RECEIVE:
                        sent = True
                        self._send(data)
                        data = b""
                        take_turn(self._peer)
                sent = True
                if data:
                    self._send(data)
                # If the body is shorter than its length, only closing the connection tells the client where it ends.
                return keep and (length == declared or request.method == "HEAD")
            finally:
                close = getattr(result, "close", None)
                if close is not None:
                    close()
        except OSError:
            if sent:
                raise
            log.exception("http_request_failed", extra={"path": request.path[:80]})
        except Exception:
            log.exception("http_request_failed", extra={"path": request.path[:80]})
        if not sent:
            self._send(answer_of(BadRequest(500, "internal", "the request failed; its log says why")))
        return False


def _no_write(_data: bytes) -> None:
    raise RuntimeError("WSGI's write() isn't supported: return the body")


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    """Format a time (Unix seconds) as HTTP does."""
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(second))


def _head_of(status: str, headers: list[tuple[str, str]], hint: str) -> bytes:
    """Return the head of an answer. `hint`: how long an idle connection is kept; empty if it ends with this answer.

    :raises ValueError: a header contains a line break.
    """
    lines = [f"HTTP/1.1 {status}", *[f"{name}: {value}" for name, value in headers], f"date: {_date(int(time.time()))}"]
    lines += ("connection: keep-alive", f"keep-alive: {hint}") if hint else ("connection: close",)
    text = "\r\n".join(lines)
    if not text.count("\r") == text.count("\n") == len(lines) - 1:
        raise ValueError("a line break in a header")
    return f"{text}\r\n\r\n".encode("latin-1")


def answer_of(refused: BadRequest) -> bytes:
    """Return the server's own answer to a request that no application sees. The connection ends with it."""
    status, wait = refused.status, refused.wait if isinstance(refused, TooMany) else 1.0
    body = msgspec.json.encode({"errors": [{"field": "", "code": refused.code, "message": str(refused)}]})
    headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
    if status in (429, 503):
        headers.append(("retry-after", str(max(1, math.ceil(wait)))))
    return _head_of(f"{status} {_REASONS[status]}", headers, "") + body
