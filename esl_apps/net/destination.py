"""Which addresses may be connected to on behalf of others: public ones only.

Whoever chooses a URL, or controls the DNS of its host, would otherwise reach what only this machine can: its own ports,
the local network, a cloud's metadata service (server-side request forgery). The lists are our own, because those of
Python's ``ipaddress`` differ from version to version.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

_IPv4 = ipaddress.IPv4Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LOOPBACK, _PRIVATE, _LINK_LOCAL = "loopback", "private", "link-local"
_RESERVED = "not public"

#: IANA's special-purpose addresses that aren't globally reachable, with multicast.
_SPECIAL: Sequence[tuple[_Network, str]] = [
    (ipaddress.ip_network(text), why)
    for text, why in (
        ("127.0.0.0/8", _LOOPBACK),
        ("10.0.0.0/8", _PRIVATE),
        ("172.16.0.0/12", _PRIVATE),
        ("192.168.0.0/16", _PRIVATE),
        ("100.64.0.0/10", _PRIVATE),
        ("169.254.0.0/16", _LINK_LOCAL),
        # Connecting to 0.0.0.0 reaches this machine.
        ("0.0.0.0/8", _LOOPBACK),
        ("192.0.0.0/24", _RESERVED),
        ("192.0.2.0/24", _RESERVED),
        ("192.88.99.0/24", _RESERVED),
        ("198.18.0.0/15", _PRIVATE),
        ("198.51.100.0/24", _RESERVED),
        ("203.0.113.0/24", _RESERVED),
        ("224.0.0.0/4", _RESERVED),
        ("240.0.0.0/4", _RESERVED),
        ("::1/128", _LOOPBACK),
        ("::/128", _LOOPBACK),
        ("fe80::/10", _LINK_LOCAL),
        ("fec0::/10", _PRIVATE),
        ("fc00::/7", _PRIVATE),
        # Protocol assignments, with Teredo, which carries an IPv4 address.
        ("2001::/23", _RESERVED),
        ("2001:db8::/32", _RESERVED),
        # 6to4 carries an IPv4 address.
        ("2002::/16", _RESERVED),
        ("3fff::/20", _RESERVED),
    )
]
#: All public IPv6 addresses are in it.
_UNICAST = ipaddress.ip_network("2000::/3")
#: IPv6 addresses that are another way to write, or to reach, the IPv4 address in their last 32 bits (RFC 4291, 6052).
_CARRIERS = [ipaddress.ip_network(text) for text in ("::ffff:0:0/96", "64:ff9b::/96")]

#: A number, decimal, octal or hexadecimal: each part of what C's inet_aton takes for an address.
_NUMERIC = re.compile(r"(?:0[xX][0-9a-fA-F]*|[0-9]+)")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


def unfit(address: str) -> str:
    """Return why an address may not be connected to, as ``10.0.0.1 is private``; empty if it is public."""
    try:
        # With a zone, an address is link-local.
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return f"{address[:64]!r} is no address"
    for carrier in _CARRIERS:
        if ip.version == carrier.version and ip in carrier:
            inner = unfit(str(_IPv4(int(ip) & 0xFFFFFFFF)))
            return f"{ip} stands for {inner}" if inner else ""
    for network, why in _SPECIAL:
        if ip.version == network.version and ip in network:
            return f"{ip} is {why}"
    if ip.version == _UNICAST.version and ip not in _UNICAST:
        return f"{ip} is {_RESERVED}"
    return ""


def first_unfit(addresses: Iterable[str]) -> str:
    """Return what is wrong with the first address that isn't public; empty if all are.

    A name with a private address among public ones is refused as a whole: no honest receiver has one.
    """
    return next((why for address in addresses if (why := unfit(address))), "")


def check_host(host: str) -> str:
    """Return a URL's host as it may be looked up: a name, or an address in its usual form.

    :raises ValueError: it is something else, as ``0177.0.0.1`` or ``2130706433``, which C libraries read as 127.0.0.1.
    """
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        if getattr(ip, "scope_id", None) is not None:
            raise ValueError("expected an address without a zone")
        return str(ip)
    name = host.rstrip(".")
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("expected a host name (xn--… if it has other letters than a to z) or an address")
    if _NUMERIC.fullmatch(labels[-1]):
        raise ValueError("expected a host name, or an address as 192.0.2.1")
    return name.lower()


def check_literal(host: str) -> str:
    """Return what is wrong with a host without looking it up; empty if nothing can be said yet."""
    if host == "localhost" or host.endswith(".localhost"):
        return f"{host} is {_LOOPBACK}"
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return ""
    return unfit(host)


@dataclass(frozen=True, slots=True)
class Destination:
    """A URL to post to."""

    secure: bool
    host: str
    port: int
    path: str
    """With its query."""

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


#: The characters that a request's first line can carry. A backslash is read as a slash by some and not by others.
_URL = re.compile(r"[!-\[\]-~]{1,2048}")


#: The host and the port of a URL without a user. Some versions of Python read ``[::1]example.com`` as ``::1``.
_AUTHORITY = re.compile(r"(?:\[[^\[\]]*\]|[^\[\]:]*)(?::[0-9]*)?")


def read_url(text: str) -> Destination:
    """Read a URL. :raises ValueError: with what was expected, and without the URL: its path may be a secret."""
    if not _URL.fullmatch(text):
        raise ValueError("expected a URL of at most 2048 printable ASCII characters; write others as %XX")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("expected https://HOST[:PORT]/PATH") from None
    if parts.scheme not in ("https", "http") or not host or port == 0:
        raise ValueError("expected https://HOST[:PORT]/PATH")
    if parts.username is not None or parts.password is not None:
        raise ValueError("expected no user and no password in the URL: the signature proves the sender")
    if not _AUTHORITY.fullmatch(parts.netloc):
        raise ValueError("expected https://HOST[:PORT]/PATH")
    if parts.fragment:
        raise ValueError("expected no # in the URL")
    secure = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Destination(secure, check_host(host), port or (443 if secure else 80), path)
