"""Look names up in threads of their own: a name server that doesn't answer holds up no other work of this process.

gevent's resolver has ten threads for everything, so a few dead names could delay the connections to Redis and to the
switches.
"""

from __future__ import annotations

import _socket  # the plain functions: ``socket``'s are gevent's after patching
from typing import Any

import gevent
from gevent.threadpool import ThreadPool

#: Look-ups at the same time. A look-up that is given up keeps its thread until the C library gives up, too.
THREADS = 32


class Unresolved(OSError):
    """A name has no address now."""


class Resolver:
    """Creates its threads with the first look-ups."""

    def __init__(self, threads: int = THREADS) -> None:
        self._pool = ThreadPool(threads)

    def addresses(self, host: str, port: int, timeout: float) -> list[str]:
        """Return a host's addresses, in the order in which to try them. :raises Unresolved: there are none in time."""
        with gevent.Timeout(timeout, Unresolved(f"{host}: the name server didn't answer in time")):
            found: Any = self._pool.spawn(_look_up, host, port).get()
        if isinstance(found, str):
            raise Unresolved(f"{host}: {found}")
        return list(dict.fromkeys(str(address[0]) for _family, _type, _proto, _name, address in found))


def _look_up(host: str, port: int) -> list[Any] | str:
    # An exception that leaves a thread would be logged as a fault of gevent's hub.
    try:
        return _socket.getaddrinfo(host, port, type=_socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return getattr(error, "strerror", None) or str(error)
