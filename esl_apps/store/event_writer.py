"""Write the events of this process's live calls a moment later, while a client listens.

If nobody listens to an integrator's calls, their events wait for the end of the call, and cost no command of their own.
Whether a client listens, on any node, is in one hash that every process reads once a second.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence

import gevent
from gevent.event import Event as Flag

from esl_apps.core.attempt import Attempt
from esl_apps.core.call_events import Noted, written
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.process import background
from esl_apps.store import keys
from esl_apps.store.call_events import KEEP
from esl_apps.store.errors import Fault
from esl_apps.store.redis_client import Client
from esl_apps.store.script import Run, Script, run_all

log = logging.getLogger(__name__)

#: Seconds for which Redis remembers how far a live call's events are written: longer than a call lasts.
LIVE = 86400
#: Calls written in one round trip.
BATCH = 200
#: Seconds between two writes, so that a burst of events is one; and until a failed write is tried again.
PAUSE, AGAIN = 0.02, 0.5
#: Seconds between two looks at who listens.
LOOK = 1.0
#: Seconds for which a client that has left counts as listening: it may come back and ask for what it has missed.
LINGER = KEEP

#: A call, its events that are not written, and how many of them are being written.
_Batch = tuple[Attempt, list[Noted], int]


class EventWriter:
    def __init__(self, client: Client, clock: Callable[[], float] = time.time) -> None:
        """``clock``: Unix seconds."""
        self._client = client
        self._clock = clock
        self._script = Script(client, "events_add")
        self._pending: dict[str, tuple[Attempt, list[Noted]]] = {}
        """Events that are not written, by call: a few of each live call."""
        self.listened: frozenset[str] = frozenset()
        """The integrators to whose calls a client listens ('': no integrator), as Redis had them a second ago."""
        self._leaving: set[str] = set()
        """Calls that other processes go on with: these events come before theirs."""
        self._wake = Flag()
        self._refused: set[str] = set()
        self._greenlets: list[gevent.Greenlet[[], None]] = []

    def start(self) -> None:
        self._greenlets = [background.keep("events_writing", self._run), background.keep("listeners", self._look)]

    def stop(self) -> None:
        """Write what waits: other nodes, or the next run, go on with these calls. :raises StoreUnavailable: Redis is
        down."""
        gevent.killall(self._greenlets)
        self._leaving.update(self._pending)
        failure: StoreUnavailable | None = None
        while due := self._due():
            try:
                self.flush()
            except StoreUnavailable as error:
                failure = error
                # Don't try these again: a silent master takes seconds to fail.
                away = {attempt.integrator for attempt, *_rest in due if attempt.call_ref in self._pending}
                for ref, (attempt, _events) in list(self._pending.items()):
                    if attempt.integrator in away:
                        del self._pending[ref]
        if failure is not None:
            raise failure

    def add(self, attempt: Attempt, event: Noted) -> None:
        pending = self._pending.get(attempt.call_ref)
        if pending is None:
            self._pending[attempt.call_ref] = attempt, [event]
        else:
            pending[1].append(event)
        if self.listened:
            self._wake.set()

    def take(self, ref: str) -> list[Noted]:
        """Take a call's events that are not written: its record carries them. One that is being written at this moment
        is among them, and Redis takes it once."""
        self._leaving.discard(ref)
        pending = self._pending.pop(ref, None)
        return [] if pending is None else pending[1]

    def release(self, ref: str) -> None:
        """Write a call's events soon: another process goes on with it."""
        if ref in self._pending:
            self._leaving.add(ref)
            self._wake.set()

    # Listeners ----------------------------------------------------------------------------------------

    def note_listening(self, integrators: Iterable[str]) -> None:
        """Tell all processes that clients listen to these integrators' calls. :raises StoreUnavailable: Redis is
        down."""
        until = self._clock() + LINGER
        self._client.send_all([("HSET", keys.LISTENERS, integrator, until) for integrator in integrators])
        self.look()

    def look(self) -> None:
        """Learn who listens. :raises StoreUnavailable: Redis is down."""
        now = self._clock()
        untils = self._client.hgetall(keys.LISTENERS)
        over = [name for name, until in untils.items() if not _seconds(until) >= now]
        if over:
            self._client.hdel(keys.LISTENERS, *over)
        self.listened = frozenset(name.decode("utf-8", "replace") for name in untils if name not in over)
        if self._pending and self.listened:
            self._wake.set()

    def _look(self) -> None:
        while True:
            answer: object = None
            try:
                self.look()
            except StoreUnavailable as error:
                # CallStore says so. Until Redis is back, nothing can be written.
                log.debug("listeners_not_read")
                answer = error
            self.say_refused(keys.LISTENERS, answer)
            gevent.sleep(LOOK)

    # Writing ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            try:
                self.flush()
            except StoreUnavailable:
                gevent.sleep(AGAIN)
            if self._due():
                self._wake.set()
            gevent.sleep(PAUSE)

    def _due(self) -> list[_Batch]:
        """Events to be written now, of some calls."""
        due = [
            (attempt, events, len(events))
            for attempt, events in self._pending.values()
            if (attempt.integrator or "") in self.listened or attempt.call_ref in self._leaving
        ]
        return due[:BATCH]

    def flush(self) -> None:
        """Write events, of some calls. :raises StoreUnavailable: Redis is down, or a part of a cluster; the others have
        theirs."""
        by_integrator: dict[str, list[_Batch]] = {}
        for batch in self._due():
            by_integrator.setdefault(batch[0].integrator or "", []).append(batch)
        runs = [self._run_of(integrator, calls) for integrator, calls in by_integrator.items()]
        answers = run_all(self._client, runs, strict=False, quiet=True)
        failure: StoreUnavailable | None = None
        for (integrator, calls), answer in zip(by_integrator.items(), answers, strict=True):
            if isinstance(answer, StoreUnavailable) and not isinstance(answer, Fault):
                failure = answer
            else:
                self.say_refused(keys.events(keys.history(integrator)), answer)
                for _attempt, events, count in calls:
                    del events[:count]
            for attempt, events, _count in calls:
                self._move(attempt.call_ref, events)
        if failure is not None:
            raise failure

    def _move(self, ref: str, events: list[Noted]) -> None:
        """Move a call whose events were sent behind the others; it is done if none is left."""
        pending = self._pending.get(ref)
        if pending is None or pending[1] is not events:
            # It has ended meanwhile.
            return
        del self._pending[ref]
        if events:
            # More have come meanwhile, or its part of a cluster is away.
            self._pending[ref] = pending
        else:
            self._leaving.discard(ref)

    def _run_of(self, integrator: str, calls: Sequence[_Batch]) -> Run:
        history = keys.history(integrator)
        names = [keys.events(history)]
        for attempt, _events, _count in calls:
            names += keys.pushed(history, attempt.call_ref), keys.reached(history, attempt.call_ref)
        return self._script.on(
            names, ["", KEEP, LIVE, *(written(attempt, events) for attempt, events, _count in calls)]
        )

    def say_refused(self, key: str, answer: object) -> None:
        """Log once that a key is of another type: a person has to mend it. Its events are neither written nor read."""
        if not isinstance(answer, Fault):
            self._refused.discard(key)
        elif key not in self._refused:
            self._refused.add(key)
            log.warning("events_refused", extra={"key": key, "reason": str(answer)})


def _seconds(text: bytes) -> float:
    """A stored time; NaN if it isn't one."""
    try:
        return float(text)
    except ValueError:
        return math.nan
