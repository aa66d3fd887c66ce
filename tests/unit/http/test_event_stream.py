"""A client's event stream: resumed without gaps or repeats, kept alive, and ended with a reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from esl_apps.core.call_events import Wanted
from esl_apps.http import asyncapi, event_stream
from esl_apps.http.event_stream import EventStream
from esl_apps.node import event_feed
from esl_apps.node.event_feed import Feeds
from esl_apps.store.call_events import KEEP, Id
from tests.support.event_stores import FakeEventStore

NOW = 1_700_000_000.0
MS = int(NOW * 1000)


class Stage:
    """A node with a client. The poller doesn't run: ``look`` does what it does."""

    def __init__(self) -> None:
        self.store = FakeEventStore()
        fake: Any = self.store
        self.feeds = Feeds(fake, fake, lambda: 0.0)
        self.feeds._greenlet = fake
        self.now = NOW
        self.step = 0.0
        """Seconds by which the system's clock was set."""
        self.admitted = True
        self.ends: list[str] = []
        self.streams: list[EventStream] = []

    def listen(self, last: Id | None = None, wanted: Wanted = Wanted()) -> Iterator[bytes]:  # noqa: B008 - frozen
        stream = EventStream(
            self.feeds,
            self.feeds.open("acme"),
            last,
            wanted,
            admits=lambda: self.admitted,
            on_end=self.ends.append,
            clock=lambda: self.now + self.step,
            monotonic=lambda: self.now,
        )
        self.streams.append(stream)
        return iter(stream)

    def put(self, *numbers: int, **fields: object) -> None:
        for number in numbers:
            self.store.put((MS + number, 0), **fields)  # type: ignore[arg-type]

    def look(self) -> None:
        self.feeds.look()


@pytest.fixture
def stage() -> Iterator[Stage]:
    with gevent.Timeout(5):
        yield Stage()


def ids(part: bytes) -> list[int]:
    """The numbers of the events in a part."""
    frames = [frame for frame in part.decode().split("\n\n") if "data: {" in frame and frame.startswith("id: ")]
    return [int(frame.partition("-")[0].removeprefix("id: ")) - MS for frame in frames]


def said(part: bytes, event: str) -> str:
    """The reason in an event of ours."""
    (data,) = [line for line in part.decode().splitlines() if line.startswith("data: ")]
    assert f"event: {event}\n" in part.decode()
    reason: str = json.loads(data.removeprefix("data: "))["reason"]
    return reason


def test_stream_begins_now(stage: Stage) -> None:
    stage.put(1)
    parts = stage.listen()
    assert next(parts) == f"retry: 1000\n\nid: {MS + 1}-0\n\n".encode()
    stage.put(2, 3)
    stage.look()
    assert ids(next(parts)) == [2, 3]


def test_stream_resumes_from_redis_without_gap_or_repeat(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "READ", 2)
    stage.put(1, 2, 3, 4, 5, 6)
    parts = stage.listen((MS + 2, 0))
    assert ids(next(parts)) == []
    stage.put(7)
    stage.look()
    assert [ids(next(parts)) for _ in range(3)] == [[3, 4], [5, 6], [7]]


def test_stream_resumes_from_the_feed(stage: Stage) -> None:
    stage.put(1)
    stage.listen()
    stage.put(2, 3, 4)
    stage.look()
    parts = stage.listen((MS + 3, 0))
    next(parts)
    assert ids(next(parts)) == [4]


def test_events_of_the_stream_are_described() -> None:
    made = asyncapi.document(asyncapi.Choices())
    assert list(made["channels"]["events"]["messages"]) == ["call", "inbound", "record", "gap", "end"]
    for kind, reasons in (("GapEvent", event_stream.GAPS), ("EndEvent", event_stream.REASONS)):
        described = made["components"]["schemas"][kind]
        assert sorted(described["properties"]["reason"]["enum"]) == sorted(reasons)
        assert described["required"] == ["reason", "message"]


def test_stream_of_a_client_that_is_ahead_repeats_nothing(stage: Stage) -> None:
    """It was connected to a node that read faster."""
    stage.put(1)
    stage.listen()
    stage.put(2, 3)
    parts = stage.listen((MS + 2, 0))
    assert b"event: gap" not in next(parts)
    stage.put(4)
    stage.look()
    assert ids(next(parts)) == [3, 4]


def test_stream_of_a_moving_feed_has_no_gap(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "READ", 2)
    monkeypatch.setattr(event_feed, "MOST", 2)
    stage.put(0, 1, 2)
    parts = stage.listen((MS, 0))
    next(parts)
    found = []
    for number in range(3, 9):
        stage.put(number)
        stage.look()
        if number % 2:
            found += ids(next(parts))
    while len(found) < 8:
        found += ids(next(parts))
    assert found == list(range(1, 9))


@pytest.mark.parametrize(
    ("last", "reason"),
    [((MS + 9, 0), "unknown"), ((MS - (KEEP + 1) * 1000, 0), "expired")],
)
def test_stream_says_what_it_cannot_resume(stage: Stage, last: Id, reason: str) -> None:
    stage.put(1, 2)
    parts = stage.listen(last)
    assert said(next(parts), "gap") == reason
    stage.put(3)
    stage.look()
    found: list[int] = []
    while 3 not in found:
        found += ids(next(parts))
    assert found == ([3] if reason == "unknown" else [1, 2, 3])


def test_stream_resumed_behind_a_lost_event_has_a_gap(stage: Stage) -> None:
    """Redis came back without it, and has numbered others since."""
    stage.put(1, 3)
    parts = stage.listen((MS + 2, 0))
    assert said(next(parts), "gap") == "unknown"
    assert ids(next(parts)) == [3]


def test_stream_of_a_feed_that_restarts_has_a_gap(stage: Stage) -> None:
    stage.put(1, 9)
    parts, silent = stage.listen(), stage.listen(wanted=Wanted(agent="none"))
    next(parts), next(silent)
    waiting = gevent.spawn(next, parts)
    gevent.sleep(0)
    # A master that lacks 9, and whose clock is behind.
    stage.store.events.clear()
    stage.put(1, 2)
    stage.look()
    for part in (waiting.get(timeout=10), next(silent)):
        assert said(part, "gap") == "unknown"
        assert part.endswith(f"\n\nid: {MS + 2}-0\n\n".encode())
    stage.put(3)
    stage.look()
    assert ids(next(parts)) == [3]


@pytest.mark.parametrize(
    "wanted",
    [Wanted(agent="1000"), Wanted(contact_ref="lead-7"), Wanted(metadata={"a": "b"})],
    ids=["agent", "contact_ref", "metadata"],
)
def test_stream_has_what_is_wanted(stage: Stage, wanted: Wanted) -> None:
    parts = stage.listen(wanted=wanted)
    next(parts)
    stage.put(1, agent="1001", contact_ref="lead-8", metadata={"a": "c"})
    stage.put(2, agent="1000", contact_ref="lead-7", metadata={"a": "b", "c": "d"})
    stage.put(3, agent=None)
    stage.look()
    assert ids(next(parts)) == [2]


def test_stream_that_is_silent_tells_its_place(stage: Stage) -> None:
    parts = stage.listen(wanted=Wanted(agent="none"))
    next(parts)
    stage.put(1)
    stage.look()
    stage.now += event_stream.HEARTBEAT
    assert next(parts) == f"id: {MS + 1}-0\n\n".encode()


def test_stream_waits_for_the_next_event(stage: Stage) -> None:
    parts = stage.listen()
    next(parts)
    waiting = gevent.spawn(next, parts)
    gevent.sleep(0)
    stage.put(1)
    stage.look()
    assert ids(waiting.get(timeout=10)) == [1]


def test_stream_of_a_client_that_is_too_slow_ends(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_feed, "MOST", 2)
    parts = stage.listen()
    next(parts)
    stage.put(0)
    stage.look()
    next(parts)
    for number in range(1, 6):
        stage.put(number)
        stage.look()
    assert said(next(parts), "end") == "too_slow"
    assert list(parts) == []
    assert stage.ends == ["too_slow"]


def test_stream_of_a_token_that_was_taken_back_ends(stage: Stage) -> None:
    parts = stage.listen()
    next(parts)
    stage.admitted = False
    stage.now += event_stream.HEARTBEAT
    assert said(next(parts), "end") == "token"


def test_stream_of_a_token_that_was_taken_back_ends_amid_events(stage: Stage) -> None:
    """On a busy node it is never silent for long enough to send a heartbeat."""
    parts = stage.listen()
    next(parts)
    stage.admitted = False
    for number in range(1, 4):
        stage.put(number)
        stage.look()
        if number < 3:
            assert ids(next(parts)) == [number]
        stage.now += event_stream.HEARTBEAT / 2 - 0.1 * (number == 1)
    assert said(next(parts), "end") == "token"


def test_stream_goes_on_when_the_clock_is_set_back(stage: Stage) -> None:
    parts = stage.listen()
    next(parts)
    stage.step = -3600.0
    stage.now += event_stream.HEARTBEAT
    assert next(parts) == f"id: {'-'.join(map(str, stage.streams[0]._last))}\n\n".encode()


def test_stream_of_a_node_that_stops_ends(stage: Stage) -> None:
    parts = stage.listen()
    next(parts)
    stage.feeds._greenlet = None
    stage.feeds.stop()
    assert said(next(parts), "end") == "stopping"


def test_stream_without_redis_ends_when_it_must_ask(stage: Stage) -> None:
    stage.put(1, 2)
    parts = stage.listen((MS + 1, 0))
    next(parts)
    stage.store.down = True
    assert said(next(parts), "end") == "unavailable"


def test_stream_that_closes_leaves_its_feed_once(stage: Stage) -> None:
    stage.listen()
    (stream,) = stage.streams
    stream.close()
    stream.close()
    assert stage.feeds.readers == 0


class _Enough(Exception):
    pass


def test_stream_takes_turns_through_events_that_were_not_chosen(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that resumed far back and chose an agent without calls kept the event loop for 100 ms."""
    turns: list[object] = []

    def take(peer: object) -> None:
        turns.append(peer)
        if len(turns) == 3:
            raise _Enough

    stage.listen()
    stage.put(*range(1, 11), agent="1001")
    stage.look()
    monkeypatch.setattr(event_stream, "_PART", 2)
    monkeypatch.setattr(event_stream, "take_turn", take)
    parts = stage.listen((MS, 0), Wanted(agent="1000"))
    next(parts)
    with pytest.raises(_Enough):
        next(parts)
