"""Files of notifications that wait to be pushed to Redis."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from esl_apps.core.versions import JOURNAL_ENTRY
from esl_apps.process.files import NotRegular, open_private, open_regular
from esl_apps.store import documents
from esl_apps.store.documents import WrongVersion
from esl_apps.store.errors import Unreadable

log = logging.getLogger(__name__)

#: Bytes after which a new file is begun.
SEGMENT = 1 << 20
#: Bytes that are read at a time.
_PART = 1 << 18
#: The names of our files.
_OURS = re.compile(r"[0-9]{16}\.log")
_ALL = (1 << 64) - 1


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
    longest: int = 0
    """About how many entries a stream keeps; 0: all."""
    part: str = ""
    """What a call adds to its session (``core.session_parts``), as JSON; empty: nothing."""


#: Holds the place of a record's ``seq`` until Redis counts it. JSON text never contains this character.
_SEQ = msgspec.Raw(b"\0")


def entry(id: str, list: str, body: dict[str, Any], side: str = "left", owner: str = "", longest: int = 0) -> Entry:
    """Make an entry of a body. If the body has a ``payload``, ``seq`` becomes its last field.

    ``side``: the end of the list, ``left`` or ``right``, or ``stream``.
    """
    payload = body.get("payload")
    if isinstance(payload, dict):
        body = {**body, "payload": {**payload, "seq": _SEQ}}
    head, _, tail = msgspec.json.encode(body).decode().partition("\0")
    return Entry(id, list, side, head, tail, owner, longest)


def _sync(path: Path) -> None:
    """Sync a file to the disk. With a descriptor of its own: it may run in a thread that is given up."""
    with suppress(FileNotFoundError):
        # Removed meanwhile: its entries are done.
        fd = open_regular(path)
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)


class Journal:
    """Entries in files of about a megabyte, and the number of those that are done. Used by one process at a time.

    Files are named after the number of entries before them. Entries are read back in order, as many at a time as the
    caller wants: a Redis that stays away for days must not fill the memory.
    """

    def __init__(self, folder: Path) -> None:
        """:raises OSError: the folder can't be made or written, or another process holds it."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock = open_private(folder / "lock", os.O_RDWR)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise BlockingIOError(f"{folder}: another process holds it; is a node of this name running?") from None
        self._done_fd = open_private(folder / "done", os.O_RDWR)
        self._fd = -1
        self._size = 0
        self._unsynced: set[int] = set()
        """Files that are not synced yet, by the number of entries before them."""
        self._starts: list[int] = []
        """How many entries are before each file, in order."""
        self._read: deque[int] = deque()
        """Numbers of the entries that the caller holds, in order."""
        self._lines: Iterator[tuple[int, bytes | Entry]] | None = None
        self._unwritten: dict[int, Entry] = {}
        """Entries that the disk had no room for, and the caller doesn't hold: in memory alone."""
        self.written = self.done = self._cursor = 0
        """The numbers of the last entry, of the last that is done, and of the last that the caller has read."""

    def open(self) -> None:
        """Take up what an earlier process left. :raises OSError: it can't be read."""
        self._starts = self._find()
        self.written = self._starts[-1] + self._count(self._path(self._starts[-1])) if self._starts else 0
        self.done = self._cursor = self._read_done()
        self.written = max(self.written, self.done)
        try:
            self._rotate()
        except OSError as error:
            # The disk is full: what is there can be delivered, and the next append tries again.
            log.error("journal_not_written", extra={"outbox": str(self._folder), "reason": str(error)})
            self._size = SEGMENT + 1

    @property
    def waiting(self) -> int:
        """Entries that the caller hasn't read yet."""
        return self.written - self._cursor

    @property
    def unwritten(self) -> int:
        """Entries that are in this process's memory alone and that the caller doesn't hold."""
        return len(self._unwritten)

    def append(self, item: Entry) -> None:
        """:raises OSError: the disk is full or gone. The entry is kept in memory then."""
        self.written += 1
        try:
            if self._size > SEGMENT:
                self._rotate(self.written - 1)
            line = documents.encode(JOURNAL_ENTRY, item) + b"\n"
            if os.write(self._fd, line) < len(line):
                os.ftruncate(self._fd, self._size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._size += len(line)
            self._unsynced.add(self._starts[-1])
        except OSError:
            self._unwritten[self.written] = item
            # Begin a new file with the next line. Its name counts the lines before it, this one included.
            self._size = SEGMENT + 1
            raise

    def hold_newest(self) -> bool:
        """Count the entry appended last as read. False: others before it are not read yet, and it waits its turn."""
        if self._cursor != self.written - 1:
            return False
        self._unwritten.pop(self.written, None)
        self._cursor = self.written
        self._read.append(self.written)
        self._lines = None
        return True

    def read(self, count: int) -> list[Entry]:
        """Return the next entries, at most ``count``.

        :raises OSError: they can't be read now.
        :raises WrongVersion: the next one is of a version that isn't read here.
        """
        entries: list[Entry] = []
        while len(entries) < count and self._cursor < self.written:
            try:
                index, item = self._next()
            except WrongVersion:
                if entries:
                    break
                raise
            self._cursor = index
            if item is not None:
                self._unwritten.pop(index, None)
                entries.append(item)
                self._read.append(index)
        return entries

    def _next(self) -> tuple[int, Entry | None]:
        """Return the next entry and its number; None if it, and those before it, can't be read any more."""
        found = None if self._lines is None else next(self._lines, None)
        if found is None:
            # None yet, or it had reached what was the end then.
            self._lines = self._follow(self._cursor)
            found = next(self._lines, None)
        index, line = found or (self.written, None)
        lost = index - self._cursor - (0 if line is None else 1)
        if lost:
            # Cut by a power loss, or removed by someone.
            log.error("journal_lines_lost", extra={"folder": str(self._folder), "lines": lost})
        if line is None or isinstance(line, Entry):
            return index, line
        try:
            return index, documents.decode(JOURNAL_ENTRY, line, Entry)
        except WrongVersion:
            # Stay before it: what is behind it would overtake it.
            self._lines = None
            raise
        except Unreadable:
            log.error("journal_line_unreadable", extra={"folder": str(self._folder), "line": index})
            return index, None

    def finish(self, count: int) -> None:
        """Mark the oldest ``count`` entries that were read as done. :raises OSError: the disk failed."""
        for _ in range(count):
            self.done = self._read.popleft()
        if not self._read:
            self.done = self._cursor
        # With its complement, so that a damaged file isn't believed.
        os.pwrite(self._done_fd, self.done.to_bytes(8, "big") + (self.done ^ _ALL).to_bytes(8, "big"), 0)
        if self.done == self.written and self._size > SEGMENT // 4:
            self._rotate()
        self._remove_done()

    def sync(self, run: Callable[[Callable[[Path], None], Path], object] = lambda do, path: do(path)) -> None:
        """Sync to the disk. ``run`` may do it in a thread. :raises OSError: the disk failed."""
        failed: OSError | None = None
        unsynced, self._unsynced = self._unsynced, set()
        for start in sorted(unsynced):
            try:
                run(_sync, self._path(start))
            except OSError as error:
                self._unsynced.add(start)
                failed = error
        if failed is not None:
            raise failed

    def close(self) -> None:
        for fd in (self._fd, self._done_fd, self._lock):
            if fd >= 0:
                os.close(fd)
        # Closed twice, the numbers may be another file's by then.
        self._fd = self._done_fd = self._lock = -1
        self._lines = None

    # Files --------------------------------------------------------------------------------------------

    def _path(self, start: int) -> Path:
        return self._folder / f"{start:016d}.log"

    def _find(self) -> list[int]:
        """Find our files. Others in the folder are left alone."""
        starts = []
        for path in self._folder.glob("*.log"):
            if _OURS.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                starts.append(int(path.stem))
            else:
                log.warning("journal_file_ignored", extra={"file": str(path)})
        return sorted(starts)

    def _count(self, path: Path) -> int:
        """Count the lines of the last file. Cut off a line that a power loss cut: the next must not continue it."""
        lines = whole = size = 0
        fd = open_regular(path)
        try:
            while part := os.read(fd, _PART):
                lines += part.count(b"\n")
                last = part.rfind(b"\n")
                whole = size + last + 1 if last >= 0 else whole
                size += len(part)
        finally:
            os.close(fd)
        if whole < size:
            log.warning("journal_line_cut", extra={"file": str(path)})
            os.truncate(path, whole)
        return lines

    def _read_done(self) -> int:
        """Read how many entries are done. If the file can't be right, take all that are there for undone: Redis takes
        none twice that it got within a week."""
        first = self._starts[0] if self._starts else 0
        raw = os.pread(self._done_fd, 17, 0)
        done = int.from_bytes(raw[:8], "big")
        # Earlier versions wrote no complement.
        whole = len(raw) == 8 or (len(raw) == 16 and done ^ int.from_bytes(raw[8:], "big") == _ALL)
        if whole and (done <= self.written or not self._starts):
            return max(done, first)
        if raw or first:
            log.error("journal_done_unreadable", extra={"folder": str(self._folder), "pushed again from": first})
        return first

    def _follow(self, after: int) -> Iterator[tuple[int, bytes | Entry]]:
        """Yield entries and their numbers, from the one behind ``after`` to the last. Numbers may be missing."""
        while after < self.written:
            before = after
            if after + 1 in self._unwritten:
                after += 1
                yield after, self._unwritten[after]
                continue
            start = max((start for start in self._starts if start <= after), default=None)
            if start is not None:
                for number, line in enumerate(self._lines_of(start), start + 1):
                    if number > after:
                        after = number
                        yield after, line
            if after == before and after + 1 not in self._unwritten:
                # Go on with what is behind the gap.
                behind = [start for start in (*self._starts, *(n - 1 for n in self._unwritten)) if start > after]
                after = min(behind, default=self.written)

    def _lines_of(self, start: int) -> Iterator[bytes]:
        """Yield a file's whole lines."""
        try:
            fd = open_regular(self._path(start))
        except (FileNotFoundError, NotRegular):
            return
        try:
            rest = b""
            while part := os.read(fd, _PART):
                *lines, rest = (rest + part).split(b"\n")
                yield from lines
        finally:
            os.close(fd)

    def _rotate(self, start: int | None = None) -> None:
        """Begin a new file. ``start``: how many entries are before it; None: all. :raises OSError: the disk is full."""
        start = self.written if start is None else start
        fd = open_private(self._path(start), os.O_WRONLY | os.O_APPEND)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self._size = os.fstat(fd).st_size
        if start not in self._starts:
            self._starts.append(start)
        self._remove_done()

    def _remove_done(self) -> None:
        """Remove the files whose entries are all done."""
        while len(self._starts) > 1 and self._starts[1] <= self.done:
            start = self._starts.pop(0)
            self._unsynced.discard(start)
            # If it can't be removed, the next run does.
            with suppress(OSError):
                self._path(start).unlink()
