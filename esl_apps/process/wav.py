"""Measure a WAV file: its length, its form, and the hash of all of it."""

from __future__ import annotations

import hashlib
import os
import wave
from typing import NamedTuple, Protocol

from esl_apps.process.files import open_regular
from esl_apps.process.folder import Folder

#: Bytes that one piece of work in a thread reads: a slow disk takes a second for them.
_PART = 8 << 20
#: The most bytes of a file besides its samples.
_HEADER = 4096


class Digest(Protocol):
    """A hash that grows, as ``hashlib`` has them."""

    def update(self, data: bytes, /) -> object: ...


class Wav(NamedTuple):
    seconds: float
    bytes: int
    sha256: str
    channels: int
    rate: int


class Unfinished(Exception):
    """It is still being written, or it isn't a WAV file."""


def measure(disk: Folder, path: str) -> Wav:
    """Measure a file in the threads of its disk, however large it is.

    :raises OSError: there is none, it can't be read, or the disk hangs (``Hangs``). :raises Unfinished: its header
        doesn't fit its length.
    """
    size, seconds, channels, rate = disk.run(_form, path)
    digest, at = hashlib.sha256(), 0
    while at < size:
        # Hashed there, too: it takes 20 ms and more, in which this thread would do nothing else.
        length = disk.run(_add_part, digest, path, at)
        if not length:
            raise Unfinished(f"{path} has become shorter")
        at += length
    return Wav(seconds, at, digest.hexdigest(), channels, rate)


def _form(path: str) -> tuple[int, float, int, int]:
    """Return a file's size, and its length, channels and rate by its header."""
    with os.fdopen(open_regular(path), "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        try:
            with wave.open(stream) as wav:
                frames, width, channels, rate = (
                    wav.getnframes(),
                    wav.getsampwidth(),
                    wav.getnchannels(),
                    wav.getframerate(),
                )
        except (wave.Error, EOFError) as error:
            raise Unfinished(f"{path}: {error}") from None
    if not 0 <= size - frames * width * channels <= _HEADER:
        # The switch writes the length when it closes the file.
        raise Unfinished(f"{path}: its header names another length")
    return size, frames / rate if rate else 0.0, channels, rate


def _add_part(digest: Digest, path: str, at: int) -> int:
    """Add a part of a file to its hash; return the part's length."""
    fd = open_regular(path)
    try:
        part = os.pread(fd, _PART, at)
    finally:
        os.close(fd)
    digest.update(part)
    return len(part)
