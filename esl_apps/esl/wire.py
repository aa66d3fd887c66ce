"""The event socket's bytes: frames in, commands out, without a socket.

The rule of this file: **bytes are split before anything in them is decoded**, and a header is parsed when it is read,
not when it arrives. An event has 140 headers, of which the application reads five. greenswitch decodes the whole block
and then splits it, which lets a caller's ``%0A`` write headers (hazard 1), and builds a dict that is never read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from esl_apps.core.reference import FORM, LENGTH, is_reference
from esl_apps.esl.greenswitch_base import GreenswitchEvent

#: The most bytes of a frame on a call's socket: FreeSWITCH sends 7 KB of headers.
MAX_FRAME = 1 << 20
#: The same on a connection to a switch of the configuration: ``show channels`` of 40,000 channels.
MAX_LISTING = 1 << 26

AUTH_REQUEST = b"auth/request"
COMMAND_REPLY = b"command/reply"
API_RESPONSE = b"api/response"
EVENT_PLAIN = b"text/event-plain"
DISCONNECT = b"text/disconnect-notice"
_REPLY = b"Content-Type: command/reply\n"
#: The head of nine of ten frames, which FreeSWITCH always writes in these two lines.
_event_head = re.compile(rb"Content-Length: ([0-9]{1,8})\nContent-Type: text/event-plain\n\n").match
_UNIQUE_ID = b"\nUnique-ID: "
#: The start of a variable that holds a header of the caller's INVITE.
_SIP_HEADER = b"\nvariable_sip_h_"


#: Headers that name a channel, a call or a session. Their values go into commands and keys, so one of another form
#: isn't believed: the header counts as absent (hazard 36).
_REFERENCES = frozenset(
    {
        "Unique-ID",
        "Other-Leg-Unique-ID",
        "Channel-Call-UUID",
        "variable_uuid",
        "variable_last_bridge_to",
        "variable_esl_call_ref",
        "variable_esl_session_ref",
        "variable_esl_bleg",
        "variable_blind_transfer_uuid",
    }
)
_REFERENCE = re.compile(FORM.encode())


class FramingError(Exception):
    """The bytes aren't an event socket's, so nothing that follows can be trusted."""


class Event(GreenswitchEvent):  # type: ignore[misc]
    """One frame: an event, a reply, a notice.

    ``get`` decodes one value on access; ``raw`` returns its bytes as they came. If a name occurs twice, the first wins:
    it is FreeSWITCH's own, even if a caller managed to add another. ``headers`` (greenswitch's dict) and ``data`` are
    built on access.
    """

    __slots__ = ("_body", "_clear", "_uuid", "content_type", "lines", "name")

    def __init__(self, head: bytes, body: bytes, content_type: bytes) -> None:
        if content_type == EVENT_PLAIN:
            self._take(b"\n" + body)
        else:
            self._uuid: str | None = None
            self.content_type = content_type
            #: The headers, each with a line break before it. Those of an event are followed by its body, if it has one.
            self.lines = lines = b"\n" + head
            #: The offset up to which the lines are known to be headers.
            self._clear = len(lines)
            self._body = body
            self.name = b""

    @classmethod
    def of_lines(cls, lines: bytes) -> Event:
        """Return the event that begins with a line break. What comes from the switch has one before it, so that most
        of a call's bytes needn't be copied again."""
        event = cls.__new__(cls)
        event._take(lines)
        return event

    def _take(self, lines: bytes) -> None:
        self._uuid = None
        self.content_type = EVENT_PLAIN
        self.lines = lines
        self._clear = 1
        if lines.startswith(b"\nEvent-Name: "):
            # FreeSWITCH writes it first (switch_event_create adds it before anything else).
            end = lines.find(b"\n", 13)
            self.name = lines[13:end] if end >= 0 else lines[13:]
        else:
            self.name = b""

    def raw(self, name: bytes) -> bytes | None:
        """Return a value's bytes, still percent-encoded and unchecked; None if the header is absent."""
        return self._find(b"\n%b: " % name)

    def _find(self, key: bytes) -> bytes | None:
        lines = self.lines
        start = lines.find(key)
        if start < 0 or (start >= self._clear and self._is_in_body(start)):
            return None
        start += len(key)
        stop = lines.find(b"\n", start)
        return lines[start:] if stop < 0 else lines[start:stop]

    def _is_in_body(self, start: int) -> bool:
        """Whether an offset is behind the first empty line: headers end there, and an event may have a body (a job's
        output)."""
        lines = self.lines
        # Two bytes in 5 KB take longer to find than a name. The only event of a channel with a body is that of
        # ``hangup_complete_with_xml``, which ends with a tag.
        if lines.endswith(b"\n\n") and self.name.startswith(b"CHANNEL_"):
            self._clear = len(lines)
        elif lines.find(b"\n\n", self._clear, start + 1) >= 0:
            return True
        else:
            self._clear = start
        return False

    def last(self, name: bytes) -> bytes | None:
        """As ``raw``, but search from the end of an event that has no body: five times as fast for headers that
        FreeSWITCH writes there."""
        lines, key = self.lines, b"\n%b: " % name
        start = lines.rfind(key)
        if start < 0:
            return None
        start += len(key)
        stop = lines.find(b"\n", start)
        return lines[start:] if stop < 0 else lines[start:stop]

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the decoded value, as in ``get("Caller-Caller-ID-Number")`` or ``get("variable_uuid")``.

        A reference that isn't one counts as absent.
        """
        key, is_reference = _KEYS[name]
        value = self._find(key)
        if value is None:
            return default
        if is_reference:
            return _reference(value) or default
        return decode(value)

    @property
    def uuid(self) -> str | None:
        """The ``Unique-ID``; None if there is none. Everything that reads an event asks for it, so it is kept."""
        if self._uuid is None:
            value = self._find(_UNIQUE_ID)
            self._uuid = None if value is None else _reference(value)
        return self._uuid

    def var(self, name: str) -> str | None:
        """Return a channel variable; None if it isn't set, or should be a reference and isn't."""
        return self.get("variable_" + name)

    def sip_header(self, name: str) -> str | None:
        """Return a header of the caller's INVITE, which a variable holds; the name may be in any case."""
        # Search for the common prefix first: most calls have no such header, and a search of the whole block that
        # ignores case takes 20 times as long.
        lines, wanted = self.lines, name.lower().encode()
        start = lines.find(_SIP_HEADER)
        while start >= 0:
            start += len(_SIP_HEADER)
            stop = lines.find(b"\n", start)
            key, colon, value = lines[start : len(lines) if stop < 0 else stop].partition(b": ")
            if colon and key.lower() == wanted:
                return decode(value)
            start = lines.find(_SIP_HEADER, start)
        return None

    def int(self, name: str) -> int:
        """Return a header as a whole number; 0 if it is absent or something else."""
        value = self._find(_KEYS[name][0])
        # Counts and microseconds are shorter. int() raises for thousands of digits.
        return int(value) if value is not None and value.isdigit() and len(value) < 20 else 0

    @property
    def headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        block = self.block
        end = block.find(b"\n\n")
        for line in block[: len(block) if end < 0 else end].split(b"\n"):
            key, colon, value = line.partition(b": ")
            if colon:
                headers.setdefault(key.decode("utf-8", "replace"), decode(value))
        return headers

    @property
    def data(self) -> str:
        """The output of an api command or a job, or a reply's text."""
        if self.content_type == COMMAND_REPLY:
            return self.get("Reply-Text") or ""
        if self.content_type == EVENT_PLAIN:
            end = self.lines.find(b"\n\n", 1)
            return self.lines[end + 2 :].decode("utf-8", "replace") if end >= 0 else ""
        return self._body.decode("utf-8", "replace")

    @property
    def ok(self) -> bool:
        """Whether a reply or an api command's output isn't an error."""
        if self.content_type == COMMAND_REPLY and self.lines.find(b"-ERR") < 0:
            return True
        return not self.data.startswith("-ERR")

    @property
    def block(self) -> bytes:
        """The header block, as it came."""
        return self.lines[1:]

    @property
    def payload(self) -> bytes:
        """The frame's body, as it came."""
        return self.block if self.content_type == EVENT_PLAIN else self._body

    def __repr__(self) -> str:
        return f"<{(self.name or self.content_type).decode('latin-1')} {len(self.block)} bytes>"


def _reference(value: bytes) -> str | None:
    """Return a value that is a UUID; None if it is something else."""
    # By length first, so that the cache holds nothing long.
    return _text_of(value) if len(value) == LENGTH else None


@lru_cache(maxsize=2048)
def _text_of(value: bytes) -> str | None:
    return value.decode() if _REFERENCE.fullmatch(value) is not None else None


class _Keys(dict[str, tuple[bytes, bool]]):
    """How the line of a header starts, with the line break before it, and whether its value is a reference."""

    def __missing__(self, name: str) -> tuple[bytes, bool]:
        if len(self) > _KEYS_MOST:
            self.clear()
        self[name] = key = f"\n{name}: ".encode(), name in _REFERENCES
        return key


_KEYS_MOST = 512
_KEYS = _Keys()
#: As a number: whether bytes contain bytes takes ten times as long to find out.
_PERCENT = ord("%")


def decode(value: bytes) -> str:
    """Percent-decode a value once, then as UTF-8. Undecodable bytes are replaced, never an error."""
    if _PERCENT in value:
        value = unquote_to_bytes(value)
    return value.decode("utf-8", "replace")


#: The two replies that most commands get, in bytes and parsed.
_OK = b"Content-Type: command/reply\nReply-Text: +OK\n\n"
_API_OK = b"Content-Type: api/response\nContent-Length: 4\n\n+OK\n"
#: The most bytes of either. A frame that says anything else is longer.
PLAIN_REPLY = max(len(_OK), len(_API_OK))
OK = Event(_OK[:-2], b"", COMMAND_REPLY)
API_OK = Event(_API_OK[: -len(b"\n\n+OK\n")], b"+OK\n", API_RESPONSE)


#: The frames of diverted keys that matched (hazard 27). A call has some twenty, so each is parsed once.
KEYS = {Event.of_lines(f"\nkey: x\ndigits: {key}\n\n".encode()): key for key in "0123456789*#ABCD"}
_KEY_EVENTS = {event.lines: event for event in KEYS}
_KEY_LENGTH = len(next(iter(_KEY_EVENTS)))


class Framer:
    """Turn bytes into :class:`Event` s. It has two states: in a head, or in a body.

    Each byte is copied and searched once, however the peer cuts its frames.
    """

    __slots__ = ("_body", "_head", "_missing", "_rest", "_searched", "_type", "most")

    def __init__(self, most: int = MAX_FRAME) -> None:
        self.most = most
        """The most bytes of a head, and of a body. May be changed between two frames."""
        #: A head without its end, of which the first ``_searched`` bytes are known not to hold it.
        self._rest: bytes | bytearray = b""
        self._searched = 0
        #: A body that lacks ``_missing`` bytes, and its head.
        self._body = _NO_BYTES
        self._missing = 0
        self._head = b""
        self._type = b""

    @property
    def is_within(self) -> bool:
        """Whether the bytes so far end within a frame."""
        return bool(self._missing or self._rest)

    def feed(self, data: bytes) -> Iterator[Event]:
        """Yield the frames that these bytes complete, in order.

        :raises FramingError: the bytes aren't an event socket's.
        """
        if self._missing:
            body = self._body
            missing = self._missing
            if len(data) < missing:
                body += data
                self._missing = missing - len(data)
                return
            body += data[:missing]
            self._body, self._missing = _NO_BYTES, 0
            yield Event(self._head, bytes(body), self._type)
            data = data[missing:]
        elif self._rest:
            rest = self._rest
            rest += data
            if rest.find(b"\n\n", max(0, self._searched - 1)) < 0:
                self._keep(rest)
                return
            data, self._rest = bytes(rest), b""
        pos, size = 0, len(data)
        while pos < size:
            match = _event_head(data, pos)
            if match is not None:
                start = match.end()
                pos = start + int(match[1])
                if pos <= size:
                    lines = data[start - 1 : pos]
                    event = _KEY_EVENTS.get(lines) if len(lines) == _KEY_LENGTH else None
                    yield Event.of_lines(lines) if event is None else event
                    continue
                self._await(b"", EVENT_PLAIN, data, start, pos - start)
                return
            if data.startswith(_OK, pos):
                pos += len(_OK)
                yield OK
                continue
            if data.startswith(_API_OK, pos):
                pos += len(_API_OK)
                yield API_OK
                continue
            end = data.find(b"\n\n", pos)
            if end < 0:
                self._keep(bytearray(data[pos:]))
                return
            head = data[pos:end]
            if head.startswith(_REPLY) and head.find(b"Content-Length") < 0:
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
                self._await(head, content_type, data, pos, length)
                return

    def _keep(self, rest: bytes | bytearray) -> None:
        """Keep a head whose end has not come. :raises FramingError: it is too long."""
        if len(rest) > self.most:
            raise FramingError("a head without an end")
        self._rest, self._searched = rest, len(rest)

    def _await(self, head: bytes, content_type: bytes, data: bytes, start: int, length: int) -> None:
        """Keep the beginning of a body. :raises FramingError: it will be too long."""
        if length > self.most:
            raise FramingError(f"a body of more than {self.most} bytes")
        self._head, self._type = head, content_type
        self._body = bytearray(data[start:])
        self._missing = length - len(self._body)


_NO_BYTES = bytearray()


def _describe(head: bytes) -> tuple[bytes, int]:
    """Return the Content-Type and Content-Length of a frame's head."""
    content_type = digits = None
    # Both in one search: the reply to ``connect`` has 10 KB.
    end = len(head)
    start = 0 if head.startswith(b"Content-") else head.find(b"\nContent-") + 1 or end
    while start < end:
        stop = head.find(b"\n", start)
        name, colon, value = head[start : end if stop < 0 else stop].partition(b": ")
        if colon and name == b"Content-Type" and content_type is None:
            content_type = value.strip()
        elif colon and name == b"Content-Length" and digits is None:
            digits = value.strip()
        start = head.find(b"\nContent-", start) + 1 or end
    if not content_type:
        raise FramingError("a frame without Content-Type")
    if digits is None:
        return content_type, 0
    if not digits.isdigit() or len(digits) > 9:
        raise FramingError("Content-Length is not a length")
    return content_type, int(digits)


class CommandError(ValueError):
    """A command that could mean something else than its author meant. It isn't sent."""


#: How many words the commands have that act on what they name. An empty value and one with a space change the number:
#: ``hupall CAUSE name`` ends every call of the switch, and ``name x y`` another one's (hazard 36).
_WORDS = {
    "hupall": (4,),
    "filter": (3,),
    "sched_del": (2,),
    "sched_hangup": (3, 4),
    "uuid_audio": (3, 6),
    "uuid_break": (2, 3),
    "uuid_dump": (2,),
    "uuid_exists": (2,),
    "uuid_getvar": (3,),
    "uuid_kill": (2, 3),
    "uuid_record": (4,),
    "uuid_send_dtmf": (3,),
    "uuid_set_media_stats": (2,),
    "uuid_setvar": (3, 4),
    "uuid_setvar_multi": (3,),
}
#: Those that name what they act on by a variable and its value, not by a channel.
_BY_VARIABLE = frozenset({"hupall", "filter"})
_ACTING = ("uuid_", "sched_del", "sched_hangup", *_BY_VARIABLE)


def command(text: str) -> bytes:
    """Return a command's bytes.

    :raises CommandError: the text has a CR or an LF (a newline in an argument would start a second command, hazard 4);
        or an argument is empty, has a space in it, or should name a channel and doesn't.
    """
    if "\n" in text or "\r" in text or "\0" in text:
        raise CommandError("a line break in an event-socket command")
    if ("  " in text or text.strip(" ") != text or not text) and not text.startswith("auth "):
        # A password may have spaces.
        raise CommandError("an empty value in an event-socket command")
    start = 4 if text.startswith("api ") else 6 if text.startswith("bgapi ") else 0
    if text.startswith(_ACTING, start):
        _check(text[start:].split(" "))
    return text.encode() + b"\n\n"


def _check(words: list[str]) -> None:
    """:raises CommandError: as :func:`command`."""
    name = words[0]
    counts = _WORDS.get(name)
    if counts is not None and len(words) not in counts:
        raise CommandError(f"an empty value, or one with a space, in {name}")
    place = 2 if name == "sched_hangup" else 1
    if name not in _BY_VARIABLE and not (len(words) > place and is_reference(words[place])):
        raise CommandError(f"{name} of something else than a channel")


def execute(app: str, arg: str, event_uuid: str, *, lock: bool = False) -> bytes:
    """Return a ``sendmsg`` that executes an application on the socket's own channel.

    ``event_uuid`` comes back as ``Application-UUID`` of its CHANNEL_EXECUTE_COMPLETE (hazard 2).
    ``lock``: run executes in the order in which they were sent (hazard 12).
    """
    return _execute("sendmsg", app, arg, event_uuid, "event-lock: true\n" if lock else "")


def execute_on(uuid: str, app: str, arg: str, event_uuid: str, *, loops: int = 1) -> bytes:
    """Return a ``sendmsg`` that executes an application on any channel. ``loops``: -1 repeats it until a break."""
    if not is_reference(uuid):
        raise CommandError("sendmsg to something else than a channel")
    return _execute(f"sendmsg {uuid}", app, arg, event_uuid, f"loops: {loops}\n")


def _execute(message: str, app: str, arg: str, event_uuid: str, option: str) -> bytes:
    """``option``: a header line. The argument is the body: the switch reads all else byte by byte (hazard 49)."""
    given = app + arg
    if "\n" in given or "\r" in given or "\0" in given:
        raise CommandError("a line break in an event-socket command")
    head = f"{message}\ncall-command: execute\nexecute-app-name: {app}\nEvent-UUID: {event_uuid}\n{option}"
    if not arg:
        return head.encode() + b"\n"
    body = arg.encode()
    return f"{head}content-type: text/plain\ncontent-length: {len(body)}\n\n".encode() + body


def custom_event(subclass: str, headers: dict[str, str]) -> bytes:
    """Return a CUSTOM event for the switch's listeners.

    It has no ``Unique-ID``: a live channel's would send the event to that channel instead (hazard 14).
    """
    given = "".join([subclass, *headers, *headers.values()])
    if "\n" in given or "\r" in given or "\0" in given:
        raise CommandError("a line break in an event's header")
    lines = "".join([f"{name}: {value}\n" for name, value in headers.items()])
    return f"sendevent CUSTOM\nEvent-Subclass: {subclass}\n{lines}\n".encode()
