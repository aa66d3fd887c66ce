"""Read HTTP/1.1 requests from bytes. No socket, no clock: the caller brings the bytes and keeps the deadlines.

The rules:

* Feed what arrives with :meth:`Parser.feed`, then call :meth:`Parser.next` until it asks for more. Requests may arrive
  in pieces of any size, or several at once.
* A request that two readers could take for two different requests is refused, never repaired: bare line feeds, folded
  headers, a space before a colon, two lengths, a length together with chunks (RFC 9112, sections 6.3 and 11.2).
* Every part has a limit, checked while it arrives, so that a client can't make the buffer grow. Chunk sizes, extensions
  and trailers have one together: they cost the most work for each byte of a body.
* After a :class:`BadRequest`, or a request that isn't ``whole``, the rest of the stream has no meaning. The caller ends
  the connection.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote

#: Bytes of a request's body; the largest that makes sense is a few hundred.
MAX_BODY = 65536
#: Bytes of the request line, and of the request line with all headers.
MAX_LINE = 8192
MAX_HEAD = 16384
MAX_HEADERS = 100
#: Bytes of the line before a chunk (its size and extensions), and of a trailer.
MAX_CHUNK_LINE = 1024
#: Bytes of all of these in a body, with their line ends, and of the line ends after chunks. 64 KB in chunks of 20 bytes
#: have as many.
MAX_FRAMING = 16384
#: Empty lines before a request. Some clients send one after a body (RFC 9112, section 2.2).
MAX_EMPTY_LINES = 4

_TCHAR = "[!#$%&'*+.^_`|~0-9A-Za-z-]"
_NAME = re.compile(_TCHAR + "+")
_BEGINNING = re.compile(_TCHAR.encode())
_REQUEST_LINE = re.compile(rf"({_TCHAR}{{1,32}}) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_ORIGIN = re.compile(r"https?://[^/?#]+", re.IGNORECASE)
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_TRAILER = re.compile(_TCHAR.encode() + rb"+:[^\x00-\x08\x0a-\x1f\x7f]*")
#: A host's name or address, and a port (RFC 9110, section 7.2). Empty if the URL has no host.
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]*)?")
#: Every byte that a header's value may hold: no control characters except the tab.
_TEXT = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
#: These decide where a request ends, or which host it is for. A second one is an attack or a mistake.
_ONCE = frozenset({"CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING", "HTTP_HOST"})


class Need(Enum):
    """The part of a request that the parser waits for."""

    REQUEST = "no byte of the next request has arrived"
    HEAD = "the request line and the headers"
    CONTINUE = "the client holds its body back until it is sent 100 Continue"
    BODY = "the rest of the body"
    TURN = "nothing: other clients may have their turn, as a chunk has been read"


class BadRequest(Exception):
    """A request that no application sees: its status, a code, and ``str()`` says what was expected."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass(slots=True)
class Request:
    """One request as it was read."""

    method: str
    path: str
    """Percent-decoded, each byte as the Latin-1 character of its number, as WSGI wants it."""
    query: str
    version: str
    """``HTTP/1.0`` or ``HTTP/1.1``."""
    headers: dict[str, str]
    """By their WSGI names: ``HTTP_HOST``, ``CONTENT_LENGTH``. A header that came twice is joined with a comma."""
    keep_alive: bool
    """The client would like to use the connection again."""
    body: bytes = b""
    whole: bool = True
    """False: the body is too large and was not read on. ``CONTENT_LENGTH`` says so to the application."""


class Parser:
    """The requests of one connection."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        # Given the buffer and not the parser: a parser that is dropped is freed at once, without the collector.
        self._requests = _requests(self._buffer)
        self._need = Need.REQUEST

    def feed(self, data: bytes) -> None:
        """Add bytes that arrived."""
        self._buffer += data

    def next(self) -> Request | Need:
        """Return the next request, or what is missing of it.

        :raises BadRequest: the request is not to be answered by an application. Don't call again.
        """
        event = next(self._requests)
        self._need = event if isinstance(event, Need) else Need.REQUEST
        return event

    def close(self) -> None:
        """The client sends no more.

        :raises BadRequest: it sent only part of a body. It may still listen, so tell it.
        """
        if self._in_body:
            raise BadRequest(400, "not_json", "expected the whole body")

    @property
    def begun(self) -> bool:
        """Whether part of a request has arrived. If so, a client that is cut off gets an answer."""
        return bool(self._buffer) or self._in_body

    @property
    def _in_body(self) -> bool:
        return self._need in (Need.CONTINUE, Need.BODY, Need.TURN)


def _requests(buffer: bytearray) -> Generator[Need | Request, None, None]:
    """Read request after request from the front of ``buffer``; yield a ``Need`` whenever it holds too little."""
    while True:
        request = _parse((yield from _head(buffer)))
        coding = request.headers.get("HTTP_TRANSFER_ENCODING")
        length = request.headers.get("CONTENT_LENGTH")
        if coding is not None:
            if length is not None or request.version == "HTTP/1.0":
                raise BadRequest(400, "bad_request", "expected Content-Length or Transfer-Encoding")
            if coding.lower() != "chunked":
                raise BadRequest(400, "bad_request", "expected Transfer-Encoding: chunked, or none")
            yield from _ask_for_body(request, buffer)
            request.body, request.whole = yield from _chunks(buffer)
            request.headers["CONTENT_LENGTH"] = str(len(request.body))
        elif length is not None:
            if not _LENGTH.fullmatch(length):
                raise BadRequest(400, "bad_request", "expected a number in Content-Length")
            count = int(length)
            if count > MAX_BODY:
                request.whole = False
            elif count:
                yield from _ask_for_body(request, buffer)
                request.body = yield from _take(buffer, count)
        yield request


# The head -------------------------------------------------------------------------------------------------


def _head(buffer: bytearray) -> Generator[Need, None, bytes]:
    """Return everything before the body, without the empty line that ends it."""
    if not buffer:
        yield Need.REQUEST
    looked = empty = 0
    while True:
        while buffer.startswith(b"\r\n"):
            empty += 1
            if empty > MAX_EMPTY_LINES:
                raise BadRequest(400, "bad_request", "expected METHOD PATH HTTP/1.1")
            del buffer[:2]
        if (end := buffer.find(b"\r\n\r\n", max(0, looked - 3), MAX_HEAD)) >= 0:
            head = bytes(buffer[:end])
            del buffer[: end + 4]
            return head
        # Refuse bytes that can't become a request now, and not when the client's time is up.
        if buffer and buffer != b"\r" and not _BEGINNING.match(buffer):
            raise BadRequest(400, "bad_request", "expected METHOD PATH HTTP/1.1")
        if buffer.find(b"\n\n", max(0, looked - 1)) >= 0:
            raise BadRequest(400, "bad_request", "expected lines that end with CR LF")
        if len(buffer) >= MAX_LINE + len(b"\r\n") and b"\r\n" not in buffer:
            raise BadRequest(414, "too_long", f"expected a first line of {MAX_LINE} bytes at most")
        if len(buffer) >= MAX_HEAD:
            raise BadRequest(431, "too_large", f"expected headers of {MAX_HEAD} bytes at most")
        looked = len(buffer)
        yield Need.HEAD


def _parse(head: bytes) -> Request:
    lines = head.decode("latin-1").split("\r\n")
    method, path, query, version = _request_line(lines[0])
    if len(lines) > MAX_HEADERS + 1:
        raise BadRequest(431, "too_many", f"expected {MAX_HEADERS} headers at most")
    # Remove every allowed byte in one pass in C. Only the line ends remain, unless the head has control characters or a
    # bare CR or LF.
    if head.translate(None, _TEXT) != b"\r\n" * (len(lines) - 1):
        raise BadRequest(400, "bad_request", "expected NAME: VALUE in each header line")
    del lines[0]
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        key = _KEYS.get(name)
        if key is None:
            if not colon or not _NAME.fullmatch(name):
                raise BadRequest(400, "bad_request", "expected NAME: VALUE in each header line")
            if "_" in name:
                # WSGI spells a dash as an underscore, so this could pass for another header.
                continue
            key = _key(name)
        elif not colon:
            raise BadRequest(400, "bad_request", "expected NAME: VALUE in each header line")
        value = value.strip(" \t")
        if key not in headers:
            headers[key] = value
        elif key in _ONCE:
            raise BadRequest(400, "bad_request", f"expected one {name}")
        else:
            headers[key] += ("; " if key == "HTTP_COOKIE" else ",") + value
    host = headers.get("HTTP_HOST")
    if (host is None and version == "HTTP/1.1") or (host and not _HOST.fullmatch(host)):
        # RFC 9112, section 3.2.
        raise BadRequest(400, "bad_request", "expected Host: NAME")
    keep_alive = version == "HTTP/1.1"
    if (connection := headers.get("HTTP_CONNECTION")) is not None:
        options = [option.strip() for option in connection.lower().split(",")]
        keep_alive = "close" not in options and (keep_alive or "keep-alive" in options)
    return Request(method, path, query, version, headers, keep_alive)


def _request_line(line: str) -> tuple[str, str, str, str]:
    """Return method, path, query and version."""
    if len(line) > MAX_LINE:
        raise BadRequest(414, "too_long", f"expected a first line of {MAX_LINE} bytes at most")
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise BadRequest(400, "bad_request", "expected METHOD PATH HTTP/1.1")
    method, target, major, minor = match.groups()
    if major != "1":
        raise BadRequest(400, "bad_request", "expected HTTP/1.1")
    version = "HTTP/1.0" if minor == "0" else "HTTP/1.1"
    if not target.startswith("/"):
        if target == "*" and method == "OPTIONS":
            # About the server as a whole (RFC 9110, section 9.3.7), which has one answer.
            return method, "/", "", version
        origin = _ORIGIN.match(target)
        if origin is None:
            raise BadRequest(400, "bad_request", "expected a path")
        target = target[origin.end() :] or "/"
    path, _, query = target.partition("?")
    if "%" in path:
        path = unquote(path, "latin-1")
    return method, path, query, version


def _key(name: str) -> str:
    """A header's name in WSGI's form."""
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


#: The WSGI names of the usual headers as clients spell them. A look-up takes a tenth of the time of ``_key``.
_KEYS = {
    spelling: _key(name)
    for name in (
        "Accept",
        "Accept-Encoding",
        "Accept-Language",
        "Authorization",
        "Cache-Control",
        "Connection",
        "Content-Length",
        "Content-Type",
        "Expect",
        "Host",
        "Idempotency-Key",
        "Range",
        "Transfer-Encoding",
        "User-Agent",
        "X-Auth-Token",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Real-IP",
        "X-Request-ID",
    )
    for spelling in (name, name.lower())
}


# The body -------------------------------------------------------------------------------------------------


def _ask_for_body(request: Request, buffer: bytearray) -> Generator[Need, None, None]:
    if not buffer and request.headers.get("HTTP_EXPECT", "").lower() == "100-continue":
        yield Need.CONTINUE


def _take(buffer: bytearray, count: int) -> Generator[Need, None, bytes]:
    while len(buffer) < count:
        yield Need.BODY
    taken = bytes(buffer[:count])
    del buffer[:count]
    return taken


def _line(buffer: bytearray) -> Generator[Need, None, bytes]:
    while (end := buffer.find(b"\r\n", 0, MAX_CHUNK_LINE)) < 0:
        if len(buffer) >= MAX_CHUNK_LINE:
            raise BadRequest(400, "bad_request", "expected a body in chunks")
        yield Need.BODY
    line = bytes(buffer[:end])
    del buffer[: end + 2]
    return line


def _chunks(buffer: bytearray) -> Generator[Need, None, tuple[bytes, bool]]:
    """Return the body and True; if it is too large, a body one byte over the limit and False."""
    body = bytearray()
    framing = 0
    while True:
        line = yield from _line(buffer)
        match = _CHUNK.fullmatch(line)
        framing += len(line) + len(b"\r\n\r\n")
        if match is None or framing > MAX_FRAMING:
            raise BadRequest(400, "bad_request", "expected a body in chunks")
        size = int(match[1], 16)
        if not size:
            break
        if len(body) + size > MAX_BODY:
            return bytes(body) + bytes(MAX_BODY + 1 - len(body)), False
        body += yield from _take(buffer, size)
        if (yield from _take(buffer, 2)) != b"\r\n":
            raise BadRequest(400, "bad_request", "expected a body in chunks")
        yield Need.TURN
    trailers = 0
    while line := (yield from _line(buffer)):
        trailers += 1
        framing += len(line) + len(b"\r\n")
        if trailers > MAX_HEADERS or framing > MAX_FRAMING or not _TRAILER.fullmatch(line):
            raise BadRequest(400, "bad_request", "expected a body in chunks")
    return bytes(body), True
