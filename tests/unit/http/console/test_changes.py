"""Which calls have changed, for the console's pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from msgspec import structs

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.http.console import changes
from esl_apps.http.console.changes import CallChanges
from esl_apps.node.event_feed import Feeds
from esl_apps.store.call_events import Comparison, Id
from esl_apps.store.errors import Fault
from tests.support.console import Browser
from tests.support.event_stores import FakeEventStore


class Stage:
    def __init__(self) -> None:
        self.store = FakeEventStore()
        fake: Any = self.store
        self.feeds = Feeds(fake, fake)
        self.feeds._greenlet = fake
        self.admitted = True
        self._next = 0

    def open(self) -> CallChanges:
        return CallChanges(self.feeds, ["", "acme"], lambda: self.admitted)

    def change(self, *refs: str, integrator: str = "acme") -> None:
        for ref in refs:
            self._next += 1
            self.store.put((self._next, 0), integrator, call_ref=ref)
        self.feeds.look()


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(changes, "PAUSE", 0.0)
    with gevent.Timeout(5):
        yield Stage()


def refs(part: bytes) -> Any:
    return json.loads(part.decode().partition("data: ")[2])


def test_changes_name_each_call_once(stage: Stage) -> None:
    parts = iter(stage.open())
    next(parts)
    stage.change("a", "b", "a")
    stage.change("c", integrator="")
    assert sorted(refs(next(parts))) == ["a", "b", "c"]
    stage.change("b")
    assert refs(next(parts)) == ["b"]


def test_changes_of_many_calls_name_none(stage: Stage) -> None:
    parts = iter(stage.open())
    next(parts)
    stage.change(*(f"call-{number}" for number in range(101)))
    assert refs(next(parts)) == []
    stage.change("a")
    assert refs(next(parts)) == ["a"]


def test_changes_tick_until_the_session_ends(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "TICK", 0.01)
    parts = iter(stage.open())
    next(parts)
    assert next(parts) == b"event: tick\ndata: {}\n\n"
    stage.admitted = False
    assert list(parts) == []


def test_changes_that_never_stop_hold_up_no_tick(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator whose token was taken back would otherwise go on seeing calls on a busy node."""
    monkeypatch.setattr(changes, "TICK", 0.0)
    parts = iter(stage.open())
    next(parts)
    stage.change("a")
    assert refs(next(parts)) == ["a"]
    stage.change("b")
    assert next(parts).startswith(b"event: tick")
    stage.admitted = False
    assert refs(next(parts)) == ["b"]
    assert list(parts) == []


def test_changes_end_with_the_node(stage: Stage) -> None:
    parts = iter(stage.open())
    next(parts)
    stage.feeds._greenlet = None
    stage.feeds.stop()
    assert list(parts) == []


def test_changes_that_cannot_begin_leave_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(integrator: str, real: Callable[[str], Any] = stage.feeds.open) -> Any:
        stage.store.down = integrator == "acme"
        return real(integrator)

    monkeypatch.setattr(stage.feeds, "open", fail)
    with pytest.raises(StoreUnavailable):
        stage.open()
    assert stage.feeds.readers == 0


def test_changes_of_events_of_another_type_hide_no_others(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    real = stage.store.compare

    def compare(integrator: str, id: Id) -> Comparison:
        if integrator == "acme":
            raise Fault("WRONGTYPE", "WRONGTYPE a key of another type")
        return real(integrator, id)

    monkeypatch.setattr(stage.store, "compare", compare)
    assert [feed.integrator for feed in stage.open()._places] == [""]


def test_changes_that_are_closed_leave_their_feeds(stage: Stage) -> None:
    stream = stage.open()
    assert stage.feeds.readers == 2
    stream.close()
    stream.close()
    assert (stage.feeds.readers, stream.too_slow()) == (0, b"")


def test_changes_need_a_session(browser: Browser) -> None:
    assert browser.ask("GET", "/events").status_code == 303
    browser.log_in()
    browser.services.event_feeds.stop()
    answer = browser.ask("GET", "/events")
    assert (answer.status_code, answer.text) == (200, "retry: 2000\n\n")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert browser.ask("HEAD", "/events").status_code == 200


def test_changes_end_when_the_token_loses_its_scope(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reload takes it away while the page is open."""
    monkeypatch.setattr(changes, "TICK", 0.0)
    begun = CallChanges.__init__

    def begin(*args: Any) -> None:
        begun(*args)
        policies, config = browser.services.policies, browser.bench.config
        tokens = [structs.replace(token, scopes=["cards"]) for token in config.admin.tokens]
        admin = structs.replace(config.admin, tokens=tokens)
        policies.now = browser.services.read_policy(structs.replace(config, admin=admin))

    browser.log_in("the-wallboards-token")
    monkeypatch.setattr(CallChanges, "__init__", begin)
    with gevent.Timeout(5):
        assert browser.ask("GET", "/events").text == "retry: 2000\n\n"
