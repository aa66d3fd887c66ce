"""The event loop of both load generators: one thread, epoll and non-blocking sockets."""

from __future__ import annotations

import errno
import select
import socket
import time
from collections import Counter, deque
from typing import Generic, TypeVar

from tests.support.commands import split

HOST = "127.0.0.1"


class Failed(Exception):
    """The application deviated from the script."""


class Peer:
    """A connection of the load generator."""

    __slots__ = ("buffer", "fd", "out", "sock")

    def __init__(self, sock: socket.socket | None) -> None:
        self.buffer = b""
        self.out = b""
        self.fd = -1
        if sock is not None:
            self.attach(sock)

    def attach(self, sock: socket.socket) -> None:
        self.sock, self.fd = sock, sock.fileno()


P = TypeVar("P", bound=Peer)


class Loop(Generic[P]):
    """Reads commands from peers and sends them bursts when they are due.

    ``tick`` is FreeSWITCH's, in seconds. With 0, a burst is sent in the loop's next turn.
    """

    def __init__(self, tick: float) -> None:
        self.tick = tick
        self.interval = 0.0
        self.epoll = select.epoll()
        self.peers: dict[int, P] = {}
        self.pending: deque[tuple[float, P, str, int]] = deque()  # scheduled bursts, in order of time
        self.failures: Counter[str] = Counter()
        self.received = 0
        self.sent_bytes = 0

    def turn(self) -> None:
        """Run one turn of the loop: read what has arrived, then write the bursts that are due."""
        pending = self.pending
        wait = 0.0 if pending else self.interval or 0.5
        if pending and self.tick:
            wait = max(0.0, min(pending[0][0] - time.perf_counter(), self.interval or 0.5))
        due = len(pending)  # bursts that this turn's commands add have to wait for the next
        for fd, flags in self.epoll.poll(wait):
            peer = self.peers.get(fd)
            if peer is None:
                continue
            try:
                if flags & select.EPOLLOUT and peer.out:
                    self.flush(peer)
                if flags & ~select.EPOLLOUT:
                    self.readable(peer)
            except (Failed, OSError) as error:
                self.end(peer, str(error) or type(error).__name__)
        now = time.perf_counter() if self.tick else 0.0
        for _ in range(due):
            if self.tick and pending[0][0] > now:
                break
            _due, peer, step, index = pending.popleft()
            if peer.fd in self.peers:
                try:
                    self.burst(peer, step, index)
                except (Failed, OSError) as error:
                    self.end(peer, str(error) or type(error).__name__)

    def schedule(self, peer: P, step: str, index: int) -> None:
        # FreeSWITCH serves a channel once per tick: the events come with the next one.
        self.pending.append((time.perf_counter() + self.tick if self.tick else 0.0, peer, step, index))

    # connections

    @staticmethod
    def opened(port: int) -> socket.socket:
        """Return a socket that is connecting to `port`."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 19)
        error = sock.connect_ex((HOST, port))
        if error not in (0, errno.EINPROGRESS):
            raise OSError(error, "connect")
        return sock

    def add(self, peer: P) -> None:
        self.peers[peer.fd] = peer
        self.epoll.register(peer.fd, select.EPOLLIN)

    def drop(self, peer: P) -> bool:
        """Close the connection. Returns False if it was closed already."""
        if self.peers.pop(peer.fd, None) is None:
            return False
        self.epoll.unregister(peer.fd)
        peer.sock.close()
        return True

    def send(self, peer: P, data: bytes) -> None:
        self.sent_bytes += len(data)
        if peer.out:
            peer.out += data
            return
        try:
            sent = peer.sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            peer.out = data[sent:]
            self.epoll.modify(peer.fd, select.EPOLLIN | select.EPOLLOUT)

    def flush(self, peer: P) -> None:
        peer.out = peer.out[peer.sock.send(peer.out) :]
        if not peer.out:
            self.epoll.modify(peer.fd, select.EPOLLIN)

    def readable(self, peer: P) -> None:
        data = peer.sock.recv(65536)
        if not data:
            raise Failed(self.closed(peer))
        if b"\r" in data:  # some libraries end their lines like this, and FreeSWITCH takes it
            data = data.replace(b"\r", b"")
        if peer.buffer:
            data = peer.buffer + data
        whole, peer.buffer = split(data)
        for text in whole:
            self.received += 1
            self.command(peer, text)
            if peer.fd not in self.peers:
                return

    # for subclasses

    def closed(self, peer: P) -> str:
        """Return the failure message for a connection that the application closed."""
        raise NotImplementedError

    def command(self, peer: P, text: bytes) -> None:
        """Handle a command of the application."""
        raise NotImplementedError

    def burst(self, peer: P, step: str, index: int) -> None:
        """Send a scheduled burst, now that it is due."""
        raise NotImplementedError

    def end(self, peer: P, failure: str = "") -> None:
        """End a connection; `failure` says what went wrong, if anything did."""
        raise NotImplementedError
