"""The client of a single Redis: a method for each command that the package asks by name, over ``connection.py``.

Importing redis-py takes longer than importing everything else that a node needs, so this client does without. Its
methods are called and answer as redis-py's, which serves the other kinds of Redis (``redis_client.connect``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

from esl_apps.config import redis_url
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store.connection import Command, Connection, Observe, Pool, ignore, pack
from esl_apps.store.errors import raise_first

#: Seconds. A Redis that takes longer counts as down.
TIMEOUT = 2.0
#: Connections of one client.
CONNECTIONS = 32


def fast_client(url: str, timeout: float = TIMEOUT, *, foreign: bool = False) -> FastClient:
    """A client of one server whose greenlets wait on gevent's loop, in the thread that made it. ``foreign``: as
    :class:`Connection`'s."""
    server = redis_url.server(url)
    return FastClient(Pool(lambda: Connection(server, timeout, foreign=foreign), CONNECTIONS, timeout))


class FastClient:
    observe: Observe = staticmethod(ignore)
    fails_over = False
    """Whether it goes on with another server once its master is down."""

    def __init__(self, connections: Pool) -> None:
        self._connections = connections

    def execute_command(self, *command: Any) -> Any:
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
        read = _READERS.get(command[0])
        return answer if read is None else read(answer)

    def send_all(self, commands: Sequence[Command], *, raise_on_error: bool = True) -> list[Any]:
        """Send commands in one round trip, not as a transaction, and return their answers.

        :raises StoreUnavailable: Redis is down or, if ``raise_on_error``, a command failed (the others were run);
            otherwise its answer is the exception.
        """
        if not commands:
            return []
        data = b"".join(map(pack, commands))
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
            read = _READERS.get(command[0])
            if read is not None and not isinstance(answers[i], StoreUnavailable):
                answers[i] = read(answers[i])
        return answers

    def masters(self) -> list[FastClient]:
        """The servers that take writes."""
        return [self]

    def closes_within(self, seconds: float) -> bool:
        """Wait for Redis to close an idle connection; True if it did. :raises StoreUnavailable: Redis is down."""
        connection = self._connections.take()
        try:
            return connection.closes_within(seconds)
        finally:
            self._connections.give_back(connection)

    def close(self) -> None:
        self._connections.close()

    # Keys and strings

    def get(self, key: str) -> Any:
        return self.execute_command("GET", key)

    def set(self, key: str, value: bytes | str | float, *, ex: int | None = None, nx: bool = False) -> Any:
        """``ex``: seconds until it is gone. ``nx``: only if there is no such key; None if there was."""
        options: list[Any] = [] if ex is None else ["EX", ex]
        if nx:
            options.append("NX")
        return self.execute_command("SET", key, value, *options)

    def delete(self, *keys: str) -> Any:
        return self.execute_command("DEL", *keys)

    # Hashes

    def hget(self, key: str, field: str) -> Any:
        return self.execute_command("HGET", key, field)

    def hgetall(self, key: str) -> Any:
        return self.execute_command("HGETALL", key)

    def hkeys(self, key: str) -> Any:
        return self.execute_command("HKEYS", key)

    def hexists(self, key: str, field: str) -> Any:
        return self.execute_command("HEXISTS", key, field)

    def hset(self, key: str, field: str, value: bytes | str | float) -> Any:
        return self.execute_command("HSET", key, field, value)

    def hdel(self, key: str, *fields: str) -> Any:
        return self.execute_command("HDEL", key, *fields)

    # Sets and lists

    def smembers(self, key: str) -> Any:
        return self.execute_command("SMEMBERS", key)

    def lrange(self, key: str, first: int, last: int) -> Any:
        return self.execute_command("LRANGE", key, first, last)

    def brpop(self, keys: Sequence[str], timeout: float) -> Any:
        return self.execute_command("BRPOP", *keys, timeout)

    def zrem(self, key: str, *members: str) -> Any:
        return self.execute_command("ZREM", key, *members)

    def zrevrangebylex(self, key: str, top: str, bottom: str, start: int, num: int) -> Any:
        return self.execute_command("ZREVRANGEBYLEX", key, top, bottom, "LIMIT", start, num)

    # The server

    def ping(self) -> Any:
        return self.execute_command("PING")

    def time(self) -> Any:
        """Seconds, and microseconds."""
        return self.execute_command("TIME")

    def info(self, section: str) -> Any:
        return self.execute_command("INFO", section)


def _is_ok(answer: Any) -> bool | None:
    return None if answer is None else answer == b"OK"


def _pairs(answer: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(answer[::2], answer[1::2], strict=True))


_NUMBER = re.compile(r"-?[0-9]+")


def _info(answer: bytes) -> dict[str, Any]:
    """The lines ``name:value``; whole numbers as such."""
    lines = (line.partition(":") for line in answer.decode("utf-8", "replace").splitlines() if not line.startswith("#"))
    return {name: int(value) if _NUMBER.fullmatch(value) else value for name, _, value in lines if name}


#: How to read the answers of some commands.
_READERS: Mapping[str, Callable[[Any], Any]] = {
    "EXPIRE": bool,
    "HEXISTS": bool,
    "HGETALL": _pairs,
    "HINCRBYFLOAT": float,
    "INFO": _info,
    "LTRIM": _is_ok,
    "PEXPIRE": bool,
    "PING": lambda answer: answer == b"PONG",
    "SET": _is_ok,
    "SMEMBERS": set,
    "TIME": lambda answer: (int(answer[0]), int(answer[1])),
    "ZSCORE": lambda answer: None if answer is None else float(answer),
}
