"""The event socket's bytes: commands in, frames out, without a socket.

This is the *switch's* side of the protocol. It was written from FreeSWITCH's behaviour, not from ``esl_apps.esl``, so
that a mistake there isn't mirrored here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

MAX_COMMAND = 10 * 1024 * 1024
"""Bytes after which a command counts as complete, as in FreeSWITCH."""

# Printable ASCII except these isn't escaped, nor is an upper-case ``%XX`` in the value: that is how a caller gets a
# newline past a client that decodes too early.
_UNSAFE = re.compile(r"""%(?![0-9A-F]{2})|[\x00-\x20"#&+:;<=>?@\[\\\]^`{|}]|[^\x00-\x7e]""")
_END = re.compile(rb"\n\r*\n")
_LINES = re.compile(rb"[\r\n]+")


def _escape(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogateescape"))


@lru_cache(maxsize=16384)
def url_encode(value: str) -> str:
    """Escape a header's value as FreeSWITCH does."""
    return _UNSAFE.sub(_escape, value)


def text(data: bytes) -> str:
    """Decode bytes from the wire. Bytes that aren't UTF-8 survive the round trip."""
    return data.decode("utf-8", "surrogateescape")


def raw(value: str) -> bytes:
    """The inverse of `text`."""
    return value.encode("utf-8", "surrogateescape")


@dataclass(slots=True)
class Command:
    """One command of a client: its first line, its headers in order, its body."""

    line: str
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: str = ""

    def get(self, name: str) -> str | None:
        """Return the first header of this name, in any case."""
        name = name.lower()
        for key, value in self.headers:
            if key.lower() == name:
                return value
        return None


class CommandReader:
    """Splits a client's bytes into commands: ``feed`` bytes, iterate ``commands``."""

    __slots__ = ("_buffer", "_head", "_need")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: Command | None = None
        self._need = 0

    def feed(self, data: bytes) -> list[Command]:
        """Yield the commands that are complete now."""
        self._buffer += data
        commands = []
        while (command := self._next()) is not None:
            commands.append(command)
        return commands

    @property
    def idle(self) -> bool:
        """Whether no part of a command waits for its rest."""
        return not self._buffer and self._head is None

    def _next(self) -> Command | None:
        buffer = self._buffer
        if self._head is None:
            start = 0
            while start < len(buffer) and buffer[start] in b"\r\n":
                start += 1
            if start:
                del buffer[:start]
            end = _END.search(buffer)
            if end is None:
                if len(buffer) < MAX_COMMAND:
                    return None
                block, used = bytes(buffer), len(buffer)
            else:
                block, used = bytes(buffer[: end.start()]), end.end()
            del buffer[:used]
            self._head = _parse(block)
            self._need = _length(self._head)
        if len(buffer) < self._need:
            return None
        command, self._head = self._head, None
        if self._need:
            command.body = text(bytes(buffer[: self._need])).split("\0", 1)[0]
            del buffer[: self._need]
            self._need = 0
        return command


def _parse(block: bytes) -> Command:
    # FreeSWITCH reads C strings, so a NUL ends the command.
    lines = [line for line in _LINES.split(block.split(b"\0", 1)[0]) if line]
    command = Command(text(lines[0]) if lines else "")
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if colon and name:
            command.headers.append((text(name), text(value.lstrip(b" "))))
    return command


def _length(command: Command) -> int:
    value = command.get("content-length")
    match = re.match(r"\s*([+-]?\d+)", value) if value else None
    return max(0, min(int(match[1]), MAX_COMMAND)) if match else 0


def execute_command(app: str, data: str, *, lock: bool = False) -> Command:
    """Return the command that runs an application, as ``uuid_broadcast`` queues it."""
    headers = [("call-command", "execute"), ("execute-app-name", app)]
    if data:
        headers.append(("execute-app-arg", data))
    if lock:
        headers.append(("event-lock", "true"))
    return Command("sendmsg", headers)


def reply(reply_text: str, *more: tuple[str, str]) -> bytes:
    """Return a ``command/reply``."""
    lines = "".join(f"{name}: {value}\n" for name, value in more)
    return raw(f"Content-Type: command/reply\nReply-Text: {reply_text}\n{lines}\n")


def api_response(body: str) -> bytes:
    """Return an ``api/response``. An empty output becomes an error's text."""
    data = raw(body) or b"-ERR no reply\n"
    return b"Content-Type: api/response\nContent-Length: %d\n\n%s" % (len(data), data)


def event_frame(kind: str, body: bytes) -> bytes:
    """Return an event, ``plain`` or ``json``, with its envelope."""
    return b"Content-Length: %d\nContent-Type: text/event-%s\n\n%s" % (len(body), kind.encode(), body)


def disconnect_notice(uuid: str | None, message: str) -> bytes:
    """Return the goodbye before the socket closes."""
    data = raw(message)
    session = f"Controlled-Session-UUID: {uuid}\nContent-Disposition: disconnect\n" if uuid else ""
    head = f"Content-Type: text/disconnect-notice\n{session}Content-Length: {len(data)}\n\n"
    return head.encode() + data


def linger_notice(uuid: str, channel_name: str, seconds: int) -> bytes:
    """Return the notice that the channel has ended and the socket stays. The channel's name is *not* escaped."""
    return raw(
        "Content-Type: text/disconnect-notice\n"
        f"Controlled-Session-UUID: {uuid}\n"
        "Content-Disposition: linger\n"
        f"Channel-Name: {channel_name}\n"
        f"Linger-Time: {seconds}\n"
        "Content-Length: 0\n\n"
    )
