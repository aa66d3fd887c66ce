"""A WSGI server on gevent with limits, so that slow, huge or broken clients don't delay the others.

gevent's ``pywsgi`` isn't meant for the internet. A client that sends a byte now and then keeps its connection for ever,
one address can take all connections, ambiguous requests are accepted, and a refused body is read to its end. This
server reads requests strictly (:mod:`esl_apps.http.request`) and against deadlines. It calls the application only after
the whole body has arrived, so the application never waits for a client.

A client whose bytes are always ready gets its turns and no more (:mod:`esl_apps.net.turns`): one for each piece that
it sends, each request, each step of a TLS handshake and each part of an answer. Each request counts against the
client's address before it is parsed: a connection pays for its first one when it is accepted.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from ssl import SSLContext
from typing import Any

import gevent
from gevent import socket
from gevent.pool import Pool
from gevent.server import StreamServer

from esl_apps.http.connection import Bounds, Connection, TooMany, Wsgi, answer_of
from esl_apps.http.rate_limit import Buckets, capacity_of, source_of
from esl_apps.http.request import BadRequest
from esl_apps.net.listening import listen
from esl_apps.process import background

log = logging.getLogger(__name__)

_RECEIVE = 16384
#: Connections that wait to be accepted.
_BACKLOG = 512
#: Bytes that the system may hold for a connection, to be sent and to be read (Linux takes twice as many). By default it
#: holds 4 MB of answers for a client that doesn't read them. All programs of a machine share its memory for TCP:
#: 500 connections without a token would take it from Redis and the switches.
_SEND_BUFFER, _RECEIVE_BUFFER = 65536, 32768
#: Connections to accept in one pass of the event loop. Refusing one takes 60 us.
_ACCEPT = 32


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
        self.max_accept = _ACCEPT
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
        self._open: dict[Connection, None] = {}
        self._by_source: Counter[str] = Counter()
        self._requests = Buckets()
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
        if wait := self.charge(source):
            self._refuse(sock, TooMany(wait))
            return
        if self._by_source[source] >= self.bounds.per_address:
            self._refuse(sock, BadRequest(429, "too_many", "too many connections of this address"))
            return
        if len(self._open) >= self.bounds.connections and not self._make_room():
            self._refuse(sock, BadRequest(503, "unavailable", "too many connections"))
            return
        connection = Connection(self, sock, address, source)
        self._open[connection] = None
        self._by_source[source] += 1
        super().do_handle(sock, connection)

    def handle(self, _sock: socket.socket, connection: Connection) -> None:
        connection.run()

    @property
    def connection_count(self) -> int:
        return len(self._open)

    def charge(self, source: str) -> float:
        """Count a request against an address. Return 0, or the seconds until it may send another."""
        rate = self.bounds.rate
        return 0.0 if rate is None else self._requests.take(source, rate, capacity_of(rate, self.bounds.burst))

    def forget(self, connection: Connection) -> None:
        del self._open[connection]
        self._by_source[connection.source] -= 1
        if not self._by_source[connection.source]:
            del self._by_source[connection.source]

    def say(self, reason: str, client: str) -> None:
        """Log a refused or broken connection, at most a few a second: bad clients must not fill the disk."""
        if not self._lines.take("", 5.0, 20.0):
            log.info("http_client_error", extra={"reason": reason[:200], "client": client})

    def _refuse(self, sock: socket.socket, refused: BadRequest) -> None:
        self.on_refused(refused.status)
        if self.tls is None:
            with contextlib.suppress(OSError):
                sock.settimeout(0)
                sock.send(answer_of(refused))
                # With unread bytes, closing resets the connection, and the client may never see the answer.
                sock.recv(_RECEIVE)
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
    # Each accepted connection inherits them.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    server = Server(listener, app, bounds or Bounds(), tls, on_refused)
    if listener is address:
        # Other processes accept from it, too. Take one connection at a time, so that an idle process gets the next.
        server.max_accept = 1
    server.start()
    return server
