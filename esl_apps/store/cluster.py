"""redis-py's cluster client, made safe for many greenlets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from copy import copy
from threading import RLock
from time import monotonic, perf_counter
from typing import Any

import gevent
import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.process import background
from esl_apps.store.connection import Command, Observe, ignore
from esl_apps.store.errors import NoAnswer, NotReady, Reply, Unsent, raise_first
from esl_apps.store.redis_py import REDIS_PY, Translated, mark_unsent, options_of, pipelined, translating, unsent

#: How often a cluster's nodes are asked while their table changes.
_TRIES = 5
#: Codes of a master that has not run a command, because another one has the key or will have it.
_MOVING = frozenset({"MOVED", "ASK", "TRYAGAIN"})
_SCRIPTS = ("EVAL", "EVALSHA")
#: Masters that are asked for the commands of a new client, if the first one is away.
_MORE = 3
#: Seconds for which a master that didn't answer in time isn't asked: each batch would wait for as long again.
_SILENCE = 1.0


class _Cluster(Translated, RedisCluster):
    clock: Callable[[], float] = staticmethod(monotonic)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._silent: dict[str, float] = {}
        """Masters that didn't answer in time, by name, and until when they aren't asked."""
        super().__init__(*arguments, **named)

    def get_redis_connection(self, node: Any) -> Any:
        client = super().get_redis_connection(node)
        mark_unsent(client.connection_pool)
        return client

    def send_all(self, commands: Sequence[Command], *, raise_on_error: bool = True) -> list[Any]:
        """As :meth:`Translated.send_all`, but all masters are asked at once, each for itself: the error of one is the
        answer to its own commands only.

        redis-py's cluster pipeline raises if it can't connect to one master, and waits for each command of one that is
        silent.
        """
        began = perf_counter()
        # Kept if asking fails in an unforeseen way.
        answers: list[Any] = [NoAnswer("redis: no answer")] * len(commands)
        self._ask(commands, range(len(commands)), answers)
        if moving := [i for i, answer in enumerate(answers) if _is_moving(answer)]:
            self._look()
            self._ask(commands, moving, answers)
            for i in moving:
                if _is_moving(answers[i]):
                    # redis-py follows it to where its slot is going.
                    try:
                        answers[i] = self.execute_command(*commands[i])
                    except StoreUnavailable as error:
                        answers[i] = error
        if any(_is_away(answer) for answer in answers):
            # Without waiting for it: another master may serve the slots by now, or none.
            background.once("cluster_nodes", self._look)
        else:
            self.observe(perf_counter() - began)
        if raise_on_error:
            raise_first(answers)
        return answers

    def _ask(self, commands: Sequence[Command], asked: Iterable[int], answers: list[Any]) -> None:
        """Fill in the answers to some of the commands."""
        now = self.clock()
        self._silent = {name: until for name, until in self._silent.items() if now < until}
        parts: dict[str, tuple[Any, list[int]]] = {}
        for i in asked:
            command = commands[i]
            try:
                node = self.get_node_from_key(command[3 if command[0] in _SCRIPTS else 1])  # type: ignore[no-untyped-call]
            except redis.exceptions.RedisClusterException as error:
                answers[i] = Unsent(f"redis: {error}")
                continue
            parts.setdefault(node.name, (node, []))[1].append(i)

        def ask(node: Any, part: list[int]) -> None:
            found: list[Any]
            try:
                with translating():
                    found = self._pipelined(node, [commands[i] for i in part])
            except StoreUnavailable as error:
                found = [error] * len(part)
            for i, answer in zip(part, found, strict=True):
                answers[i] = answer

        if len(parts) == 1:
            for each in parts.values():
                ask(*each)
        else:
            gevent.joinall([background.once("cluster_part", ask, *each) for each in parts.values()])

    def _pipelined(self, node: Any, commands: Sequence[Command]) -> list[Any]:
        """As :func:`pipelined`, but a master that was silent a moment ago isn't asked."""
        if node.name in self._silent:
            raise unsent(redis.TimeoutError(f"{node.name} was silent a moment ago"))
        try:
            return pipelined(self.get_redis_connection(node), commands)
        except redis.TimeoutError:
            self._silent[node.name] = self.clock() + _SILENCE
            raise

    def _look(self) -> None:
        """Learn which master has which slots."""
        with suppress(*REDIS_PY):
            self.nodes_manager.initialize()

    def masters(self) -> list[Any]:
        return [_Master(self.get_redis_connection(node)) for node in self.get_primaries()]  # type: ignore[no-untyped-call]

    def closes_within(self, seconds: float) -> bool:
        """A cluster has no one connection to watch."""
        gevent.sleep(seconds)
        return False


def _is_moving(answer: object) -> bool:
    return isinstance(answer, Reply) and answer.code in _MOVING


def _is_away(answer: object) -> bool:
    return isinstance(answer, (NoAnswer, NotReady)) or (isinstance(answer, Reply) and answer.code == "CLUSTERDOWN")


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
            client: Any = _Cluster.from_url(self._url, **{**options_of(self._timeout), **_more(_MORE)})
        except redis.exceptions.RedisClusterException as error:
            if "not enabled" not in str(error):
                raise unsent(error) from None
            # redis-py takes a refused CLUSTER SLOTS for it.
            raise redis.ConnectionError("not a cluster, or its user lacks rights: +cluster|slots +command") from None
        # Not from now on: a command without an answer may have been run.
        for name, value in _more(0).items():
            setattr(client, name, value)
        client.observe = self.observe
        client.nodes_manager.initialize = _one_for_all(client.nodes_manager.initialize)
        return client


def _more(tries: int) -> dict[str, Any]:
    """The option, and the attribute, of redis-py's cluster client that has it try again."""
    if redis.VERSION < (6,):
        return {"cluster_error_retry_attempts": tries}
    return {"retry": Retry(NoBackoff(), tries)}


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
                # A copy: each has the error that it was called for as its context.
                raise copy(fault)

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
