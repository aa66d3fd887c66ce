"""Additions to redis-py's clients: one exception, and commands in one round trip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import redis

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store.errors import translated, translating

#: A command and its arguments, as ``("HGET", key, field)``.
Command = Sequence[Any]
#: Called with the seconds of each round trip that Redis has answered.
Observe = Callable[[float], None]


def ignore(_seconds: float) -> None:
    """Observe nothing."""


#: redis-py 5.2 wants to know for which command a connection is; later versions warn if they are told.
_COMMAND_NAME = ("PING",) if redis.VERSION < (5, 3) else ()


class Translated:
    """Mixed into redis-py's clients: failures are :class:`StoreUnavailable`, and ``send_all`` is a pipeline."""

    pipeline: Any
    connection_pool: Any
    observe: Observe = staticmethod(ignore)

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
            pipeline = self.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            answers = [
                translated(answer) if isinstance(answer, redis.RedisError) else answer
                for answer in pipeline.execute(raise_on_error=False)
            ]
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
                connection.can_read(timeout=seconds)
            except redis.ConnectionError:
                return True
            finally:
                self.connection_pool.release(connection)
        return False


class RedisPyClient(Translated, redis.Redis):
    """One server, or a Sentinel's master, by redis-py's own connections."""


def raise_first(answers: Sequence[Any]) -> None:
    """Raise the first error among answers."""
    for answer in answers:
        if isinstance(answer, StoreUnavailable):
            raise answer
