"""Ports for tests' servers: free on loopback, and given to nobody else of the suite, whatever process it runs in."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import socket
import tempfile

HOST = "127.0.0.1"
# Below the range from which the kernel takes ports for outgoing connections: one of those must not take a port
# between two lives of its server.
_FIRST, _LONG_ROWS, _LAST = 10000, 14016, 32000
#: A long row begins at a multiple of it: rows that begin anywhere leave gaps that are of no use to the next.
_GRID = 64

#: One byte a port, locked until it is given back or the process ends that has it: a server that is down keeps its port.
_locks = os.open(os.path.join(tempfile.gettempdir(), "esl_apps-test-ports"), os.O_RDWR | os.O_CREAT, 0o666)
_given: set[int] = set()
_random = random.SystemRandom()


def free_port() -> int:
    return free_ports(1)


def free_ports(count: int, *, step: int = 1) -> int:
    """The first of ``count`` ports in a row, a multiple of ``step``; free for UDP and TCP."""
    # Single ports all over the place would leave no room for a row of hundreds.
    if count < 10:
        low, high, step = _FIRST, _LONG_ROWS, max(step, 1)
    else:
        low, high, step = _LONG_ROWS, _LAST, _GRID
    for _ in range(1000):
        first = _random.randrange(low, high - count) // step * step
        wanted = range(first, first + count)
        if _given.isdisjoint(wanted) and _take(first, count):
            if all(map(_is_free, wanted)):
                _given.update(wanted)
                return first
            fcntl.lockf(_locks, fcntl.LOCK_UN, count, first)
    raise RuntimeError("no free ports")


def give_back(first: int, count: int) -> None:
    """Of a server that will not come back."""
    _given.difference_update(range(first, first + count))
    fcntl.lockf(_locks, fcntl.LOCK_UN, count, first)


def _take(first: int, count: int) -> bool:
    with contextlib.suppress(OSError):
        fcntl.lockf(_locks, fcntl.LOCK_EX | fcntl.LOCK_NB, count, first)
        return True
    return False


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as sock:
            try:
                sock.bind((HOST, port))
            except OSError:
                return False
    return True
