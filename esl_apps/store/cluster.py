"""redis-py's cluster client, made safe for many greenlets."""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Any

import redis
from redis.cluster import RedisCluster

#: How often a cluster's nodes are asked while their table changes.
_TRIES = 5


class _Cluster:
    """A cluster's client asks its nodes when it is made; this one when it is used, so that a node starts while
    its Redis is away. And it asks them anew when one of them fails, for which redis-py lets all who meet the failure
    change one table at a time, each while another reads it: here one asks, and the others take what it found."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self._url = url
        self._options = options
        self._client: Any = None
        self._making = RLock()

    def __getattr__(self, name: str) -> Any:
        if self._client is None:
            with self._making:
                if self._client is None:
                    client: Any = RedisCluster.from_url(self._url, **self._options)
                    client.nodes_manager.initialize = _one_for_all(client.nodes_manager.initialize)
                    self._client = client
        return getattr(self._client, name)


def _one_for_all(initialize: Callable[..., None]) -> Callable[..., None]:
    """Of those who call while one is at it, none does it again: what that one met, a fault too, is theirs."""
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
    """redis-py 5 takes a node that fails out of the table of those that it asks, for all its callers: "dictionary
    changed size during iteration" for the one who reads it.

    :raises redis.ConnectionError: it changes without end.
    """
    for _ in range(_TRIES):
        try:
            initialize(*arguments, **named)
            return
        except RuntimeError as error:
            fault = error
    raise redis.ConnectionError(f"the cluster's nodes can't be asked: {fault}")
