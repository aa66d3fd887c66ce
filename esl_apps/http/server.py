"""A WSGI server on gevent with limits, so that slow, huge or broken clients don't delay the others.

gevent's ``pywsgi`` isn't meant for the internet. A client that sends a byte now and then keeps its connection for ever,
one address can take all connections, ambiguous requests are accepted, and a refused body is read to its end. This
server reads requests strictly (:mod:`esl_apps.http.request`) and against deadlines. It calls the application only after
the whole body has arrived, so the application never waits for a client.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from ssl import SSLContext
from typing import Any

import gevent
import msgspec
from gevent import socket
from gevent.pool import Pool
from gevent.server import StreamServer

from esl_apps.http.rate_limit import Buckets, source_of
from esl_apps.http.request import BadRequest, Need, Parser, Request
from esl_apps.net.listening import listen
from esl_apps.process import background

log = logging.getLogger(__name__)

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_RECEIVE = 16384
#: Connections that wait to be accepted.
_BACKLOG = 512
#: Bytes to read from a refused client before closing. With unread bytes TCP resets the connection, and the client never
#: sees the answer.
_LINGER = 262144

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


class Server(StreamServer):
    """Accept connections, count them, and cut off late clients. Each connection has a greenlet."""

    def __init__(
        self,
        listener: socket.socket,
        app: Wsgi,
        bounds: Bounds,
        tls: SSLContext | None,
        on_refused: Callable[[int], None],
    ) -> None:
        super().__init__(listener, spawn=Pool())
        self.app = app
        self.bounds = bounds
        #: For new connections. A reload may replace it, so a renewed certificate needs no restart.
        self.tls = tls
        self.on_refused = on_refused
        host, port = listener.getsockname()[:2]
        self.base = {
            "SERVER_NAME": host,
            "SERVER_PORT": str(port),
            "SCRIPT_NAME": "",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https" if tls else "http",
            "wsgi.errors": _Errors(),
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
        }
        self._open: dict[_Connection, None] = {}
        self._by_source: Counter[str] = Counter()
        self._lines = Buckets(1)

    def start(self) -> None:
        super().start()
        self._looking = background.keep("http_connections", self._look)

    def stop(self, timeout: float | None = None) -> None:
        self._looking.kill()
        super().stop(timeout)

    def do_handle(self, sock: socket.socket, address: tuple[Any, ...]) -> None:
        """Take or refuse a new connection. This runs in the event loop and must not wait."""
        source = source_of(str(address[0]))
        if self._by_source[source] >= self.bounds.per_address:
            self._refuse(sock, 429, "too_many", "too many connections of this address")
            return
        if len(self._open) >= self.bounds.connections and not self._make_room():
            self._refuse(sock, 503, "unavailable", "too many connections")
            return
        connection = _Connection(self, sock, address, source)
        self._open[connection] = None
        self._by_source[source] += 1
        super().do_handle(sock, connection)

    def handle(self, _sock: socket.socket, connection: _Connection) -> None:
        connection.run()

    @property
    def connection_count(self) -> int:
        return len(self._open)

    def forget(self, connection: _Connection) -> None:
        del self._open[connection]
        self._by_source[connection.source] -= 1
        if not self._by_source[connection.source]:
            del self._by_source[connection.source]

    def say(self, reason: str, client: str) -> None:
        """Log a refused or broken connection, at most a few a second: bad clients must not fill the disk."""
        if not self._lines.take("", 5.0, 20.0):
            log.info("http_client_error", extra={"reason": reason[:200], "client": client})

    def _refuse(self, sock: socket.socket, status: int, code: str, message: str) -> None:
        self.on_refused(status)
        if self.tls is None:
            with contextlib.suppress(OSError):
                sock.settimeout(0)
                sock.send(_answer(status, code, message))
        sock.close()

    def _make_room(self) -> bool:
        """Cut the connection that has waited longest for its client, from the address with the most connections."""
        waiting = [connection for connection in self._open if connection.deadline is not None and not connection.late]
        if not waiting:
            return False
        max(waiting, key=lambda connection: (self._by_source[connection.source], -connection.since)).cut()
        return True

    def _look(self) -> None:
        while True:
            gevent.sleep(self.bounds.look)
            now = time.monotonic()
            for connection in list(self._open):
                if connection.deadline is not None and connection.deadline <= now:
                    connection.cut()


class _Errors:
    """``wsgi.errors``, written to the log."""

    def write(self, text: str) -> None:
        if text.strip():
            log.error("wsgi_error", extra={"reason": text.strip()[:200]})

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Do nothing: every line is logged at once."""


class _Connection:
    """The connection of one client."""

    def __init__(self, server: Server, sock: socket.socket, address: tuple[Any, ...], source: str) -> None:
        self.source = source
        #: When the wait for the client began, and when it ends. No deadline while the application works.
        self.since = time.monotonic()
        self.deadline: float | None = self.since + server.bounds.handshake
        self.late = False
        self._server = server
        self._bounds = server.bounds
        self._socket = sock
        self._address = address
        self._parser = Parser()

    def cut(self) -> None:
        """Stop reading. Called from another greenlet; an answer may still be written."""
        self.late = True
        with contextlib.suppress(OSError):
            # SSLSocket.shutdown would drop the TLS state while another greenlet reads.
            socket.socket.shutdown(self._socket, socket.SHUT_RD)

    def run(self) -> None:
        try:
            self._socket.settimeout(self._bounds.write)
            # Without it the end of an answer waits until its beginning is acknowledged, which takes 40 ms.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tls = self._server.tls
            if tls is not None:
                self._socket = tls.wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
                self._socket.do_handshake()
                if self.late:
                    return
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

    def _serve(self) -> bool:
        """Answer one request; return whether the connection can carry another."""
        try:
            request = self._read()
        except BadRequest as refused:
            self.deadline = None
            self._server.say(str(refused), str(self._address[0]))
            self._server.on_refused(refused.status)
            self._socket.sendall(_answer(refused.status, refused.code, str(refused)))
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
        waiting: Need | None = None
        while isinstance(event := parser.next(), Need):
            if event is Need.CONTINUE:
                self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                continue
            if event is not waiting:
                # Set once for each part of a request: a byte now and then doesn't move it.
                waiting = event
                self._wait(bounds.idle if event is Need.REQUEST else bounds.head if event is Need.HEAD else bounds.body)
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
        self._parser.feed(data)

    def _linger(self) -> None:
        """Read what is still arriving, so that the client sees our answer and not a reset (see ``_LINGER``)."""
        self._wait(self._bounds.linger)
        left = _LINGER
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_WR)
            while left > 0 and not self.late and (data := self._socket.recv(_RECEIVE)):
                left -= len(data)

    # Answering ----------------------------------------------------------------------------------------

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
                    headers = [*headers, ("content-length", str(declared))]
                keep = keep and declared is not None
                data = _head_of(status, headers, request.version, keep)
                length = 0
                for part in result:
                    data += part
                    length += len(part)
                    if len(data) >= _RECEIVE:
                        sent = True
                        self._socket.sendall(data)
                        data = b""
                sent = True
                if data:
                    self._socket.sendall(data)
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
            self._socket.sendall(_answer(500, "internal", "the request failed; its log says why"))
        return False


def _no_write(_data: bytes) -> None:
    raise RuntimeError("WSGI's write() isn't supported: return the body")


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    """Format a time (Unix seconds) as HTTP does."""
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(second))


def _head_of(status: str, headers: list[tuple[str, str]], protocol: str, keep: bool) -> bytes:
    """Return the head of an answer. :raises ValueError: a header contains a line break."""
    lines = [f"HTTP/1.1 {status}", *[f"{name}: {value}" for name, value in headers], f"date: {_date(int(time.time()))}"]
    if not keep:
        lines.append("connection: close")
    elif protocol == "HTTP/1.0":
        lines.append("connection: keep-alive")
    for line in lines:
        if "\r" in line or "\n" in line:
            raise ValueError("a line break in a header")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _answer(status: int, code: str, message: str) -> bytes:
    """Return the server's own answer to a request that no application sees. The connection ends with it."""
    body = msgspec.json.encode({"errors": [{"field": "", "code": code, "message": message}]})
    headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
    if status in (429, 503):
        headers.append(("retry-after", "1"))
    return _head_of(f"{status} {_REASONS[status]}", headers, "HTTP/1.1", keep=False) + body


def serve(
    address: tuple[str, int] | socket.socket,
    app: Wsgi,
    *,
    bounds: Bounds | None = None,
    tls: SSLContext | None = None,
    on_refused: Callable[[int], None] = lambda _status: None,
) -> Server:
    """Start to serve on an address, or on a socket that already listens.

    :param on_refused: called with the status of every answer that isn't the application's.
    :raises OSError: the address is in use, or isn't one of this machine's.
    """
    listener = listen(address, _BACKLOG) if isinstance(address, tuple) else address
    server = Server(listener, app, bounds or Bounds(), tls, on_refused)
    if listener is address:
        # Other processes accept from it, too. Take one connection at a time, so that an idle process gets the next.
        server.max_accept = 1
    server.start()
    return server
