"""A WSGI port on gevent, with the limits that a port needs: slow, huge and broken clients delay nobody.

gevent's own ``pywsgi`` says of itself that it is not for the internet, and it is right: a byte every now and then holds
a connection for ever, one address may take them all, a request that two readers read differently is read on, the
rest of a refused body is read to its end. So requests are read here, strictly and against deadlines, and bodies before
the application is asked: it never waits for a client.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from ipaddress import IPv6Address
from ssl import SSLContext
from typing import Any
from urllib.parse import unquote

import gevent
import msgspec
from gevent import socket
from gevent.pool import Pool
from gevent.server import StreamServer

from esl_apps.http.rate_limit import Buckets
from esl_apps.net.listening import listen

log = logging.getLogger(__name__)

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

#: Bytes of a request's body; the largest that makes sense is a few hundred.
MAX_BODY = 65536
#: Bytes of a request's first line, and of all before its body; and how many headers.
MAX_LINE = 8192
MAX_HEAD = 16384
MAX_HEADERS = 100
#: Bytes around one chunk of a body in chunks: its size with what may stand behind that, or a trailer.
_MAX_CHUNK_LINE = 1024
_RECEIVE = 16384
#: Connections that wait to be accepted.
_BACKLOG = 512
#: Bytes that a refused client may still have on its way to us; read, or it would never see why it was refused.
_LINGER = 262144

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_REQUEST = re.compile(rb"(" + _TOKEN + rb"{1,32}) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_HEADER = re.compile(rb"(" + _TOKEN + rb"+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_ABSOLUTE = re.compile(r"https?://[^/?#]+", re.IGNORECASE)
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_TRAILER = re.compile(_TOKEN + rb"+:[^\x00-\x08\x0a-\x1f\x7f]*")
#: Headers that decide where a request ends, or whom it is for: twice is once too often.
_ONCE = frozenset({"CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING", "HTTP_HOST"})

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


class _Refused(Exception):
    """A request that no application sees."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


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
        self._buffer = bytearray()

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
        """One request; whether the next one may come on this connection."""
        try:
            environ, keep = self._head()
            whole = self._body(environ)
        except _Refused as refused:
            self.deadline = None
            self._server.say(str(refused), str(self._address[0]))
            self._server.on_refused(refused.status)
            self._socket.sendall(_answer(refused.status, refused.code, str(refused)))
            self._linger()
            return False
        self.deadline = None
        keep = self._answer(environ, keep and whole)
        if not whole:
            self._linger()
        return keep

    # Reading ------------------------------------------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        self.since = time.monotonic()
        self.deadline = self.since + seconds

    def _receive(self) -> None:
        """More into the buffer. :raises _Gone: no more comes. :raises _Refused: it came too late."""
        try:
            data = self._socket.recv(_RECEIVE)
        except OSError as error:
            self.late = self.late or isinstance(error, TimeoutError)
            if not self.late:
                raise
            data = b""
        if self.late:
            if not self._buffer:
                raise _Gone
            raise _Refused(408, "timeout", "the request took too long")
        if not data:
            raise _Gone
        self._buffer += data

    def _head(self) -> tuple[dict[str, Any], bool]:
        """Everything before the body, as WSGI has it, and whether the client would like to go on after it."""
        buffer = self._buffer
        if not buffer:
            self._wait(self._bounds.idle)
            self._receive()
        self._wait(self._bounds.head)
        looked = 0
        while True:
            while buffer.startswith(b"\r\n"):
                # Some clients end a body with a line of its own (RFC 9112, 2.2).
                del buffer[:2]
            if (end := buffer.find(b"\r\n\r\n", max(0, looked - 3), MAX_HEAD)) >= 0:
                break
            if buffer and not re.match(_TOKEN, buffer):
                raise _Refused(400, "bad_request", "expected HTTP/1.1")
            if b"\n\n" in buffer:
                raise _Refused(400, "bad_request", "expected lines that end with CR LF")
            if len(buffer) >= MAX_LINE and b"\r\n" not in buffer:
                raise _Refused(414, "too_long", f"expected a first line of {MAX_LINE} bytes at most")
            if len(buffer) >= MAX_HEAD:
                raise _Refused(431, "too_large", f"expected headers of {MAX_HEAD} bytes at most")
            looked = len(buffer)
            self._receive()
        lines = bytes(buffer[:end]).split(b"\r\n")
        del buffer[: end + 4]
        return self._parse(lines)

    def _parse(self, lines: list[bytes]) -> tuple[dict[str, Any], bool]:
        if len(lines[0]) > MAX_LINE:
            raise _Refused(414, "too_long", f"expected a first line of {MAX_LINE} bytes at most")
        first = _REQUEST.fullmatch(lines[0])
        if first is None:
            raise _Refused(400, "bad_request", "expected METHOD PATH HTTP/1.1")
        if first[3] != b"1":
            raise _Refused(400, "bad_request", "expected HTTP/1.1")
        target = first[2].decode("ascii")
        if not target.startswith("/"):
            origin = _ABSOLUTE.match(target)
            if origin is None:
                raise _Refused(400, "bad_request", "expected a path")
            target = target[origin.end() :] or "/"
        path, _, query = target.partition("?")
        if len(lines) > MAX_HEADERS + 1:
            raise _Refused(431, "too_many", f"expected {MAX_HEADERS} headers at most")
        environ = {
            **self._server.base,
            "REQUEST_METHOD": first[1].decode("ascii"),
            "PATH_INFO": unquote(path, "latin-1"),
            "QUERY_STRING": query,
            "SERVER_PROTOCOL": "HTTP/1.1" if first[4] != b"0" else "HTTP/1.0",
            "REMOTE_ADDR": str(self._address[0]),
            "REMOTE_PORT": str(self._address[1]),
        }
        for line in lines[1:]:
            found = _HEADER.fullmatch(line)
            if found is None:
                raise _Refused(400, "bad_request", "expected NAME: VALUE in each header line")
            name = found[1].decode("ascii")
            if "_" in name:
                # Looks like the same name with a dash, once it stands in ``environ``.
                continue
            key = name.upper().replace("-", "_")
            if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                key = f"HTTP_{key}"
            value = found[2].decode("latin-1").rstrip(" \t")
            if key not in environ:
                environ[key] = value
            elif key in _ONCE:
                raise _Refused(400, "bad_request", f"expected one {name}")
            else:
                environ[key] += ("; " if key == "HTTP_COOKIE" else ",") + value
        wishes = [one.strip() for one in environ.get("HTTP_CONNECTION", "").lower().split(",")]
        return environ, "close" not in wishes and (environ["SERVER_PROTOCOL"] == "HTTP/1.1" or "keep-alive" in wishes)

    def _body(self, environ: dict[str, Any]) -> bool:
        """The body, into ``environ``; whether it is all of it. One that is too large is not read on: what there is
        of it says so to the application."""
        length = environ.get("CONTENT_LENGTH")
        coding = environ.get("HTTP_TRANSFER_ENCODING")
        body = b""
        whole = True
        if coding is not None:
            if length is not None or environ["SERVER_PROTOCOL"] == "HTTP/1.0":
                raise _Refused(400, "bad_request", "expected Content-Length or Transfer-Encoding")
            if coding.lower() != "chunked":
                raise _Refused(400, "bad_request", "expected Transfer-Encoding: chunked, or none")
            self._begin_body(environ)
            body, whole = self._chunks()
            environ["CONTENT_LENGTH"] = str(len(body))
        elif length is not None:
            if not _LENGTH.fullmatch(length):
                raise _Refused(400, "bad_request", "expected a number in Content-Length")
            count = int(length)
            whole = count <= MAX_BODY
            if whole and count:
                if len(self._buffer) < count:
                    self._begin_body(environ)
                body = self._take(count)
        environ["wsgi.input"] = BytesIO(body)
        return whole

    def _begin_body(self, environ: dict[str, Any]) -> None:
        self._wait(self._bounds.body)
        if environ.get("HTTP_EXPECT", "").lower() == "100-continue" and not self._buffer:
            self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._receive_body()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n", 0, _MAX_CHUNK_LINE)) < 0:
            if len(self._buffer) >= _MAX_CHUNK_LINE:
                raise _Refused(400, "bad_request", "expected a body in chunks")
            self._receive_body()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _receive_body(self) -> None:
        try:
            self._receive()
        except _Gone:
            if self.late:
                raise _Refused(408, "timeout", "the request took too long") from None
            # It may have closed its own direction only, and still be listening.
            raise _Refused(400, "not_json", "expected the whole body") from None

    def _chunks(self) -> tuple[bytes, bool]:
        """A body in chunks, or, where it is too large, as much of it as shows that; and whether it is whole."""
        body = bytearray()
        while True:
            found = _CHUNK.fullmatch(self._line())
            if found is None:
                raise _Refused(400, "bad_request", "expected a body in chunks")
            size = int(found[1], 16)
            if not size:
                break
            if len(body) + size > MAX_BODY:
                return bytes(body) + bytes(MAX_BODY + 1 - len(body)), False
            body += self._take(size)
            if self._take(2) != b"\r\n":
                raise _Refused(400, "bad_request", "expected a body in chunks")
        trailers = 0
        while line := self._line():
            trailers += 1
            if trailers > MAX_HEADERS or not _TRAILER.fullmatch(line):
                raise _Refused(400, "bad_request", "expected a body in chunks")
        return bytes(body), True

    def _linger(self) -> None:
        """Take what is still on its way: closed over it, the client would be told of a broken connection in place
        of our answer."""
        self._wait(self._bounds.linger)
        del self._buffer[:]
        left = _LINGER
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_WR)
            while left > 0 and not self.late and (data := self._socket.recv(_RECEIVE)):
                left -= len(data)

    # Answering ----------------------------------------------------------------------------------------

    def _answer(self, environ: dict[str, Any], keep: bool) -> bool:
        """Ask the application, send what it says; whether the connection can go on."""
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
                data = _head_of(status, headers, environ["SERVER_PROTOCOL"], keep)
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
                return keep and (length == declared or environ["REQUEST_METHOD"] == "HEAD")
            finally:
                close = getattr(result, "close", None)
                if close is not None:
                    close()
        except OSError:
            if sent:
                raise
            log.exception("request failed", extra={"path": environ["PATH_INFO"][:80]})
        except Exception:
            log.exception("request failed", extra={"path": environ["PATH_INFO"][:80]})
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


def source_of(address: str) -> str:
    """Whose requests and connections are counted together: an address; of IPv6 the network of one customer."""
    if ":" not in address:
        return address
    ip = IPv6Address(address.partition("%")[0])
    return str(ip.ipv4_mapped) if ip.ipv4_mapped else ip.packed[:8].hex()


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
