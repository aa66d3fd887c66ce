"""A wrong value in Redis, by another program or an intruder: other values are still shown, terminals print it as text,
and the node goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.server import StreamServer
from prometheus_client import CollectorRegistry

from esl_apps.core import terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.reference import new_ref
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.http import admin, integrator
from esl_apps.store import keys, membership, redis_client
from esl_apps.store.fast_client import fast_client
from esl_apps.store.timed_calls import TimedCalls
from esl_apps.store.webhook_queue import WebhookQueue
from tests.support.bench import Bench
from tests.support.console import Browser
from tests.support.http_client import HttpClient
from tests.support.node import RedisServer
from tests.support.records import record_of
from tests.unit.cli import conftest as cli_fixtures
from tests.unit.cli.conftest import Run, Settings

ADMIN_TOKEN = "admin-token-for-tests"
REF, ESCAPE = "01a22692-54fc-74a4-bcc3-d9fa0291b388", "\x1b[2J"
LIVE = {"call_ref": REF, "session_ref": REF, "contact_ref": "x", "app": "disa", "queued_at": 1.0, "state": "queued"}
LIVE |= {"call_dir": "inbound"}
STATUS = {"call_ref": REF, "session_ref": REF, "app": "disa", "state": "queued", "call_dir": "inbound", "muted": []}
#: Values that a field never has, whatever its type.
WRONG: list[Any] = [[[]], {}, {"v": "x"}, "\x1b[2J", 10**30, -1.5]


run, settings = cli_fixtures.run, cli_fixtures.settings


@pytest.fixture(autouse=True)
def forgotten(redis: RedisServer) -> Iterator[None]:
    """Other modules' nodes would learn of what is stored here."""
    yield
    redis.client.flushall()


@pytest.fixture
def bench(redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    redis.client.flushall()
    monkeypatch.setattr(redis_client, "is_patched", lambda: True)
    with gevent.Timeout(60):
        bench = Bench(redis, tmp_path, admin={"token": ADMIN_TOKEN, "console": True}).connect()
        bench.services.membership.say()
        yield bench
        bench.close()


@pytest.fixture
def ask(bench: Bench) -> Callable[[str], Any]:
    """Return a function that asks either port."""
    ports = [
        HttpClient(
            integrator.build(bench.services, bench.outgoing, "acme"), headers={"X-Auth-Token": "acme-token-for-tests"}
        ),
        HttpClient(
            admin.build(bench.services, bench.outgoing, CollectorRegistry()), headers={"X-Auth-Token": ADMIN_TOKEN}
        ),
    ]
    return lambda path: ports[not path.startswith("/click2dial")].simulate_get(path)


def ended(bench: Bench) -> str:
    """A call of acme's that has ended, in Redis with its record."""
    attempt = Attempt(app="click-dial", call_dir="outbound", integrator="acme", extension="1000", number="0820001234")
    bench.services.calls.begin(attempt, bench.services.switches[0])
    attempt.end(terms.ANSWERED, 16, terms.AGENT, attempt.queued_at + 1)
    bench.records()
    bench.flush()
    return attempt.call_ref


def variants(document: dict[str, Any]) -> Iterator[bytes]:
    """The document with each field of another type, and without it."""
    for name in document:
        for value in WRONG:
            yield json.dumps({**document, name: value}).encode()
        yield json.dumps({other: document[other] for other in document if other != name}).encode()


def test_record_of_another_form_hides_no_other(bench: Bench, ask: Callable[[str], Any]) -> None:
    ref, server = ended(bench), bench.redis_server.client
    whole = record_of("", number="1", metadata={"a": "b"})
    server.zadd(keys.history("acme"), {new_ref().encode() + raw: 0 for raw in variants(whole)})
    for path in ("/click2dial/records", "/v1/records"):
        for query in ("", "number=0820001234", "agent=1000"):
            answer = ask(f"{path}?limit=1000&{query}")
            assert answer.status_code == 200, answer.text
            assert ref in answer.text


def test_stored_call_of_another_form_fails_no_page(bench: Bench, ask: Callable[[str], Any]) -> None:
    ref, server = ended(bench), bench.redis_server.client
    browser = Browser(bench).log_in()
    raw = json.loads(server.get(keys.call(ref)))
    for changed in [
        *variants(raw),
        *(json.dumps({**raw, "record": json.loads(one)}) for one in variants(raw["record"])),
    ]:
        server.set(keys.call(ref), changed)
        for path in (f"/click2dial/calls/{ref}", "/click2dial/calls", f"/v1/calls/{ref}", "/v1/calls"):
            assert ask(path).status_code in (200, 404), (path, changed)
        for path in (f"/calls/{ref}", "/calls", "/"):
            assert browser.ask("GET", path).status_code in (200, 404), (path, changed)


def test_end_reason_in_redis_is_no_format(bench: Bench) -> None:
    ref, server = ended(bench), bench.redis_server.client
    raw = json.loads(server.get(keys.call(ref)))
    raw["record"]["end_reason"] = "{first:>99}{0}"
    server.set(keys.call(ref), json.dumps(raw))
    assert "{first:>99}{0}" in Browser(bench).log_in().get(f"/calls/{ref}")


def test_key_that_names_nothing_is_unreadable(bench: Bench, ask: Callable[[str], Any]) -> None:
    server = bench.redis_server.client
    card = bench.services.policy.cards.create("acme", {"cid": "+27825556666", "active": True})
    server.hset(keys.CARD_IDS, card.id, "c1")
    assert ask("/v2/accounts/acme/cccps").status_code == 503
    assert ask(f"/v2/accounts/acme/cccps/{card.id}").status_code in (404, 503)
    calls = TimedCalls(redis_client.connect(bench.redis_server.url), "app1", "callbacks")
    server.zadd(keys.timed_due("callbacks"), {"\x1b[2J": 0})
    calls.schedule("27825556666", ["acme"], time.time() - 1, now=time.time())
    taken = None
    while taken is None:
        try:
            taken = calls.claim_due(time.time(), 60)
        except StoreUnavailable:
            continue
    assert taken.number == "27825556666"


def test_lock_of_another_form_hides_no_other(bench: Bench, ask: Callable[[str], Any]) -> None:
    until = time.time() + 60
    bench.redis_server.client.zadd(keys.PIN_LOCKS, {b"\xff\xfe": "inf", "number:27825556666": until})
    assert "number:27825556666" in ask("/v1/locks").text
    assert Browser(bench).log_in().ask("GET", "/locks").status_code == 200


def test_webhook_whose_state_is_garbage_is_tried_on(bench: Bench) -> None:
    queue = keys.webhook("acme", "hook")
    store = WebhookQueue(redis_client.connect(bench.redis_server.url), "app1-1")
    bench.redis_server.client.hset(keys.webhook_state(queue), "since", "[")
    assert store.failed(queue, 500, "status 500") == 0.0


@pytest.mark.parametrize(
    "argv",
    ["calls", f"trace {REF}", "records", "locks", "waiting", "breaker", "webhook list"],
    ids=lambda argv: argv.split()[0],
)
def test_stored_text_does_nothing_on_a_terminal(
    run: Run, settings: Settings, redis: RedisServer, monkeypatch: pytest.MonkeyPatch, argv: str
) -> None:
    server = redis.client
    settings["integrators"][0]["webhooks"] = [
        {"name": "hook", "url": "https://example.com/", "secrets": ["whsec_" + "A" * 40]}
    ]
    server.hset(keys.live("boot"), REF, json.dumps({**LIVE, "extension": ESCAPE, "number": ESCAPE, "switch": ESCAPE}))
    monkeypatch.setattr(membership, "boots", lambda _client: ["boot"])
    entry = {"at": 1.0, "detail": ESCAPE}
    server.set(
        keys.call(REF),
        json.dumps(
            {
                **STATUS,
                "agent": ESCAPE,
                "callee": ESCAPE,
                "contact_ref": ESCAPE,
                "timeline": [{**entry, "state": "queued"}],
                "decisions": [{**entry, "what": ESCAPE}],
            }
        ),
    )
    texts = {"extension": ESCAPE, "number": ESCAPE, "end_reason": ESCAPE}
    server.zadd(keys.history(""), {REF + json.dumps(record_of(REF, **texts)): 0})
    server.zadd(keys.PIN_LOCKS, {ESCAPE: time.time() + 60})
    server.zadd(keys.timed_due("callbacks"), {"27825556666": 1})
    server.hset(keys.timed_pending("callbacks"), "27825556666", json.dumps(["id", ESCAPE, ESCAPE]))
    server.hset(keys.TRIPPED, ESCAPE, json.dumps({"at": 1, "why": ESCAPE, "by": ESCAPE}))
    server.lpush(
        keys.BREAKER_LOG, json.dumps({"at": 1, "scope": ESCAPE, "what": "tripped", "why": ESCAPE, "by": ESCAPE})
    )
    server.hset(keys.webhook_state(keys.webhook("acme", "hook")), "error", ESCAPE)
    command, *more = argv.split()
    ran = run(command, "-c", settings.written(), *more)
    assert "\\u001b[2J" in ran.out
    assert "\x1b" not in ran.out + ran.err


@pytest.mark.parametrize("kind", [b"*", b"~", b">"], ids=["array", "set", "push"])
@pytest.mark.parametrize("size", [1, 5, 64])
def test_server_that_announces_millions_is_away(kind: bytes, size: int) -> None:
    """An integrator's own Redis stopped the node of all for 9 s with 13 bytes, again and again."""
    bomb = b"*2\r\n$3\r\nabc\r\n" + kind + b"1000000000\r\n"

    def serve(sock: Any, _address: Any) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.recv(1000)
        for at in range(0, len(bomb), size):
            sock.sendall(bomb[at : at + size])
            gevent.sleep(0)
        # As a Redis that has more to say.
        sock.recv(1000)

    server = StreamServer(("127.0.0.1", 0), serve)
    server.start()
    began = time.process_time()
    with gevent.Timeout(10), pytest.raises(StoreUnavailable, match="an array of 1000000 elements or more"):
        fast_client(f"redis://127.0.0.1:{server.server_port}", foreign=True).ping()
    assert time.process_time() - began < 1
    server.stop()
