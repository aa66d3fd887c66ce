"""Ports for tests' servers: free on loopback, and given once, to one process of all runs on this machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import socket
from itertools import chain

HOST = "127.0.0.1"
# Below the range that the kernel uses for outgoing connections, which must not take a server's port while it restarts.
_SINGLE = range(10000, 14016)
#: Rows of media ports (UDP), those of phones and of switches apart. Each row is a slot of its region: rows that begin
#: anywhere would leave gaps too small to use.
_PHONES = range(14016, 20032, 64)
_SWITCHES = range(20032, 31808, 448)

#: One byte per port, locked until the port is given back or its process ends, so that a server that is down keeps it.
#: In memory, not in the run's own temporary folder: all runs on this machine share it.
_locks = os.open("/dev/shm/esl_apps-test-ports", os.O_RDWR | os.O_CREAT, 0o666)
_given: set[int] = set()
_random = random.SystemRandom()


def free_port() -> int:
    return free_ports(1)


def free_ports(count: int) -> int:
    """The first of ``count`` ports in a row for servers, free for UDP and TCP."""
    return _row(count, _SINGLE, (socket.SOCK_STREAM, socket.SOCK_DGRAM))


def media_ports(count: int) -> int:
    """The first, even, of ``count`` ports in a row, free for UDP: a phone (at most 64) has them, or a switch (448)."""
    # TCP connections on the same port numbers don't disturb RTP.
    if count <= _PHONES.step:
        with contextlib.suppress(RuntimeError):
            return _row(count, _PHONES, (socket.SOCK_DGRAM,))
    return _row(count, _SWITCHES, (socket.SOCK_DGRAM,))


def _row(count: int, starts: range, kinds: tuple[socket.SocketKind, ...]) -> int:
    begin = _random.randrange(len(starts))
    for first in chain(starts[begin:], starts[:begin]):
        wanted = range(first, first + count)
        if _given.isdisjoint(wanted) and _take(first, count):
            if all(_is_free(port, kinds) for port in wanted):
                _given.update(wanted)
                return first
            fcntl.lockf(_locks, fcntl.LOCK_UN, count, first)
    raise RuntimeError(f"no {count} free ports in {starts}")


def give_back(first: int, count: int) -> None:
    """Free the ports of a server that will not come back."""
    _given.difference_update(range(first, first + count))
    fcntl.lockf(_locks, fcntl.LOCK_UN, count, first)


def _take(first: int, count: int) -> bool:
    with contextlib.suppress(OSError):
        fcntl.lockf(_locks, fcntl.LOCK_EX | fcntl.LOCK_NB, count, first)
        return True
    return False


def _is_free(port: int, kinds: tuple[socket.SocketKind, ...]) -> bool:
    for kind in kinds:
        with socket.socket(socket.AF_INET, kind) as sock:
            try:
                sock.bind((HOST, port))
            except OSError:
                return False
    return True
