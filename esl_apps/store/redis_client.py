"""Redis clients from URLs, with time-outs on everything: no call waits for Redis for ever."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from queue import Empty
from typing import Any

import hiredis
import redis
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from esl_apps.config import redis_url
from esl_apps.store.cluster import _Cluster
from esl_apps.store.connection import Free, Line, is_patched

#: Seconds. A Redis that takes longer counts as away.
TIMEOUT = 2.0

Client = Any  # redis.Redis or redis.cluster.RedisCluster: one set of commands, no common base class.


class Unreadable(redis.RedisError):
    """What stands in Redis is not what was written there."""


#: What a Redis that is away, loading, failing over or read-only raises.
ERRORS = (redis.RedisError, redis.exceptions.RedisClusterException, OSError)

#: What a script raises that Redis does not know, or knows no more.
NO_SCRIPT = redis.exceptions.NoScriptError


class _Asking:
    """A connection of redis-py's over a :class:`connection.Line`."""

    _parser: Any
    _sock: Any
    disconnect: Callable[[], None]

    def _connect(self) -> Any:
        return Line(super()._connect())  # type: ignore[misc]

    def can_read(self, timeout: float = 0) -> Any:
        """As redis-py 5 does it, by a read: later ones make a poll of gevent's for it."""
        return self._parser._reader.has_data() or self._parser.read_from_socket(timeout=timeout, raise_on_timeout=False)

    def silent(self) -> bool:
        """Whether there is a connection on which nothing has come: neither an answer that somebody left behind, nor
        its end."""
        if self._sock is None or self._parser._reader.has_data():
            return False
        try:
            self._sock.look()
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def ask(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """What each of the commands answers, an error of its own included; sent in one write.

        :raises redis.ConnectionError: the connection broke. :raises redis.TimeoutError: Redis did not answer in time.
        :raises redis.DataError: a command has something in it that Redis does not take; nothing was sent.
        """
        try:
            # redis-py has names of two words (``SCRIPT LOAD``).
            packed = b"".join(
                [hiredis.pack_command(one if " " not in one[0] else (*one[0].split(), *one[1:])) for one in commands]
            )
        except TypeError as error:
            raise redis.DataError(str(error)) from None
        line, reader = self._sock, self._parser._reader
        try:
            line.send(packed, TIMEOUT)
            deadline = time.monotonic() + TIMEOUT
            answers = []
            for _ in commands:
                while (answer := reader.gets()) is NOT_ENOUGH_DATA:
                    data = line.recv(deadline)
                    if not data:
                        raise TimeoutError if data is None else ConnectionError("it was closed")
                    reader.feed(data)
                if isinstance(answer, redis.ConnectionError):
                    # It is loading, or wants a password: nothing is to be had here.
                    raise answer
                answers.append(answer)
        except BaseException as error:
            # What is still to come would be taken for the next command's answer.
            self.disconnect()
            if isinstance(error, TimeoutError):
                raise redis.TimeoutError("Redis did not answer in time") from None
            if isinstance(error, OSError):
                raise redis.ConnectionError(f"the connection to Redis broke: {error}") from None
            raise
        return answers


class _Connection(_Asking, redis.Connection):
    pass


class _UnixConnection(_Asking, redis.UnixDomainSocketConnection):
    pass


class _Pool(redis.BlockingConnectionPool):
    """redis-py's, without what it does at each command for processes that fork while they use it."""

    def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        try:
            connection = self.pool.get(timeout=self.timeout)
        except Empty:
            raise redis.ConnectionError("no connection to Redis has come free") from None
        try:
            if connection is None:
                connection = self.make_connection()  # type: ignore[no-untyped-call]
            if not connection.silent():
                connection.disconnect()
                connection.connect()
                if connection.can_read():
                    raise redis.ConnectionError("a new connection to Redis is not silent")
        except BaseException:
            self.release(connection)
            raise
        return connection

    def release(self, connection: Any) -> None:
        self.pool.put_nowait(connection)


class _Redis(redis.Redis):
    """redis-py's commands, by a short way: theirs from a command to its answer is 25 calls of functions (more with
    what redis-py 8 counts), for retries, caches and protocols that are of no use here."""

    def execute_command(self, *command: Any, **options: Any) -> Any:
        pool: Any = self.connection_pool
        connection = pool.get_connection()
        try:
            (answer,) = connection.ask((command,))
        finally:
            pool.release(connection)
        if isinstance(answer, redis.RedisError):
            raise answer
        # redis-py's dictionary takes names of any case, at a price; what it sends is upper case.
        callback = dict.get(self.response_callbacks, command[0])
        # For redis-py's cache.
        options.pop("keys", None)
        return answer if callback is None else callback(answer, **options)

    def pipeline(self, transaction: Any = True, shard_hint: Any = None) -> Any:
        if transaction:
            return super().pipeline(transaction, shard_hint)
        made: Any = _Pipeline  # redis-py 5 has no types for it
        return made(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class _Pipeline(redis.client.Pipeline):
    """Commands in one write that are no transaction."""

    def execute(self, raise_on_error: bool = True) -> Any:
        stack, self.command_stack = self.command_stack, []
        if not stack:
            return []
        pool: Any = self.connection_pool
        connection = pool.get_connection()
        try:
            answers = connection.ask([command for command, _options in stack])
        finally:
            pool.release(connection)
        for i, (command, options) in enumerate(stack):
            if isinstance(answers[i], redis.RedisError):
                if raise_on_error:
                    raise answers[i]
            elif (callback := dict.get(self.response_callbacks, command[0])) is not None:
                options.pop("keys", None)
                answers[i] = callback(answers[i], **options)
        return answers

    def execute_command(self, *command: Any, **options: Any) -> Any:
        self.command_stack.append((command, options))
        return self


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
    redis_url.check(url)
    scheme, _, rest = url.partition("://")
    if scheme == "redis+cluster":
        return _Cluster(f"redis://{rest}", options)
    if scheme == "redis+sentinel":
        addresses, service, database, login = redis_url.sentinel(rest)
        service_finder = Sentinel(  # type: ignore[no-untyped-call]
            addresses, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT
        )
        return service_finder.master_for(service, db=database, **options, **login)  # type: ignore[no-untyped-call]
    if is_patched():
        options["queue_class"] = Free
        if scheme in ("redis", "unix"):
            # Of the newer protocol there is nothing here that the older one has not.
            options |= {"protocol": 2, "connection_class": _Connection if scheme == "redis" else _UnixConnection}
            return _Redis(connection_pool=_Pool.from_url(url, max_connections=32, timeout=TIMEOUT, **options))
    pool = redis.BlockingConnectionPool.from_url(url, max_connections=32, timeout=TIMEOUT, **options)
    return redis.Redis(connection_pool=pool)
