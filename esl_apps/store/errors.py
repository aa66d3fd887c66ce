"""Turn whatever fails between here and Redis into :class:`StoreUnavailable`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import msgspec
import redis

from esl_apps.core.unavailable import StoreUnavailable

_T = TypeVar("_T")

#: Raised by redis-py while Redis is down, loading, failing over or read-only, and for commands that it refuses.
_REDIS_PY = (redis.RedisError, redis.exceptions.RedisClusterException, OSError)

#: Error replies of a server that takes no commands on this connection now. A later connection may find it ready.
_NOT_READY = ("LOADING ", "MASTERDOWN ", "NOAUTH ", "WRONGPASS ", "ERR max number of clients reached")


class NoScript(StoreUnavailable):
    """Redis doesn't know the script: it was restarted, or has never seen it."""


class NotReady(StoreUnavailable):
    """The server takes no commands on this connection."""


class Unreadable(StoreUnavailable):
    """A stored document is not what was written there: it allows nothing."""


def refusal(text: str) -> StoreUnavailable:
    """The exception for an error reply, as ``WRONGTYPE Operation against …``."""
    if text.startswith("NOSCRIPT "):
        return NoScript(f"redis: {text}")
    if text.startswith(_NOT_READY):
        return NotReady(f"redis: {text}")
    return StoreUnavailable(f"redis: {text}")


def translated(error: Exception) -> StoreUnavailable:
    """The exception for one of redis-py's."""
    if isinstance(error, redis.exceptions.NoScriptError):
        return NoScript(f"redis: {error}")
    return StoreUnavailable(f"redis: {error}")


@contextmanager
def translating() -> Iterator[None]:
    """Raise redis-py's exceptions as :class:`StoreUnavailable`."""
    try:
        yield
    except _REDIS_PY as error:
        raise translated(error) from None


def read_json(raw: bytes, kind: type[_T]) -> _T:
    """Decode a stored document. :raises Unreadable: it is not one of this kind."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreadable(f"redis: a stored document can't be read: {error}") from None


def read_text(raw: bytes) -> str:
    """Decode a stored text. :raises Unreadable: it is not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise Unreadable(f"redis: a stored text can't be read: {error}") from None
