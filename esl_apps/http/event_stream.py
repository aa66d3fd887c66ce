"""Send the events of calls to a client as they happen, as Server-Sent Events.

A client that comes back says the id of its last event (``Last-Event-ID``) and gets what it has missed: from the feed of
this node, or from Redis. It goes on from its place in the feed, so no event is skipped and none comes twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from esl_apps.core.call_events import Wanted
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.http.live_body import LiveBody
from esl_apps.net.turns import take_turn
from esl_apps.node.event_feed import READ, Feed, FeedEvent, Feeds
from esl_apps.store.call_events import KEEP, START, Id, text_of
from esl_apps.store.paging import ReadCount

log = logging.getLogger(__name__)

#: Seconds of silence after which a client hears that the connection lives, as proxies close silent ones after 30 to 60;
#: and between two looks at whether its token is still valid, silent or not.
HEARTBEAT = 15.0
#: Events in one part, and their bytes: a client that doesn't read holds one part.
_PART, _PART_BYTES = 100, 131_072
#: Older events that are read at first.
_FIRST = 20
#: Milliseconds until a client that has lost its connection should try again.
_RETRY = 1000

#: Why a stream ends, as ``reason``, and what its client should do.
REASONS = {
    "too_slow": "events came faster than they were read; reconnect with Last-Event-ID",
    "stopping": "this node stops; reconnect with Last-Event-ID, to any node",
    "token": "the token is no longer valid",
    "unavailable": "Redis can't be reached; reconnect with Last-Event-ID",
}
#: Why events may be missing behind a client's ``Last-Event-ID``.
GAPS = {
    "unknown": "Redis doesn't know this id, or has lost events",
    "expired": f"events are kept for {KEEP // 60} minutes",
}


class EventStream(LiveBody):
    def __init__(
        self,
        feeds: Feeds,
        feed: Feed,
        last: Id | None,
        wanted: Wanted,
        *,
        admits: Callable[[], bool],
        on_end: Callable[[str], None] = lambda _reason: None,
        on_close: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``feed``: opened for this client. ``last``: the client's last event. ``admits``: whether its token still
        opens the stream. ``on_end`` is called with the reason if the server ends it, ``on_close`` once it has ended."""
        self._feeds = feeds
        self._feed: Feed | None = feed
        self._last = feed.last if last is None else last
        self._restarts = feed.restarts
        self._resumes = last is not None
        self._wanted = wanted
        self._admits = admits
        self._on_end = on_end
        self._on_close = on_close
        self._clock = clock
        self._monotonic = monotonic
        self._spoken_at = self._admitted_at = monotonic()
        self._reads = ReadCount(_FIRST, READ)

    def __iter__(self) -> Iterator[bytes]:
        feed = self._feed
        assert feed is not None
        try:
            yield b"retry: %d\n\n" % _RETRY + self._resumed(feed) + self._position()
            while (place := feed.place_behind(self._last)) is None:
                part, more = self._read(feed)
                if part:
                    yield part
                if not more:
                    self._last = feed.since
            yield from self._live(feed, place)
        except StoreUnavailable:
            yield self._end("unavailable")

    def _live(self, feed: Feed, place: int) -> Iterator[bytes]:
        while True:
            if feed.closed:
                yield self._end("stopping")
                return
            if feed.restarts != self._restarts:
                self._restarts, self._last, place = feed.restarts, feed.since, feed.begin
                yield _explained("gap", "unknown", GAPS) + self._position()
            taken = feed.take(place, _PART)
            if taken is None:
                yield self.too_slow()
                return
            events = _fitting(taken)
            place += len(events)
            if events:
                # A client that wants none of them gets no part, and its connection takes no turn.
                take_turn("events")
            if events and events[0].id <= self._last:
                # Another node was ahead of this one, and its client knows some already.
                events = [event for event in events if event.id > self._last]
            part = self._chosen(events)
            if events:
                self._last = events[-1].id
            now = self._monotonic()
            if now >= self._admitted_at + HEARTBEAT:
                if not self._admits():
                    yield self._end("token")
                    return
                self._admitted_at = now
            if not part and now >= self._spoken_at + HEARTBEAT:
                part = self._position()
            if part:
                self._spoken_at = now
                yield part
            elif not events:
                due = min(self._spoken_at, self._admitted_at) + HEARTBEAT
                feed.wait(place, max(0.0, due - now))

    def _read(self, feed: Feed) -> tuple[bytes, bool]:
        """Read what is older than the feed. False: there is no more."""
        # Some clients at a time: a read may have megabytes, until what doesn't fit into a part is dropped.
        with self._feeds.reading:
            stored = self._feeds.store.after(feed.integrator, self._last, min(self._reads.count, READ))
            if not stored:
                return b"", False
            take_turn("events")
            self._reads.learn([event.json for event in stored])
            events = _fitting([FeedEvent(event) for event in stored])
        self._last = events[-1].id
        return self._chosen(events), True

    def _chosen(self, events: Iterable[FeedEvent]) -> bytes:
        wanted = self._wanted
        if wanted.everything:
            return b"".join([event.frame for event in events])
        return b"".join([event.frame for event in events if wanted.takes(event.searched)])

    def _position(self) -> bytes:
        """Keep the connection open, and tell the client how far it is, though nothing that it wants may have come."""
        return b"id: %s\n\n" % text_of(self._last).encode()

    def _resumed(self, feed: Feed) -> bytes:
        """Say so if events behind the client's last one may be lost."""
        if not self._resumes or self._last == START or feed.has(self._last):
            return b""
        if self._last[0] < (self._clock() - KEEP) * 1000:
            return _explained("gap", "expired", GAPS)
        newest, kept = self._feeds.store.compare(feed.integrator, self._last)
        if kept:
            return b""
        # Redis has lost its latest data, or the id is of another installation.
        self._last = min(self._last, newest or START)
        return _explained("gap", "unknown", GAPS)

    # Ends ---------------------------------------------------------------------------------------------

    def too_slow(self) -> bytes:
        return self._end("too_slow")

    def _end(self, reason: str) -> bytes:
        self._on_end(reason)
        return _explained("end", reason, REASONS)

    def close(self) -> None:
        if self._feed is not None:
            self._feeds.leave(self._feed)
            self._feed = None
            self._on_close()


def _fitting(events: list[FeedEvent]) -> list[FeedEvent]:
    """Those of the events that fit into one part; one at least."""
    size = 0
    for number, event in enumerate(events):
        size += len(event.frame)
        if size > _PART_BYTES and number:
            return events[:number]
    return events


def _explained(event: str, reason: str, messages: Mapping[str, str]) -> bytes:
    data = msgspec.json.encode({"reason": reason, "message": messages[reason]})
    return b"event: %s\ndata: %s\n\n" % (event.encode(), data)
