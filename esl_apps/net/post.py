"""Post to one URL over one connection, within bounds: no redirect, no proxy, no cookie, and only public addresses.

The host is looked up for each connection, all its addresses are judged, and one of them is connected to: the name isn't
looked up again in between, so DNS that answers differently the second time (rebinding) gains nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

import gevent
from gevent import socket, ssl

from esl_apps.net.destination import Destination, first_unfit
from esl_apps.net.resolver import Resolver, Unresolved
from esl_apps.net.stream import Stream
from esl_apps.net.tls_stream import TlsStream
from esl_apps.net.turns import take_turn

#: Seconds for one post, with the look-up and the connection. Standard Webhooks suggests 15 to 30.
PATIENCE = 15.0
#: Seconds for the look-up, and for each address to be connected to.
_LOOK_UP, _CONNECT = 5.0, 5.0
#: Addresses of a name that are tried.
_ADDRESSES = 3
#: Bytes of an answer's head, with interim ones (1xx), and of its body. More closes the connection.
_HEAD, _BODY = 16_384, 65_536
_READ = 16_384
#: Seconds for a body, which isn't looked at: without it, the connection is closed.
_BODY_PATIENCE = 1.0

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: |$)")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?")
_LENGTH = re.compile(rb"[0-9]{1,9}")


class Failed(Exception):
    """No answer. ``kind`` is one of ``address``, ``dns``, ``connect``, ``tls``, ``timeout``, ``broken``, ``answer``."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class _Stale(Exception):
    """The receiver closed the connection before it answered anything, as it may between two requests."""


class _Line:
    """A stream as TLS wants it, a socket whose waits end at a time."""

    __slots__ = ("_stream", "look", "until")

    def __init__(self, stream: Stream, until: float) -> None:
        """``until``: when a wait fails (monotonic)."""
        self._stream = stream
        self.look = stream.look
        self.until = until

    def recv(self, size: int) -> bytes:
        data = self._stream.recv(self.until, size)
        if data is None:
            raise Failed("timeout", "no answer in time")
        return data

    def send(self, data: bytes) -> int:
        rest = self._stream.send_now(data)
        if rest:
            # A receiver that reads a little at a time must not begin each wait again.
            left, late = self.until - time.monotonic(), Failed("timeout", "the post wasn't read in time")
            try:
                with gevent.Timeout(left, late):
                    self._stream.send(rest, left)
            except TimeoutError:
                # The stream's own timer is due at the same time as this one.
                raise late from None
        return len(data)

    sendall = send

    def close(self) -> None:
        self._stream.close()


class Answer(NamedTuple):
    status: int
    retry_after: float | None
    """Seconds, if the receiver asked for a pause."""


@cache
def context() -> Any:
    """Return the TLS context of all connections. Reading the authorities takes some 20 ms, so call it in a thread
    first."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.load_default_certs()
    made.set_alpn_protocols(["http/1.1"])
    return made


class Poster:
    """Used by one greenlet at a time."""

    def __init__(
        self,
        to: Destination,
        resolver: Resolver,
        *,
        allow_private: bool = False,
        patience: float = PATIENCE,
        tls: Callable[[], Any] = context,
    ) -> None:
        self._to = to
        self._resolver = resolver
        self._allow_private = allow_private
        self._patience = patience
        self._tls = tls
        self._start = (
            f"POST {to.path} HTTP/1.1\r\nhost: {to.authority}\r\nuser-agent: esl-apps\r\naccept: */*\r\n"
            "content-type: application/json\r\ncontent-length: "
        )
        self._line: _Line | None = None
        self._sock: Any = None
        """The line, or TLS over it."""
        self._rest = b""
        """Bytes that were read and belong to no answer yet."""

    def post(self, headers: Iterable[tuple[str, str]], body: bytes) -> Answer:
        """Post a body and return the answer. :raises Failed: there is none."""
        lines = [f"{self._start}{len(body)}", *(f"{name}: {value}" for name, value in headers), "", ""]
        request = "\r\n".join(lines).encode("ascii") + body
        until = time.monotonic() + self._patience
        try:
            if self._line is not None and self._is_clean(self._line):
                self._line.until = until
                try:
                    return self._exchange(request)
                except _Stale:
                    pass
            self.close()
            self._connect(until)
            return self._exchange(request)
        except BaseException as error:
            # Whatever it was, an answer that is still to come must not be taken for the next one's.
            self.close()
            if isinstance(error, _Stale):
                raise Failed("broken", "the connection was closed without an answer") from None
            if isinstance(error, OSError):
                raise Failed("broken", f"the connection broke: {_words(error)}") from None
            raise

    def try_connection(self) -> str:
        """Connect and post nothing. Return the address. :raises Failed: it can't be connected to."""
        try:
            return self._connect(time.monotonic() + self._patience)
        finally:
            self.close()

    def close(self) -> None:
        line, self._line, self._sock, self._rest = self._line, None, None, b""
        if line is not None:
            line.close()

    def _is_clean(self, line: _Line) -> bool:
        """Whether nothing has arrived since the last answer: not the end, and not the 408 of an impatient server."""
        if self._rest or (self._to.secure and self._sock.pending()):
            return False
        try:
            line.look()
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    # Connecting ---------------------------------------------------------------------------------------

    def _connect(self, until: float) -> str:
        """Connect to one of the addresses, and return it. :raises Failed: none can be connected to."""
        with gevent.Timeout(until - time.monotonic(), Failed("timeout", f"no connection within {self._patience:g} s")):
            sock = self._connected()
        address = str(sock.getpeername()[0])
        self._line = self._sock = _Line(Stream(sock), until)
        if self._to.secure:
            self._sock = self._secured(self._line)
        return address

    def _connected(self) -> socket.socket:
        to = self._to
        try:
            addresses = self._resolver.addresses(to.host, to.port, _LOOK_UP)
        except Unresolved as error:
            raise Failed("dns", str(error)) from None
        self._judge(addresses)
        failed = OSError("no address")
        for address in addresses[:_ADDRESSES]:
            sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            try:
                sock.settimeout(_CONNECT)
                sock.connect((address, to.port))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._judge([sock.getpeername()[0]])
                return sock
            except OSError as error:
                sock.close()
                failed = error
            except BaseException:
                sock.close()
                raise
        raise Failed("connect", f"can't connect to {to.host} port {to.port}: {_words(failed)}")

    def _judge(self, addresses: Iterable[str]) -> None:
        """:raises Failed: an address may not be connected to."""
        why = "" if self._allow_private else first_unfit(addresses)
        if why:
            named = "" if self._to.host in why else f"{self._to.host}: "
            raise Failed("address", f"{named}{why}, and allow_private is not set")

    def _secured(self, line: _Line) -> TlsStream:
        secured = TlsStream(line, self._tls(), server_hostname=self._to.host, turn=lambda: take_turn(self._to.host))
        try:
            secured.do_handshake()
        except OSError as error:
            raise self._explained(error) from None
        return secured

    def _explained(self, error: OSError) -> Exception:
        if isinstance(error, ssl.SSLCertVerificationError):
            return Failed("tls", f"{self._to.host}: its certificate isn't valid: {error.verify_message}")
        if isinstance(error, ssl.SSLError):
            return Failed("tls", f"{self._to.host}: no TLS: {error.reason or error}")
        return error

    # One request --------------------------------------------------------------------------------------

    def _exchange(self, request: bytes) -> Answer:
        """:raises _Stale: the connection was closed before anything of an answer came."""
        try:
            self._sock.sendall(request)
            self._read()
        except OSError:
            raise _Stale from None
        if not self._rest:
            raise _Stale
        version, status, fields = self._head()
        self._skip_body(version, status, fields)
        return Answer(status, _seconds(fields.get(b"retry-after", b"")))

    def _read(self) -> None:
        # A receiver whose bytes are always there would keep the event loop: a body of 64 KB in chunks of one byte is
        # 400 KB to read (hazard 37).
        take_turn(self._to.host)
        self._rest += self._sock.recv(_READ)

    def _head(self) -> tuple[int, int, dict[bytes, bytes]]:
        """Read up to the end of the head of the final answer: its minor version, its status and its fields."""
        left = _HEAD
        while True:
            head = self._until(b"\r\n\r\n", left, "an answer with too long a head")
            left -= len(head) + 4
            first, *lines = head.split(b"\r\n")
            match = _STATUS.match(first)
            if match is None:
                raise Failed("answer", "what answers isn't HTTP/1.1")
            status = int(match[2])
            if status >= 200:
                pairs = (line.partition(b":") for line in lines)
                return int(match[1]), status, {name.strip().lower(): value.strip() for name, _colon, value in pairs}
            if status == 101:
                raise Failed("answer", "status 101, which wasn't asked for")

    def _until(self, end: bytes, most: int, too_much: str) -> bytes:
        """Return the bytes before ``end``, and drop those and ``end``. :raises Failed: they don't come, or too many."""
        searched = 0
        while (at := self._rest.find(end, searched)) < 0:
            if len(self._rest) > most:
                raise Failed("answer", too_much)
            searched = max(0, len(self._rest) - len(end) + 1)
            before = len(self._rest)
            self._read()
            if len(self._rest) == before:
                raise Failed("broken", "the connection was closed in the middle of an answer")
        found, self._rest = self._rest[:at], self._rest[at + len(end) :]
        return found

    def _skip_body(self, version: int, status: int, fields: dict[bytes, bytes]) -> None:
        """Read a short body, so that the connection can be used again; otherwise close it."""
        options = fields.get(b"connection", b"").lower()
        stays = b"close" not in options and (version == 1 or b"keep-alive" in options)
        whole = False
        if stays and self._line is not None:
            self._line.until = min(self._line.until, time.monotonic() + _BODY_PATIENCE)
            with suppress(OSError, Failed):
                whole = self._skipped(status, fields)
        if not whole:
            self.close()

    def _skipped(self, status: int, fields: dict[bytes, bytes]) -> bool:
        """Whether the body was read. The status is known already: it counts, whatever the body is like."""
        if status in (204, 304):
            return True
        coding, length = fields.get(b"transfer-encoding"), fields.get(b"content-length")
        if coding is not None:
            return coding.lower() == b"chunked" and length is None and self._skip_chunks()
        if length is None or not _LENGTH.fullmatch(length) or int(length) > _BODY:
            return False
        return self._skip(int(length))

    def _skip_chunks(self) -> bool:
        left = _BODY
        while left > 0:
            size = _CHUNK.fullmatch(self._until(b"\r\n", 128, ""))
            if size is None:
                return False
            length = int(size[1], 16)
            if length == 0:
                # Trailers are rare: with any, the connection isn't used again.
                return self._until(b"\r\n", 128, "") == b""
            left -= length
            if left < 0 or not self._skip(length) or self._until(b"\r\n", 2, "") != b"":
                return False
        return False

    def _skip(self, length: int) -> bool:
        while len(self._rest) < length:
            before = len(self._rest)
            self._read()
            if len(self._rest) == before:
                return False
        self._rest = self._rest[length:]
        return True


def _seconds(text: bytes) -> float | None:
    """``Retry-After`` in seconds; a date counts as none."""
    return float(text) if _LENGTH.fullmatch(text) else None


def _words(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    return error.strerror or str(error) or type(error).__name__
