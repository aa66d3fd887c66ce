"""The feed of events: places, bounds, and clients that come and go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from esl_apps.core.call_events import Searched
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.node import event_feed
from esl_apps.node.event_feed import Feed, FeedEvent, Feeds
from esl_apps.store import keys, redis_client
from esl_apps.store.call_events import KEEP, START, EventStore, Id, Stored
from esl_apps.store.errors import Fault, NoAnswer, refusal
from esl_apps.store.event_writer import EventWriter
from tests.support.event_stores import FakeEventStore
from tests.support.node import RedisServer
from tests.support.peer import eventually


def stored(*ids: int) -> list[Stored]:
    return [Stored((id, 0), b"call", b'{"agent":"1000"}') for id in ids]


def ids(events: list[FeedEvent] | None) -> list[int] | None:
    return None if events is None else [event.id[0] for event in events]


def make(store: FakeEventStore, **options: Any) -> Feeds:
    fake: Any = store
    return Feeds(fake, fake, **options)


def test_feed_gives_events_from_a_place_on() -> None:
    feed = Feed("acme", (1, 0))
    feed.add(stored(2, 3, 5))
    assert ids(feed.take(0, 10)) == [2, 3, 5]
    assert ids(feed.take(1, 1)) == [3]
    assert ids(feed.take(3, 10)) == []
    assert (feed.last, feed.end) == ((5, 0), 3)


@pytest.mark.parametrize(("id", "place"), [((0, 9), None), ((1, 0), 0), ((2, 0), 1), ((4, 0), 2), ((9, 0), 3)])
def test_feed_finds_the_place_behind_an_id(id: Id, place: int | None) -> None:
    feed = Feed("acme", (1, 0))
    feed.add(stored(2, 3, 5))
    assert feed.place_behind(id) == place


def test_feed_drops_its_oldest_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_feed, "MOST", 3)
    feed = Feed("acme", START)
    for id in range(1, 7):
        feed.add(stored(id))
    assert feed.since == (3, 0)
    assert feed.take(2, 10) is None
    assert ids(feed.take(3, 10)) == [4, 5, 6]
    assert feed.place_behind((2, 0)) is None
    assert feed.place_behind((4, 0)) == 4


def test_feed_drops_its_oldest_events_beyond_some_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 5 KB of metadata, 20,000 events took 200 MB, for each integrator while a page of the console was open."""
    monkeypatch.setattr(event_feed, "MOST_BYTES", 3 * 1000)
    feed = Feed("acme", START)
    for id in range(1, 7):
        feed.add([Stored((id, 0), b"call", b'{"x":"%s"}' % (b"y" * 1000))])
    assert feed.since[0] == 4
    assert sum(len(event.frame) for event in feed.take(feed.since[0], 10) or ()) <= 3000
    assert feed.last == (6, 0)


def test_feed_wakes_those_who_wait() -> None:
    feed = Feed("acme", START)
    assert not feed.wait(0, 0.001)
    waiting = [gevent.spawn(feed.wait, 0, 10.0) for _ in range(3)]
    gevent.sleep(0)
    feed.add(stored(1))
    assert [one.get(timeout=10) for one in waiting] == [True] * 3
    closing = gevent.spawn(feed.wait, 1, 10.0)
    gevent.sleep(0)
    feed.close()
    assert closing.get(timeout=5) is False
    assert not feed.wait(1, 10.0)


def test_feed_event_that_is_not_readable_matches_nothing() -> None:
    (event,) = map(FeedEvent, stored(1))
    assert event.searched == Searched(agent="1000")
    assert FeedEvent(Stored((1, 0), b"call", b"[")).searched == Searched()
    assert event.frame == b'id: 1-0\nevent: call\ndata: {"agent":"1000"}\n\n'


def test_feed_passes_an_event_of_another_release_on_as_it_is() -> None:
    later = b'{"v":9,"agent":"1000","state":"dreaming","mood":{"of":[1]}}'
    event = FeedEvent(Stored((1, 0), b"dream", later))
    assert event.frame == b"id: 1-0\nevent: dream\ndata: " + later + b"\n\n"
    assert event.searched == Searched(agent="1000")


def test_feeds_ask_only_while_clients_listen() -> None:
    store = FakeEventStore()
    store.put((1, 0))
    feeds = make(store)
    first, second = feeds.open("acme"), feeds.open("acme")
    assert first is second
    assert (first.since, feeds.readers, store.listening) == ((1, 0), 2, ["acme"])
    store.put((2, 0))
    eventually(lambda: ids(first.take(0, 10)) == [2])
    feeds.leave(first)
    feeds.leave(second)
    assert feeds.readers == 0
    eventually(lambda: feeds._greenlet is None)


def test_feeds_read_all_integrators_at_once() -> None:
    store = FakeEventStore()
    feeds = make(store)
    acme, bell = feeds.open("acme"), feeds.open("bell")
    store.put((1, 0))
    store.put((2, 0), "bell")
    assert not feeds.look()
    assert (ids(acme.take(0, 10)), ids(bell.take(0, 10))) == ([1], [2])
    feeds.stop()


def test_feeds_go_on_when_redis_is_back() -> None:
    store = FakeEventStore()
    feeds = make(store)
    feed = feeds.open("acme")
    store.down = True
    store.put((1, 0))
    with pytest.raises(StoreUnavailable):
        feeds.open("bell")
    refused = store.refused
    eventually(lambda: store.refused > refused)
    store.down = False
    eventually(lambda: ids(feed.take(0, 10)) == [1])
    assert feeds.readers == 1
    feeds.stop()


def test_feeds_say_again_that_clients_listen() -> None:
    store, now = FakeEventStore(), [1000.0]
    feeds = make(store, clock=lambda: now[0])
    feeds.open("acme")
    feeds.look()
    noted = store.notes
    feeds.look()
    assert store.notes == noted
    now[0] += event_feed.NOTE + 1
    feeds.look()
    assert store.notes == noted + 1
    feeds.stop()


def test_feeds_are_read_if_the_listeners_cannot_be_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key is on a master of a cluster that is away."""
    store, now = FakeEventStore(), [1000.0]
    feeds = make(store, clock=lambda: now[0])
    feeds._greenlet = gevent.spawn(lambda: None)

    def note(integrators: object) -> None:
        now[0] += 2.0
        raise NoAnswer("redis: no answer")

    with monkeypatch.context() as patched:
        patched.setattr(store, "note_listening", note)
        feed = feeds.open("acme")
        store.put((1, 0))
        with pytest.raises(NoAnswer):
            feeds.look()
        # A master that is silent would hold up each look for as long as it takes to fail.
        store.put((2, 0))
        feeds.look()
        assert ids(feed.take(0, 10)) == [1, 2]
    now[0] += event_feed.AGAIN + 0.1
    feeds.look()
    assert store.listening == ["acme"]


def test_feeds_tell_a_redis_that_forgot_who_listens() -> None:
    """Otherwise no event comes before its call's end, for a minute."""
    store, now = FakeEventStore(), [1000.0]
    feeds = make(store, clock=lambda: now[0])
    feeds.open("acme")
    feeds.look()
    store.listening = []
    now[0] += event_feed.AGAIN + 0.1
    feeds.look()
    assert store.listening == ["acme"]
    feeds.stop()


def test_feeds_that_stopped_are_closed() -> None:
    feeds = make(FakeEventStore())
    feed = feeds.open("acme")
    feeds.stop()
    assert feed.closed
    assert feeds.open("bell").closed


@pytest.fixture
def real(redis: RedisServer) -> Iterator[Feeds]:
    """Feeds of a Redis, which only ``look`` asks."""
    redis.client.flushall()
    client = redis_client.connect(redis.url)
    feeds = Feeds(EventStore(client), EventWriter(client))
    feeds._greenlet = gevent.spawn(lambda: None)
    yield feeds
    feeds.stop()


def happen(redis: RedisServer, integrator: str = "acme", id: str = "*") -> None:
    redis.client.execute_command("XADD", keys.events(keys.history(integrator)), id, "event", "call", "json", "{}")


def test_events_of_another_type_hide_no_others(
    real: Feeds, redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    key = keys.events(keys.history("acme"))
    acme, beta = real.open("acme"), real.open("beta")
    redis.client.set(key, "x")
    for _ in range(3):
        happen(redis, "beta")
        real.look()
    with pytest.raises(Fault):
        Feeds(real.store, real._writer).open("acme")
    assert (acme.end, beta.end) == (0, 3)
    assert [(record.message, record.__dict__["key"]) for record in caplog.records] == [("events_refused", key)]
    redis.client.delete(key)
    happen(redis)
    real.look()
    assert acme.end == 1


def test_listeners_of_another_type_hide_no_events(real: Feeds, redis: RedisServer) -> None:
    redis.client.set(keys.LISTENERS, "x")
    feed = real.open("acme")
    happen(redis)
    real.look()
    assert feed.end == 1


@pytest.mark.parametrize("later", ["3-0", "12-0"], ids=["clock behind", "clock ahead"])
def test_feeds_restart_if_redis_has_lost_their_last_event(real: Feeds, redis: RedisServer, later: str) -> None:
    """The new master never got it, and numbers the next ones by its own clock."""
    now = [0.0]
    real._clock = lambda: now[0]
    happen(redis, id="1-0")
    feed = real.open("acme")
    happen(redis, id="9-0")
    real.look()
    redis.client.delete(keys.events(keys.history("acme")))
    for id in ("1-0", "2-0", later):
        happen(redis, id=id)
    now[0] += event_feed.CHECK
    real.look()
    assert feed.restarts == 1
    happen(redis, id="13-0")
    now[0] += event_feed.CHECK
    real.look()
    assert ids(feed.take(feed.begin, 10)) == ([13] if later == "3-0" else [12, 13])
    assert feed.restarts == 1


def test_feeds_whose_last_event_has_expired_go_on(real: Feeds, redis: RedisServer) -> None:
    now = [0.0]
    real._clock = lambda: now[0]
    happen(redis, id="5-0")
    feed = real.open("acme")
    redis.client.delete(keys.events(keys.history("acme")))
    real.look()
    happen(redis, id=f"{KEEP * 1000 + 5}-0")
    now[0] += event_feed.CHECK
    real.look()
    assert (feed.end, feed.restarts) == (1, 0)


def test_feeds_check_as_soon_as_redis_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_feed, "CHECK", 3600.0)
    store = FakeEventStore()
    store.put((9, 0))
    feeds = make(store)
    feed = feeds.open("acme")
    feeds.look()
    store.down = True
    refused = store.refused
    eventually(lambda: store.refused > refused)
    store.events.clear()
    store.put((8, 0))
    store.down = False
    eventually(lambda: feed.restarts)
    feeds.stop()


@pytest.mark.parametrize("error", [refusal("CLUSTERDOWN The cluster is down"), NoAnswer("redis: no answer")])
@pytest.mark.parametrize("asked", ["check", "read"])
def test_feeds_of_part_of_a_cluster_are_checked_when_it_is_back(asked: str, error: StoreUnavailable) -> None:
    """It is away when they are checked, or only when new events are read."""
    now = [0.0]
    store = FakeEventStore()
    for integrator in ("acme", "beta"):
        store.put((9, 0), integrator)
    feeds = make(store, clock=lambda: now[0])
    feeds._greenlet = gevent.spawn(lambda: None)
    acme, beta = feeds.open("acme"), feeds.open("beta")
    feeds.look()
    now[0] += event_feed.CHECK if asked == "check" else 0.0
    store.away["acme"] = error
    store.put((10, 0), "beta")
    feeds.look()
    assert (acme.last, beta.last) == ((9, 0), (10, 0))
    # It has lost the event 9-0.
    store.away.clear()
    store.events["acme"].clear()
    store.put((12, 0))
    feeds.look()
    assert (acme.restarts, beta.restarts) == (1, 0)


@pytest.mark.parametrize("error", [refusal("CLUSTERDOWN The cluster is down"), NoAnswer("redis: no answer")])
def test_feeds_do_not_read_what_they_could_not_check(monkeypatch: pytest.MonkeyPatch, error: StoreUnavailable) -> None:
    """Part of a cluster comes back between the two."""
    store = FakeEventStore()
    store.put((9, 0))
    feeds = make(store)
    feeds._greenlet = gevent.spawn(lambda: None)
    feed = feeds.open("acme")
    store.events["acme"].clear()
    store.put((12, 0))
    with monkeypatch.context() as patched:
        patched.setattr(store, "compare_each", lambda wanted: [error for _ in wanted])
        feeds.look()
    assert feed.last == (9, 0)
    feeds.look()
    assert feed.restarts == 1
