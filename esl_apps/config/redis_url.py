"""Forms of a Redis URL: one server, a cluster, or a Sentinel's service."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from esl_apps.config.fields import MANY

_ENCODE = "; in a password, write / # ? @ : % [ ] as %2F %23 %3F %40 %3A %25 %5B %5D"

#: Options that are numbers. redis-py knows all of them and more, as ``client_name`` or ``ssl_ca_certs``.
_NUMBERS: Mapping[str, Callable[[str], float]] = {
    "db": int,
    "health_check_interval": int,
    "max_connections": int,
    "protocol": int,
    "socket_connect_timeout": float,
    "socket_timeout": float,
    "timeout": float,
}


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """One server, as ``redis://``, ``rediss://`` (TLS) or ``unix://`` names it."""

    scheme: str
    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    """Of a Unix socket."""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    options: frozenset[str] = frozenset()
    """The names of further options."""

    @property
    def where(self) -> str:
        """Host and port, or the path: nothing that a log may not show."""
        return f"{self.host}:{self.port}" if self.path is None else self.path


def check(url: str) -> None:
    """Check that ``connect`` can make something of a URL; nothing is connected.

    :raises ValueError: with what was expected, and without any part of the URL: it can hold a password.
    """
    scheme, _, rest = url.partition("://")
    _check_login(scheme, rest)
    if scheme in ("redis", "rediss", "unix"):
        server(url)
    elif scheme == "redis+cluster":
        form = "redis+cluster://[USER:PASSWORD@]HOST:PORT"
        _server(f"redis://{rest}", form)
        if not urlsplit(f"redis://{rest}").hostname:
            raise ValueError(f"expected {form}")
    elif scheme == "redis+sentinel":
        sentinel(rest)
    else:
        raise ValueError("expected redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://")


def _check_login(scheme: str, rest: str) -> None:
    """Refuse a password with a character that ends it early: its rest would be taken for a path or a database, its
    beginning for a host and a port, and messages would name these.

    :raises ValueError: as ``check``.
    """
    if re.search(r"[\s\0-\x1f]", rest):
        raise ValueError(f"expected no spaces and no line breaks{_ENCODE}")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    login, at, _hosts = authority.rpartition("@")
    cut = "#" in rest or "@" in rest[len(authority) :]
    if scheme == "unix":
        # Without a login there is nothing before the path.
        cut = "#" in rest or bool(authority and not at)
    # A stray % and two digits seldom decode to a character that is in a password.
    if cut or re.search("%(?![0-9A-Fa-f]{2})", login) or re.search(r"[\0-\x1f]", unquote(login)):
        raise ValueError(f"the password is cut short or can't be read{_ENCODE}")


def server(url: str) -> RedisUrl:
    """Read the URL of one server, as redis-py would. :raises ValueError: as ``check``."""
    scheme = url.partition(":")[0]
    if scheme == "unix":
        return _server(url, "unix://[USER:PASSWORD@]/PATH[?db=DB]")
    return _server(url, f"{scheme}://[USER:PASSWORD@]HOST[:PORT][/DB]")


def _server(url: str, form: str) -> RedisUrl:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"expected {form}{_ENCODE}") from None
    options = {name: values[0] for name, values in parse_qs(parts.query).items()}
    numbers: dict[str, float] = {}
    for name, read in _NUMBERS.items():
        if name in options:
            try:
                numbers[name] = read(options[name])
                if not 0 <= numbers[name] <= MANY:
                    raise ValueError
            except ValueError:
                raise ValueError(f"the option {name} has a value that it can't have") from None
    path = unquote(parts.path)
    # redis-py takes database 0 if the path is not a number.
    digits = path.replace("/", "")
    is_socket = parts.scheme == "unix"
    db = int(digits) if not is_socket and digits.isascii() and digits.isdigit() else 0
    return RedisUrl(
        scheme=parts.scheme,
        host=unquote(parts.hostname or "localhost"),
        port=port or 6379,
        path=path if is_socket else None,
        db=int(numbers.get("db", db)),
        username=unquote(parts.username) if parts.username else options.get("username"),
        password=unquote(parts.password) if parts.password else options.get("password"),
        options=frozenset(options) - {"db", "username", "password"},
    )


def sentinel(rest: str) -> tuple[list[tuple[str, int]], str, int, dict[str, Any]]:
    """The sentinels' addresses, the service, its database, its user and password.

    :raises ValueError: as ``check``.
    """
    form = f"expected redis+sentinel://HOST:PORT[,HOST:PORT…]/SERVICE[/DB], PORT and DB in digits{_ENCODE}"
    try:
        parts = urlsplit(f"redis://{rest}")
    except ValueError:
        raise ValueError(form) from None
    user, _, hosts = parts.netloc.rpartition("@")
    path = [part for part in parts.path.split("/") if part]
    addresses = [(host.rpartition(":")[0] or host, host.rpartition(":")[2]) for host in hosts.split(",")]
    if len(path) not in (1, 2) or not hosts or not all(host for host, _port in addresses):
        raise ValueError(form)
    options: dict[str, Any] = {}
    if user:
        options["password"] = unquote(user.partition(":")[2] if ":" in user else user)
    if "username" in (query := parse_qs(parts.query)):
        options["username"] = query["username"][0]
    try:
        numbered = [(host, int(port) if port != host else 26379) for host, port in addresses]
        return numbered, path[0], int(path[1]) if len(path) > 1 else 0, options
    except ValueError:
        raise ValueError(form) from None
