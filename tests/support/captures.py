"""Reads ``tests/captures/*.esl``: the wire of a real FreeSWITCH 1.11.1.

``### SECONDS DIRECTION LENGTH``, then LENGTH bytes (``>`` to FreeSWITCH, ``<`` from it, ``!`` what ended
it), a newline.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from tests.support import CAPTURES


@dataclass(frozen=True)
class Chunk:
    """Bytes that went one way at one time: a command, or a frame."""

    seconds: float
    direction: str
    data: bytes


def names(prefix: str = "") -> list[str]:
    """The captures' names."""
    return sorted(path.stem for path in CAPTURES.glob(f"{prefix}*.esl"))


def read(name: str) -> Iterator[Chunk]:
    """A capture's chunks in order."""
    data = (CAPTURES / f"{name}.esl").read_bytes()
    position = 0
    while position < len(data):
        end = data.index(b"\n", position)
        _, seconds, direction, length = data[position:end].decode().split(" ")
        begin = end + 1
        position = begin + int(length) + 1
        yield Chunk(float(seconds), direction, data[begin : begin + int(length)])


def recorded(name: str) -> list[bytes]:
    """Return what the switch wrote in a capture, chunk by chunk."""
    return [chunk.data for chunk in read(name) if chunk.direction == "<"]


@dataclass(frozen=True)
class Frame:
    """A frame from the switch, taken apart: envelope, and the event's headers if it is one."""

    envelope: list[tuple[str, str]]
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def kind(self) -> str:
        """The event's name, else the content type."""
        return self.get("Event-Name") or self.get("Content-Type")

    def get(self, name: str) -> str:
        """The first header of a name, decoded."""
        for key, value in [*self.envelope, *self.headers]:
            if key == name:
                return unquote_to_bytes(value).decode("utf-8", "replace")
        return ""

    @property
    def names(self) -> list[str]:
        """All header names in order, the envelope's first."""
        return [name for name, _ in self.envelope] + [name for name, _ in self.headers]


def _headers(block: bytes) -> list[tuple[str, str]]:
    lines = block.decode("utf-8", "surrogateescape").split("\n")
    return [(name, value) for name, colon, value in (line.partition(": ") for line in lines) if colon]


def frame(data: bytes) -> Frame:
    """One frame's bytes."""
    head, _, rest = data.partition(b"\n\n")
    envelope = _headers(head)
    if dict(envelope).get("Content-Type") == "text/event-plain":
        block, _, body = rest.partition(b"\n\n")
        return Frame(envelope, _headers(block), body)
    return Frame(envelope, [], rest)
