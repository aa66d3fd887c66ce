"""What this node has begun and not ended, in a file of its own: where it is killed, its next run finds it there.

Redis has the same a moment later, for the other nodes; this one has it before anything is dialled, and while Redis
is away. A line a change, into the file's buffer cache, which outlives the process; a power cut takes the switch's
calls along.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from esl_apps.store.essence import Essence

log = logging.getLogger(__name__)

#: Bytes after which the file is written anew, with what is live alone; where that is more than half of it, at twice
#: what it was: with thousands of calls up, each change would write all of them.
_REWRITE = 4 << 20


class Begun:
    def __init__(self, folder: Path, live: Callable[[], Iterable[Essence]] = lambda: ()) -> None:
        """``live``: all calls that are, for the day that the file has grown too long.

        :raises OSError: the folder can't be written.
        """
        self._live = live
        self._path = folder / "begun.log"
        self.left = self._read()
        """What an earlier run of this node left, oldest first."""
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
                # The last line of a process that was killed while it wrote, or a damaged disk.
                log.warning("a begun call's line is unreadable", extra={"file": str(self._path)})
                continue
            live[call.call_ref] = call
        return list(live.values())

    def note(self, call: bytes) -> None:
        """A call has begun, or changed. ``call``: its essence, as JSON."""
        self._append(call + b"\n")

    def ended(self, ref: str) -> None:
        """Its record is in the outbox's journal, or it is another node's."""
        self._append(b"-%s\n" % ref.encode())

    def _append(self, line: bytes) -> None:
        try:
            written = os.write(self._fd, b"\n" + line if self._cut else line)
            # Behind a line that was cut, the next one begins anew: reading takes what is whole.
            self._cut = written < len(line)
            self._size += written
            if self._size > max(_REWRITE, 2 * self._live_size):
                self._rewrite(self._live())
        except OSError as error:
            # The disk is full: Redis has it, too.
            log.error("a begun call is not written down", extra={"reason": str(error)})

    def _rewrite(self, live: Iterable[Essence]) -> None:
        fresh = self._path.with_suffix(".new")
        with fresh.open("wb") as file:
            # One after the other: all of them at once would be as many megabytes of memory.
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
