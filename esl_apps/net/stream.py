"""The socket of a call, which waits directly on gevent's event loop.

gevent's own ``recv`` first tries to read, which nearly always fails and costs a system call and an exception. Then it
creates a Timeout, a timer and a Waiter for each wait. Here a watcher of the loop switches to the session's greenlet,
which reads once. A session has one timer for all its deadlines: it is set to the nearest one, and set again if it fires
too early. This halves the cost of a call (``docs/explanation/tuning-log.rst``).
"""

from __future__ import annotations

import _socket  # the plain socket; ``socket.socket`` is gevent's after patching
import errno
import time
from typing import Any

from gevent import get_hub, getcurrent, socket

#: The most bytes of one read. Each read waits on the loop, so this is also the most that one peer brings per pass of it
#: (hazard 37). The smallest frames of one read take 12 ms, but a peer that floods gives way within it (``Allowance``).
_RECV = 65536


class Stream:
    """A connected socket. One greenlet at a time reads it, and one writes it; another one may call ``close``.

    Every read waits on the loop, even if bytes are there already, so a peer that floods lets the others run.
    """

    __slots__ = ("_due", "_hub", "_least", "_read", "_sock", "_timer", "_waiter", "_writable", "_writer")

    def __init__(self, sock: socket.socket) -> None:
        """Take over the descriptor of `sock`, which can't be used afterwards."""
        # Given only the descriptor, Python would make three system calls to find out the rest.
        self._sock = _socket.socket(sock.family, sock.type, sock.proto, sock.detach())
        self._hub: Any = get_hub()
        self._read: Any = self._hub.loop.io(self._sock.fileno(), 1)
        self._timer: Any = None
        self._due = 0.0
        self._least = 1
        self._waiter: Any = None
        #: The greenlet that waits to write, and what it waits for.
        self._writer: Any = None
        self._writable: Any = None

    def recv(self, deadline: float | None, size: int = _RECV) -> bytes | None:
        """Wait for data, and return at most ``size`` bytes: ``b""`` at the end of the stream, None if ``deadline``
        (monotonic) passes first.

        :raises OSError: the connection is broken, or another greenlet has closed it.
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
                return self._sock.recv(size)
            except BlockingIOError:
                continue  # the timer fired: check whether this deadline has passed

    def wait_for(self, least: int) -> None:
        """Let ``recv`` wait for so many bytes, or the end of the stream: fewer are nothing to wake up for.

        A write that expects an answer sets 1, also while another greenlet reads.
        """
        if least != self._least:
            self._least = least
            self._sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVLOWAT, least)

    def look(self) -> bytes:
        """Read without waiting. :raises BlockingIOError: no data. :raises OSError: the connection is broken."""
        return self._sock.recv(_RECV)

    def send(self, data: bytes, timeout: float) -> None:
        """Write all of `data`. :raises OSError: the connection is broken, or took no data for ``timeout`` seconds."""
        rest = self.send_now(data)
        if rest:
            self._send_rest(rest, timeout)

    def send_now(self, data: bytes) -> bytes:
        """Write without waiting, and return the rest. :raises OSError: the connection is broken."""
        try:
            return data[self._sock.send(data) :]
        except BlockingIOError:
            return data

    def shutdown(self, how: int) -> None:
        """:raises OSError: the socket isn't connected."""
        self._sock.shutdown(how)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        self._read.close()
        if self._writable is not None:
            # Before the socket: libev aborts the process for a descriptor that is closed while it is watched.
            self._writable.close()
        self._sock.close()
        for greenlet in (self._waiter, self._writer):
            if greenlet is not None and greenlet is not getcurrent():
                self._hub.loop.run_callback(self._interrupt, greenlet)

    def _interrupt(self, greenlet: Any) -> None:
        if greenlet is self._waiter or greenlet is self._writer:
            greenlet.throw(OSError(errno.EBADF, "closed"))

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
        self._writable = writable = self._hub.loop.io(self._sock.fileno(), 2)
        self._writer = getcurrent()
        switch = self._writer.switch
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
            self._writable = self._writer = None
