"""Redis clients from URLs: one set of commands, with a time-out on everything and one exception for every failure.

=================================  ======================================================================
``redis://``, ``unix://``          :class:`FastClient` (``fast_client.py``)
the same with options, and TLS     redis-py (``redis_py.py``); so, too, in a process whose sockets are not gevent's
``redis+sentinel://``              redis-py, which asks the sentinels for the master
``redis+cluster://``               redis-py, made safe for many greenlets (``cluster.py``)
=================================  ======================================================================

redis-py is imported when a URL needs it: that takes longer than importing the rest of a node.
"""

from __future__ import annotations

from typing import Any

from esl_apps.config import redis_url
from esl_apps.store.connection import Observe, ignore, is_patched
from esl_apps.store.fast_client import TIMEOUT, fast_client

#: A client as :func:`connect` makes it: the commands of :class:`FastClient`. Those of redis-py have no class in common.
Client = Any


def connect(url: str, timeout: float = TIMEOUT, observe: Observe = ignore, *, foreign: bool = False) -> Client:
    """Make a client; it connects on first use. Everything it does raises :class:`StoreUnavailable`, and nothing else,
    if Redis is down or refuses.

    ``url``: ``redis://``, ``rediss://``, ``unix://``;
    ``redis+sentinel://[:PASSWORD@]HOST:PORT[,HOST:PORT…]/SERVICE[/DB]``; ``redis+cluster://HOST:PORT``.
    ``observe`` is called with the seconds of each round trip. ``foreign``: it is an integrator's own, which may answer
    with anything.

    :raises ValueError: the URL can't be read.
    """
    redis_url.check(url)
    client = _client(url, timeout, foreign=foreign)
    client.observe = observe
    return client


def _client(url: str, timeout: float, *, foreign: bool) -> Client:
    scheme, _, rest = url.partition("://")
    if scheme == "redis+cluster":
        from esl_apps.store.cluster import ClusterClient

        return ClusterClient(f"redis://{rest}", timeout)
    if scheme in ("redis", "unix") and is_patched() and not redis_url.server(url).options:
        return fast_client(url, timeout, foreign=foreign)
    from esl_apps.store import redis_py

    return redis_py.sentinel(rest, timeout) if scheme == "redis+sentinel" else redis_py.single(url, timeout)
