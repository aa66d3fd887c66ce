"""Forms of a Redis URL: one server, a cluster, or a Sentinel's service."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from redis.connection import parse_url

_ENCODE = "; in a password, write / # ? @ : % as %2F %23 %3F %40 %3A %25"


def check(url: str) -> None:
    """Check that ``connect`` can make something of a URL; nothing is connected.

    :raises ValueError: with what was expected, and without any part of the URL: it can hold a password.
    """
    scheme, _, rest = url.partition("://")
    if scheme in ("redis", "rediss"):
        _parsed(url, f"{scheme}://[USER:PASSWORD@]HOST[:PORT][/DB]")
    elif scheme == "unix":
        _parsed(url, "unix://[USER:PASSWORD@]/PATH[?db=DB]")
    elif scheme == "redis+cluster":
        form = "redis+cluster://[USER:PASSWORD@]HOST:PORT"
        if not _parsed(f"redis://{rest}", form).get("host"):
            raise ValueError(f"expected {form}")
    elif scheme == "redis+sentinel":
        sentinel(rest)
    else:
        raise ValueError("expected redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://")


def _parsed(url: str, form: str) -> dict[str, Any]:
    try:
        return dict(parse_url(url))  # type: ignore[no-untyped-call]
    except ValueError as error:
        # redis-py's messages show what it takes for a port: the beginning of a password that holds a slash.
        option = re.match(r"Invalid value for '(\w+)'", str(error))
        if option:
            raise ValueError(f"the option {option[1]} has a value that it can't have") from None
        raise ValueError(f"expected {form}{_ENCODE}") from None


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
        options["password"] = unquote(user.rpartition(":")[2])
    if "username" in (query := parse_qs(parts.query)):
        options["username"] = query["username"][0]
    try:
        numbered = [(host, int(port) if port != host else 26379) for host, port in addresses]
        return numbered, path[0], int(path[1]) if len(path) > 1 else 0, options
    except ValueError:
        raise ValueError(form) from None
