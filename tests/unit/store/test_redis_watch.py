"""A node learns soon whether Redis can be used. What a Redis refuses is in ``test_calls.py``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from esl_apps.store import redis_client
from esl_apps.store.redis_watch import RedisWatch
from esl_apps.store.write_behind import WriteBehind
from tests.support.node import RedisServer
from tests.support.peer import eventually


@pytest.fixture
def server() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.close()


def watch_of(server: RedisServer, backs: list[str] | None = None) -> RedisWatch:
    client = redis_client.connect(server.url)
    return RedisWatch(client, WriteBehind(client), lambda: None if backs is None else backs.append("back"))


def test_redis_watch_says_each_time_that_redis_is_back(server: RedisServer) -> None:
    backs: list[str] = []
    watch = watch_of(server, backs)
    assert watch.reasons == ["redis: no answer"]
    assert watch.check()
    assert watch.check()
    assert backs == ["back"]
    server.kill()
    assert not watch.check()
    server.start()
    assert watch.check()
    assert backs == ["back", "back"]


def test_redis_watch_notices_at_once_that_redis_was_killed(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its idle connection: the next check is in an hour."""
    monkeypatch.setattr("esl_apps.store.redis_watch.PING_EVERY", 3600.0)
    watch = watch_of(server)
    watching = watch.start()
    assert watch.healthy
    server.kill()
    eventually(lambda: not watch.healthy)
    watching.kill()


def test_redis_watch_trusts_no_redis_that_closed_its_line(server: RedisServer) -> None:
    watch = watch_of(server)
    assert watch.check()
    server.kill()
    assert watch._wait()
    assert not watch.healthy
