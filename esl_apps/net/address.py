"""Parse ``host:port``, and tell loopback addresses and those of given networks."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from functools import lru_cache


@lru_cache(maxsize=1024)  # most peers come again
def _read(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """:raises ValueError: it isn't an address."""
    return ipaddress.ip_address(plain(address))


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or _read(host).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=1024)  # a call comes from one of a few switches
def plain(address: str) -> str:
    """Return an address in its only form. A port that serves both IP families gives an IPv4 address as
    ``::ffff:10.0.0.1``: it counts as IPv4. Other text is returned as it is."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(getattr(ip, "ipv4_mapped", None) or ip)


def split_address(text: str) -> tuple[str, int]:
    """Split ``host:port``. :raises ValueError: the text has another form; the message is for the operator."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError("expected host:port")
    return host.strip("[]"), int(port)


def here_towards(host: str, port: int) -> str | None:
    """This machine's address towards another address; None if none leads there, or for a name, which isn't asked for.
    Nothing is sent."""
    try:
        family = socket.AF_INET6 if _read(host).version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((host, port))
            return plain(sock.getsockname()[0])
    except (OSError, ValueError):
        return None


def is_elsewhere(host: str, port: int) -> bool:
    """Whether an address is another machine's."""
    return not is_loopback(host) and here_towards(host, port) != plain(host)


def within(address: str, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    """Whether `address` is in one of the networks. False for text that isn't an address."""
    try:
        ip = _read(address)
    except ValueError:
        return False
    return any(ip in network for network in networks)
