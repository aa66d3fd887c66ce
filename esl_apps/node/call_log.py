"""The calls that this node has begun and not ended, in a file: if the node is killed, its next run finds them there.

Redis holds the same a moment later, for the other nodes. This file has it before anything is dialled, and while Redis
is down. Each change is one line, written to the page cache: that survives the process, and a power cut also ends the
switch's calls."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path

import msgspec

from esl_apps.process.files import open_private, read_regular
from esl_apps.store.documents import WrongVersion
from esl_apps.store.errors import Unreadable
from esl_apps.store.essence import Essence, StoredEssence

log = logging.getLogger(__name__)

#: Bytes after which the file is rewritten with the live calls alone. If those take more than half of it, it is
#: rewritten at twice their size instead: with thousands of calls up, each change would otherwise write all of them.
_REWRITE = 4 << 20
#: Bytes that are read at most.
_MOST = 1 << 30


class CallLog:
    def __init__(self, folder: Path, live: Callable[[], Iterable[Essence]] = lambda: ()) -> None:
        """``live``: yields all live calls, for a rewrite of the file.

        :raises OSError: the folder can't be written.
        """
        self._live = live
        self._path = folder / "begun.log"
        self._of_others: dict[str, bytes] = {}
        """Lines of a version that isn't read here, by call: kept for a run that can."""
        self.struck: set[str] = set()
        """Calls that the earlier run has struck: Redis may not have heard of that."""
        self.left = self._read()
        """Calls that an earlier run of this node left, oldest first. They stay in the file while they are here."""
        self._fd = -1
        self._size = self._live_size = 0
        self._cut = self._failing = self._gone = self._lacks = False
        try:
            self._rewrite(self.left)
        except OSError as error:
            if not self._path.exists():
                raise
            # The disk is full, as it may be after a crash: go on with the file that is there.
            self._failed(error)
            self._fd = open_private(self._path, os.O_WRONLY | os.O_APPEND)
            # It may end in a line that was cut.
            self._cut = True
            self._size = self._live_size = os.fstat(self._fd).st_size

    def _read(self) -> list[Essence]:
        live: dict[str, Essence] = {}
        try:
            lines = read_regular(self._path, _MOST).splitlines()
        except FileNotFoundError:
            return []
        for line in lines:
            if not line:
                continue
            if line.startswith(b"-"):
                ref = line[1:].decode("ascii", "replace")
                live.pop(ref, None)
                self._of_others.pop(ref, None)
                self.struck.add(ref)
                continue
            try:
                call = StoredEssence.decode(line)
            except WrongVersion:
                self._of_others[_ref_of(line)] = line
                continue
            except Unreadable:
                # The process was killed while it wrote its last line, or the disk is damaged.
                log.warning("call_log_line_unreadable", extra={"file": str(self._path)})
                continue
            live[call.call_ref] = call
            self.struck.discard(call.call_ref)
        return list(live.values())

    def note(self, call: bytes) -> None:
        """Note a call that has begun or changed. ``call``: its essence, as JSON."""
        self._append(call + b"\n")

    def ended(self, ref: str) -> None:
        """Strike a call: its record is in the outbox's journal, or another node has it."""
        self._append(b"-%s\n" % ref.encode())

    def _append(self, line: bytes) -> None:
        if self._fd < 0:
            # This process ends, and its next run goes on from here.
            return
        try:
            written = os.write(self._fd, b"\n" + line if self._cut else line)
        except OSError as error:
            self._lacks = True
            self._failed(error)
            return
        # After a line that was cut short, start on a new one: reading skips what isn't whole.
        self._cut = written < len(line)
        self._size += written
        try:
            if self._lacks and not self._cut:
                # The file still has calls that have ended since it couldn't be written.
                self._lacks = False
                self._rewrite(chain(self.left, self._live()))
                self._size += os.write(self._fd, line)
            elif self._size > max(_REWRITE, 2 * self._live_size):
                # If this fails, wait until it has doubled again: each try writes all of it.
                self._live_size = self._size
                self._rewrite(chain(self.left, self._live()))
            self._lacks = self._lacks or self._cut
            self._failing = self._cut
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        """Log the first of several failures. Redis still has the calls."""
        if not self._failing:
            log.error("call_log_write_failed", extra={"reason": str(error)})
        self._failing = True

    def _rewrite(self, live: Iterable[Essence]) -> None:
        fresh = self._path.with_suffix(".new")
        with os.fdopen(open_private(fresh, os.O_WRONLY | os.O_TRUNC), "wb") as file:
            # One at a time: encoding all of them at once would take megabytes.
            for call in live:
                file.write(call.encode() + b"\n")
            for line in self._of_others.values():
                file.write(line + b"\n")
            size = file.tell()
        os.replace(fresh, self._path)
        fd = open_private(self._path, os.O_WRONLY | os.O_APPEND)
        self.close()
        self._fd, self._cut = fd, False
        self._size = self._live_size = size

    @property
    def faults(self) -> list[str]:
        """Return a message if the state folder was removed. The removal is logged once."""
        if self._fd < 0 or os.fstat(self._fd).st_nlink:
            return []
        folder = self._path.parent
        if not self._gone:
            self._gone = True
            log.error("state_folder_removed", extra={"folder": str(folder)})
        return [f"{folder} was removed: if this node dies, records that Redis lacks are lost; restart it"]

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _Ref(msgspec.Struct):
    call_ref: str


def _ref_of(line: bytes) -> str:
    """The reference in a line of another version; the line itself if it has none."""
    try:
        return msgspec.json.decode(line, type=_Ref).call_ref
    except (msgspec.DecodeError, UnicodeDecodeError):
        return line.decode("utf-8", "replace")
