"""The fast path to a single Redis: hiredis's parser over a socket that waits on gevent's loop itself.

A call asks Redis five to ten times. From a command to its answer, redis-py makes some 25 function calls, and gevent's
own socket tries to read before the answer can be there, makes a timer and a waiter for each wait, and asks for the
size of its buffer at each write. Here a packed command is written and waited for in one call.

A connection that fails in any way is closed at once: an answer still on its way would be taken for the next
command's.
"""

from __future__ import annotations

import socket as standard
import time
from collections.abc import Callable, Iterable, Sequence
from queue import Empty
from typing import Any

import hiredis
from gevent import queue, socket

from esl_apps.config.redis_url import RedisUrl
from esl_apps.net.stream import Stream
from esl_apps.store.errors import NoAnswer, NotReady, Reply, Unsent, refusal

#: A command and its arguments, as ``("HGET", key, field)``.
Command = Sequence[Any]
#: Called with the seconds of each round trip that Redis has answered.
Observe = Callable[[float], None]

#: The most bytes of the answers to one write: a hundred times a node's calls; and from an integrator's own Redis, which
#: answers with numbers.
_LONGEST, _SHORT = 1 << 28, 1 << 20
#: Digits of the number of an array's elements, and what is before it. For a million and more, hiredis makes room at
#: once and looks through it at the end: 13 bytes of an integrator's Redis stopped the event loop for 9 s.
_DIGITS, _ARRAYS = 7, (b"\n*", b"\n~", b"\n>")
#: Returned by hiredis while an answer is incomplete. None and False are answers.
_INCOMPLETE = object()


def ignore(_seconds: float) -> None:
    """Observe nothing."""


def is_patched() -> bool:
    """Whether this process's sockets are gevent's, so that waiting for one lets others run."""
    return standard.socket is socket.socket


def pack(command: Command) -> bytes:
    """A command as Redis reads it. :raises TypeError: an argument is neither text, bytes nor a number."""
    packed: bytes = hiredis.pack_command(tuple(command))
    return packed


class Connection:
    """One connection, usable by one greenlet at a time. Connects when it is first asked."""

    __slots__ = ("_end", "_foreign", "_reader", "_stream", "_timeout", "_url")

    def __init__(self, url: RedisUrl, timeout: float, *, foreign: bool = False) -> None:
        """``foreign``: an integrator's own Redis, from which only short answers are read."""
        self._foreign = foreign
        self._url = url
        self._timeout = timeout
        self._stream: Stream | None = None
        self._reader: Any = None
        self._end = b""
        """The last bytes of a foreign server."""

    def ask(self, data: bytes, count: int) -> list[Any]:
        """Send packed commands in one write and return their ``count`` answers; an error reply is an exception there.

        :raises StoreUnavailable: the connection broke, Redis did not answer in time, or it takes no commands now.
        """
        if self._stream is None:
            self._connect()
        stream, reader = self._stream, self._reader
        assert stream is not None
        try:
            stream.send(data, self._timeout)
            deadline = time.monotonic() + self._timeout
            answers = []
            left = longest = _SHORT if self._foreign else _LONGEST
            for _ in range(count):
                while (answer := reader.gets()) is _INCOMPLETE:
                    received = stream.recv(deadline)
                    if not received:
                        raise TimeoutError if received is None else ConnectionError("closed by the server")
                    left -= len(received)
                    if left < 0:
                        raise ConnectionError(f"an answer of more than {longest} bytes")
                    if self._foreign:
                        self._end = _looked_through(self._end + received)
                    reader.feed(received)
                if isinstance(answer, NotReady):
                    raise answer
                answers.append(answer)
        except BaseException as error:
            self.close()
            if isinstance(error, TimeoutError):
                raise NoAnswer("redis: no answer in time") from None
            if isinstance(error, OSError):
                raise NoAnswer(f"redis: the connection broke: {error.strerror or error}") from None
            if isinstance(error, hiredis.ProtocolError):
                raise NoAnswer(f"redis: {self._url.where}: not a Redis: {error}") from None
            raise
        return answers

    def refresh(self) -> None:
        """Drop a connection on which anything has arrived unasked: its end, or an answer that was left behind."""
        if self._stream is None:
            return
        try:
            if self._reader.has_data():
                raise OSError
            self._stream.look()
        except BlockingIOError:
            return
        except OSError:
            pass
        self.close()

    def closes_within(self, seconds: float) -> bool:
        """Wait for Redis to close this idle connection. :raises StoreUnavailable: it can't be made."""
        if self._stream is None:
            self._connect()
        assert self._stream is not None
        try:
            if self._stream.recv(time.monotonic() + seconds) is None:
                return False
        except OSError:
            pass
        except BaseException:
            # Killed while it waited: whether something has arrived is not known.
            self.close()
            raise
        self.close()
        return True

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = self._reader = None

    def _connect(self) -> None:
        try:
            sock = self._socket()
        except OSError as error:
            raise Unsent(f"redis: {self._url.where}: {error.strerror or error}") from None
        self._stream = Stream(sock)
        self._end = b"\n"
        self._reader = hiredis.Reader(replyError=refusal, notEnoughData=_INCOMPLETE)
        for command in self._greeting():
            (answer,) = self.ask(pack(command), 1)
            if isinstance(answer, Reply):
                # Without its password or its database, no command may run on this connection.
                self.close()
                raise NotReady(answer.code, str(answer).removeprefix("redis: "))

    def _socket(self) -> socket.socket:
        url = self._url
        if url.path is None:
            sock = socket.create_connection((url.host, url.port), timeout=self._timeout)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return sock
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self._timeout)
            sock.connect(url.path)
        except BaseException:
            sock.close()
            raise
        return sock

    def _greeting(self) -> Iterable[Command]:
        url = self._url
        if url.username is not None:
            yield "AUTH", url.username, url.password or ""
        elif url.password is not None:
            yield "AUTH", url.password
        if url.db:
            yield "SELECT", url.db


def _looked_through(data: bytes) -> bytes:
    """Return the end of what has arrived, to be looked at together with what comes next.

    :raises ConnectionError: an array of too many elements begins in it.
    """
    for start in _ARRAYS:
        at = data.find(start)
        while at >= 0:
            if data[at + 2 : at + 2 + _DIGITS].isdigit() and at + 2 + _DIGITS <= len(data):
                raise ConnectionError(f"an array of {10 ** (_DIGITS - 1)} elements or more")
            at = data.find(start, at + 2)
    return data[-(_DIGITS + 1) :]


class Pool:
    """At most ``size`` connections. The one used last is the next to be used, so that idle ones stay idle."""

    def __init__(self, connect: Callable[[], Connection], size: int, timeout: float) -> None:
        # gevent's queue: ``queue.LifoQueue`` is made of locks, each of which is a semaphore here.
        self._free: queue.LifoQueue[Connection] = queue.LifoQueue()
        self._timeout = timeout
        for _ in range(size):
            self._free.put_nowait(connect())

    def take(self) -> Connection:
        """A connection for this greenlet alone. :raises StoreUnavailable: none has come free in time."""
        try:
            connection = self._free.get(timeout=self._timeout)
        except Empty:
            raise Unsent("redis: no connection has come free") from None
        connection.refresh()
        return connection

    def give_back(self, connection: Connection) -> None:
        self._free.put_nowait(connection)

    def close(self) -> None:
        """Close the connections that are not in use; they connect again if asked."""
        free = [self._free.get_nowait() for _ in range(self._free.qsize())]
        for connection in free:
            connection.close()
            self._free.put_nowait(connection)
