"""A webhook's stream: the mark moves once, nothing that waits is dropped, and one process holds it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from esl_apps.store import keys, redis_client, webhook_queue
from esl_apps.store.errors import Unreadable
from esl_apps.store.journal import entry
from esl_apps.store.outbox import Outbox
from esl_apps.store.webhook_queue import Waiting, WebhookQueue, for_webhook, kind_of
from tests.support.node import RedisServer

QUEUE = keys.webhook("acme", "crm")
STATE = keys.webhook_state(QUEUE)


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(server: RedisServer) -> RedisServer:
    return server


@pytest.fixture
def queue(store: RedisServer, clock: Clock) -> WebhookQueue:
    return WebhookQueue(redis_client.connect(store.url), "boot1", clock)


def push(store: RedisServer, at: float, count: int = 1) -> None:
    """Push entries as the outbox does, at a time of the test's."""
    for _ in range(count):
        seq = store.client.incr(keys.seq(QUEUE))
        text = json.dumps({"id": f"cdr_{seq}", "body": {"type": "cdr", "payload": {"seq": seq}}})
        store.client.xadd(QUEUE, {"seq": seq, "json": text}, id=f"{int(at * 1000)}-{seq}")


def seqs(queue: WebhookQueue, count: int = 100) -> list[int]:
    return [waiting.seq for waiting in queue.read(QUEUE, count).entries]


def deliver(queue: WebhookQueue, count: int) -> bool:
    state = queue.read(QUEUE, count)
    return queue.delivered(QUEUE, state.done, state.entries[-1], 200)


# Messages -------------------------------------------------------------------------------------------------


@pytest.fixture
def outbox(store: RedisServer, tmp_path: Path) -> Iterator[Outbox]:
    made = Outbox("test", tmp_path, redis_client.connect(store.url))
    made.start()
    yield made
    made.stop()


def test_message_is_the_notification_of_the_list(store: RedisServer, queue: WebhookQueue, outbox: Outbox) -> None:
    body: Any = {"type": "cdr", "payload": {"number": 'a"é', "call_ref": "0123"}}
    made = entry("0123", "enigma:notifications:cdr", body)
    assert kind_of(made) == "cdr"
    for _ in range(2):
        outbox.push(for_webhook(made, QUEUE))
    assert outbox.drain(5)
    (waiting,) = queue.read(QUEUE, 10).entries
    message = waiting.message()
    assert message.id == "cdr_0123"
    assert json.loads(bytes(message.body)) == {"type": "cdr", "payload": {**body["payload"], "seq": 1}}


def test_message_id_has_no_full_stop() -> None:
    """It separates what is signed."""
    made = for_webhook(entry("0123.session", "enigma:notifications:cdr", {"type": "session", "payload": {}}), QUEUE)
    assert made.id == "session_0123-session"


def test_deprecated_notification_has_no_type() -> None:
    assert kind_of(entry("0123", "enigma:notifications:c2d", {"notifications": []})) == ""


# The mark -------------------------------------------------------------------------------------------------


def test_what_was_delivered_is_not_read_again(store: RedisServer, queue: WebhookQueue, clock: Clock) -> None:
    push(store, clock.now, 3)
    assert deliver(queue, 2)
    assert seqs(queue) == [3]
    assert store.client.xlen(QUEUE) == 3


def test_mark_moves_from_where_it_was_expected_only(store: RedisServer, queue: WebhookQueue, clock: Clock) -> None:
    push(store, clock.now, 3)
    state = queue.read(QUEUE, 1)
    assert deliver(queue, 2)
    assert not queue.delivered(QUEUE, state.done, state.entries[0], 200)
    assert seqs(queue) == [3]


def test_failures_are_counted_until_a_delivery(store: RedisServer, queue: WebhookQueue, clock: Clock) -> None:
    push(store, clock.now, 2)
    assert queue.failed(QUEUE, 500, "status 500") == clock.now
    clock.now += 5
    assert queue.failed(QUEUE, None, "no answer") == clock.now - 5
    state = queue.read(QUEUE, 1)
    assert (state.failures, state.since) == (2, clock.now - 5)
    assert deliver(queue, 1)
    state = queue.read(QUEUE, 1)
    assert (state.failures, state.since) == (0, 0)


def test_old_delivered_entries_are_dropped(store: RedisServer, queue: WebhookQueue, clock: Clock) -> None:
    push(store, clock.now, 500)
    assert deliver(queue, 500)
    clock.now += webhook_queue.KEEP + 1
    push(store, clock.now, 2)
    assert deliver(queue, 1)
    queue.hold([QUEUE])
    assert store.client.xlen(QUEUE) == 2
    assert seqs(queue) == [502]


def test_webhook_that_is_idle_keeps_nothing_old(store: RedisServer, queue: WebhookQueue, clock: Clock) -> None:
    push(store, clock.now, 40)
    assert deliver(queue, 40)
    clock.now += webhook_queue.KEEP - 1
    queue.hold([QUEUE])
    assert store.client.xlen(QUEUE) == 40
    clock.now += 2
    assert queue.hold([QUEUE]) == [(0, 0, None)]
    assert store.client.xlen(QUEUE) == 0
    push(store, clock.now)
    assert seqs(queue) == [41]


@pytest.mark.parametrize("first", [0, 1])
def test_hold_drops_nothing_old_that_waits(store: RedisServer, queue: WebhookQueue, clock: Clock, first: int) -> None:
    """With the first entry of a millisecond, a replay begins behind the last one that the millisecond before had."""
    for seq in range(3):
        store.client.xadd(QUEUE, {"seq": seq, "json": "{}"}, id=f"{int(clock.now * 1000)}-{first + seq}")
    store.client.set(keys.seq(QUEUE), 3)
    assert deliver(queue, 3)
    queue.replay(QUEUE, clock.now)
    clock.now += webhook_queue.KEEP + 1
    queue.hold([QUEUE])
    assert seqs(queue) == [0, 1, 2]
    assert deliver(queue, 2)
    queue.hold([QUEUE])
    assert (seqs(queue), store.client.xlen(QUEUE)) == ([2], 1)


def test_delivered_entries_beyond_a_number_are_dropped(
    store: RedisServer, queue: WebhookQueue, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_queue, "KEPT", 10)
    push(store, clock.now, 1000)
    assert deliver(queue, 500)
    assert 510 <= store.client.xlen(QUEUE) < 710
    assert seqs(queue, 1000) == list(range(501, 1001))


def test_entries_that_wait_are_kept_however_old(store: RedisServer, queue: WebhookQueue, clock: Clock) -> None:
    push(store, clock.now, 500)
    clock.now += 2 * webhook_queue.KEEP
    assert deliver(queue, 1)
    assert seqs(queue, 1000) == list(range(2, 501))


def test_entries_that_were_set_aside_are_kept(
    store: RedisServer, queue: WebhookQueue, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_queue, "KEPT", 1)
    push(store, clock.now, 500)
    state = queue.read(QUEUE, 500)
    assert queue.set_aside(QUEUE, state.done, state.entries[-1], 500)
    push(store, clock.now, 2)
    assert deliver(queue, 1)
    assert store.client.xlen(QUEUE) == 502
    assert queue.describe([QUEUE])[0]["aside"] == "500"


@pytest.mark.parametrize("delivered", [True, False])
def test_webhook_is_forgotten_some_time_after_its_last_hold(
    store: RedisServer, queue: WebhookQueue, clock: Clock, delivered: bool
) -> None:
    """Also one that never delivered; and one that delivers nothing for as long keeps what waits."""
    all_keys = (QUEUE, STATE, keys.seq(QUEUE))
    push(store, clock.now)
    queue.hold([QUEUE])
    if delivered:
        assert deliver(queue, 1)
    else:
        queue.failed(QUEUE, 500, "status 500", pause=1)
    for _ in range(2):
        queue.hold([QUEUE])
        assert all(store.client.ttl(key) > 59 * 86400 for key in all_keys)
        for key in all_keys:
            store.client.expire(key, 10)


# Replay ---------------------------------------------------------------------------------------------------


def test_replay_goes_back_to_a_time(store: RedisServer, queue: WebhookQueue, clock: Clock) -> None:
    for offset in (0, 10, 20):
        push(store, clock.now + offset, 2)
    assert deliver(queue, 6)
    assert queue.replay(QUEUE, clock.now + 10) == 4
    assert seqs(queue) == [3, 4, 5, 6]
    assert queue.replay(QUEUE, clock.now) == 6
    assert seqs(queue) == [1, 2, 3, 4, 5, 6]


def test_replay_of_what_still_waits_skips_nothing(store: RedisServer, queue: WebhookQueue, clock: Clock) -> None:
    push(store, clock.now, 2)
    push(store, clock.now + 10, 2)
    assert deliver(queue, 1)
    assert queue.replay(QUEUE, clock.now + 10) == 3
    assert seqs(queue) == [2, 3, 4]


def test_replay_of_the_first_entry_of_a_millisecond(store: RedisServer, queue: WebhookQueue, clock: Clock) -> None:
    store.client.set(keys.seq(QUEUE), 1)
    text = json.dumps({"id": "x", "body": {}})
    store.client.xadd(QUEUE, {"seq": 1, "json": text}, id=f"{int(clock.now * 1000)}-0")
    assert deliver(queue, 1)
    assert queue.replay(QUEUE, clock.now) == 1
    assert seqs(queue) == [1]


def test_replay_stops_a_mark_that_is_on_its_way(store: RedisServer, queue: WebhookQueue, clock: Clock) -> None:
    push(store, clock.now, 3)
    assert deliver(queue, 2)
    state = queue.read(QUEUE, 1)
    assert queue.replay(QUEUE, clock.now) == 3
    assert not queue.delivered(QUEUE, state.done, state.entries[0], 200)
    assert seqs(queue) == [1, 2, 3]


def test_replay_switches_on_and_forgets_failures(store: RedisServer, queue: WebhookQueue, clock: Clock) -> None:
    push(store, clock.now)
    queue.failed(QUEUE, 410, "status 410", off="digest")
    assert queue.read(QUEUE, 1).off == "digest"
    assert queue.replay(QUEUE, clock.now + 99) == 1
    state = queue.read(QUEUE, 1)
    assert (state.off, state.failures, state.since) == ("", 0, 0)


# The lease ------------------------------------------------------------------------------------------------


def test_one_process_holds_a_webhook(store: RedisServer, queue: WebhookQueue, clock: Clock) -> None:
    other = WebhookQueue(redis_client.connect(store.url), "boot2", clock)
    push(store, clock.now, 3)
    assert queue.hold([QUEUE]) == [(3, 0, clock.now)]
    assert other.hold([QUEUE]) == [None]
    other.release(QUEUE)
    assert other.hold([QUEUE]) == [None]
    queue.release(QUEUE)
    assert other.hold([QUEUE]) == [(3, 0, clock.now)]


def test_next_run_of_a_node_holds_what_the_last_one_held(store: RedisServer, queue: WebhookQueue) -> None:
    assert queue.hold([QUEUE]) == [(0, 0, None)]
    following = WebhookQueue(redis_client.connect(store.url), "boot2", predecessor="boot1")
    assert following.hold([QUEUE]) == [(0, 0, None)]
    assert queue.hold([QUEUE]) == [None]


def test_lease_of_a_dead_process_ends(store: RedisServer, queue: WebhookQueue) -> None:
    assert queue.hold([QUEUE]) == [(0, 0, None)]
    assert 0 < store.client.pttl(keys.webhook_lease(QUEUE)) <= webhook_queue.LEASE * 1000


def test_oldest_entry_is_the_first_behind_the_mark(store: RedisServer, queue: WebhookQueue, clock: Clock) -> None:
    push(store, clock.now - 500)
    push(store, clock.now - 40, 2)
    assert queue.hold([QUEUE]) == [(3, 0, clock.now - 500)]
    deliver(queue, 1)
    assert queue.hold([QUEUE]) == [(2, 0, clock.now - 40)]
    deliver(queue, 2)
    assert queue.hold([QUEUE]) == [(0, 0, None)]


def test_process_that_lost_its_lease_notes_no_failure(store: RedisServer, queue: WebhookQueue, clock: Clock) -> None:
    queue.hold([QUEUE])
    other = WebhookQueue(redis_client.connect(store.url), "boot2", clock, predecessor="boot1")
    other.hold([QUEUE])
    assert queue.failed(QUEUE, 410, "gone", off="mark") is None
    state = other.read(QUEUE, 1)
    assert (state.failures, state.since, state.off) == (0, 0, "")
    assert other.failed(QUEUE, 500, "status 500") == clock.now


def test_webhook_whose_keys_are_broken_holds_up_no_other(store: RedisServer, queue: WebhookQueue) -> None:
    store.client.lpush(keys.webhook_state(QUEUE), "x")
    broken, fine = queue.hold([QUEUE, keys.webhook("acme", "other")])
    assert isinstance(broken, Exception)
    assert fine == (0, 0, None)


def test_description_has_depth_age_and_last_answer(store: RedisServer, queue: WebhookQueue, clock: Clock) -> None:
    queue.hold([QUEUE])
    push(store, clock.now - 60, 3)
    assert deliver(queue, 1)
    queue.failed(QUEUE, 503, "status 503")
    (found,) = queue.describe([QUEUE])
    assert (found["depth"], found["oldest_at"], found["status"]) == (2, clock.now - 60, "503")
    assert (found["boot"], found["error"]) == ("boot1", "status 503")
    assert queue.describe([keys.webhook("acme", "unused")])[0]["depth"] == 0


def test_entry_that_something_else_wrote_is_unreadable() -> None:
    with pytest.raises(Exception, match="truncated"):
        Waiting("1-1", 1, b"{").message()


@pytest.mark.parametrize(
    "fields",
    [
        {b"x": b"y"},
        {b"seq": b"x", b"json": b"{}"},
        {b"seq": b"1", b"json": b'{"id":"\xff","body":{}}'},
        {b"seq": b"1", b"json": b'{"id":"a\\r\\nx: y","body":{}}'},
    ],
    ids=["other-fields", "no-number", "no-utf8", "line-break"],
)
def test_entry_of_something_else_holds_up_no_other(
    store: RedisServer, queue: WebhookQueue, clock: Clock, fields: dict[bytes, bytes]
) -> None:
    push(store, clock.now)
    store.client.xadd(QUEUE, fields)
    first, garbage = queue.read(QUEUE, 10).entries
    assert first.message().id == "cdr_1"
    with pytest.raises(Unreadable):
        garbage.message()
    assert queue.delivered(QUEUE, "0-0", garbage, 200)
    push(store, 1_900_000_000.0)
    assert seqs(queue) == [2]


@pytest.mark.parametrize("key", [STATE, keys.seq(QUEUE), keys.webhook_lease(QUEUE), QUEUE])
def test_description_of_a_webhook_with_garbage_hides_no_other(
    store: RedisServer, queue: WebhookQueue, key: str
) -> None:
    other = keys.webhook("acme", "other")
    store.client.delete(key)
    store.client.sadd(key, "x")
    described = queue.describe([QUEUE, other])
    assert "WRONGTYPE" in described[0]["error"]
    assert described[1] == {"depth": 0, "oldest_at": None, "boot": ""}


def test_state_of_a_webhook_that_is_garbage_begins_again(store: RedisServer, queue: WebhookQueue) -> None:
    push(store, 1_800_000_000.0)
    for field in ("failures", "since", "next", "off", "seq"):
        store.client.hset(STATE, field, b"\xff")
    state = queue.read(QUEUE, 10)
    assert (state.failures, state.since, state.due, len(state.entries)) == (0, 0.0, 0.0, 1)
    store.client.set(keys.seq(QUEUE), b"\xff")
    store.client.set(keys.webhook_lease(QUEUE), b"\xff")
    assert queue.describe([QUEUE])[0]["depth"] == 0


def test_all_keys_of_a_webhook_are_on_one_slot() -> None:
    from redis.crc import key_slot

    slots: set[Any] = {
        key_slot(key.encode())
        for key in (QUEUE, STATE, keys.webhook_lease(QUEUE), keys.seq(QUEUE), keys.pushed(QUEUE, "x"))
    }
    assert len(slots) == 1
