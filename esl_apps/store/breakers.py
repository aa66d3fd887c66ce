"""Breakers that have tripped: kept in Redis until a person resets them, and known to every node.

A node reads them once a second, so that a call asks its memory and not Redis. A node that has not read them
since its start lets nobody dial. What trips one is counted in ``usage.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import gevent
import msgspec

from esl_apps.core.limits import covers
from esl_apps.core.numbers import Number
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store import keys
from esl_apps.store.redis_client import Client
from esl_apps.store.script import Script

log = logging.getLogger(__name__)

#: Seconds after which a breaker that another node, or a person, tripped or reset is so here.
POLL = 1.0
#: What is kept of the log.
LOG_LINES = 1000


class Trip(msgspec.Struct, frozen=True):
    at: float
    """Unix seconds."""
    why: str
    by: str
    end_calls: bool = False


class Line(msgspec.Struct, frozen=True):
    """One of the log."""

    at: float
    scope: str
    what: str
    """``tripped`` or ``reset``."""
    why: str
    by: str


class Breakers:
    """``trip``, ``reset``, ``log`` and ``refresh`` raise :class:`StoreUnavailable` when Redis is away."""

    def __init__(
        self,
        client: Client,
        node: str,
        *,
        tell: Callable[..., None] = lambda *_what, **_details: None,
        on_trip: Callable[[str, Trip], None] = lambda _scope, _trip: None,
    ) -> None:
        """``tell``: ``Alerts.tell``, once a trip over all nodes. ``on_trip``: at each node, when it learns of one."""
        self._client = client
        self._node = node
        self._tell = tell
        self._told = on_trip
        self._trip = Script(client, "breaker_trip")
        self._reset = Script(client, "breaker_reset")
        self._tripped: dict[str, Trip] | None = None
        self._poller: gevent.Greenlet[[], None] | None = None

    def start(self) -> None:
        self._look()
        self._poller = gevent.spawn(self._poll)

    def stop(self) -> None:
        if self._poller is not None:
            self._poller.kill()

    @property
    def count(self) -> int:
        """How many have tripped, as far as is known here."""
        return len(self._tripped or {})

    @property
    def tripped(self) -> dict[str, Trip]:
        """As last read. :raises StoreUnavailable: they never were."""
        if self._tripped is None:
            self.refresh()
        assert self._tripped is not None
        return self._tripped

    def covering(self, levels: Iterable[str], number: Number | None) -> str | None:
        """The scope of a tripped breaker that refuses a call; None: there is none. :raises StoreUnavailable."""
        names = tuple(levels)
        return next((scope for scope in self.tripped if covers(scope, names, number)), None)

    def trip(self, scope: str, why: str, *, by: str = "", end_calls: bool = False) -> bool:
        """False: it is tripped already."""
        by = by or f"node {self._node}"
        if self._tripped is not None and scope not in self._tripped:
            # Nobody dials here from now on, whatever becomes of the question to Redis.
            self._tripped[scope] = trip = Trip(0.0, why, by, end_calls)
            self._learn(scope, trip)
        first = self._write(scope, why, by, end_calls)
        if first:
            self._tell("breaker", scope=scope, why=why, by=by)
        return first

    def _write(self, scope: str, why: str, by: str, end_calls: bool) -> bool:
        raw = self._trip([keys.TRIPPED, keys.BREAKER_LOG], [scope, why, by, "1" if end_calls else "0"])
        if self._tripped is not None:
            # Another was first: when, the next look at Redis says.
            self._tripped[scope] = _read(raw) if raw is not None else Trip(1.0, why, by, end_calls)
        return raw is not None

    def reset(self, scope: str, *, by: str) -> bool:
        """False: it is not tripped."""
        return bool(self._reset([keys.TRIPPED, keys.BREAKER_LOG], [scope, "", by]))

    def log(self, count: int = 20) -> list[Line]:
        """The latest trips and resets, newest first."""
        raw = self._client.lrange(keys.BREAKER_LOG, 0, count - 1)
        return [msgspec.json.decode(line, type=Line) for line in raw]

    def refresh(self) -> None:
        """Read what is tripped."""
        raw = self._client.hgetall(keys.TRIPPED)
        found = {scope.decode(): _read(value) for scope, value in raw.items()}
        before = self._tripped or {}
        for scope in [scope for scope in before if scope not in found]:
            self._vanished(scope, before[scope], found)
        self._tripped = found
        for scope, trip in found.items():
            if scope not in before:
                self._learn(scope, trip)

    def _learn(self, scope: str, trip: Trip) -> None:
        log.warning("breaker tripped", extra={"scope": scope, "why": trip.why, "by": trip.by})
        self._told(scope, trip)

    def _vanished(self, scope: str, trip: Trip, found: dict[str, Trip]) -> None:
        """A person reset it; or Redis came back without it, or was away when it tripped: then it is tripped still."""
        reset = next((line for line in self.log(LOG_LINES) if line.scope == scope and line.what == "reset"), None)
        if reset is not None and reset.at >= trip.at > 0:
            log.warning("breaker reset", extra={"scope": scope, "by": reset.by, "reset_at": reset.at})
            return
        if self._write(scope, trip.why, trip.by, trip.end_calls):
            log.warning("breaker kept", extra={"scope": scope, "reason": "Redis had it no more"})
            if not trip.at:
                self._tell("breaker", scope=scope, why=trip.why, by=trip.by)
        found[scope] = (self._tripped or {}).get(scope, trip)

    def _look(self) -> None:
        try:
            self.refresh()
        except StoreUnavailable:
            # What was tripped is so still; a limit that has to be asked for fails closed by itself.
            pass
        except Exception:
            log.exception("breakers not read")

    def _poll(self) -> None:
        while True:
            gevent.sleep(POLL)
            self._look()


def _read(raw: bytes) -> Trip:
    try:
        return msgspec.json.decode(raw, type=Trip)
    except msgspec.MsgspecError:
        # Of a later version, or written by hand: tripped is tripped.
        return Trip(0.0, "unreadable", "unknown")
