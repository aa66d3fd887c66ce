"""The calls that this node has begun and not ended, in a file: if the node is killed, its next run finds them there.

Redis holds the same a moment later, for the other nodes. This file has it before anything is dialled, and while Redis
is down. Each change is one line, written to the page cache: that survives the process, and a power cut also ends the
switch's calls."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from esl_apps.store.essence import Essence

log = logging.getLogger(__name__)

#: Bytes after which the file is rewritten with the live calls alone. If those take more than half of it, it is
#: rewritten at twice their size instead: with thousands of calls up, each change would otherwise write all of them.
_REWRITE = 4 << 20


class CallLog:
    def __init__(self, folder: Path, live: Callable[[], Iterable[Essence]] = lambda: ()) -> None:
        """``live``: yields all live calls, for a rewrite of the file.

        :raises OSError: the folder can't be written.
        """
        self._live = live
        self._path = folder / "begun.log"
        self.left = self._read()
        """Calls that an earlier run of this node left, oldest first."""
        self._fd = -1
        self._size = self._live_size = 0
        self._cut = False
        self._rewrite(self.left)

    def _read(self) -> list[Essence]:
        live: dict[str, Essence] = {}
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        for line in lines:
            if not line:
                continue
            if line.startswith(b"-"):
                live.pop(line[1:].decode("ascii", "replace"), None)
                continue
            try:
                call = msgspec.json.decode(line, type=Essence)
            except (msgspec.DecodeError, UnicodeDecodeError):
                # The process was killed while it wrote its last line, or the disk is damaged.
                log.warning("call_log_line_unreadable", extra={"file": str(self._path)})
                continue
            live[call.call_ref] = call
        return list(live.values())

    def note(self, call: bytes) -> None:
        """Note a call that has begun or changed. ``call``: its essence, as JSON."""
        self._append(call + b"\n")

    def ended(self, ref: str) -> None:
        """Strike a call: its record is in the outbox's journal, or another node has it."""
        self._append(b"-%s\n" % ref.encode())

    def _append(self, line: bytes) -> None:
        try:
            written = os.write(self._fd, b"\n" + line if self._cut else line)
            # After a line that was cut short, start on a new one: reading skips what isn't whole.
            self._cut = written < len(line)
            self._size += written
            if self._size > max(_REWRITE, 2 * self._live_size):
                self._rewrite(self._live())
        except OSError as error:
            # The disk is full. Redis still has the call.
            log.error("call_log_write_failed", extra={"reason": str(error)})

    def _rewrite(self, live: Iterable[Essence]) -> None:
        fresh = self._path.with_suffix(".new")
        with fresh.open("wb") as file:
            # One at a time: encoding all of them at once would take megabytes.
            for call in live:
                file.write(msgspec.json.encode(call) + b"\n")
            size = file.tell()
        os.replace(fresh, self._path)
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        self.close()
        self._fd, self._cut = fd, False
        self._size = self._live_size = size

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
