"""Run Lua on Redis, and tell an answer from no answer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from esl_apps.core.cards import Unavailable
from esl_apps.store.redis_client import ERRORS, NO_SCRIPT, Client


class Unreadable(Unavailable):
    """What stands in Redis is not what was written there."""


class asking_redis:
    """What a Redis that is away raises becomes :class:`Unavailable`; so does what in it is not as it was written:
    what can't be read opens nothing."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        if isinstance(error, ERRORS):
            raise Unavailable(f"redis: {error}") from None
        if isinstance(error, (msgspec.DecodeError, UnicodeDecodeError)):
            raise Unreadable(f"redis: what is stored can't be read: {error}") from None


#: How a script that is given ``clock``'s time in ARGV[1], or an empty text, knows what time it is: Redis's own.
NOW = """
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] + time[2] / 1000000
end
"""


def sha_of(script: str) -> str:
    """By what Redis knows a script."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


class Script:
    """A script, in one step whatever others do. :raises Unavailable: Redis is away, or what it has can't be read."""

    def __init__(self, client: Client, text: str) -> None:
        self._client = client
        self._text = text
        self._sha = sha_of(text)

    def __call__(self, keys: Sequence[str], args: Sequence[Any]) -> Any:
        with asking_redis():
            try:
                return self._client.execute_command("EVALSHA", self._sha, len(keys), *keys, *args)
            except NO_SCRIPT:
                # Redis was restarted, or has never seen it.
                return self._client.execute_command("EVAL", self._text, len(keys), *keys, *args)
