"""Tell the console's pages which calls have changed, and when to draw what isn't about calls: they ask for nothing in
between.

The browser gets references alone; what it may see of a call is decided when it asks for the page again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import gevent
import msgspec

from esl_apps.http.access import READ
from esl_apps.http.console.site import ConsoleVisit
from esl_apps.http.live_body import LiveBody
from esl_apps.node.event_feed import Feed, Feeds
from esl_apps.store.errors import Fault

#: Seconds between two messages: a page is drawn in a tenth of it.
PAUSE = 0.5
#: Seconds between two ticks, at which pages draw health, charts and the age of calls again (see ``console.js``).
TICK = 5.0
#: Changed calls that are named. Of more, none is: all pages are drawn again.
_NAMED = 100
_READ = 1000


class CallChanges(LiveBody):
    def __init__(self, feeds: Feeds, integrators: Iterable[str], admits: Callable[[], bool]) -> None:
        """``admits``: whether the session is still open. :raises StoreUnavailable: Redis is down."""
        self._feeds = feeds
        self._admits = admits
        self._places: dict[Feed, int] = {}
        try:
            for integrator in integrators:
                with suppress(Fault):
                    # A key of another type hides no other integrator's calls.
                    feed = feeds.open(integrator)
                    self._places[feed] = feed.end
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        yield b"retry: 2000\n\n"
        due = time.monotonic() + TICK
        while not any(feed.closed for feed in self._places):
            changed = self._changed()
            if changed is not None:
                yield b"event: calls\ndata: %s\n\n" % msgspec.json.encode(changed)
                # Bursts are one message.
                gevent.sleep(PAUSE)
            if time.monotonic() >= due:
                if not self._admits():
                    return
                yield b"event: tick\ndata: {}\n\n"
                due = time.monotonic() + TICK
            elif changed is None:
                self._feeds.wait(max(0.0, due - time.monotonic()))

    def _changed(self) -> list[str] | None:
        """The calls that have changed; empty: many. None: no call has."""
        refs: dict[str, None] = {}
        for feed, place in self._places.items():
            events = feed.take(place, _READ)
            if events is None or len(refs) > _NAMED:
                return self._skip()
            self._places[feed] = place + len(events)
            refs.update((event.searched.call_ref, None) for event in events)
        return self._skip() if len(refs) > _NAMED else list(refs) or None

    def _skip(self) -> list[str]:
        self._places = {feed: feed.end for feed in self._places}
        return []

    def too_slow(self) -> bytes:
        return b""

    def close(self) -> None:
        for feed in self._places:
            self._feeds.leave(feed)
        self._places = {}


def stream_changes(visit: ConsoleVisit) -> None:
    """``/console/events``."""
    resp, services = visit.resp, visit.port.services
    resp.content_type = "text/event-stream"
    resp.set_header("Cache-Control", "no-store")
    resp.set_header("X-Accel-Buffering", "no")
    if visit.req.method == "HEAD":
        return

    def admits() -> bool:
        token = visit.site.sessions.token_of(visit.cookie, visit.port.tokens())
        return token is not None and token.has(READ)

    names = ["", *(integrator.name for integrator in services.policy.config.integrators)]
    resp.stream = CallChanges(services.event_feeds, names, admits)
