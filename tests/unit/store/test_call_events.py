"""The events of calls in Redis: once, in order, none lost while Redis is away or when the call ends meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from esl_apps.core import call_events, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.call_events import CallEvent, Noted
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store import event_writer, keys, record_history, script
from esl_apps.store.call_events import START, Comparison, EventStore, read_id, text_of
from esl_apps.store.event_writer import LINGER, EventWriter
from esl_apps.store.record_history import HistoryOutbox
from tests.support.node import RedisServer

NOW = 1_700_000_000.0


def call(integrator: str | None = "acme") -> Attempt:
    return Attempt(app="click-dial", call_dir="outbound", integrator=integrator)


def event(rank: int, kind: str = "call") -> CallEvent:
    return CallEvent(rank, kind, f'"rank":{rank}')


def listened(client: Any, *integrators: str) -> EventWriter:
    """A writer of a process that knows that a client listens."""
    writer = EventWriter(client)
    writer.note_listening(integrators or ["acme"])
    return writer


def data(client: Any, integrator: str = "acme") -> list[dict[str, Any]]:
    return [json.loads(stored.json) for stored in EventStore(client).after(integrator, START, 1000)]


def ranks(client: Any, integrator: str = "acme") -> list[int]:
    return [fields["rank"] for fields in data(client, integrator)]


def end(client: Any, folder: Path, attempt: Attempt, *events: Noted) -> None:
    outbox = HistoryOutbox("history", folder, client)
    outbox.start()
    outbox.push(record_history.entry(attempt, events, {"call_time": 7}, keep=True))
    assert outbox.drain(5)
    outbox.stop()


def test_writer_writes_events_in_order(client: Any) -> None:
    writer, first, second, none = listened(client, "acme", ""), call(), call(), call(None)
    for rank in (0, 2, 4):
        writer.add(first, event(rank))
    writer.add(second, event(0))
    writer.add(none, event(0))
    writer.flush()
    assert (ranks(client), ranks(client, "")) == ([0, 2, 4, 0], [0])
    assert writer.take(first.call_ref) == []


def test_writer_repeats_nothing_that_redis_has(client: Any, connect: Any) -> None:
    """Its answer was lost, or another node has written it."""
    attempt = call()
    for writer in (listened(client), listened(connect())):
        writer.add(attempt, event(0))
        writer.add(attempt, event(2))
        writer.flush()
    late = listened(client)
    late.add(attempt, event(0))
    late.flush()
    assert ranks(client) == [0, 2]


def test_writer_without_a_listener_writes_nothing(client: Any) -> None:
    writer, attempt = listened(client, "other"), call()
    writer.add(attempt, event(0))
    writer.flush()
    assert ranks(client) == []
    writer.note_listening(["acme"])
    writer.flush()
    assert ranks(client) == [0]


@pytest.mark.parametrize(("name", "until"), [(b"x", b"garbage"), (b"\xff", b"9e9"), (b"x", b"nan"), (b"x", b"")])
def test_listeners_that_are_garbage_silence_no_other(client: Any, name: bytes, until: bytes) -> None:
    client.hset(keys.LISTENERS, name, until)
    writer, attempt = listened(client), call()
    writer.add(attempt, event(0))
    writer.flush()
    assert ranks(client) == [0]


def test_writer_hears_of_listeners_of_other_nodes(client: Any, connect: Any) -> None:
    now = [NOW]
    writer, attempt = EventWriter(client, lambda: now[0]), call()
    writer.look()
    writer.add(attempt, event(0))
    EventWriter(connect(), lambda: NOW).note_listening(["acme"])
    writer.look()
    writer.flush()
    assert ranks(client) == [0]
    now[0] += LINGER + 1
    writer.look()
    writer.add(attempt, event(2))
    writer.flush()
    assert ranks(client) == [0]
    assert client.hgetall(keys.LISTENERS) == {}


def test_writer_writes_what_other_processes_go_on_with(client: Any) -> None:
    writer, attempt, left = EventWriter(client), call(), call()
    writer.add(attempt, event(0))
    writer.add(left, event(2))
    writer.release(attempt.call_ref)
    writer.flush()
    assert ranks(client) == [0]
    writer.stop()
    assert ranks(client) == [0, 2]


def test_writer_keeps_what_redis_does_not_take(away: Any) -> None:
    writer, attempt = EventWriter(away), call()
    writer.add(attempt, event(0))
    writer.release(attempt.call_ref)
    with pytest.raises(StoreUnavailable):
        writer.flush()
    assert writer.take(attempt.call_ref) == [event(0)]


def test_end_of_a_call_carries_its_unwritten_events(client: Any, tmp_path: Path) -> None:
    attempt, writer = call(), listened(client)
    writer.add(attempt, event(0))
    writer.flush()
    writer.add(attempt, event(2))
    end(client, tmp_path, attempt, *writer.take(attempt.call_ref), event(10), event(11, "record"))
    writer.flush()
    assert ranks(client) == [0, 2, 10, 11]


def test_events_behind_the_end_of_a_call_are_dropped(client: Any, tmp_path: Path) -> None:
    """A process was stopped, another one saw the end, and the first goes on."""
    attempt, stopped = call(), listened(client)
    end(client, tmp_path, attempt, event(10), event(11, "record"))
    stopped.add(attempt, event(8))
    stopped.flush()
    assert ranks(client) == [10, 11]


def test_event_that_is_taken_while_it_is_written_comes_once(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt, writer = call(), listened(client)
    taken: list[Noted] = []

    def write_late(*args: Any, **options: Any) -> list[Any]:
        taken.extend(writer.take(attempt.call_ref))
        end(client, tmp_path, attempt, *taken, event(10))
        return script.run_all(*args, **options)

    monkeypatch.setattr(event_writer, "run_all", write_late)
    writer.add(attempt, event(0))
    writer.flush()
    assert (taken, ranks(client)) == ([event(0)], [0, 10])


def test_writer_says_once_that_a_key_is_of_another_type(
    client: Any, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.client.set(keys.events(keys.history("acme")), "another's")
    writer = listened(client, "acme", "other")
    for _ in range(2):
        writer.add(call(), event(0))
        writer.add(call("other"), event(0))
        writer.flush()
    assert caplog.messages == ["events_refused"]
    assert ranks(client, "other") == [0, 0]


def test_events_have_the_call_and_its_record(client: Any, tmp_path: Path) -> None:
    attempt = Attempt(app="click-dial", call_dir="outbound", integrator="acme", extension="1000", contact_ref="a\nb")
    events: list[Noted] = [attempt.timeline[0]]
    attempt.enter(terms.BRIDGED, attempt.queued_at + 1)
    events.append(call_events.of_answer(attempt, 3))
    attempt.end(terms.ANSWERED, 16, terms.AGENT, attempt.queued_at + 2)
    assert attempt.record is not None
    events += [call_events.of_end(attempt.record, attempt.timeline[-1].at), call_events.of_record(attempt.record)]
    end(client, tmp_path, attempt, *events)
    queued, inbound, ended, record = data(client)
    shared = {"call_ref": attempt.call_ref, "contact_ref": "a\nb", "agent": "1000"}
    assert shared.items() <= queued.items()
    assert (queued["state"], queued["at"]) == ("queued", attempt.timeline[0].at)
    assert (inbound["state"], inbound["hold_time"]) == ("bridged", 3)
    assert (ended["state"], ended["end_reason"], ended["end_code"]) == ("ended", "answered", 16)
    assert (record["state"], record["agent"], record["call_time"]) == ("ended", "1000", 7)


def test_events_are_read_behind_an_id(client: Any) -> None:
    store, writer, attempt = EventStore(client), listened(client), call()
    assert store.compare("acme", START) == Comparison(None, False)
    for rank in (0, 2, 4):
        writer.add(attempt, event(rank))
    writer.flush()
    first, second, third = store.after("acme", START, 10)
    assert store.after("acme", first.id, 1) == [second]
    assert store.after_each([("acme", second.id), ("other", START)], 10) == [[third], []]
    assert store.compare("acme", second.id) == Comparison(third.id, True)
    assert store.compare("acme", (second.id[0] - 1, 0)) == Comparison(third.id, False)


def test_events_stay_for_more_than_an_hour(client: Any, server: RedisServer) -> None:
    writer = listened(client)
    writer.add(call(), event(0))
    writer.flush()
    assert 3600 < server.client.ttl(keys.events(keys.history("acme"))) <= 4200


@pytest.mark.parametrize("text", ["", "1", "a-1", "1-", "-1", "1-1-1", "\u0663-1", "1" * 30 + "-0", "1-1\n"])
def test_id_that_is_none_of_ours_is_not_read(text: str) -> None:
    assert read_id(text) is None


def test_id_is_read_as_it_was_written() -> None:
    assert read_id(text_of((1700000000000, 3))) == (1700000000000, 3)
