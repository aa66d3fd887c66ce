"""Redis clients from URLs: redis-py's commands, with a time-out on everything and one exception for every failure.

=================================  ======================================================================
``redis://``, ``unix://``          :class:`FastClient`: redis-py's commands over ``connection.py``
the same with options, and TLS     redis-py alone; so, too, in a process whose sockets are not gevent's
``redis+sentinel://``              redis-py, which asks the sentinels for the master
``redis+cluster://``               redis-py, made safe for many greenlets (``cluster.py``)
=================================  ======================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import redis
from gevent import queue
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from esl_apps.config import redis_url
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store.cluster import ClusterClient
from esl_apps.store.connection import Connection, Pool, is_patched, pack
from esl_apps.store.redis_py import Command, Observe, RedisPyClient, Translated, ignore, raise_first

#: Seconds. A Redis that takes longer counts as down.
TIMEOUT = 2.0
#: Connections of one client.
_CONNECTIONS = 32

#: A client as :func:`connect` makes it: redis-py's commands, and those of :class:`Translated`. ``redis.Redis`` and
#: ``RedisCluster`` have no common base class.
Client = Any


class FastClient(Translated, redis.Redis):
    """redis-py's commands over our own connections. Transactions and subscriptions, which need a connection for longer
    than one command, go through redis-py's pool, which connects only then."""

    def __init__(self, connections: Pool, pool: redis.ConnectionPool) -> None:
        super().__init__(connection_pool=pool)
        self._connections = connections
        # A plain dictionary: redis-py's takes names in any case, which costs more than the look-up itself.
        self._readers = {name.upper(): read for name, read in self.response_callbacks.items()}

    def execute_command(self, *command: Any, **options: Any) -> Any:
        """:raises StoreUnavailable: Redis is down, or refuses. :raises TypeError: as :func:`connection.pack`."""
        data = pack(command)
        began = perf_counter()
        connections = self._connections
        connection = connections.take()
        try:
            answer = connection.ask(data, 1)[0]
        finally:
            connections.give_back(connection)
        self.observe(perf_counter() - began)
        if isinstance(answer, StoreUnavailable):
            raise answer
        read = self._readers.get(command[0])
        if read is None:
            return answer
        # Passed for redis-py's cache alone.
        options.pop("keys", None)
        return read(answer, **options)

    def send_all(self, commands: Sequence[Command], *, raise_on_error: bool = True) -> list[Any]:
        if not commands:
            return []
        data = b"".join([pack(command) for command in commands])
        began = perf_counter()
        connections = self._connections
        connection = connections.take()
        try:
            answers = connection.ask(data, len(commands))
        finally:
            connections.give_back(connection)
        self.observe(perf_counter() - began)
        if raise_on_error:
            raise_first(answers)
        for i, command in enumerate(commands):
            read = self._readers.get(command[0])
            if read is not None and not isinstance(answers[i], StoreUnavailable):
                answers[i] = read(answers[i])
        return answers

    def closes_within(self, seconds: float) -> bool:
        connection = self._connections.take()
        try:
            return connection.closes_within(seconds)
        finally:
            self._connections.give_back(connection)

    def close(self) -> None:
        self._connections.close()
        super().close()


def connect(url: str, timeout: float = TIMEOUT, observe: Observe = ignore) -> Client:
    """Make a client; it connects on first use. Everything it does raises :class:`StoreUnavailable`, and nothing else,
    if Redis is down or refuses.

    ``url``: ``redis://``, ``rediss://``, ``unix://``;
    ``redis+sentinel://[:PASSWORD@]HOST:PORT[,HOST:PORT…]/SERVICE[/DB]``; ``redis+cluster://HOST:PORT``.
    ``observe`` is called with the seconds of each round trip.

    :raises ValueError: the URL can't be read.
    """
    redis_url.check(url)
    client = _client(url, timeout)
    client.observe = observe
    return client


def _client(url: str, timeout: float) -> Client:
    scheme, _, rest = url.partition("://")
    if scheme == "redis+cluster":
        return ClusterClient(f"redis://{rest}", _options(timeout))
    if scheme == "redis+sentinel":
        addresses, service, database, login = redis_url.sentinel(rest)
        sentinel: Any = Sentinel(addresses, socket_timeout=timeout, socket_connect_timeout=timeout)  # type: ignore[no-untyped-call]
        return sentinel.master_for(service, redis_class=RedisPyClient, db=database, **_options(timeout), **login)
    server = redis_url.server(url)
    if is_patched() and scheme in ("redis", "unix") and not server.options:
        return fast_client(url, timeout)
    return RedisPyClient(connection_pool=_pool(url, {}, timeout))


def fast_client(url: str, timeout: float = TIMEOUT) -> FastClient:
    """A client of one server whose greenlets wait on gevent's loop, in the thread that made it."""
    server = redis_url.server(url)
    # The newer protocol has nothing that the commands used here need.
    pool = _pool(url, {"protocol": 2}, timeout)
    return FastClient(Pool(lambda: Connection(server, timeout), _CONNECTIONS, timeout), pool)


def _pool(url: str, options: dict[str, Any], timeout: float) -> redis.BlockingConnectionPool:
    options = {**_options(timeout), **options}
    if is_patched():
        # ``queue.LifoQueue`` is made of locks, each of which is a semaphore here.
        options["queue_class"] = queue.LifoQueue
    return redis.BlockingConnectionPool.from_url(url, max_connections=_CONNECTIONS, timeout=timeout, **options)


def _options(timeout: float) -> dict[str, Any]:
    """The options of every redis-py client."""
    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        # The outbox retries by its own rules; retries underneath would only hide how long Redis was down.
        "retry": Retry(NoBackoff(), 0),
    }
