"""Listening sockets: one way to open them."""

from __future__ import annotations

from gevent import socket


def listen(address: tuple[str, int], backlog: int) -> socket.socket:
    """Bound, and listening: what comes waits in its queue, ``backlog`` long, until somebody accepts.

    :raises OSError: the address is in use, or is not this machine's.
    """
    one = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        one.bind(address)
        one.listen(backlog)
    except OSError:
        one.close()
        raise
    return one
