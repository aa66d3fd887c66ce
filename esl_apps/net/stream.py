"""One call's socket, waited for on the loop itself.

gevent's ``recv`` tries to read first (nearly always in vain: a system call and an exception), then makes a
Timeout, a timer and a Waiter for each wait. Here the loop's watcher switches to the session's greenlet, which reads
once, and one timer does for all the deadlines of a session: it is armed for the nearest one and, gone off too early,
armed again. That halves the cost of a call (``docs/performance.rst``).
"""

from __future__ import annotations

import _socket  # the plain one: ``socket.socket`` is gevent's once it has patched
import errno
import time
from typing import Any

from gevent import get_hub, getcurrent, socket

_RECV = 65536


class Stream:
    """A connected socket that one greenlet reads and writes; ``close`` may come from another."""

    __slots__ = ("_due", "_hub", "_read", "_sock", "_timer", "_waiter")

    def __init__(self, sock: socket.socket) -> None:
        """Takes the descriptor out of gevent's socket, which is of no use after."""
        # All four given: asked for the descriptor alone, Python spends three system calls on finding them out.
        self._sock = _socket.socket(sock.family, sock.type, sock.proto, sock.detach())
        self._hub: Any = get_hub()
        self._read: Any = self._hub.loop.io(self._sock.fileno(), 1)
        self._timer: Any = None
        self._due = 0.0
        self._waiter: Any = None

    def recv(self, deadline: float | None) -> bytes | None:
        """What has come; ``b""`` at the end of the stream; None where ``deadline`` (monotonic) passed first.

        :raises OSError: the connection is broken, or was closed from elsewhere.
        """
        while True:
            if deadline is not None and (self._timer is None or deadline < self._due):
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._arm(deadline, left)
            self._waiter = waiter = getcurrent()
            self._read.start(waiter.switch)
            try:
                self._hub.switch()
            finally:
                self._waiter = None
                self._read.stop()
            try:
                return self._sock.recv(_RECV)
            except BlockingIOError:
                continue  # the timer's doing: is it this wait's?

    def look(self) -> bytes:
        """What has come. :raises BlockingIOError: nothing has. :raises OSError: the connection is broken."""
        return self._sock.recv(_RECV)

    def send(self, data: bytes, timeout: float) -> None:
        """Write it whole. :raises OSError: the connection is broken, or took nothing for ``timeout`` seconds."""
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._send_rest(data[sent:], timeout)

    def shutdown(self, how: int) -> None:
        """:raises OSError: it is not connected."""
        self._sock.shutdown(how)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        self._read.close()
        self._sock.close()
        if self._waiter is not None and self._waiter is not getcurrent():
            self._hub.loop.run_callback(self._waiter.throw, OSError(errno.EBADF, "closed"))

    def _arm(self, due: float, left: float) -> None:
        if self._timer is not None:
            self._timer.close()
        self._due = due
        self._timer = self._hub.loop.timer(left)
        self._timer.start(self._went_off)

    def _went_off(self) -> None:
        self._timer.close()
        self._timer = None
        if self._waiter is not None:
            self._waiter.switch()

    def _send_rest(self, data: bytes, timeout: float) -> None:
        writable = self._hub.loop.io(self._sock.fileno(), 2)
        switch = getcurrent().switch
        try:
            while data:
                timer = self._hub.loop.timer(timeout)
                timer.start(switch)
                writable.start(switch)
                try:
                    self._hub.switch()
                finally:
                    writable.stop()
                    late = not timer.active
                    timer.close()
                try:
                    data = data[self._sock.send(data) :]
                except BlockingIOError:
                    if late:
                        raise TimeoutError("timed out") from None
        finally:
            writable.close()
