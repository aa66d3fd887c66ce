"""The outbox against a real Redis that is down, slow, killed, emptied or cut off: each entry once, in order."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redispy
from gevent import sleep
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_apps.config.model import Integrator
from esl_apps.config.records import RecordsConfig
from esl_apps.core import notification, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.core.versions import Kind
from esl_apps.node import notification_lists
from esl_apps.store import journal as journal_module
from esl_apps.store import keys, redis_client
from esl_apps.store import outbox as outbox_module
from esl_apps.store.journal import Entry, Journal, entry
from esl_apps.store.outbox import Outbox
from tests.support.cluster import cluster_of_one
from tests.support.hung_disk import hung_disk
from tests.support.node import CDRS, RedisServer
from tests.support.ports import free_port
from tests.support.records import LIST, item
from tests.support.sentinel import SentinelServer


@pytest.fixture
def store(redis: RedisServer) -> RedisServer:
    """The session's Redis, empty."""
    redis.client.flushall()
    redis.client.script_flush()
    return redis


@pytest.fixture
def mortal() -> Iterator[RedisServer]:
    """A Redis of the test's own that keeps its data when it is killed."""
    server = RedisServer(persistent=True)
    yield server
    server.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "BACKOFF_FIRST", 0.01)
    monkeypatch.setattr(outbox_module, "BACKOFF_LAST", 0.05)
    monkeypatch.setattr(outbox_module, "LOOK_EVERY", 0.1)


def client(port: int, timeout: float = 0.3) -> redis_client.Client:
    return redis_client.connect(f"redis://127.0.0.1:{port}/0", timeout)


@pytest.fixture
def outboxes() -> Iterator[Callable[..., Outbox]]:
    """Make and start outboxes; the fixture stops them."""
    made: list[Outbox] = []

    def make(folder: Path, port: int, *, start: bool = True, on_pushed: Any = None, timeout: float = 0.3) -> Outbox:
        outbox = Outbox("test", folder, client(port, timeout), on_pushed)
        made.append(outbox)
        if start:
            outbox.start()
        return outbox

    yield make
    for outbox in made:
        with contextlib.suppress(OSError):
            outbox.stop()


def popped(server: RedisServer, list: str = LIST) -> list[tuple[str, int]]:
    """(call_ref, seq) in the order of BRPOP."""
    found = []
    while raw := server.client.rpop(list):
        payload = json.loads(raw)["payload"]
        found.append((payload["call_ref"], payload["seq"]))
    return found


def expected(count: int, first: int = 1) -> list[tuple[str, int]]:
    return [(f"id-{number}", number) for number in range(first, first + count)]


# One notification ----------------------------------------------------------------------------------------


def test_push_adds_seq_to_the_payload(store: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    body: Any = {"type": "cdr", "payload": {"number": None, "text": 'a"b\\u0000{"seq":0}}é', "seq_of": "x"}}
    outbox = outboxes(tmp_path, store.port)
    outbox.push(entry("one", LIST, body))
    assert outbox.drain(5)
    assert json.loads(store.client.rpop(LIST)) == {"type": "cdr", "payload": {**body["payload"], "seq": 1}}


def test_body_without_a_payload_is_pushed_as_it_is(store: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    body = {"notifications": [{"extension": "1000"}]}
    outbox = outboxes(tmp_path, store.port)
    outbox.push(entry("one", "enigma:notifications:c2d", body))
    assert outbox.drain(5)
    assert json.loads(store.client.rpop("enigma:notifications:c2d")) == body


# Streams -------------------------------------------------------------------------------------------------

STREAM = f"{LIST}:stream"


def stream_item(number: int, longest: int = 0) -> Entry:
    body = {"type": "cdr", "payload": {"call_ref": f"id-{number}"}}
    return entry(f"id-{number}", STREAM, body, "stream", longest=longest)


def streamed(server: RedisServer) -> list[tuple[str, int]]:
    """(call_ref, seq) of a stream's entries."""
    found = []
    for _id, fields in server.client.xrange(STREAM):
        payload = json.loads(fields["json"])["payload"]
        assert payload["seq"] == int(fields["seq"])
        found.append((payload["call_ref"], payload["seq"]))
    return found


def test_stream_entries_are_numbered_and_in_order(store: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    outbox = outboxes(tmp_path, store.port)
    for number in range(1, 6):
        outbox.push(stream_item(number))
    assert outbox.drain(5)
    assert streamed(store) == expected(5)
    assert set(store.client.xrange(STREAM)[0][1]) == {"seq", "json"}


def test_stream_takes_an_entry_once(store: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        outbox = outboxes(tmp_path / folder, store.port)
        outbox.push(stream_item(1))
        assert outbox.drain(5)
    assert streamed(store) == expected(1)


def test_stream_drops_the_oldest_beyond_its_length(store: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    outbox = outboxes(tmp_path, store.port)
    for number in range(1, 1001):
        outbox.push(stream_item(number, longest=10))
    assert outbox.drain(5)
    left = streamed(store)
    # Redis drops whole blocks of 100.
    assert 10 <= len(left) <= 200
    assert left == expected(len(left), 1001 - len(left))


def test_list_in_the_place_of_a_stream_gets_nothing(store: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    store.client.rpush(STREAM, "another's")
    outbox = outboxes(tmp_path, store.port)
    outbox.push(stream_item(1))
    assert not outbox.drain(0.1)
    assert outbox.refused.startswith(f"redis: {STREAM}: WRONGTYPE")
    store.client.delete(STREAM)
    assert outbox.drain(5)
    assert streamed(store) == expected(1)


def test_stream_that_redis_lost_is_pushed_again(store: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    outbox = outboxes(tmp_path, store.port)
    outbox.push(stream_item(1))
    assert outbox.drain(5)
    store.client.flushall()
    deadline = time.monotonic() + 5
    while not store.client.exists(STREAM) and time.monotonic() < deadline:
        sleep(0.02)
    assert streamed(store) == expected(1)


def ended() -> Attempt:
    one = Attempt(
        app="click-dial",
        integrator="acme",
        extension="1000",
        number="0820001234",
        dial_number="27115550000",
        call_dir="outbound",
        contact_ref="c",
    )
    one.dialled(1000.0)
    one.enter(terms.BRIDGED, 1005.0)
    one.end("answered", 16, "callee", 1010.0)
    return one


def integrator(**more: Any) -> Integrator:
    return Integrator(name="acme", listen="127.0.0.1:1", token="t", **more)


@pytest.mark.parametrize(
    ("one", "lists"),
    [
        (None, {LIST}),
        (integrator(), {LIST}),
        (integrator(legacy_c2d=True), {LIST, "enigma:notifications:c2d"}),
        (
            integrator(push="stream", legacy_c2d=True),
            {f"{LIST}:stream", "enigma:notifications:c2d:stream"},
        ),
    ],
)
def test_record_goes_to_the_lists_of_its_integrator(one: Integrator | None, lists: set[str]) -> None:
    record = ended().record
    assert record is not None
    assert {made.list for made in notification_lists.entries(record, one, RecordsConfig())} == lists


def test_record_has_its_integrators_form_words_and_side(store: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    record = ended().record
    assert record is not None
    outbox = outboxes(tmp_path, store.port)
    one = integrator(payload="v2", dispositions="teleforge", push="right", legacy_c2d=True)
    for made in notification_lists.entries(record, one, RecordsConfig()):
        outbox.push(made)
    assert outbox.drain(5)
    payload = json.loads(store.client.lpop(LIST))["payload"]
    assert (payload["ref"], payload["end_reason"], payload["outcome"]) == ("0820001234", "callee_hungup", "answered")
    assert "number" not in payload
    assert json.loads(store.client.lpop("enigma:notifications:c2d"))["notifications"][0]["disposition"] == "ANSWER"


@pytest.mark.parametrize(("payload", "field"), [("v3", "call_dir"), ("v2", "campaign_ref")])
def test_inbound_notification_has_the_integrators_form(payload: Any, field: str) -> None:
    made = notification_lists.answered(ended(), "1001", 4, integrator(payload=payload, push="right"), RecordsConfig())
    assert (made.list, made.side) == ("enigma:notifications:inbound", "right")
    assert json.loads(f"{made.head}7{made.tail}")["payload"][field] == "inbound"


def test_inbound_notification_goes_to_the_stream() -> None:
    made = notification_lists.answered(ended(), "1001", 4, integrator(push="stream", stream_length=50), RecordsConfig())
    assert (made.list, made.side, made.longest) == ("enigma:notifications:inbound:stream", "stream", 50)


# Order ---------------------------------------------------------------------------------------------------


def test_brpop_reads_the_oldest_first_and_seq_counts(store: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    outbox = outboxes(tmp_path, store.port)
    for number in range(1, 1001):
        outbox.push(item(number))
    assert outbox.drain(10)
    assert popped(store) == expected(1000)


def test_blpop_reads_the_oldest_first_if_pushed_right(store: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    outbox = outboxes(tmp_path, store.port)
    for number in range(1, 11):
        outbox.push(item(number, side="right"))
    assert outbox.drain(5)
    assert popped(store) == expected(10)[::-1]


def test_each_list_has_its_own_seq(store: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    outbox = outboxes(tmp_path, store.port)
    for number in range(1, 7):
        outbox.push(item(number, list=f"list-{number % 2}"))
    assert outbox.drain(5)
    assert popped(store, "list-1") == [("id-1", 1), ("id-3", 2), ("id-5", 3)]
    assert popped(store, "list-0") == [("id-2", 1), ("id-4", 2), ("id-6", 3)]


def test_entry_that_redis_refuses_holds_back_the_next(store: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    # Redis refuses the mark of id-2 alone; the rest of its batch could be pushed.
    allowed = [f"~*:done:id-{number}" for number in (1, 3, 4, 5)]
    store.client.execute_command("ACL", "SETUSER", "default", "resetkeys", "~enigma:*", "~*:seq", *allowed)
    try:
        outbox = outboxes(tmp_path, store.port, start=False)
        for number in range(1, 6):
            outbox.push(item(number))
        outbox.start()
        assert not outbox.drain(0.2)
    finally:
        store.client.execute_command("ACL", "SETUSER", "default", "allkeys")
    assert outbox.drain(5)
    assert popped(store) == expected(5)


# Exactly once --------------------------------------------------------------------------------------------


class CuttingProxy:
    """A proxy that forwards a push to Redis and cuts the connection before the answer."""

    def __init__(self, port: int, cuts: int) -> None:
        self._target = port
        self.cuts = cuts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _address = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                threading.Thread(target=self._serve, args=(near, far), daemon=True).start()

    def _serve(self, near: socket.socket, far: socket.socket) -> None:
        with near, far, contextlib.suppress(OSError):
            while data := near.recv(1 << 20):
                far.sendall(data)
                answer = far.recv(1 << 20)
                if b"EVALSHA" in data and self.cuts > 0:
                    self.cuts -= 1
                    return
                near.sendall(answer)

    def close(self) -> None:
        self._listener.close()


@pytest.mark.parametrize("count", [1, 50])
def test_push_whose_answer_was_lost_is_not_repeated(
    store: RedisServer, outboxes: Any, tmp_path: Path, count: int
) -> None:
    with contextlib.closing(CuttingProxy(store.port, cuts=3)) as proxy:
        outbox = outboxes(tmp_path, proxy.port, start=False, timeout=2.0)
        for number in range(1, count + 1):
            outbox.push(item(number))
        outbox.start()
        assert outbox.drain(10)
    assert proxy.cuts == 0
    assert popped(store) == expected(count)


def test_record_pushed_by_two_nodes_is_pushed_once(store: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    both = [outboxes(tmp_path / name, store.port) for name in ("one", "other")]
    for number in range(1, 101):
        for outbox in both:
            outbox.push(item(number))
        sleep(0)
    assert all(outbox.drain(5) for outbox in both)
    assert popped(store) == expected(100)


def test_record_popped_before_a_retry_is_not_pushed_again(store: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    for name in ("one", "other"):
        outbox = outboxes(tmp_path / name, store.port)
        outbox.push(item(1))
        assert outbox.drain(5)
        if name == "one":
            assert popped(store) == expected(1)
    assert popped(store) == []


def test_one_id_can_go_to_several_lists(store: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    outbox = outboxes(tmp_path, store.port)
    for name in ("a", "b"):
        outbox.push(item(1, list=name))
    assert outbox.drain(5)
    assert popped(store, "a") == popped(store, "b") == expected(1)


def test_script_that_redis_lost_is_sent_again(store: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    outbox = outboxes(tmp_path, store.port)
    for number in range(1, 31):
        outbox.push(item(number))
        if number % 10 == 5:
            assert outbox.drain(5)
            store.client.script_flush()
    assert outbox.drain(5)
    assert popped(store) == expected(30)


def test_list_of_the_wrong_type_loses_nothing(store: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    store.client.set(LIST, "somebody's")
    outbox = outboxes(tmp_path, store.port)
    outbox.push(item(1))
    outbox.push(item(2))
    assert not outbox.drain(0.2)
    store.client.delete(LIST)
    assert outbox.drain(5)
    assert popped(store) == expected(2)


def test_fault_of_on_pushed_stops_no_record(store: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    def told(_item: Entry) -> None:
        raise ValueError("a fault")

    outbox = outboxes(tmp_path, store.port, on_pushed=told)
    for number in range(1, 4):
        outbox.push(item(number))
        outbox.drain(1)
    assert outbox.drain(5)
    assert popped(store) == expected(3)


# Redis down ----------------------------------------------------------------------------------------------


def test_entries_pushed_while_redis_is_down_keep_their_order(
    mortal: RedisServer, outboxes: Any, tmp_path: Path
) -> None:
    outbox = outboxes(tmp_path, mortal.port)
    outbox.push(item(1))
    assert outbox.drain(5)
    mortal.kill()
    for number in range(2, 101):
        outbox.push(item(number))
    assert not outbox.drain(0.2)
    assert outbox.failing_since is not None
    mortal.start()
    assert outbox.drain(5)
    assert outbox.failing_since is None
    assert popped(mortal) == expected(100)


def test_redis_killed_repeatedly_gets_each_entry_once(mortal: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    outbox = outboxes(tmp_path, mortal.port)
    for number in range(1, 301):
        outbox.push(item(number))
        if number % 100 == 50:
            sleep(0.002)
            mortal.kill()
            mortal.start()
    assert outbox.drain(10)
    assert popped(mortal) == expected(300)


@pytest.fixture
def forgetful() -> Iterator[RedisServer]:
    """A Redis that loses its data when it is killed."""
    server = RedisServer()
    yield server
    server.close()


def until(done: Callable[[], object], within: float = 10.0) -> None:
    """Like ``eventually``, but lets this process's greenlets run."""
    end = time.monotonic() + within
    while not done():
        assert time.monotonic() < end
        sleep(0.02)


def raw_keys(server: RedisServer) -> list[str]:
    return list(server.client.scan_iter())


def looked(outbox: Outbox) -> None:
    """Let the outbox look at what its Redis holds."""
    outbox._look()


def test_lost_entries_are_pushed_again_and_taken_ones_not(
    forgetful: RedisServer, outboxes: Any, tmp_path: Path
) -> None:
    outbox = outboxes(tmp_path, forgetful.port)
    for number in range(1, 6):
        outbox.push(item(number))
    assert outbox.drain(5)
    assert [json.loads(forgetful.client.rpop(LIST))["payload"]["seq"] for _ in range(2)] == [1, 2]
    looked(outbox)
    forgetful.kill()
    outbox.push(item(6))
    forgetful.start()
    assert outbox.drain(5)
    until(lambda: forgetful.client.llen(LIST) == 4)
    assert sorted(ref for ref, _seq in popped(forgetful)) == ["id-3", "id-4", "id-5", "id-6"]


def test_entries_lost_unnoticed_are_pushed_again(forgetful: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    """Nothing was pushed while Redis was down, so no push failed."""
    outbox = outboxes(tmp_path, forgetful.port)
    for number in range(1, 4):
        outbox.push(item(number))
    assert outbox.drain(5)
    looked(outbox)
    forgetful.kill()
    forgetful.start()
    until(lambda: forgetful.client.llen(LIST) == 3)
    assert popped(forgetful) == expected(3)


def test_look_goes_on_as_another_list_gets_its_first_entry(
    forgetful: RedisServer, outboxes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = outboxes(tmp_path, forgetful.port)
    outbox.push(item(1))
    assert outbox.drain(5)
    taken = outbox._taken

    def meanwhile(name: str, side: str) -> int:
        outbox.push(item(2, list="another"))
        assert outbox.drain(5)
        seq: int = taken(name, side)
        return seq

    monkeypatch.setattr(outbox, "_taken", meanwhile)
    looked(outbox)


@pytest.mark.parametrize("garbage", ["type", "count"])
def test_list_that_is_garbage_holds_up_no_other_that_lost_some(
    forgetful: RedisServer, outboxes: Any, tmp_path: Path, garbage: str
) -> None:
    outbox = outboxes(tmp_path, forgetful.port)
    outbox.push(item(1, "broken"))
    outbox.push(item(2))
    assert outbox.drain(5)
    forgetful.kill()
    forgetful.start()
    if garbage == "type":
        forgetful.client.set("broken", "x")
    else:
        forgetful.client.rpush("broken", "x")
        forgetful.client.set(keys.seq("broken"), b"\xff")
        forgetful.client.set(keys.pushed("broken", "id-1"), "1")
    until(lambda: forgetful.client.llen(LIST) == 1)


def test_entries_that_redis_kept_are_not_pushed_again(mortal: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    outbox = outboxes(tmp_path, mortal.port)
    for number in range(1, 4):
        outbox.push(item(number))
    assert outbox.drain(5)
    looked(outbox)
    mortal.kill()
    mortal.start()
    outbox.push(item(4))
    assert outbox.drain(5)
    looked(outbox)
    assert popped(mortal) == expected(4)


def test_entries_lost_before_a_later_push_are_pushed(forgetful: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    """The later push has its mark, but what was pushed before is gone."""
    outbox = outboxes(tmp_path, forgetful.port)
    for number in range(1, 4):
        outbox.push(item(number))
    assert outbox.drain(5)
    forgetful.client.flushall()
    outbox.push(item(4))
    assert outbox.drain(5)
    looked(outbox)
    assert sorted(ref for ref, _seq in popped(forgetful)) == ["id-1", "id-2", "id-3", "id-4"]


def test_entries_of_an_older_copy_are_pushed_again(mortal: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    """Redis comes back from a dump: it has the first record, and another node has counted its seq on meanwhile."""
    mortal.client.config_set("appendonly", "no")
    outbox = outboxes(tmp_path, mortal.port)
    outbox.push(item(1))
    assert outbox.drain(5)
    copy = {key: mortal.client.dump(key) for key in raw_keys(mortal)}
    looked(outbox)
    outbox.push(item(2))
    assert outbox.drain(5)
    looked(outbox)
    mortal.client.flushall()
    for key, value in copy.items():
        mortal.client.restore(key, 0, value)
    mortal.client.incrby(keys.seq(LIST), 5)
    looked(outbox)
    assert [ref for ref, _seq in popped(mortal)] == ["id-1", "id-2"]


def test_mark_that_expired_pushes_nothing_again(
    forgetful: RedisServer, outboxes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = outboxes(tmp_path, forgetful.port)
    outbox.push(item(1))
    assert outbox.drain(5)
    looked(outbox)
    forgetful.client.delete(keys.pushed(LIST, "id-1"))
    monkeypatch.setattr(outbox_module, "TRUSTED", 0.0)
    looked(outbox)
    assert popped(forgetful) == expected(1)
    assert not outbox._kept[LIST]


def test_user_without_info_loses_no_entry(forgetful: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    """``+@all -@dangerous``, as hosted Redis has it."""
    rights = ["on", ">pw", "~*", "+@all", "-@dangerous"]
    forgetful.client.execute_command("ACL", "SETUSER", "node", *rights)
    outbox = Outbox("test", tmp_path, redis_client.connect(f"redis://node:pw@127.0.0.1:{forgetful.port}/0"))
    outbox.start()
    for number in range(1, 4):
        outbox.push(item(number))
    assert outbox.drain(5)
    assert forgetful.client.rpop(LIST)
    looked(outbox)
    assert [one.entry.id for one in outbox._kept[LIST]] == ["id-2", "id-3"]
    forgetful.kill()
    forgetful.start()
    forgetful.client.execute_command("ACL", "SETUSER", "node", *rights)
    until(lambda: forgetful.client.llen(LIST) == 2)
    assert [ref for ref, _seq in popped(forgetful)] == ["id-2", "id-3"]
    outbox.stop()


@pytest.mark.parametrize("missing", ["lpush", "set", "incr"])
def test_user_who_may_not_push_gets_no_entry_twice(
    store: RedisServer, outboxes: Any, tmp_path: Path, missing: str
) -> None:
    outbox = outboxes(tmp_path, store.port)
    store.client.execute_command("ACL", "SETUSER", "default", f"-{missing}")
    try:
        for number in range(1, 4):
            outbox.push(item(number))
        until(lambda: outbox.refused)
        assert outbox.refused == f"redis: {LIST}: NOPERM, its user lacks a right"
        assert not outbox.drain(0.1)
        assert store.client.llen(LIST) == 0
    finally:
        store.client.execute_command("ACL", "SETUSER", "default", "+@all")
    assert outbox.drain(5)
    assert popped(store) == expected(3)
    assert not outbox.refused


def test_entries_on_disk_or_taken_are_dropped_from_memory(
    mortal: RedisServer, outboxes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = outboxes(tmp_path, mortal.port)
    outbox.push(item(1))
    assert outbox.drain(5)
    looked(outbox)
    assert len(outbox._kept[LIST]) == 1
    monkeypatch.setattr(outbox_module, "SYNCED", 0.0)
    looked(outbox)
    assert not outbox._kept[LIST]


def test_entry_pushed_during_a_save_is_kept_after_it(outboxes: Any, tmp_path: Path) -> None:
    """The dump has what Redis had when the save began."""
    server = RedisServer()
    try:
        server.client.mset({f"filler-{number}": "" for number in range(11)})
        server.client.config_set("rdb-key-save-delay", 200_000)
        outbox = outboxes(tmp_path, server.port)
        server.client.bgsave()
        outbox.push(item(1))
        assert outbox.drain(5)
        until(lambda: not server.client.info("persistence")["rdb_bgsave_in_progress"])
        looked(outbox)
        server.kill()
        server.start()
        assert server.client.exists("filler-1")
        until(lambda: server.client.llen(LIST) == 1)
    finally:
        server.close()


class Saved:
    """A Redis without an append-only file that saved a second ago."""

    def __init__(self, status: str) -> None:
        self._status = status

    def masters(self) -> list[Saved]:
        return [self]

    def time(self) -> tuple[int, int]:
        return 1000, 0

    def info(self, _section: str) -> dict[str, Any]:
        saved = {"rdb_last_save_time": 999, "rdb_last_bgsave_time_sec": 30, "rdb_last_bgsave_status": self._status}
        return {"aof_enabled": 0, **saved}


@pytest.mark.parametrize(("status", "ago"), [("ok", 32), ("err", math.inf)])
def test_dump_is_as_old_as_the_begin_of_its_save(status: str, ago: float) -> None:
    assert time.monotonic() - outbox_module._durable(Saved(status)) == pytest.approx(ago, abs=1)


def test_redis_that_lost_all_twice_gets_its_entries_again(
    forgetful: RedisServer, outboxes: Any, tmp_path: Path
) -> None:
    """The second time before it has saved what it got again."""
    outbox = outboxes(tmp_path, forgetful.port)
    outbox.push(item(1))
    assert outbox.drain(5)
    until(lambda: len(outbox._kept.get(LIST, ())) == 1)
    (kept,) = outbox._kept[LIST]
    # As if it had been pushed before a save.
    kept.at, kept.last_at = kept.at - 3, kept.last_at - 3
    for _ in range(2):
        forgetful.kill()
        forgetful.start()
        until(lambda: forgetful.client.llen(LIST) == 1)
        looked(outbox)


def test_redis_with_replicas_keeps_entries_for_those_that_lag(
    mortal: RedisServer, outboxes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "SYNCED", 0.0)
    replica = RedisServer("--replicaof", "127.0.0.1", str(mortal.port))
    try:
        until(lambda: mortal.client.info("replication")["connected_slaves"])
        outbox = outboxes(tmp_path, mortal.port, start=False)
        outbox._keep(outbox._send([item(1)]))
        looked(outbox)
        replica.kill()
        looked(outbox)
        assert outbox._kept[LIST]
        monkeypatch.setattr(outbox_module, "LAG", 0.0)
        looked(outbox)
        assert not outbox._kept[LIST]
    finally:
        replica.close()


def test_replica_made_master_gets_what_it_lacks(outboxes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "SYNCED", 0.0)
    servers = SentinelServer()
    servers.master.client.config_set("appendonly", "yes")
    try:
        outbox = Outbox("test", tmp_path, redis_client.connect(servers.url))
        outbox.start()
        outbox.push(item(1))
        assert outbox.drain(5)
        looked(outbox)
        until(lambda: servers.replica.client.llen(LIST) == 1)
        # The replica gets nothing more, and the master acknowledges alone.
        assert servers.replica.process is not None
        servers.replica.process.send_signal(signal.SIGSTOP)
        servers.master.client.execute_command("CLIENT", "KILL", "TYPE", "replica")
        for number in range(2, 5):
            outbox.push(item(number))
        assert outbox.drain(5)
        looked(outbox)
        servers.master.kill()
        servers.replica.process.send_signal(signal.SIGCONT)
        servers.fail_over()
        until(lambda: servers.replica.client.llen(LIST) == 4, within=20)
        assert popped(servers.replica) == expected(4)
        outbox.stop()
    finally:
        servers.close()


def test_redis_silent_for_a_while_gets_each_entry_once(mortal: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    assert mortal.process is not None
    outbox = outboxes(tmp_path, mortal.port, timeout=0.1)
    outbox.push(item(1))
    assert outbox.drain(5)
    mortal.process.send_signal(signal.SIGSTOP)
    for number in range(2, 51):
        outbox.push(item(number))
    assert not outbox.drain(0.5)
    mortal.process.send_signal(signal.SIGCONT)
    assert outbox.drain(5)
    assert popped(mortal) == expected(50)


def test_redis_read_only_for_a_while_gets_each_entry_once(store: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    outbox = outboxes(tmp_path, store.port)
    store.client.replicaof("127.0.0.1", free_port())
    try:
        for number in range(1, 11):
            outbox.push(item(number))
        assert not outbox.drain(0.2)
    finally:
        store.client.replicaof("NO", "ONE")
    assert outbox.drain(5)
    assert popped(store) == expected(10)


def test_redis_full_for_a_while_gets_each_entry_once(store: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    outbox = outboxes(tmp_path, store.port)
    store.client.config_set("maxmemory", 1)
    try:
        for number in range(1, 11):
            outbox.push(item(number))
        assert not outbox.drain(0.2)
    finally:
        store.client.config_set("maxmemory", 0)
    assert outbox.drain(5)
    assert popped(store) == expected(10)


def test_push_does_not_wait_for_redis(outboxes: Any, tmp_path: Path) -> None:
    outbox = outboxes(tmp_path, free_port())
    began = time.monotonic()
    for number in range(1, 1001):
        outbox.push(item(number))
    assert time.monotonic() - began < 10
    assert outbox.depth == 1000


# A node that dies ----------------------------------------------------------------------------------------

_DYING = """
import os, signal, sys
from gevent import monkey
monkey.patch_all()
from pathlib import Path
from esl_apps.store import redis_client
from esl_apps.store.journal import Journal
from esl_apps.store.outbox import Outbox
from tests.support.records import item
when, folder, port = sys.argv[1:]
outbox = Outbox("test", Path(folder), redis_client.connect(f"redis://127.0.0.1:{port}/0"))
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if when == "pushed":
    Journal.finish = die
elif when == "sent":
    Outbox._send = die
for number in range(1, 11):
    outbox.push(item(number))
if when == "written":
    die()
outbox.start()
outbox.drain(10)
"""


@pytest.mark.parametrize("when", ["written", "sent", "pushed"])
def test_node_killed_around_its_push_pushes_each_record_once(
    store: RedisServer, outboxes: Any, tmp_path: Path, when: str
) -> None:
    dead = subprocess.run([sys.executable, "-c", _DYING, when, str(tmp_path), str(store.port)], check=False, timeout=30)
    assert dead.returncode == -signal.SIGKILL
    assert store.client.llen(LIST) == (10 if when == "pushed" else 0)
    outbox = outboxes(tmp_path, store.port)
    outbox.push(item(11))
    assert outbox.drain(5)
    assert popped(store) == expected(11)


def test_done_entries_are_not_pushed_to_an_emptied_redis(store: RedisServer, outboxes: Any, tmp_path: Path) -> None:
    outbox = outboxes(tmp_path, store.port)
    outbox.push(item(1))
    assert outbox.drain(5)
    outbox.stop()
    store.client.flushall()
    assert outboxes(tmp_path, store.port).drain(5)
    assert popped(store) == []


def test_second_process_of_one_name_is_refused(outboxes: Any, tmp_path: Path) -> None:
    outboxes(tmp_path, free_port())
    with pytest.raises(BlockingIOError, match="another process"):
        Journal(tmp_path)


# The disk ------------------------------------------------------------------------------------------------


def left(folder: Path) -> list[str]:
    """The undone entries that the next process finds."""
    journal = Journal(folder)
    journal.open()
    entries = journal.read(1_000_000)
    journal.close()
    return [one.id for one in entries]


def full_disk(monkeypatch: pytest.MonkeyPatch, *, short: bool) -> None:
    write = os.write

    def refuse(fd: int, data: bytes) -> int:
        if short:
            return write(fd, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.write", refuse)


@pytest.mark.parametrize("short", [False, True])
def test_full_disk_loses_no_record_of_a_living_node(
    store: RedisServer, outboxes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: bool
) -> None:
    outbox = outboxes(tmp_path, store.port)
    for number in range(1, 31):
        with monkeypatch.context() as within:
            if 10 < number <= 20:
                full_disk(within, short=short)
            outbox.push(item(number))
    assert outbox.drain(5)
    assert popped(store) == expected(30)


@pytest.mark.parametrize("short", [False, True])
def test_journal_works_again_after_a_full_disk(
    store: RedisServer, outboxes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: bool
) -> None:
    journal = Journal(tmp_path)
    journal.open()
    for number in range(1, 31):
        with monkeypatch.context() as within:
            if 10 < number <= 20:
                full_disk(within, short=short)
            with contextlib.suppress(OSError):
                journal.append(item(number))
    assert [one.id for one in journal.read(25)] == [f"id-{number}" for number in range(1, 26)]
    journal.finish(25)
    journal.close()
    assert left(tmp_path) == [f"id-{number}" for number in range(26, 31)]


def test_line_cut_by_a_power_loss_harms_no_later_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.open()
    journal.append(item(1))
    journal.close()
    (segment,) = tmp_path.glob("*.log")
    os.truncate(segment, segment.stat().st_size - 5)
    journal = Journal(tmp_path)
    journal.open()
    assert journal.read(10) == []
    journal.append(item(2))
    journal.close()
    assert left(tmp_path) == ["id-2"]


def test_damaged_line_costs_that_line_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.open()
    for number in range(1, 4):
        journal.append(item(number))
    journal.close()
    (segment,) = tmp_path.glob("*.log")
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(lines[0] + b"\0" * (len(lines[1]) - 1) + b"\n" + lines[2])
    assert left(tmp_path) == ["id-1", "id-3"]


def test_sync_includes_files_that_are_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[int] = set()
    monkeypatch.setattr(journal_module, "SEGMENT", 300)
    monkeypatch.setattr("os.fdatasync", lambda fd: synced.add(os.fstat(fd).st_ino))
    journal = Journal(tmp_path)
    journal.open()
    for number in range(1, 31):
        journal.append(item(number))
    journal.sync()
    files = [path for path in tmp_path.glob("*.log") if path.stat().st_size]
    assert len(files) > 3
    assert synced == {path.stat().st_ino for path in files}
    journal.close()


def test_files_whose_entries_are_done_are_removed(
    store: RedisServer, outboxes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SEGMENT", 2000)
    outbox = outboxes(tmp_path, store.port)
    for number in range(1, 501):
        outbox.push(item(number))
        if number % 50 == 0:
            assert outbox.drain(5)
    assert len(list(tmp_path.glob("*.log"))) <= 2
    assert popped(store) == expected(500)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 8)),
        st.tuples(st.just("read"), st.integers(0, 12)),
        st.tuples(st.just("finish"), st.integers(1, 8)),
        st.tuples(st.just("reopen"), st.booleans()),
        st.tuples(st.just("fail"), st.booleans()),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(steps=steps)
def test_journal_returns_undone_entries_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]]
) -> None:
    """``undone``: entries written and not finished. Only those that the disk refused may be missing."""
    folder = tmp_path_factory.mktemp("journal")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_module, "SEGMENT", 300)
        journal = Journal(folder)
        journal.open()
        undone: list[tuple[str, bool]] = []
        count = held = 0
        for what, how in steps:
            if what == "append":
                for _ in range(how):
                    count += 1
                    journal.append(item(count))
                    undone.append((f"id-{count}", True))
                    if count % 3 == 0 and journal.hold_newest():
                        held += 1
                        assert held == len(undone)
            elif what == "fail":
                count += 1
                with patch.context() as within, contextlib.suppress(OSError):
                    full_disk(within, short=how)
                    journal.append(item(count))
                undone.append((f"id-{count}", False))
            elif what == "finish":
                done = min(how, held)
                journal.finish(done)
                del undone[:done]
                held -= done
            elif what == "read":
                names = [one.id for one in journal.read(how)]
                assert names == [name for name, _written in undone[held : held + how]]
                held += len(names)
                assert journal.waiting == len(undone) - held
            else:
                journal.close()
                if how:
                    # A power loss in the middle of a line.
                    newest = max(folder.glob("*.log"), key=lambda path: int(path.stem))
                    with newest.open("ab") as file:
                        file.write(b'["half a li')
                journal = Journal(folder)
                journal.open()
                left = [one.id for one in journal.read(1_000)]
                assert left == [name for name, written in undone if written]
                undone = [(name, True) for name in left]
                held = len(left)
        journal.close()


# A cluster -----------------------------------------------------------------------------------------------


def test_lists_on_any_slot_of_a_cluster_are_pushed(tmp_path: Path) -> None:
    with cluster_of_one() as port:
        push_to_cluster(port, tmp_path)


def push_to_cluster(cluster: int, tmp_path: Path) -> None:
    outbox = Outbox("test", tmp_path / "outbox", redis_client.connect(f"redis+cluster://127.0.0.1:{cluster}"))
    lists = ["enigma:notifications:cdr", "enigma:notifications:inbound", "enigma:notifications:c2d"]
    for number in range(1, 31):
        outbox.push(item(number, list=lists[number % 3]))
    outbox.start()
    assert outbox.drain(5)
    outbox.push(item(31, list=lists[1]))
    assert outbox.drain(5)
    outbox.stop()
    control = redispy.RedisCluster("127.0.0.1", cluster)
    assert [control.llen(name) for name in lists] == [10, 11, 10]


def test_cluster_that_is_down_does_not_delay_the_start(tmp_path: Path) -> None:
    made = redis_client.connect(f"redis+cluster://127.0.0.1:{free_port()}")
    with pytest.raises(StoreUnavailable):
        made.ping()


def test_list_names_are_those_of_the_clients() -> None:
    assert CDRS == notification.CDR_LIST == "enigma:notifications:cdr"
    assert (notification.INBOUND_LIST, notification.C2D_LIST) == (
        "enigma:notifications:inbound",
        "enigma:notifications:c2d",
    )


# A Redis that stays away ----------------------------------------------------------------------------------


def test_outbox_keeps_a_window_in_memory(outboxes: Any, tmp_path: Path) -> None:
    outbox = outboxes(tmp_path, free_port(), start=False)
    for number in range(1, 10_001):
        outbox.push(item(number))
    assert outbox.depth == 10_000
    assert len(outbox._queue) <= outbox_module.WINDOW


def test_outbox_pushes_what_it_kept_on_disk_in_order(
    store: RedisServer, outboxes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "WINDOW", 10)
    monkeypatch.setattr(outbox_module, "BATCH", 7)
    monkeypatch.setattr(outbox_module, "READ", 15)
    monkeypatch.setattr(journal_module, "SEGMENT", 5000)
    first = outboxes(tmp_path, free_port(), start=False)
    for number in range(1, 501):
        first.push(item(number))
    first.stop()
    outbox = outboxes(tmp_path, store.port, start=False)
    assert (outbox.depth, len(outbox._queue)) == (500, 0)
    outbox.start()
    for number in range(501, 1001):
        outbox.push(item(number))
        if number % 50 == 0:
            sleep(0.001)
    assert outbox.drain(10)
    assert popped(store) == expected(1000)
    assert outbox.depth == 0


def test_outbox_full_disk_and_backlog_lose_no_entry(
    store: RedisServer, outboxes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "WINDOW", 5)
    monkeypatch.setattr(outbox_module, "UNWRITTEN", 8)
    outbox = outboxes(tmp_path, store.port, start=False)
    for number in range(1, 31):
        with monkeypatch.context() as within:
            if 10 < number <= 20:
                full_disk(within, short=False)
            outbox.push(item(number))
    assert outbox.overflows
    outbox.start()
    assert outbox.drain(5)
    assert popped(store) == expected(30)
    assert not outbox.overflows


def test_outbox_alerts_when_many_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "MANY", 10)
    alerts: list[tuple[str, Any]] = []

    def tell(kind: str, **details: Any) -> None:
        alerts.append((kind, details["waiting"]))

    outbox = Outbox("test", tmp_path, client(free_port()), tell=tell)
    for number in range(1, 151):
        outbox.push(item(number))
    assert alerts == [("records_waiting", 10), ("records_waiting", 100)]
    outbox.stop()


def test_outbox_full_disk_is_logged_once(
    outboxes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = outboxes(tmp_path, free_port(), start=False)
    with monkeypatch.context() as within:
        full_disk(within, short=False)
        for number in range(1, 6):
            outbox.push(item(number))
    assert caplog.messages.count("journal_not_written") == 1


def test_outbox_on_a_disk_that_fails_ends_all_the_same(
    outboxes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    outbox = outboxes(tmp_path, free_port(), start=False)
    with monkeypatch.context() as within:
        within.setattr(os, "fdatasync", fail)
        outbox.push(item(1))
        for _ in range(3):
            outbox._sync_once()
        outbox.stop()
    assert caplog.messages.count("journal_not_synced") == 1


def test_outbox_on_a_disk_that_hangs_ends_all_the_same(
    outboxes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "SYNC_PATIENCE", 0.05)
    outbox = outboxes(tmp_path, free_port())
    with hung_disk() as disk:
        monkeypatch.setattr(os, "fdatasync", disk.hang)
        outbox.push(item(1))
        until(lambda: disk.asked)
        outbox.stop()


# Other versions ---------------------------------------------------------------------------------------


def test_entry_two_versions_ahead_waits_with_all_behind_it(
    store: RedisServer, outboxes: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that was rolled back too far loses no record: its next run that can read the journal pushes them."""
    monkeypatch.setattr(journal_module, "JOURNAL_ENTRY", Kind("journal entry", version=3))
    ahead = outboxes(tmp_path, store.port, start=False)
    ahead.push(item(2))
    ahead.stop()
    monkeypatch.setattr(journal_module, "JOURNAL_ENTRY", Kind("journal entry"))
    back = outboxes(tmp_path, store.port)
    back.push(item(3))
    until(lambda: "journal_entry_refused" in caplog.messages)
    assert (back.depth, popped(store)) == (2, [])
    back.stop()
    monkeypatch.setattr(journal_module, "JOURNAL_ENTRY", Kind("journal entry", version=2))
    assert outboxes(tmp_path, store.port).drain(5)
    assert popped(store) == [("id-2", 1), ("id-3", 2)]
