"""Open listening sockets."""

from __future__ import annotations

from gevent import socket


def listen(address: tuple[str, int], backlog: int) -> socket.socket:
    """Return a listening socket. At most ``backlog`` connections wait to be accepted.

    :raises OSError: the address is in use or doesn't belong to this machine.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock
