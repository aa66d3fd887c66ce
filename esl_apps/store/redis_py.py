"""redis-py's clients, for the kinds of Redis that the fast client doesn't know: one exception, and commands in one
round trip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import redis
from gevent import queue
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from esl_apps.config import redis_url
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store.connection import Command, Observe, ignore, is_patched
from esl_apps.store.errors import REPLY, TOO_MANY, NoAnswer, Unsent, raise_first, refusal, without_arguments
from esl_apps.store.fast_client import CONNECTIONS

#: The exceptions of redis-py.
REDIS_PY = (redis.RedisError, redis.exceptions.RedisClusterException, OSError)

#: Codes of redis-py's exceptions, whose texts lack them.
_CODES: Mapping[type[Exception], str] = {
    redis.exceptions.NoScriptError: "NOSCRIPT",
    redis.exceptions.OutOfMemoryError: "OOM",
    redis.exceptions.ReadOnlyError: "READONLY",
    redis.exceptions.NoPermissionError: "NOPERM",
    redis.exceptions.AuthenticationError: "WRONGPASS",
    redis.exceptions.BusyLoadingError: "LOADING",
    redis.exceptions.MasterDownError: "MASTERDOWN",
    redis.exceptions.ClusterDownError: "CLUSTERDOWN",
    redis.exceptions.TryAgainError: "TRYAGAIN",
    redis.exceptions.MovedError: "MOVED",
    redis.exceptions.AskError: "ASK",
    redis.exceptions.ClusterCrossSlotError: "CROSSSLOT",
}

#: Set in an exception of redis-py if nothing was sent.
_UNSENT = "_is_unsent"

#: redis-py 5.2 wants to know for which command a connection is; later versions warn if they are told.
_COMMAND_NAME = ("PING",) if redis.VERSION < (5, 3) else ()


class Translated:
    """Mixed into redis-py's clients: failures are :class:`StoreUnavailable`, and ``send_all`` is a pipeline."""

    pipeline: Any
    connection_pool: Any
    observe: Observe = staticmethod(ignore)
    fails_over = False
    """As ``FastClient``'s."""

    def execute_command(self, *command: Any, **options: Any) -> Any:
        began = perf_counter()
        with translating():
            answer = super().execute_command(*command, **options)  # type: ignore[misc]
        self.observe(perf_counter() - began)
        return answer

    def send_all(self, commands: Sequence[Command], *, raise_on_error: bool = True) -> list[Any]:
        """Send commands in one round trip, not as a transaction, and return their answers.

        :raises StoreUnavailable: Redis is down or, if ``raise_on_error``, a command failed (the others were run);
            otherwise its answer is the exception.
        """
        began = perf_counter()
        with translating():
            answers = pipelined(self, commands)
        self.observe(perf_counter() - began)
        if raise_on_error:
            raise_first(answers)
        return answers

    def masters(self) -> list[Any]:
        """The servers that take writes."""
        return [self]

    def closes_within(self, seconds: float) -> bool:
        """Wait for Redis to close an idle connection; True if it did. :raises StoreUnavailable: Redis is down."""
        with translating():
            connection = self.connection_pool.get_connection(*_COMMAND_NAME)
            try:
                # redis-py 8.0 says that an end can be read; others raise it.
                return bool(connection.can_read(timeout=seconds))
            except redis.ConnectionError:
                return True
            finally:
                self.connection_pool.release(connection)


class RedisPyClient(Translated, redis.Redis):
    """One server, by redis-py's own connections."""


class _SentinelClient(RedisPyClient):
    """A Sentinel's master."""

    fails_over = True


def single(url: str, timeout: float) -> RedisPyClient:
    options = options_of(timeout)
    if is_patched():
        # ``queue.LifoQueue`` is made of locks, each of which is a semaphore here.
        options["queue_class"] = queue.LifoQueue
    pool = redis.BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS, timeout=timeout, **options)
    mark_unsent(pool)
    return RedisPyClient(connection_pool=pool)


def sentinel(address: str, timeout: float) -> Any:
    """``address``: what follows ``redis+sentinel://``."""
    addresses, service, database, login = redis_url.sentinel(address)
    sentinels: Any = Sentinel(addresses, sentinel_kwargs=options_of(timeout))  # type: ignore[no-untyped-call]
    client = sentinels.master_for(service, redis_class=_SentinelClient, db=database, **options_of(timeout), **login)
    mark_unsent(client.connection_pool)
    return client


def options_of(timeout: float) -> dict[str, Any]:
    """The options of every redis-py client."""
    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        # The outbox retries by its own rules; retries underneath would only hide how long Redis was down.
        "retry": Retry(NoBackoff(), 0),
    }


def mark_unsent(pool: Any) -> None:
    """Let a pool mark the errors of connections that can't be made."""
    get = pool.get_connection
    if getattr(get, "marks", False):
        return

    def get_connection(*arguments: Any, **named: Any) -> Any:
        try:
            return get(*arguments, **named)
        except REDIS_PY as error:
            raise unsent(error) from None

    get_connection.marks = True  # type: ignore[attr-defined]
    pool.get_connection = get_connection


def unsent(error: Exception) -> Exception:
    """Mark an error: nothing was sent."""
    setattr(error, _UNSENT, True)
    return error


def pipelined(server: Any, commands: Sequence[Command]) -> list[Any]:
    """The answers of one server (a client of it) to commands in one round trip; an error reply is its exception.

    :raises REDIS_PY: it is down.
    """
    pipeline = server.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    return [
        translated(answer) if isinstance(answer, redis.RedisError) else answer
        for answer in pipeline.execute(raise_on_error=False)
    ]


def translated(error: Exception) -> StoreUnavailable:
    """The exception for one of redis-py's."""
    text = str(error)
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), None)
    if code is None and not isinstance(error, redis.ResponseError) and TOO_MANY not in text:
        # A cluster's client that can't connect asks the other nodes for the table, and raises the error of that.
        is_unsent = any(hasattr(cause, _UNSENT) for cause in (error, error.__context__))
        return (Unsent if is_unsent else NoAnswer)(f"redis: {without_arguments(text)}")
    if code == "WRONGPASS" and "required" in text:
        code = "NOAUTH"
    return refusal(text if code is None and REPLY.match(text) else f"{code or 'ERR'} {text}")


@contextmanager
def translating() -> Iterator[None]:
    """Raise redis-py's exceptions as :class:`StoreUnavailable`."""
    try:
        yield
    except REDIS_PY as error:
        raise translated(error) from None
