"""redis-py's cluster client, made safe for many greenlets."""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Any

import gevent
import redis
from redis.cluster import RedisCluster

from esl_apps.store.connection import Observe, ignore
from esl_apps.store.redis_py import Translated, options_of, translating

#: How often a cluster's nodes are asked while their table changes.
_TRIES = 5


class _Cluster(Translated, RedisCluster):
    def masters(self) -> list[Any]:
        return [_Master(self.get_redis_connection(node)) for node in self.get_primaries()]  # type: ignore[no-untyped-call]

    def closes_within(self, seconds: float) -> bool:
        """A cluster has no one connection to watch."""
        gevent.sleep(seconds)
        return False


class _Master:
    """A server of a cluster. redis-py's own client, whose failures are :class:`StoreUnavailable`."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        ask: Callable[..., Any] = translating()(getattr(self._client, name))
        return ask


class ClusterClient:
    """Connect on first use, so that a node starts while its Redis is down, and look for the cluster's nodes once.

    redis-py asks a cluster's nodes as soon as its client is made. When one of them fails, it lets every greenlet that
    meets the failure rebuild the same table while others read it. Here one rebuilds it and the others wait.
    """

    fails_over = True

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._timeout = timeout
        self._client: Any = None
        self.observe: Observe = ignore
        self._making = RLock()

    def __getattr__(self, name: str) -> Any:
        if self._client is None:
            with self._making, translating():
                if self._client is None:
                    self._client = self._make()
        return getattr(self._client, name)

    def _make(self) -> Any:
        try:
            client: Any = _Cluster.from_url(self._url, **options_of(self._timeout))
        except redis.exceptions.RedisClusterException as error:
            if "not enabled" not in str(error):
                raise
            # redis-py takes a refused CLUSTER SLOTS for it.
            raise redis.ConnectionError("not a cluster, or its user lacks rights: +cluster|slots +command") from None
        client.observe = self.observe
        client.nodes_manager.initialize = _one_for_all(client.nodes_manager.initialize)
        return client


def _one_for_all(initialize: Callable[..., None]) -> Callable[..., None]:
    """Run ``initialize`` once for all who call it meanwhile; they share its outcome, a fault included."""
    lock = RLock()
    runs = 0
    fault: Exception | None = None

    def once(*arguments: Any, **named: Any) -> None:
        nonlocal runs, fault
        seen = runs
        with lock:
            if runs == seen:
                try:
                    fault = None
                    _steadily(initialize, *arguments, **named)
                except Exception as error:
                    fault = error
                runs += 1
            if fault is not None:
                raise fault

    return once


def _steadily(initialize: Callable[..., None], *arguments: Any, **named: Any) -> None:
    """Run ``initialize``, again if its table changed meanwhile.

    redis-py 5 takes a node that fails out of the table of nodes to ask, for all its callers: one that reads it meets
    "dictionary changed size during iteration".

    :raises redis.ConnectionError: it changes without end.
    """
    for _ in range(_TRIES):
        try:
            initialize(*arguments, **named)
            return
        except RuntimeError as error:
            fault = error
    raise redis.ConnectionError(f"the cluster's nodes can't be asked: {fault}")
