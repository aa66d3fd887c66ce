"""Redis clients from URLs, with time-outs on everything: no call waits for Redis for ever."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel

#: Seconds. A Redis that takes longer counts as away.
TIMEOUT = 2.0

Client = Any  # redis.Redis or redis.cluster.RedisCluster: one set of commands, no common base class.

#: What a Redis that is away, loading, failing over or read-only raises.
ERRORS = (redis.RedisError, OSError)


def connect(url: str) -> Client:
    """``redis://``, ``rediss://``, ``unix://``; ``redis+sentinel://[:PW@]HOST:PORT[,HOST:PORT…]/SERVICE[/DB]``;
    ``redis+cluster://HOST:PORT``. Connects on first use.

    :raises ValueError: another scheme, or a sentinel URL without its service's name.
    """
    options: dict[str, Any] = {
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
        # The outbox retries by its own rules; a retry underneath would only hide how long Redis was away.
        "retry": Retry(NoBackoff(), 0),
    }
    scheme, _, rest = url.partition("://")
    if scheme in ("redis", "rediss", "unix"):
        pool = redis.BlockingConnectionPool.from_url(url, max_connections=32, timeout=TIMEOUT, **options)
        return redis.Redis(connection_pool=pool)
    if scheme == "redis+cluster":
        return RedisCluster.from_url(f"redis://{rest}", **options)
    if scheme == "redis+sentinel":
        parts = urlsplit(f"redis://{rest}")
        hosts = parts.netloc.rpartition("@")[2].split(",")
        path = [part for part in parts.path.split("/") if part]
        if not path:
            raise ValueError("expected redis+sentinel://HOST:PORT/SERVICE[/DB]")
        if parts.netloc.count("@"):
            options["password"] = unquote(parts.netloc.rpartition("@")[0].rpartition(":")[2])
        if "username" in (query := parse_qs(parts.query)):
            options["username"] = query["username"][0]
        addresses = [(host.rpartition(":")[0] or host, int(host.rpartition(":")[2] or 26379)) for host in hosts]
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            addresses, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT
        )
        return sentinel.master_for(  # type: ignore[no-untyped-call]
            path[0], db=int(path[1]) if len(path) > 1 else 0, **options
        )
    raise ValueError("expected redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://")
