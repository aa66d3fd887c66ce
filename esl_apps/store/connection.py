"""A connection to Redis waited for on the loop itself, as a call's socket is (``esl/stream.py``).

gevent's own socket tries to read before the answer can be there (a system call and an exception), makes a Timeout, a
timer and a waiter for each wait, and asks for the size of its buffer at each write. A call asks Redis five to ten
times.
"""

from __future__ import annotations

import socket as plain
import time

from gevent import queue, socket

from esl_apps.net.stream import Stream

#: Seconds; for who waits without an end.
_LONG = 86400.0


def is_patched() -> bool:
    """Whether all sockets are gevent's: this process waits on a loop."""
    return plain.socket is socket.socket


#: A pool's free connections. ``queue.LifoQueue`` is made of locks, each of which is a semaphore here.
Free = queue.LifoQueue


class Line(Stream):
    """A connected socket, with as much of a socket's interface as redis-py uses."""

    __slots__ = ("_timeout",)

    def __init__(self, sock: socket.socket) -> None:
        self._timeout: float | None = sock.gettimeout()
        super().__init__(sock)

    def settimeout(self, timeout: float | None) -> None:
        self._timeout = timeout

    def sendall(self, data: bytes) -> None:
        self.send(data, _LONG if self._timeout is None else self._timeout)

    def recv_into(self, buffer: bytearray) -> int:
        """:raises BlockingIOError: nothing has come, and the time-out is 0. :raises TimeoutError: nor within it."""
        if self._timeout == 0:
            data: bytes | None = self.look()
        else:
            data = self.recv(time.monotonic() + (_LONG if self._timeout is None else self._timeout))
        if data is None:
            raise TimeoutError("timed out")
        buffer[: len(data)] = data
        return len(data)
