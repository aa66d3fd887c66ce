"""Benches: a node's parts in this process, with waits of milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from esl_apps.esl import switch, switch_cdr
from esl_apps.node import acting, calls, following, incoming, lost_socket, outgoing, records, timed_calls, visit
from esl_apps.store import documents, redis_client
from tests.support.bench import Bench, Breakable, Build
from tests.support.node import RedisServer


@pytest.fixture(autouse=True)
def refusals(monkeypatch: pytest.MonkeyPatch) -> documents.Refusals:
    """The versions that were refused: none yet."""
    fresh = documents.Refusals()
    monkeypatch.setattr(documents, "refusals", fresh)
    return fresh


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    with gevent.Timeout(30):
        yield


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between two tries, and waits for what a test doesn't send."""
    for module in (switch_cdr, following, visit):
        monkeypatch.setattr(module, "FRESH", 0.001)
    for module in (switch_cdr, following):
        monkeypatch.setattr(module, "WRITTEN", 0.01)
    monkeypatch.setattr(visit, "_CDR_WRITTEN", 0.01)
    monkeypatch.setattr(visit, "_SETTLE", 0.05)
    monkeypatch.setattr(lost_socket, "_LATE", 0.01)
    monkeypatch.setattr(lost_socket, "_APART", 0.01)
    monkeypatch.setattr(calls, "KILLED", 0.01)
    monkeypatch.setattr(acting, "_TOLD", 2.0)
    monkeypatch.setattr(records, "_CLOSED", 0.01)
    monkeypatch.setattr(following, "_APART", 0.01)
    monkeypatch.setattr(incoming, "_AGAIN", 0.002)
    monkeypatch.setattr(timed_calls, "_AGAIN", 0.002)
    monkeypatch.setattr(outgoing, "_AGAIN", 0.002)
    monkeypatch.setattr(outgoing, "_ASKED", 0.05)
    monkeypatch.setattr(outgoing, "_APART", 0.05)
    monkeypatch.setattr(timed_calls, "POLL", 0.002)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A switch that answers nothing for some milliseconds counts as lost, until this is called."""
    patience = switch.REPLY_TIMEOUT
    monkeypatch.setattr(switch, "PING_EVERY", 0.005)
    monkeypatch.setattr(switch, "REPLY_TIMEOUT", 0.1)
    monkeypatch.setattr(switch, "BACKOFF_FIRST", 0.001)
    return lambda: monkeypatch.setattr(switch, "REPLY_TIMEOUT", patience)


@pytest.fixture(autouse=True)
def fast_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask Redis as a node does, over gevent's sockets: this process isn't patched, and would stop at each answer."""
    monkeypatch.setattr(redis_client, "is_patched", lambda: True)


@pytest.fixture
def build(redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Build]:
    """Builds benches on an empty Redis: ``build(name="app2", …)``, with further sections of the configuration."""
    redis.client.flushall()
    connect = redis_client.connect
    monkeypatch.setattr(redis_client, "connect", lambda url, **more: Breakable(connect(url, **more)))
    benches: list[Bench] = []

    def make(**options: Any) -> Bench:
        folder = tmp_path / options.get("name", "app1")
        folder.mkdir(exist_ok=True)
        benches.append(Bench(redis, folder, **options))
        return benches[-1]

    yield make
    for bench in reversed(benches):
        bench.close()


@pytest.fixture
def bench(build: Build) -> Bench:
    """One node, connected to its switch."""
    return build().connect()
