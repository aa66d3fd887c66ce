"""A client with a token reaches and uses up nothing of another's, and no more of the node than its share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gevent import socket

from esl_apps.core import terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.call_events import Wanted
from esl_apps.http import integrator
from esl_apps.http.connection import Bounds
from esl_apps.http.event_stream import EventStream
from esl_apps.http.server import serve
from esl_apps.node.event_feed import Feeds
from esl_apps.operations import calls
from esl_apps.store import outbox, redis_client
from esl_apps.store.call_events import Id, text_of
from esl_apps.store.essence import Essence, restored
from esl_apps.store.journal import entry
from tests.support.bench import Bench, Build
from tests.support.event_stores import FakeEventStore
from tests.support.http_client import HttpClient
from tests.support.http_services import World, errors
from tests.support.node import RedisServer
from tests.support.peer import eventually
from tests.unit.http import conftest as http_fixtures
from tests.unit.node import conftest as node_fixtures

world = http_fixtures.world
build, fast_redis = node_fixtures.build, node_fixtures.fast_redis
CALLS = "/click2dial/calls"
ORDER = {"agent": "1000", "callee": "0820001234", "outbound_id": "27115550000"}


@pytest.fixture
def bench(build: Build) -> Bench:
    return build()


def bearer(world: World, agent: str) -> dict[str, str]:
    """A token of one agent's, as the headers of a request."""
    answer = world.api.simulate_post(f"/click2dial/agents/{agent}/token", json={})
    return {"Authorization": f"Bearer {answer.json['token']}"}


def test_agents_browser_takes_no_key_of_others(world: World) -> None:
    """A page of one agent could take the keys that its server was about to use: 409 for a day."""
    key = {"Idempotency-Key": "order-1"}
    for agent in ("1001", "1002"):
        headers = {**bearer(world, agent), **key}
        placed = world.api.simulate_post(CALLS, json={**ORDER, "agent": agent}, headers=headers)
        assert placed.status_code == 202
    hold = world.api.simulate_post(f"{CALLS}/{placed.json['call_ref']}/hold", headers=headers)
    # Its own key it has used.
    assert errors(hold, 409) == [("Idempotency-Key", "key_reused")]
    result = world.api.simulate_post(CALLS, json=ORDER, headers=key)
    assert (result.status_code, result.headers.get("idempotent-replayed")) == (202, None)


@pytest.mark.parametrize("key", ["", "a b", "x" * 201, "é"])
def test_agents_browser_has_keys_of_the_same_form(world: World, key: str) -> None:
    headers = {**bearer(world, "1000"), "Idempotency-Key": key}
    assert errors(world.api.simulate_post(CALLS, json=ORDER, headers=headers), 422) == [("Idempotency-Key", "pattern")]


@pytest.mark.parametrize("last", [None, (1, 0)], ids=["live", "older"])
def test_client_that_does_not_read_holds_little(last: Id | None) -> None:
    """Forty clients that read nothing held a gigabyte: each had 500 events with 25 KB of metadata."""
    store: Any = FakeEventStore()
    feeds = Feeds(store, store)
    feeds._greenlet = store
    stream = EventStream(feeds, feeds.open("acme"), last, Wanted(), admits=lambda: True)
    parts = iter(stream)
    if last is None:
        next(parts)
    sent = [store.put((2, number), metadata={"x": "\x01" * 4096}).id for number in range(200)]
    feeds.look()
    seen, rest = b"", iter(parts)
    while text_of(sent[-1]).encode() not in seen:
        part = next(rest)
        assert len(part) < 200_000
        seen = part[-30_000:]
    stream.close()


def test_client_that_does_not_read_fills_no_buffers() -> None:
    """Linux held 4 MB of answers for each of 500 connections, without a token: all its memory for TCP."""
    asked = 0

    def describe(_environ: dict[str, Any], start_response: Any) -> list[bytes]:
        nonlocal asked
        asked += 1
        start_response("200 OK", [])
        return [bytes(65536)]

    server = serve(("127.0.0.1", 0), describe, bounds=Bounds(write=0.3, look=0.05))
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(server.address[:2])
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        eventually(lambda: server.connection_count == 1)
        eventually(lambda: server.connection_count == 0)
    server.stop()
    assert asked < 8


def test_list_of_large_calls_is_cut(bench: Bench) -> None:
    """A page of 1,000 records of 25 KB took 25 MB, for each of hundreds of requests."""
    client = HttpClient(
        integrator.build(bench.services, bench.outgoing, "acme"), headers={"X-Auth-Token": "acme-token-for-tests"}
    )
    made = set()
    for _ in range(100):
        attempt = Attempt(app="click-dial", call_dir="outbound", integrator="acme", metadata={"x": "\x01" * 4096})
        bench.services.calls.begin(attempt, bench.services.switches[0])
        attempt.end(terms.ANSWERED, 16, terms.AGENT, attempt.queued_at + 1)
        made.add(attempt.call_ref)
    bench.records()
    bench.flush()
    for path, name in (("/click2dial/records", "records"), ("/click2dial/calls", "calls")):
        found, before = set(), ""
        while before is not None:
            answer = client.simulate_get(f"{path}?limit=500{before and '&before='}{before}")
            assert len(answer.content) < 1_200_000
            found |= {call["call_ref"] for call in answer.json[name]}
            before = answer.json["next"]
        assert found == made


def test_records_that_redis_may_lose_take_bounded_memory(
    redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10,000 calls with all the metadata that a call may have took a node 850 MB, if Redis doesn't save."""
    monkeypatch.setattr(outbox, "KEPT_CHARACTERS", 50_000)
    monkeypatch.setattr(outbox, "WINDOW_CHARACTERS", 50_000)
    redis.client.flushall()
    box = outbox.Outbox("main", tmp_path, redis_client.connect(redis.url))
    for number in range(40):
        box.push(entry(f"id-{number}", "large", {"type": "cdr", "payload": {"x": "y" * 10_000}}))
    assert len(box._queue) == 5
    box.start()
    assert box.drain(10)
    assert len(box._kept["large"]) == 4
    # Small records are all kept.
    for number in range(40):
        box.push(entry(f"small-{number}", "small", {"type": "cdr", "payload": {}}))
    assert box.drain(10)
    assert len(box._kept["small"]) == 40
    box.stop()
    assert redis.client.llen("large") == 40


def test_page_of_live_calls_makes_no_more_than_it_shows(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page of the console made all live calls: of 1,500 with much metadata, it held up others for 140 ms."""
    made: list[str] = []

    def count(essence: Essence) -> Attempt:
        made.append(essence.call_ref)
        return restored(essence)

    monkeypatch.setattr(calls, "restored", count)
    for _ in range(30):
        attempt = Attempt(app="click-dial", call_dir="outbound", integrator="acme")
        bench.services.calls.begin(attempt, bench.services.switches[0])
        attempt.save()
    bench.flush()
    bench.services.membership.say()
    found, more = calls.live_calls(bench.services.store, [bench.services.membership.boot], {}, 5)
    assert (len(found), len(made)) == (5, 6)
    assert more == found[-1]["call_ref"]
    assert len(calls.live_calls(bench.services.store, [bench.services.membership.boot], {}, 50, more)[0]) == 25
