"""Redis clients from URLs, with time-outs on everything: no call waits for Redis for ever."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from queue import Empty
from threading import RLock
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis
import redis
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel

from esl_apps import redisline

#: Seconds. A Redis that takes longer counts as away.
TIMEOUT = 2.0

#: How often a cluster's nodes are asked while their table changes.
_TRIES = 5

Client = Any  # redis.Redis or redis.cluster.RedisCluster: one set of commands, no common base class.


class Unreadable(redis.RedisError):
    """What stands in Redis is not what was written there."""


#: What a Redis that is away, loading, failing over or read-only raises.
ERRORS = (redis.RedisError, redis.exceptions.RedisClusterException, OSError)

#: What a script raises that Redis does not know, or knows no more.
NO_SCRIPT = redis.exceptions.NoScriptError


class _Asking:
    """A connection of redis-py's over a :class:`redisline.Line`."""

    _parser: Any
    _sock: Any
    disconnect: Callable[[], None]

    def _connect(self) -> Any:
        return redisline.Line(super()._connect())  # type: ignore[misc]

    def can_read(self, timeout: float = 0) -> Any:
        """As redis-py 5 does it, by a read: later ones make a poll of gevent's for it."""
        return self._parser._reader.has_data() or self._parser.read_from_socket(
            timeout=timeout, raise_on_timeout=False
        )

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
                [
                    hiredis.pack_command(one if " " not in one[0] else (*one[0].split(), *one[1:]))
                    for one in commands
                ]
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


def check(url: str) -> None:
    """Whether ``connect`` can make something of it; connects to nothing. :raises ValueError: it can't."""
    scheme, _, rest = url.partition("://")
    if scheme in ("redis", "rediss", "unix"):
        parse_url(url)  # type: ignore[no-untyped-call]
    elif scheme == "redis+cluster":
        if not parse_url(f"redis://{rest}").get("host"):  # type: ignore[no-untyped-call]
            raise ValueError("expected redis+cluster://HOST:PORT")
    elif scheme == "redis+sentinel":
        _sentinel(rest)
    else:
        raise ValueError("expected redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://")


def _sentinel(rest: str) -> tuple[list[tuple[str, int]], str, int, dict[str, Any]]:
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
    check(url)
    scheme, _, rest = url.partition("://")
    if scheme == "redis+cluster":
        return _Cluster(f"redis://{rest}", options)
    if scheme == "redis+sentinel":
        addresses, service, database, login = _sentinel(rest)
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            addresses, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT
        )
        return sentinel.master_for(service, db=database, **options, **login)  # type: ignore[no-untyped-call]
    if redisline.is_patched():
        options["queue_class"] = redisline.Free
        if scheme in ("redis", "unix"):
            # Of the newer protocol there is nothing here that the older one has not.
            options |= {"protocol": 2, "connection_class": _Connection if scheme == "redis" else _UnixConnection}
            return _Redis(connection_pool=_Pool.from_url(url, max_connections=32, timeout=TIMEOUT, **options))
    pool = redis.BlockingConnectionPool.from_url(url, max_connections=32, timeout=TIMEOUT, **options)
    return redis.Redis(connection_pool=pool)
