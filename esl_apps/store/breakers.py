"""Tripped breakers: kept in Redis until an operator resets them, and known to every node.

A node reads them once a second, so a call checks memory and not Redis. Until a node has read them once, it refuses
all calls. ``usage.py`` counts what trips a breaker.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable

import gevent
import msgspec

from esl_apps.core.charges import Charge
from esl_apps.core.limits import BREAKER, SYSTEM, Refusal, covers
from esl_apps.core.numbers import Number
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.core.versions import TRIP, TRIP_LINE
from esl_apps.process import background
from esl_apps.store import documents, keys
from esl_apps.store.errors import Fault, Unreadable
from esl_apps.store.redis_client import Client
from esl_apps.store.script import Script

log = logging.getLogger(__name__)

#: Seconds until this node learns of a breaker that was tripped or reset elsewhere.
POLL = 1.0
#: Lines of the log that are kept.
LOG_LINES = 1000
#: The answer of ``breaker_trip`` if the breaker hadn't tripped.
_NEW = 1


class Trip(msgspec.Struct, frozen=True):
    at: float
    """Unix seconds."""
    why: str
    by: str
    end_calls: bool = False


class LogLine(msgspec.Struct, frozen=True):
    """One line of the log."""

    at: float
    scope: str
    what: str
    """``tripped`` or ``reset``."""
    why: str
    by: str
    trip: str = ""
    """The trip's SHA-1, as it is stored."""


class Breakers(background.Kept):
    """``trip``, ``reset``, ``log`` and ``refresh`` raise :class:`StoreUnavailable` if Redis is down."""

    TASK = "breakers"

    def __init__(
        self,
        client: Client,
        node: str,
        *,
        tell: Callable[..., None] = lambda *_what, **_details: None,
        on_trip: Callable[[str, Trip], None] = lambda _scope, _trip: None,
    ) -> None:
        """``tell``: ``Alerts.tell``, called once per trip over all nodes. ``on_trip``: called on each node that learns
        of a trip, and again if it comes to end its calls."""
        self._client = client
        self._node = node
        self._tell = tell
        self._on_trip = on_trip
        self._trip = Script(client, "breaker_trip")
        self._reset = Script(client, "breaker_reset")
        self._tripped: dict[str, Trip] | None = None
        self._stored: dict[str, bytes] = {}
        """The trips that Redis is known to have had, as stored, by scope. A trip that isn't here was never written."""
        self._fields: dict[str, bytes] = {}
        """The names of scopes in Redis that aren't text."""
        self._unreadable = ""
        """Why the tripped breakers can't be read from a Redis that answers: until they can, all calls are refused."""
        self._odd_lines = 0

    def start(self) -> None:
        self._look()
        super().start()

    @property
    def count(self) -> int:
        """The number of tripped breakers known here."""
        return len(self._tripped or {})

    @property
    def tripped(self) -> dict[str, Trip]:
        """The tripped breakers as last read. :raises StoreUnavailable: they were never read, and Redis is down; or they
        can't be read."""
        if self._tripped is None or self._unreadable:
            self.refresh()
        assert self._tripped is not None
        return self._tripped

    def covering(self, levels: Iterable[str], number: Number | None) -> str | None:
        """The scope of a tripped breaker that refuses a call, or None. :raises StoreUnavailable: as ``tripped``."""
        names = tuple(levels)
        return next((scope for scope in self.tripped if covers(scope, names, number)), None)

    @property
    def ending_scopes(self) -> list[str]:
        """The tripped breakers that end calls, as far as this node knows. Redis isn't asked."""
        return [scope for scope, trip in (self._tripped or {}).items() if trip.end_calls]

    def ending(self, *charges: Charge) -> Refusal | None:
        """The tripped breaker that ends one of these calls, as far as this node knows."""
        scopes = self.ending_scopes
        covering = (scope for charge in charges for scope in scopes if covers(scope, charge.levels, charge.number))
        return next((Refusal(BREAKER, scope) for scope in covering), None)

    def trip(self, scope: str, why: str, *, by: str = "", end_calls: bool = False) -> bool:
        """Trip a breaker, or have a tripped one end its calls, too. False: nothing has changed."""
        by = by or f"node {self._node}"
        if self._tripped is not None and scope not in self._tripped:
            # Refuse calls on this node from now on, even if Redis can't be told.
            self._learn(scope, Trip(0.0, why, by, end_calls))
        changed = self._write(scope, why, by, end_calls)
        if changed == _NEW:
            self._tell("breaker", scope=scope, why=why, by=by)
        return bool(changed)

    def _write(self, scope: str, why: str, by: str, end_calls: bool) -> int:
        """Return what ``breaker_trip`` has done."""
        arguments = [self._fields.get(scope, scope), why, by, "1" if end_calls else "0"]
        changed, raw = self._trip([keys.TRIPPED, keys.BREAKER_LOG], arguments)
        self._stored[scope] = raw
        if self._tripped is not None:
            self._learn(scope, _read(raw))
        return int(changed)

    def reset(self, scope: str, *, by: str) -> bool:
        """Reset a breaker. False: it is not tripped."""
        return bool(self._reset([keys.TRIPPED, keys.BREAKER_LOG], [self._fields.get(scope, scope), "", by]))

    def log(self, count: int = 20) -> list[LogLine]:
        """The latest trips and resets, newest first, without lines that can't be read."""
        raw = self._client.lrange(keys.BREAKER_LOG, 0, count - 1)
        lines = [line for line in map(_read_line, raw) if line is not None]
        odd = len(raw) - len(lines)
        if odd > self._odd_lines:
            log.error("breaker_log_unreadable", extra={"lines": odd})
        self._odd_lines = odd
        return lines

    def refresh(self) -> None:
        """Read the tripped breakers from Redis."""
        try:
            raw = self._client.hgetall(keys.TRIPPED)
        except Fault as error:
            known, self._unreadable = self._unreadable, str(error)
            if not known:
                log.error("breakers_unreadable", extra={"reason": str(error)})
                self._tell("breaker", scope=SYSTEM, why=f"unreadable: {error}", by=f"node {self._node}")
            raise
        fields = {_name_of(field): field for field in raw}
        self._fields = {scope: field for scope, field in fields.items() if scope.encode() != field}
        found = {scope: _read(raw[field]) for scope, field in fields.items()}
        before = self._tripped or {}
        for scope in [scope for scope in before if scope not in found]:
            self._vanished(scope, before[scope], found)
        # ``_vanished`` has noted what is stored of those that it wrote again.
        self._stored = {scope: raw[fields[scope]] for scope in fields} | {
            scope: stored for scope, stored in self._stored.items() if scope in found and scope not in fields
        }
        self._tripped, self._unreadable = found, ""
        for scope, trip in found.items():
            self._act(scope, before.get(scope), trip)

    def _learn(self, scope: str, trip: Trip) -> None:
        """Refuse calls from now on, and act on a trip."""
        assert self._tripped is not None
        known, self._tripped[scope] = self._tripped.get(scope), trip
        self._act(scope, known, trip)

    def _act(self, scope: str, known: Trip | None, trip: Trip) -> None:
        """Act on a trip if it is new here, or ends calls that the ``known`` one doesn't."""
        if known is None or (trip.end_calls and not known.end_calls):
            log.warning("breaker_tripped", extra={"scope": scope, "why": trip.why, "by": trip.by})
            self._on_trip(scope, trip)

    def _vanished(self, scope: str, trip: Trip, found: dict[str, Trip]) -> None:
        """Handle a breaker that Redis no longer has. If the log has no reset of it, Redis lost it or was down when it
        tripped: keep it tripped, and write it again."""
        reset = self._reset_of(scope, trip)
        if reset is not None:
            log.warning("breaker_reset", extra={"scope": scope, "by": reset.by, "reset_at": reset.at})
            return
        found[scope] = trip
        if self._write(scope, trip.why, trip.by, trip.end_calls) == _NEW:
            log.warning("breaker_restored", extra={"scope": scope, "reason": "Redis had it no more"})
            if not trip.at:
                self._tell("breaker", scope=scope, why=trip.why, by=trip.by)
        found[scope] = (self._tripped or {}).get(scope, trip)

    def _reset_of(self, scope: str, trip: Trip) -> LogLine | None:
        """The line of the log that says that a person reset this trip. None if there is none, or it can't be read."""
        stored = self._stored.get(scope)
        if stored is None:
            return None
        name = hashlib.sha1(stored, usedforsecurity=False).hexdigest()
        try:
            lines = [line for line in self.log(LOG_LINES) if line.scope == scope and line.what == "reset"]
        except Fault as error:
            log.error("breaker_log_unreadable", extra={"reason": str(error)})
            return None
        # An earlier version's line doesn't say which trip it was.
        return next((line for line in lines if line.trip == name or (not line.trip and line.at >= trip.at > 0)), None)

    def _look(self) -> None:
        try:
            self.refresh()
        except StoreUnavailable:
            # Tripped breakers stay tripped. Limits that need Redis fail closed by themselves.
            pass
        except Exception:
            log.exception("breakers_not_read")

    def _run(self) -> None:
        while True:
            gevent.sleep(POLL)
            self._look()


def _read(raw: bytes) -> Trip:
    try:
        return documents.decode(TRIP, raw, Trip)
    except Unreadable:
        # Written by a later version or by hand. Treat it as tripped.
        return Trip(0.0, "unreadable", "unknown")


def _read_line(raw: bytes) -> LogLine | None:
    try:
        return documents.decode(TRIP_LINE, raw, LogLine)
    except Unreadable:
        return None


def _name_of(field: bytes) -> str:
    """A scope's name. If it isn't text, it covers everything, as any unknown scope."""
    return field.decode("utf-8", "backslashreplace")
