"""Forms of a Redis URL: one server, a cluster, or a Sentinel's service."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from redis.connection import parse_url


def check(url: str) -> None:
    """Whether ``connect`` can make something of it; connects to nothing. :raises ValueError: it can't."""
    scheme, _, rest = url.partition("://")
    if scheme in ("redis", "rediss", "unix"):
        parse_url(url)  # type: ignore[no-untyped-call]
    elif scheme == "redis+cluster":
        if not parse_url(f"redis://{rest}").get("host"):  # type: ignore[no-untyped-call]
            raise ValueError("expected redis+cluster://HOST:PORT")
    elif scheme == "redis+sentinel":
        sentinel(rest)
    else:
        raise ValueError("expected redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://")


def sentinel(rest: str) -> tuple[list[tuple[str, int]], str, int, dict[str, Any]]:
    """The sentinels' addresses, the service, its database, its user and password. :raises ValueError."""
    parts = urlsplit(f"redis://{rest}")
    user, _, hosts = parts.netloc.rpartition("@")
    path = [part for part in parts.path.split("/") if part]
    addresses = [(host.rpartition(":")[0] or host, host.rpartition(":")[2]) for host in hosts.split(",")]
    if len(path) not in (1, 2) or not hosts or not all(host for host, _port in addresses):
        raise ValueError("expected redis+sentinel://HOST:PORT[,HOST:PORT…]/SERVICE[/DB]")
    options: dict[str, Any] = {}
    if user:
        options["password"] = unquote(user.rpartition(":")[2])
    if "username" in (query := parse_qs(parts.query)):
        options["username"] = query["username"][0]
    try:
        numbered = [(host, int(port) if port != host else 26379) for host, port in addresses]
        return numbered, path[0], int(path[1]) if len(path) > 1 else 0, options
    except ValueError:
        raise ValueError("expected a number as port and as database") from None
