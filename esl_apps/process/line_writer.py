"""Write lines to a descriptor from a thread: a reader that has stopped reading must not stop this process.

Journald or a container's log driver may hang; the pipe is full after some hundred lines then. Lines wait in memory up
to a bound, and those beyond it are dropped and counted. A non-blocking descriptor would do the same without a thread,
but the flag belongs to the open file, which this process shares with others.
"""

from __future__ import annotations

import atexit
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from gevent import monkey

# A real thread, in a patched process too: gevent's would stop with the rest.
_start_thread: Callable[..., Any] = monkey.get_original("_thread", "start_new_thread")
_make_lock: Callable[[], Any] = monkey.get_original("_thread", "allocate_lock")
_sleep: Callable[[float], None] = monkey.get_original("time", "sleep")

#: Characters that may wait.
MOST = 4 << 20
#: Characters of one write.
_CHUNK = 1 << 16
#: Seconds for which to collect lines after a write: under load one write takes many, and the thread seldom needs the
#: interpreter.
_COLLECT = 0.05
#: Seconds until a descriptor that can't take more now is tried again.
_AGAIN = 0.01
#: Seconds that the end of the process waits for a slow reader.
FLUSH = 2.0


class LineWriter:
    def __init__(self, fd: int, report: Callable[[int], str], *, most: int = MOST) -> None:
        """``report``: makes the line that says how many lines were dropped; called in the thread."""
        self._fd = fd
        self._report = report
        self._most = most
        self._lines: deque[str] = deque()
        # Each is changed by one side only, so no lock is needed.
        self._taken_in = self._written = 0
        self._reported = 0
        self.dropped = 0
        """Lines dropped so far."""
        self._wake = _make_lock()
        self._wake.acquire()
        self._woken = False
        self._running = self._ending = False

    def write(self, text: str) -> None:
        """Take whole lines; return at once."""
        if self._taken_in - self._written > self._most:
            self.dropped += 1
            return
        self._lines.append(text)
        self._taken_in += len(text)
        if not self._woken:
            self._woken = True
            if not self._running:
                self._running = True
                atexit.register(self.flush)
                _start_thread(self._run, ())
            self._wake.release()

    def flush(self, timeout: float = FLUSH) -> bool:
        """Wait until all lines are written. False: the reader is too slow, and the rest may be lost."""
        self._ending = True
        until = time.monotonic() + timeout
        while self._written < self._taken_in or self._reported < self.dropped:
            if time.monotonic() > until:
                return False
            _sleep(0.001)
        self._ending = False
        return True

    # In the thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._wake.acquire()
            self._woken = False
            while self._lines:
                self._write_some()
            if self.dropped > self._reported:
                dropped = self.dropped
                self._write_all(self._report(dropped - self._reported))
                self._reported = dropped
            if not self._ending:
                _sleep(_COLLECT)

    def _write_some(self) -> None:
        parts, size = [], 0
        while self._lines and size < _CHUNK:
            parts.append(self._lines.popleft())
            size += len(parts[-1])
        self._write_all("".join(parts))
        self._written += size

    def _write_all(self, text: str) -> None:
        data = memoryview(text.encode("utf-8", "backslashreplace"))
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                _sleep(_AGAIN)
            except OSError:
                # The reader has gone, or the disk is full. The next lines may find room.
                return
