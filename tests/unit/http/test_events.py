"""``GET /click2dial/events`` over a node's parts and a real Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from falcon import testing
from gevent import socket
from msgspec import structs

from esl_apps.config.tokens import IntegratorToken, hash_token
from esl_apps.core import terms
from esl_apps.core.attempt import Attempt
from esl_apps.http import event_stream, events, integrator
from esl_apps.http.access import OWN_READ
from esl_apps.http.connection import Bounds
from esl_apps.http.server import serve
from esl_apps.node import descriptors
from tests.support.bench import Bench, Build
from tests.support.http_client import HttpClient
from tests.support.http_services import errors
from tests.unit.node import conftest as node_fixtures

build, fast_redis = node_fixtures.build, node_fixtures.fast_redis
EVENTS = "/click2dial/events"
TOKEN = "acme-token-for-tests"


class Listener:
    """A node and its clients, each of which is a stream."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.app = integrator.build(bench.services, bench.outgoing, "acme")
        self.client = HttpClient(self.app, headers={"Authorization": f"Bearer {TOKEN}"})
        self.status = ""
        self.headers: dict[str, str] = {}
        self._open: list[Any] = []

    def listen(self, query: str = "", token: str = TOKEN, **headers: str) -> Iterator[bytes]:
        sent = {"Authorization": f"Bearer {token}", **{name.replace("_", "-"): text for name, text in headers.items()}}
        environ = testing.create_environ(EVENTS, query_string=query, headers=sent, remote_addr="192.0.2.1")

        def start_response(status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> None:
            self.status, self.headers = status, dict(headers)

        self._open.append(self.app(environ, start_response))
        return iter(self._open[-1])

    def begin(self, **fields: Any) -> Attempt:
        attempt = Attempt(**{"app": "click-dial", "call_dir": "outbound", "integrator": "acme", **fields})
        self.bench.services.calls.begin(attempt, self.bench.services.switches[0])
        return attempt

    def write(self) -> None:
        self.bench.services.event_writer.flush()
        self.bench.records()

    def close(self) -> None:
        for stream in self._open:
            stream.close()


WALL = "the-wallboards-token"


def configure(bench: Bench, scopes: Any) -> None:
    """Reload with these scopes of the wallboard's token."""
    token = IntegratorToken(name="wall", token_hash=hash_token(WALL), scopes=scopes)
    (acme,) = bench.config.integrators
    config = structs.replace(bench.config, integrators=[structs.replace(acme, tokens=[token])])
    bench.services.policies.now = bench.services.read_policy(config)


@pytest.fixture
def node(build: Build) -> Iterator[Listener]:
    made = Listener(build())
    with gevent.Timeout(20):
        yield made
    made.close()


def seen(parts: Iterator[bytes], count: int) -> list[tuple[str, str]]:
    """Kind and state of the next events."""
    found: list[tuple[str, str]] = []
    while len(found) < count:
        for frame in next(parts).decode().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in frame.splitlines())
            if "data" in fields:
                found.append((fields["event"], json.loads(fields["data"])["state"]))
    return found


def test_events_are_those_of_the_integrators_calls(node: Listener) -> None:
    parts = node.listen()
    assert next(parts).startswith(b"retry: ")
    assert node.status.startswith("200")
    assert node.headers["content-type"].startswith("text/event-stream")
    assert node.headers["cache-control"] == "no-store"
    node.begin(integrator=None)
    attempt = node.begin(extension="1000")
    attempt.enter(terms.AGENT_RINGING, attempt.queued_at + 1)
    node.write()
    assert seen(parts, 2) == [("call", "queued"), ("call", "agent_ringing")]
    attempt.end(terms.CANCELLED, 16, terms.API, attempt.queued_at + 2)
    node.write()
    assert seen(parts, 2) == [("call", "ended"), ("record", "ended")]


def test_events_are_filtered_by_the_query(node: Listener) -> None:
    parts = node.listen("agent=1000&metadata.lead=7")
    next(parts)
    node.begin(extension="1000", metadata={"lead": "8"})
    node.begin(extension="1001", metadata={"lead": "7"})
    node.begin(extension="1000", metadata={"lead": "7"}).enter(terms.BRIDGED, 1e9)
    node.write()
    assert seen(parts, 2) == [("call", "queued"), ("call", "bridged")]


def test_events_resume_behind_the_last_one(node: Listener) -> None:
    parts = node.listen()
    next(parts)
    attempt = node.begin()
    attempt.enter(terms.AGENT_RINGING, attempt.queued_at + 1)
    node.write()
    first = next(parts).decode()
    last = first.split("\n", 1)[0].removeprefix("id: ")
    again = node.listen(Last_Event_ID=last)
    next(again)
    assert seen(again, 1) == [("call", "agent_ringing")]


@pytest.mark.parametrize(
    ("query", "headers", "field"),
    [
        ("", {"Last-Event-ID": "x"}, "Last-Event-ID"),
        ("state=ended", {}, "state"),
        ("agent=1&agent=2", {}, "agent"),
    ],
)
def test_events_of_a_wrong_request_are_422(node: Listener, query: str, headers: dict[str, str], field: str) -> None:
    answer = node.client.simulate_get(EVENTS, query_string=query, headers=headers)
    assert [found for found, _code in errors(answer, 422)] == [field]
    assert node.bench.services.event_feeds.readers == 0


def test_events_of_an_agent_token_are_its_own(node: Listener) -> None:
    port_tokens = node.client.simulate_post("/click2dial/agents/1000/token", json={"scopes": ["read"]})
    token = port_tokens.json["token"]
    parts = node.listen(token=token)
    next(parts)
    node.begin(extension="1001")
    node.begin(extension="1000").enter(terms.BRIDGED, 1e9)
    node.write()
    assert seen(parts, 2) == [("call", "queued"), ("call", "bridged")]
    other = node.client.simulate_get(EVENTS, query_string="agent=1001", headers={"Authorization": f"Bearer {token}"})
    assert errors(other, 403) == [("agent", "agent")]
    assert OWN_READ in events.ROUTES[0].operations[0].scopes  # type: ignore[operator]


def test_events_without_redis_are_503(node: Listener) -> None:
    node.bench.redis.break_after(0)
    assert node.client.simulate_get(EVENTS).status_code == 503


def test_events_for_too_many_clients_are_503(node: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "clients", lambda *_: 1)
    next(node.listen())
    answer = node.client.simulate_get(EVENTS)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_events_of_a_small_port_leave_room_for_requests(node: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """With few descriptors a port takes few clients, and 700 streams would be all of them."""
    monkeypatch.setattr(descriptors, "clients", lambda *_: 10)
    server = serve(("127.0.0.1", 0), node.app, bounds=Bounds(10))

    def ask(method: str, path: str) -> tuple[socket.socket, int]:
        sock = socket.create_connection(("127.0.0.1", server.address[1]), 10)
        head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: 2\r\n"
        sock.sendall(f"{head}content-type: application/json\r\n\r\n{{}}".encode())
        return sock, int(sock.recv(1000).split()[1])

    answers = [ask("GET", EVENTS) for _ in range(8)]
    assert [status for _, status in answers] == [200] * 7 + [503]
    last, status = ask("POST", "/click2dial/agents/1000/token")
    assert status == 200
    for sock in (last, *(sock for sock, _ in answers)):
        sock.close()
    server.stop(1.0)


def test_events_of_one_integrator_leave_room_for_others(node: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of the console listens to all integrators, so some pages had shut out all clients of events."""
    monkeypatch.setattr(descriptors, "clients", lambda *_: 3)
    feeds = node.bench.services.event_feeds
    for other in ("", "other", "third"):
        feeds.open(other)
    for _ in range(2):
        next(node.listen())
    assert node.client.simulate_get(EVENTS).status_code == 503


def test_events_for_too_many_clients_of_one_agent_are_429(node: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a browser's token, one agent could have taken all places."""
    monkeypatch.setattr(events, "AGENT_READERS", 2)
    token = node.client.simulate_post("/click2dial/agents/1000/token", json={}).json["token"]
    for _ in range(2):
        next(node.listen(token=token))
    answer = node.client.simulate_get(EVENTS, headers={"Authorization": f"Bearer {token}"})
    assert errors(answer, 429) == [("", "too_many")]
    next(node.listen())
    node.close()
    next(node.listen(token=token))


@pytest.mark.parametrize("of_agent", [False, True])
def test_events_end_when_the_token_loses_its_scope(
    node: Listener, monkeypatch: pytest.MonkeyPatch, of_agent: bool
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT", 0.0)
    configure(node.bench, ["call", "read"])
    token = WALL
    if of_agent:
        asked = {"Authorization": f"Bearer {WALL}"}
        issued = node.client.simulate_post("/click2dial/agents/1000/token", json={"scopes": ["read"]}, headers=asked)
        token = issued.json["token"]
    parts = node.listen(token=token)
    next(parts)
    assert next(parts).startswith(b"id: ")
    configure(node.bench, ["call"])
    assert b'"reason":"token"' in next(parts)
