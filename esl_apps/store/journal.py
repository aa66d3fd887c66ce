"""Files of notifications that wait to be pushed to Redis."""

from __future__ import annotations

import fcntl
import logging
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

log = logging.getLogger(__name__)

#: Bytes after which a new file is begun.
SEGMENT = 1 << 20


class Entry(msgspec.Struct, array_like=True):
    """One notification. Its id stays the same however often, and from whichever node, it is pushed."""

    id: str
    list: str
    side: str
    head: str
    tail: str
    """``head`` and ``tail`` are the JSON around its ``seq``. Without a ``tail`` it gets no ``seq``."""
    owner: str = ""
    """Its integrator: decides where it goes if its Redis is no longer configured."""


#: Holds the place of a record's ``seq`` until Redis counts it. JSON text never contains this character.
_SEQ = msgspec.Raw(b"\0")


def entry(id: str, list: str, body: dict[str, Any], side: str = "left", owner: str = "") -> Entry:
    """Make an entry of a body. If the body has a ``payload``, ``seq`` becomes its last field."""
    payload = body.get("payload")
    if isinstance(payload, dict):
        body = {**body, "payload": {**payload, "seq": _SEQ}}
    head, _, tail = msgspec.json.encode(body).decode().partition("\0")
    return Entry(id, list, side, head, tail, owner)


def _sync_and_close(fd: int) -> None:
    """Sync and close in the same thread: the greenlet that waits may be killed, and must not close a file in use."""
    try:
        os.fdatasync(fd)
    finally:
        os.close(fd)


class Journal:
    """Entries in files of about a megabyte, and the number of those that are done. Used by one process at a time."""

    def __init__(self, folder: Path) -> None:
        """:raises OSError: the folder can't be made or written, or another process holds it."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock = open(folder / "lock", "w")  # noqa: SIM115 - held for the life of the journal
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise BlockingIOError(f"{folder}: another process holds it; is a node of this name running?") from None
        self._done_fd = os.open(folder / "done", os.O_RDWR | os.O_CREAT, 0o600)
        self._fd = -1
        self._size = 0
        self._dirty = False
        self._unsynced: list[int] = []
        """Descriptors of full files that are not synced yet."""
        self._undone: deque[int] = deque()
        """Numbers of the entries that are not done, in the order in which the caller holds them."""
        self.written, self.done = 0, int.from_bytes(os.pread(self._done_fd, 8, 0), "big")

    def open(self) -> list[Entry]:
        """Read the entries that an earlier process left undone, in order."""
        left: list[Entry] = []
        self.written = self.done
        for segment in self._segments():
            index = int(segment.stem)
            size = 0
            for line in segment.read_bytes().splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    # Cut by a power loss, so it was never acknowledged. Cut it off: the next line must not continue it.
                    log.warning("journal_line_cut", extra={"file": str(segment)})
                    os.truncate(segment, size)
                    break
                size += len(line)
                index += 1
                if index > self.done:
                    try:
                        left.append(msgspec.json.decode(line, type=Entry))
                        self._undone.append(index)
                    except (msgspec.DecodeError, UnicodeDecodeError):
                        log.error("journal_line_unreadable", extra={"file": str(segment), "line": index})
            self.written = max(self.written, index)
        self._rotate()
        return left

    def append(self, item: Entry) -> None:
        """:raises OSError: the disk is full or gone."""
        try:
            if self._size > SEGMENT:
                self._rotate()
            line = msgspec.json.encode(item) + b"\n"
            if os.write(self._fd, line) < len(line):
                os.ftruncate(self._fd, self._size)
                raise OSError("the disk is full")
            self._size += len(line)
            self._dirty = True
        except OSError:
            # Begin a new file with the next line. Its name counts the lines before it, this one included.
            self._size = SEGMENT + 1
            raise
        finally:
            self.written += 1
            self._undone.append(self.written)

    def finish(self, count: int) -> None:
        """Mark the oldest ``count`` undone entries as done."""
        for _ in range(count):
            self.done = self._undone.popleft()
        if not self._undone:
            self.done = self.written
        os.pwrite(self._done_fd, self.done.to_bytes(8, "big"), 0)
        if self.done == self.written and self._size > SEGMENT // 4:
            self._rotate()

    def sync(self, run: Callable[[Callable[[int], None], tuple[int]], object] = lambda do, args: do(*args)) -> None:
        """Sync to the disk. ``run`` may do it in a thread: it gets a descriptor of its own.

        :raises OSError: the disk failed.
        """
        fds, self._unsynced = self._unsynced, []
        if self._dirty:
            self._dirty = False
            fds.append(os.dup(self._fd))
        failed: OSError | None = None
        for fd in fds:
            try:
                run(_sync_and_close, (fd,))
            except OSError as error:
                failed = error
        if failed is not None:
            raise failed

    def close(self) -> None:
        for fd in [self._fd, *self._unsynced]:
            os.close(fd)
        os.close(self._done_fd)
        self._lock.close()

    def _segments(self) -> list[Path]:
        return sorted(self._folder.glob("*.log"), key=lambda path: int(path.stem))

    def _rotate(self) -> None:
        """Begin a new file, and remove those whose entries are all done."""
        path = self._folder / f"{self.written:016d}.log"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if self._fd >= 0 and self._dirty:
            self._unsynced.append(self._fd)
        elif self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self._dirty = False
        self._size = os.fstat(fd).st_size
        segments = [segment for segment in self._segments() if segment != path]
        ends = [int(segment.stem) for segment in segments[1:]] + [self.written]
        for segment, end in zip(segments, ends, strict=False):
            if end <= self.done:
                segment.unlink()
