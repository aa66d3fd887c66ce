"""The event socket's bytes: frames in, commands out. No socket in here.

The rule of this file: **bytes are split before anything in them is decoded**, and a header is parsed when
it is read, not when it arrives. An event has 140 headers and the application reads five; greenswitch
decodes the whole block and then splits it, which lets a caller's ``%0A`` write headers of its own
(hazard 1), and builds a dict that nobody reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from esl_apps.esl.greenswitch_base import GreenswitchEvent

#: More than any block that FreeSWITCH sends (7 KB of headers; ``show channels`` bodies are the largest).
MAX_HEAD = 1 << 20
MAX_BODY = 1 << 28

AUTH_REQUEST = b"auth/request"
COMMAND_REPLY = b"command/reply"
API_RESPONSE = b"api/response"
EVENT_PLAIN = b"text/event-plain"
_REPLY = b"Content-Type: command/reply\n"
_EVENT_HEAD = b"\nContent-Type: text/event-plain\n\n"
DISCONNECT = b"text/disconnect-notice"
REJECTION = b"text/rude-rejection"


class FramingError(Exception):
    """The peer does not speak the event socket; nothing after this point can be trusted."""


class Event(GreenswitchEvent):  # type: ignore[misc]
    """One frame: an event, a reply, a notice.

    ``get`` decodes one value on access; ``raw`` gives its bytes as they came. Of a name that comes twice
    the first wins, which is FreeSWITCH's own where a caller managed to add another. ``headers`` (greenswitch's
    dict) and ``data`` are built when asked for.
    """

    __slots__ = ("_block", "_clear", "_headers", "content_type", "name", "payload")

    def __init__(self, head: bytes, body: bytes, content_type: bytes) -> None:
        self.content_type = content_type
        self.payload = body
        self._headers: dict[str, str] | None = None
        if content_type == EVENT_PLAIN:
            self._block = body
            #: Up to where the block is known to have no empty line in it.
            self._clear = 0
            # FreeSWITCH writes Event-Name first (switch_event_create adds it before anything else).
            end = body.find(b"\n", 12)
            self.name = body[12 : end if end >= 0 else None] if body.startswith(b"Event-Name: ") else b""
        else:
            self._block = head
            self._clear = len(head)
            self.name = b""

    def raw(self, name: bytes) -> bytes | None:
        """The value's bytes, still percent-encoded; None where there is no such header."""
        return self._find(name + b": ", b"\n" + name + b": ")

    def _find(self, first: bytes, key: bytes) -> bytes | None:
        block = self._block
        # The block's first line has no line break before it, and comes before any other of its name.
        if block.startswith(first):
            start = len(first)
        else:
            start = block.find(key)
            if start < 0:
                return None
            # An event can carry a body of its own (a job's output): headers end at the first empty line. That
            # is looked for behind the header, not first: two bytes in 5 KB cost more to find than a name. Of the
            # channel's events only that of ``hangup_complete_with_xml`` has one, which ends with a tag.
            if start >= self._clear:
                if block.endswith(b"\n\n") and self.name.startswith(b"CHANNEL_"):
                    self._clear = len(block)
                elif block.find(b"\n\n", self._clear, start + 1) >= 0:
                    return None
                else:
                    self._clear = start
            start += len(key)
        stop = block.find(b"\n", start)
        return block[start:] if stop < 0 else block[start:stop]

    def last(self, name: bytes) -> bytes | None:
        """As ``raw``, for a header that FreeSWITCH writes near the end of an event that has no body: found from there,
        in a fifth of the time."""
        block = self._block
        start = block.rfind(b"\n" + name + b": ")
        if start < 0:
            return None
        start += len(name) + 3
        stop = block.find(b"\n", start)
        return block[start:] if stop < 0 else block[start:stop]

    def get(self, name: str, default: str | None = None) -> str | None:
        """The decoded value, e.g. ``get("Caller-Caller-ID-Number")``, ``get("variable_uuid")``."""
        value = self._find(*_keys(name))
        if value is None:
            return default
        return decode(value) if b"%" in value else value.decode("utf-8", "replace")

    def var(self, name: str) -> str | None:
        """A channel variable; None where it is not set."""
        value = self._find(*_keys("variable_" + name))
        if value is None:
            return None
        return decode(value) if b"%" in value else value.decode("utf-8", "replace")

    def int(self, name: str) -> int:
        """A header that is a whole number; 0 where it is absent or is none."""
        value = self._find(*_keys(name))
        # A count or microseconds; int() itself refuses what has thousands of digits.
        return int(value) if value is not None and value.isdigit() and len(value) < 20 else 0

    @property
    def headers(self) -> dict[str, str]:
        if self._headers is None:
            headers: dict[str, str] = {}
            end = self._block.find(b"\n\n")
            for line in self._block[: len(self._block) if end < 0 else end].split(b"\n"):
                key, colon, value = line.partition(b": ")
                if colon:
                    headers.setdefault(key.decode("utf-8", "replace"), decode(value))
            self._headers = headers
        return self._headers

    @property
    def data(self) -> str:
        """An api's output, a job's output, or a reply's text."""
        if self.content_type == COMMAND_REPLY:
            return self.get("Reply-Text") or ""
        if self.content_type == EVENT_PLAIN:
            end = self.payload.find(b"\n\n")
            return self.payload[end + 2 :].decode("utf-8", "replace") if end >= 0 else ""
        return self.payload.decode("utf-8", "replace")

    @property
    def ok(self) -> bool:
        """Whether a reply or an api's output is not an error."""
        if self.content_type == COMMAND_REPLY and b"-ERR" not in self._block:
            return True
        return not self.data.startswith("-ERR")

    @property
    def block(self) -> bytes:
        """The header block as it came."""
        return self._block

    def __repr__(self) -> str:
        return f"<{(self.name or self.content_type).decode('latin-1')} {len(self._block)} bytes>"


@lru_cache(maxsize=512)
def _keys(name: str) -> tuple[bytes, bytes]:
    """How a header begins in the first line of a block, and in the others."""
    first = f"{name}: ".encode()
    return first, b"\n" + first


def decode(value: bytes) -> str:
    """One header's value: percent-decoded once, then UTF-8 (undecodable bytes replaced, never an error)."""
    if b"%" in value:
        value = unquote_to_bytes(value)
    return value.decode("utf-8", "replace")


#: The two replies that most commands get, as they come, and as what.
_OK = b"Content-Type: command/reply\nReply-Text: +OK\n\n"
_API_OK = b"Content-Type: api/response\nContent-Length: 4\n\n+OK\n"
OK = Event(_OK[:-2], b"", COMMAND_REPLY)
API_OK = Event(_API_OK[: -len(b"\n\n+OK\n")], b"+OK\n", API_RESPONSE)


class Framer:
    """Bytes in, :class:`Event` s out; two states, in a head or in a body."""

    __slots__ = ("_body", "_head", "_missing", "_rest", "_type")

    def __init__(self) -> None:
        self._rest = b""
        self._missing = 0
        self._head = b""
        self._type = b""
        self._body: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[Event]:
        """What is complete with these bytes, in order.

        :raises FramingError: where the bytes are no event socket.
        """
        if self._missing:
            if len(data) < self._missing:
                self._body.append(data)
                self._missing -= len(data)
                return
            self._body.append(data[: self._missing])
            rest = data[self._missing :]
            yield Event(self._head, b"".join(self._body), self._type)
            self._body = []
            self._missing = 0
            data = rest
        elif self._rest:
            data = self._rest + data
        self._rest = b""
        pos, size = 0, len(data)
        while pos < size:
            if data.startswith(b"Content-Length: ", pos):
                # An event's head as FreeSWITCH writes it, two lines: nine frames of ten.
                start = data.find(b"\n", pos + 16, pos + 25)
                if start >= 0 and data.startswith(_EVENT_HEAD, start):
                    digits = data[pos + 16 : start]
                    if digits.isdigit():
                        start += len(_EVENT_HEAD)
                        pos = start + int(digits)
                        if pos <= size:
                            yield Event(b"", data[start:pos], EVENT_PLAIN)
                            continue
                        self._head, self._type = b"", EVENT_PLAIN
                        self._missing = pos - size
                        self._body = [data[start:]]
                        return
            elif data.startswith(_OK, pos):
                pos += len(_OK)
                yield OK
                continue
            elif data.startswith(_API_OK, pos):
                pos += len(_API_OK)
                yield API_OK
                continue
            end = data.find(b"\n\n", pos)
            if end < 0:
                if size - pos > MAX_HEAD:
                    raise FramingError("a head without an end")
                break
            head = data[pos:end]
            if head.startswith(_REPLY) and b"Content-Length" not in head:
                pos = end + 2
                yield Event(head, b"", COMMAND_REPLY)
                continue
            content_type, length = _describe(head)
            pos = end + 2
            if length == 0:
                yield Event(head, b"", content_type)
            elif pos + length <= size:
                yield Event(head, data[pos : pos + length], content_type)
                pos += length
            else:
                self._head, self._type = head, content_type
                self._missing = length - (size - pos)
                self._body = [data[pos:]]
                return
        self._rest = data[pos:]


def _describe(head: bytes) -> tuple[bytes, int]:
    """Content-Type and Content-Length of a frame's head."""
    content_type = _line(head, b"Content-Type: ")
    if not content_type:
        raise FramingError("a frame without Content-Type")
    digits = _line(head, b"Content-Length: ")
    if digits is None:
        return content_type, 0
    if not digits.isdigit() or len(digits) > 9 or int(digits) > MAX_BODY:
        raise FramingError("Content-Length is not a length")
    return content_type, int(digits)


def _line(head: bytes, key: bytes) -> bytes | None:
    """The value of the first line with that key."""
    start = 0
    if not head.startswith(key):
        start = head.find(b"\n" + key) + 1
        if not start:
            return None
    stop = head.find(b"\n", start)
    return head[start + len(key) : len(head) if stop < 0 else stop].strip()


def command(text: str) -> bytes:
    """One command on the wire.

    :raises ValueError: where the text has a CR or an LF: a newline in an application's argument is a second
        command (hazard 4).
    """
    if "\n" in text or "\r" in text or "\0" in text:
        raise ValueError("a line break in an event-socket command")
    return text.encode() + b"\n\n"


def execute(app: str, arg: str, event_uuid: str, *, lock: bool = False) -> bytes:
    """A ``sendmsg`` that executes an application on the socket's own channel.

    ``event_uuid`` comes back as ``Application-UUID`` of its CHANNEL_EXECUTE_COMPLETE (hazard 2).
    ``lock``: executes sent behind one another run in their order (hazard 12).
    """
    for part in (app, arg):
        if "\n" in part or "\r" in part or "\0" in part:
            raise ValueError("a line break in an event-socket command")
    text = f"sendmsg\ncall-command: execute\nexecute-app-name: {app}\nEvent-UUID: {event_uuid}\n"
    if lock:
        text += "event-lock: true\n"
    if arg:
        text += f"execute-app-arg: {arg}\n"
    return text.encode() + b"\n"


def custom_event(subclass: str, headers: dict[str, str]) -> bytes:
    """A CUSTOM event for the switch's listeners. No ``Unique-ID`` in it: one of a live channel would send
    the event to that channel instead (hazard 14)."""
    lines = ["sendevent CUSTOM"]
    for name, value in {"Event-Subclass": subclass, **headers}.items():
        line = f"{name}: {value}"
        if "\n" in line or "\r" in line or "\0" in line:
            raise ValueError("a line break in an event's header")
        lines.append(line)
    return "\n".join(lines).encode() + b"\n\n"
