"""Whether Redis can be used: it answers, and takes writes."""

from __future__ import annotations

import logging
from collections.abc import Callable

import gevent

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.process import background
from esl_apps.store import keys
from esl_apps.store.errors import NoAnswer, Reply
from esl_apps.store.redis_client import Client
from esl_apps.store.write_behind import WriteBehind

log = logging.getLogger(__name__)

PING_EVERY = 1.0
#: Seconds between pings while Redis is down or refuses.
PING_AWAY = 0.2
_NO_ANSWER = NoAnswer().summary


class RedisWatch:
    def __init__(self, client: Client, writes: WriteBehind, on_back: Callable[[], None]) -> None:
        """``writes``: also unusable is a Redis that refuses one of these. ``on_back``: called when Redis is back."""
        self._client = client
        self._writes = writes
        self._on_back = on_back
        self._trouble: str | None = ""
        """Why Redis can't be used, as its last ping found; None if it can, '' before the first ping."""

    def start(self) -> gevent.Greenlet[..., None]:
        """Begin to watch, and return what is to be killed at the end."""
        self.check()
        return background.keep("redis_watch", self._watch)

    @property
    def healthy(self) -> bool:
        """Whether Redis took the last write, at most a second ago, and has kept the connection open since."""
        return not self.reasons

    @property
    def reasons(self) -> list[str]:
        """Why no calls can be placed; empty if they can."""
        if self._trouble is not None:
            return [self._trouble or "redis: no answer"]
        refusal = self._writes.refusal
        return [] if refusal is None else [refusal.summary]

    def check(self) -> bool:
        """Write a key of its own: a full Redis and a read-only replica answer to PING."""
        try:
            self._client.set(keys.PING, "", ex=int(10 * PING_EVERY))
        except StoreUnavailable as error:
            self._away(error)
        else:
            if self._trouble is not None:
                refused, self._trouble = self._trouble not in ("", _NO_ANSWER), None
                if refused:
                    log.info("redis_write_accepted", extra={"key": keys.PING})
                # Other nodes must learn soon which calls have ended.
                self._writes.hurry()
                self._on_back()
        return self.healthy

    def _watch(self) -> None:
        while True:
            try:
                closed = self._wait()
                self.check()
            except Exception as error:
                # Keep watching, whatever was raised: otherwise this node never sees Redis come back.
                log.exception("redis_watch_failed")
                self._away(error)
                closed = True
            if closed:
                # Back off, or a Redis that drops every connection is polled in a tight loop.
                gevent.sleep(PING_AWAY)

    def _wait(self) -> bool:
        """Wait a second, or until Redis closes an idle connection (True). A killed Redis is thus noticed at once, and
        the next request dials nothing."""
        if not self.healthy:
            gevent.sleep(PING_AWAY)
            return False
        try:
            return bool(self._client.closes_within(PING_EVERY))
        except StoreUnavailable as error:
            self._away(error)
            return True

    def _away(self, error: Exception) -> None:
        trouble = error.summary if isinstance(error, StoreUnavailable) else _NO_ANSWER
        if trouble != self._trouble and isinstance(error, Reply):
            log.warning("redis_write_refused", extra={"key": keys.PING, "reason": str(error)})
        elif self._trouble not in (trouble, ""):
            log.warning("redis_lost", extra={"reason": str(error)})
        self._trouble = trouble
