"""The latest events of calls in memory, for the clients that listen on this node.

Redis is asked for them once for all clients, in one round trip for all integrators, and only while a client listens. A
client has a place in its integrator's feed and no queue of its own: one that doesn't read costs nothing but its place,
until the feed has moved past it.
"""

from __future__ import annotations

import logging
import math
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from operator import attrgetter

import gevent
import msgspec
from gevent.event import Event as Flag
from gevent.lock import Semaphore

from esl_apps.core.call_events import Searched
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.net.turns import take_turn
from esl_apps.process import background
from esl_apps.store import keys
from esl_apps.store.call_events import START, Comparison, EventStore, Id, Stored, text_of
from esl_apps.store.errors import Fault
from esl_apps.store.event_writer import EventWriter

log = logging.getLogger(__name__)

#: Seconds between two looks for new events, and events read at a time.
POLL, READ = 0.05, 500
#: Events that a feed holds, and their bytes: some have 5 KB of metadata, and a page of the console opens all feeds. A
#: client that is further behind is too slow. Twice as much is held before any are dropped.
MOST, MOST_BYTES = 10_000, 8_000_000
#: Clients that read older events from Redis at a time.
_READERS = 8
#: Seconds between two notes in Redis that clients listen; and if Redis has lost the last one, or it failed.
NOTE, AGAIN = 60.0, 1.0
#: Seconds between two looks at whether Redis still has the latest event of each feed.
CHECK = 1.0
_id_of = attrgetter("id")


class FeedEvent:
    """An event as clients get it."""

    def __init__(self, stored: Stored) -> None:
        self.id = stored.id
        head = b"id: %s\nevent: %s\ndata: " % (text_of(stored.id).encode(), stored.kind)
        self._json_at = len(head)
        #: In the form of Server-Sent Events.
        self.frame = b"%s%s\n\n" % (head, stored.json)

    @cached_property
    def searched(self) -> Searched:
        """What clients choose by, decoded when the first one asks."""
        try:
            return msgspec.json.decode(self.frame[self._json_at : -2], type=Searched)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return Searched()


class Feed:
    """The latest events of one integrator's calls."""

    def __init__(self, integrator: str, since: Id) -> None:
        """``since``: the feed has all events behind this one."""
        self.integrator = integrator
        self.since = since
        self.restarts = 0
        self.readers = 0
        self.closed = False
        self._events: list[FeedEvent] = []
        self._dropped = 0
        self._bytes = 0
        self._news = Flag()

    @property
    def last(self) -> Id:
        return self._events[-1].id if self._events else self.since

    @property
    def end(self) -> int:
        """The place behind the last event."""
        return self._dropped + len(self._events)

    def add(self, stored: Iterable[Stored]) -> None:
        events = self._events
        for event in map(FeedEvent, stored):
            events.append(event)
            self._bytes += len(event.frame)
        if len(events) >= 2 * MOST or self._bytes >= 2 * MOST_BYTES:
            over = 0
            while len(events) - over > MOST or self._bytes > MOST_BYTES:
                self._bytes -= len(events[over].frame)
                over += 1
            self.since = events[over - 1].id
            del events[:over]
            self._dropped += over
        self._wake()

    def restart(self, since: Id) -> None:
        """Go on behind an event that may be older than the last one: Redis has lost some, and numbers those that follow
        by the clock of another machine."""
        # One more, so that no client is at the end.
        self._dropped += len(self._events) + 1
        self._events.clear()
        self._bytes = 0
        self.since = since
        self.restarts += 1
        self._wake()

    @property
    def begin(self) -> int:
        """The place of the first event that it has."""
        return self._dropped

    def close(self) -> None:
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        # A new flag each time: one that is set and cleared again may miss a client.
        news, self._news = self._news, Flag()
        news.set()

    def place_behind(self, id: Id) -> int | None:
        """The place of the first event behind one; None: the feed may lack some of them."""
        if id < self.since:
            return None
        return self._dropped + bisect_right(self._events, id, key=_id_of)

    def has(self, id: Id) -> bool:
        """Whether it has an event, or begins behind it."""
        place = self.place_behind(id)
        if place is None:
            return False
        return (self._events[place - self._dropped - 1].id if place > self._dropped else self.since) == id

    def take(self, place: int, most: int) -> list[FeedEvent] | None:
        """The events from a place on; None: the feed has moved past it."""
        start = place - self._dropped
        return None if start < 0 else self._events[start : start + most]

    def wait(self, place: int, seconds: float) -> bool:
        """Wait for an event at a place. False: there is none, or the feed is closed."""
        if place == self.end and not self.closed:
            self._news.wait(seconds)
        return place < self.end


class Feeds:
    def __init__(self, store: EventStore, writer: EventWriter, clock: Callable[[], float] = time.monotonic) -> None:
        self.store = store
        self._writer = writer
        self._clock = clock
        self._feeds: dict[str, Feed] = {}
        self._opening = Semaphore()
        self.reading = Semaphore(_READERS)
        """For clients that read events from Redis that no feed has."""
        self._noted_at = 0.0
        self._checked_at = -math.inf
        self._greenlet: gevent.Greenlet[[], None] | None = None
        self._stopped = False
        self._news = Flag()

    @property
    def readers(self) -> int:
        return sum(feed.readers for feed in self._feeds.values())

    def readers_of(self, integrator: str) -> int:
        feed = self._feeds.get(integrator)
        return 0 if feed is None else feed.readers

    def open(self, integrator: str) -> Feed:
        """Count a client in. :raises StoreUnavailable: Redis is down."""
        with self._opening:
            feed = self._feeds.get(integrator)
            if feed is None:
                # Before the feed begins, so that the next events are written as they happen. The events may be on other
                # masters of a cluster than this, and `look` notes it again.
                with suppress(StoreUnavailable):
                    self._note([*self._feeds, integrator])
                feed = Feed(integrator, self._newest(integrator))
                feed.closed = self._stopped
                self._feeds[integrator] = feed
            feed.readers += 1
        if self._greenlet is None and not self._stopped:
            self._greenlet = background.keep("event_feeds", self._run)
        return feed

    def leave(self, feed: Feed) -> None:
        """Count a client out."""
        feed.readers -= 1
        if not feed.readers:
            self._feeds.pop(feed.integrator, None)

    def stop(self) -> None:
        """Tell the clients to go elsewhere: this node ends."""
        self._stopped = True
        if self._greenlet is not None:
            self._greenlet.kill()
        for feed in self._feeds.values():
            feed.close()
        self._wake()

    def wait(self, seconds: float) -> bool:
        """Wait for an event in any feed. False: there is none."""
        return bool(self._news.wait(seconds))

    def _wake(self) -> None:
        news, self._news = self._news, Flag()
        news.set()

    def _run(self) -> None:
        while self._feeds:
            try:
                more = self.look()
            except StoreUnavailable:
                # CallStore says so. Clients get what they have missed when Redis is back, which may be another one.
                more = False
                self._checked_at = -math.inf
            gevent.sleep(0 if more else POLL)
        self._greenlet = None

    def look(self) -> bool:
        """Read new events of all feeds. True: there may be more. :raises StoreUnavailable: Redis is down."""
        feeds = list(self._feeds.values())
        integrators = [feed.integrator for feed in feeds]
        if self._clock() >= self._checked_at + CHECK:
            self._checked_at = self._clock()
            feeds = self._check(feeds)
        news = more = False
        found = self.store.after_each([(feed.integrator, feed.last) for feed in feeds], READ)
        for feed, stored in zip(feeds, found, strict=True):
            self._writer.say_refused(_key(feed.integrator), stored)
            if _is_away(stored):
                self._checked_at = -math.inf
            elif stored and not isinstance(stored, StoreUnavailable):
                take_turn("events")
                feed.add(stored)
                news = True
                more = more or len(stored) == READ
        if news:
            self._wake()
        # Also if Redis has lost that clients listen: until it knows, events are written when their calls end. Last,
        # because the events may be on other masters of a cluster than this; and not at each look, as a master that is
        # silent takes seconds to fail.
        is_known = self._writer.listened.issuperset(integrators)
        if self._clock() > self._noted_at + (NOTE if is_known else AGAIN):
            try:
                self._note(integrators)
            finally:
                self._noted_at = self._clock()
        return more

    def _newest(self, integrator: str) -> Id:
        """:raises StoreUnavailable: Redis is down."""
        try:
            return self.store.compare(integrator, START).newest or START
        except Fault as error:
            self._writer.say_refused(_key(integrator), error)
            raise

    def _note(self, integrators: Iterable[str]) -> None:
        """Say that clients listen. :raises StoreUnavailable: Redis is down."""
        with suppress(Fault):
            # The writer has said so. Events are written when their calls end.
            self._writer.note_listening(integrators)

    def _check(self, feeds: Sequence[Feed]) -> list[Feed]:
        """Restart the feeds whose latest event Redis has lost; return those to read: not if part of a cluster is away,
        which may come back with less. :raises StoreUnavailable: Redis is down."""
        checked: list[Feed] = []
        comparisons = self.store.compare_each([(feed.integrator, feed.last) for feed in feeds])
        for feed, comparison in zip(feeds, comparisons, strict=True):
            if _is_away(comparison):
                self._checked_at = -math.inf
                continue
            checked.append(feed)
            if isinstance(comparison, Comparison) and comparison.has_lost(feed.last):
                assert comparison.newest is not None
                feed.restart(min(feed.last, comparison.newest))
                self._wake()
        return checked


def _is_away(answer: object) -> bool:
    """Whether the part of a cluster that has a feed's events gives no answer, or serves nothing."""
    return isinstance(answer, StoreUnavailable) and not isinstance(answer, Fault)


def _key(integrator: str) -> str:
    return keys.events(keys.history(integrator))
