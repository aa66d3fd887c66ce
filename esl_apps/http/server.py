"""A WSGI port on gevent, with the limits that a port needs: slow, huge and broken clients delay nobody.

gevent's own ``pywsgi`` says of itself that it is not for the internet, and it is right: a byte every now and then holds
a connection for ever, one address may take them all, a request that two readers read differently is read on, the
rest of a refused body is read to its end. So requests are read here, strictly and against deadlines, and bodies before
the application is asked: it never waits for a client.
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

log = logging.getLogger(__name__)

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_RECEIVE = 16384
#: Connections that wait to be accepted.
_BACKLOG = 512
#: Bytes that a refused client may still have on its way to us; read, or it would never see why it was refused.
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
    """What a client may take. Times are seconds."""

    #: Connections of a port, and of one address on it (an IPv6 one's /64). A full port drops who waits longest.
    connections: int = 1000
    per_address: int = 500
    #: For the TLS handshake; from the first byte of a request to the end of its headers; for its body.
    handshake: float = 10.0
    head: float = 10.0
    body: float = 15.0
    #: Between two requests, or before the first.
    idle: float = 30.0
    #: For each part of an answer (16 KB at most) to leave.
    write: float = 30.0
    linger: float = 2.0
    #: How often the deadlines are looked at: one look at all connections costs less than a timer each.
    look: float = 0.5


class _Gone(Exception):
    """The client left, or is cut off: there is nobody to answer."""


class Server(StreamServer):
    """Accepts, counts, and cuts off; each connection is one greenlet."""

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
        #: New connections take what is here now: a renewed certificate needs no restart.
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
        self._looking = gevent.spawn(self._look)

    def stop(self, timeout: float | None = None) -> None:
        self._looking.kill()
        super().stop(timeout)

    def do_handle(self, sock: socket.socket, address: tuple[Any, ...]) -> None:
        """A new connection, in the event loop itself: what happens here must not wait."""
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
        """A line of the log, a few a second at most: who sends rubbish does not fill the disk."""
        if not self._lines.take("", 5.0, 20.0):
            log.info("http", extra={"reason": reason[:200], "client": client})

    def _refuse(self, sock: socket.socket, status: int, code: str, message: str) -> None:
        self.on_refused(status)
        if self.tls is None:
            with contextlib.suppress(OSError):
                sock.settimeout(0)
                sock.send(_answer(status, code, message))
        sock.close()

    def _make_room(self) -> bool:
        """End the connection that has waited longest for its client, of the address that has most of them."""
        waiting = [one for one in self._open if one.deadline is not None and not one.late]
        if not waiting:
            return False
        max(waiting, key=lambda one: (self._by_source[one.source], -one.since)).cut()
        return True

    def _look(self) -> None:
        while True:
            gevent.sleep(self.bounds.look)
            now = time.monotonic()
            for one in [one for one in self._open if one.deadline is not None and one.deadline <= now]:
                one.cut()


class _Errors:
    """``wsgi.errors``: to the log."""

    def write(self, text: str) -> None:
        if text.strip():
            log.error("http", extra={"reason": text.strip()[:200]})

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Nothing is kept."""


class _Connection:
    """One client, from its first byte to its last."""

    def __init__(self, server: Server, sock: socket.socket, address: tuple[Any, ...], source: str) -> None:
        self.source = source
        #: When it is cut off, and since when it has been waited for; no deadline while the application works.
        self.since = time.monotonic()
        self.deadline: float | None = self.since + server.bounds.handshake
        self.late = False
        self._server = server
        self._bounds = server.bounds
        self._socket = sock
        self._address = address
        self._parser = Parser()

    def cut(self) -> None:
        """End the reading, from another greenlet; an answer may still be written."""
        self.late = True
        with contextlib.suppress(OSError):
            # Not ``SSLSocket.shutdown``, which takes its state away under who is reading.
            socket.socket.shutdown(self._socket, socket.SHUT_RD)

    def run(self) -> None:
        try:
            self._socket.settimeout(self._bounds.write)
            # Else the end of an answer waits until its beginning is acknowledged, which takes 40 ms.
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
        while isinstance(found := parser.next(), Need):
            if found is Need.CONTINUE:
                self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                continue
            if found is not waiting:
                # Set once for each part of a request: a byte now and then doesn't move it.
                waiting = found
                self._wait(bounds.idle if found is Need.REQUEST else bounds.head if found is Need.HEAD else bounds.body)
            self._receive()
        return found

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
        """Take what is still on its way: closed over it, the client would be told of a broken connection in place
        of our answer."""
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
                # Fewer bytes than were said: only the connection's end can tell the client where the answer ends.
                return keep and (length == declared or request.method == "HEAD")
            finally:
                close = getattr(result, "close", None)
                if close is not None:
                    close()
        except OSError:
            if sent:
                raise
            log.exception("request failed", extra={"path": request.path[:80]})
        except Exception:
            log.exception("request failed", extra={"path": request.path[:80]})
        if not sent:
            self._socket.sendall(_answer(500, "internal", "the request failed; its log says why"))
        return False


def _no_write(_data: bytes) -> None:
    raise RuntimeError("WSGI's write() is not served here: an application returns its body")


#: The second that it is, as HTTP writes it.
@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(second))


def _head_of(status: str, headers: list[tuple[str, str]], protocol: str, keep: bool) -> bytes:
    """:raises ValueError: a header would be read as more than one."""
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
    """An answer of the port's own, before any application; the connection ends with it."""
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
    """Start to serve at an address, or from a socket that listens already.

    :param on_refused: is told the status of every answer that no application gave.
    :raises OSError: the address is in use or is not this machine's.
    """
    listener = listen(address, _BACKLOG) if isinstance(address, tuple) else address
    server = Server(listener, app, bounds or Bounds(), tls, on_refused)
    if listener is address:
        # Other processes accept from it, too: the next one is for whoever is free.
        server.max_accept = 1
    server.start()
    return server
