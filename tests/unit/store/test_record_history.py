"""The records of the last days: kept once, found by time and by their fields, page by page, and dropped in time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from esl_apps.core.attempt import Attempt
from esl_apps.core.call_events import CallEvent
from esl_apps.core.reference import new_ref
from esl_apps.store import keys, record_history, redis_client
from esl_apps.store.call_events import START, EventStore
from esl_apps.store.errors import Fault
from esl_apps.store.outbox import Outbox
from esl_apps.store.record_history import Chosen, HistoryOutbox, RecordHistory
from tests.support.node import RedisServer
from tests.support.records import record_of

NOW = 1_700_000_000.0
ALL = Chosen()
EVENTS = [CallEvent(10, "call", '"state":"ended"'), CallEvent(11, "record", '"state":"ended"')]


def call(ref: str, integrator: str = "acme") -> Attempt:
    return Attempt(app="click-dial", call_dir="outbound", call_ref=ref, integrator=integrator or None)


@pytest.fixture
def outbox(client: Any, tmp_path: Path) -> Iterator[HistoryOutbox]:
    made = HistoryOutbox("history", tmp_path, client)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def keep(outbox: Outbox) -> Callable[..., str]:
    """Keep a record of a call that began at a time."""

    def keep(at: float = NOW, *, integrator: str = "acme", ref: str = "", **fields: Any) -> str:
        ref = ref or new_ref(at)
        attempt = call(ref, integrator)
        outbox.push(record_history.entry(attempt, EVENTS, record_of(ref, **fields), keep=True))
        assert outbox.drain(5)
        return ref

    return keep


def refs(client: Any, chosen: Chosen = ALL, limit: int = 100, integrator: str = "acme") -> list[str]:
    """All pages."""
    found: list[str] = []
    before: str | None = None
    while True:
        page, before = RecordHistory(client).page(integrator, chosen, limit, before)
        found += [record["call_ref"] for record in page]
        if before is None:
            return found


def test_history_has_the_latest_call_first(client: Any, keep: Any) -> None:
    older, newer = keep(NOW), keep(NOW + 1)
    keep(NOW, integrator="other")
    assert refs(client) == [newer, older]


def test_history_keeps_a_record_once(client: Any, keep: Any) -> None:
    ref = keep(number="1")
    keep(ref=ref, number="2")
    records, more = RecordHistory(client).page("acme", Chosen(), 10)
    assert ([record["number"] for record in records], more) == (["1"], None)
    assert len(EventStore(client).after("acme", START, 10)) == len(EVENTS)


def test_history_pages_without_gaps_or_repeats(client: Any, keep: Any) -> None:
    kept = [keep(NOW + number // 2) for number in range(7)]
    assert refs(client, limit=2) == sorted(kept, reverse=True)
    assert RecordHistory(client).page("acme", Chosen(), 7)[1] is None


def test_history_pages_while_calls_end_without_gaps_or_repeats(client: Any, keep: Any) -> None:
    """Also calls that began long ago and end between two pages, in front of the place or behind it."""
    kept = [keep(NOW + 10 * number) for number in range(6)]
    found: list[str] = []
    before: str | None = None
    late: list[str] = []
    for place in range(6):
        page, before = RecordHistory(client).page("acme", ALL, 1, before)
        found += [record["call_ref"] for record in page]
        late += [keep(NOW + 100 + place), keep(NOW + 10 * place + 5)]
    while before is not None:
        page, before = RecordHistory(client).page("acme", ALL, 1, before)
        found += [record["call_ref"] for record in page]
    assert found == sorted(found, reverse=True)
    assert len(found) == len(set(found))
    assert set(kept) <= set(found) <= {*kept, *late}


def test_history_finds_a_rare_record_in_few_round_trips(
    client: Any, keep: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = keep(NOW, number="1")
    for second in range(1, 100):
        keep(NOW + second, number="2")
    asked: list[int] = []

    def read(*args: Any, real: Any = client.zrevrangebylex) -> Any:
        asked.append(args[-1])
        return real(*args)

    monkeypatch.setattr(client, "zrevrangebylex", read)
    page, _before = RecordHistory(client).page("acme", Chosen(numbers=["1"]), 1)
    assert [record["call_ref"] for record in page] == [wanted]
    assert len(asked) < 6


def test_history_is_read_by_time(client: Any, keep: Any) -> None:
    keep(NOW - 0.001)
    first, last = keep(NOW), keep(NOW + 9.999)
    keep(NOW + 10)
    assert refs(client, Chosen(since=NOW, until=NOW + 10)) == [last, first]
    assert refs(client, Chosen(since=NOW, until=NOW + 10), limit=1) == [last, first]


@pytest.mark.parametrize(
    "chosen",
    [
        Chosen(fields=[("extension", "1000"), ("end_reason", "answered")]),
        Chosen(numbers=["0820001234"]),
        Chosen(numbers=["+27820001234"]),
        Chosen(metadata=[("lead", 'a"b')]),
    ],
    ids=["fields", "number", "e164", "metadata"],
)
def test_history_is_read_by_fields(client: Any, keep: Any, chosen: Chosen) -> None:
    keep(extension="1001", end_reason="answered", number="0820009999", metadata={"lead": "other", "x": 'a"b'})
    keep(extension=None, metadata=None, contact_ref="0820001234")
    wanted = keep(
        extension="1000",
        end_reason="answered",
        number="0820001234",
        number_e164="+27820001234",
        metadata={"lead": 'a"b'},
    )
    assert refs(client, chosen) == [wanted]


def test_history_looks_at_few_records_for_a_page(client: Any, keep: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_history, "SCAN", 2)
    wanted = keep(NOW, number="1")
    for second in range(1, 6):
        keep(NOW + second, number="2")
    page, before = RecordHistory(client).page("acme", Chosen(numbers=["1"]), 1)
    assert page == []
    assert before is not None
    assert refs(client, Chosen(numbers=["1"]), 1) == [wanted]


def test_history_decodes_few_records_in_vain(client: Any, keep: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter by ``metadata.end_reason=answered`` had each page decode 2,000 records."""
    monkeypatch.setattr(record_history, "SCAN", 22)
    refs_of = [keep(NOW + second, end_reason="answered", metadata={"x": "y"}) for second in range(5)]
    page, before = RecordHistory(client).page("acme", Chosen(metadata=[("end_reason", "answered")]), 100)
    assert (page, before) == ([], refs_of[3])


def test_history_drops_old_records(client: Any, keep: Any, server: RedisServer) -> None:
    keep(NOW)
    left = keep(NOW + 10)
    RecordHistory(client).trim(["acme", ""], 1, NOW + 10 + 86400)
    assert refs(client) == [left]
    assert 86400 < server.client.ttl(keys.history("acme")) <= 2 * 86400


def test_history_without_days_has_only_events(client: Any, outbox: HistoryOutbox) -> None:
    ref = new_ref(NOW)
    outbox.push(record_history.entry(call(ref), EVENTS, {"call_ref": ref}, keep=False))
    assert outbox.drain(5)
    assert refs(client) == []
    ended, record = EventStore(client).after("acme", START, 10)
    assert (ended.kind, json.loads(ended.json)["app"]) == (b"call", "click-dial")
    assert (record.kind, json.loads(record.json)) == (b"record", {"state": "ended", "call_ref": ref})


def test_history_refuses_a_key_of_another_type(client: Any, outbox: HistoryOutbox, server: RedisServer) -> None:
    server.client.set(keys.history("acme"), "another's")
    outbox.push(record_history.entry(call(new_ref(NOW)), EVENTS, {"a": 1}, keep=True))
    assert not outbox.drain(0.2)
    assert "WRONGTYPE" in outbox.refused
    server.client.delete(keys.history("acme"))
    assert outbox.drain(5)


def test_history_passes_over_what_it_cannot_read(client: Any, keep: Any, server: RedisServer) -> None:
    ref = keep(NOW)
    for member in (b"x", new_ref(NOW).encode() + b"{", new_ref(NOW).encode() + b"[]"):
        server.client.zadd(keys.history("acme"), {member: 0})
    assert refs(client) == [ref]


def test_history_of_another_type_leaves_others_to_be_trimmed(client: Any, keep: Any) -> None:
    keep(NOW, integrator="zulu")
    client.set(keys.history("acme"), "x")
    with pytest.raises(Fault):
        RecordHistory(client).trim(["acme", "zulu"], 1, NOW + 2 * 86400)
    assert refs(client, integrator="zulu") == []


@pytest.mark.parametrize("right", ["zadd", "xadd", "incr"])
def test_history_of_a_user_without_a_right_loses_nothing(tmp_path: Path, right: str) -> None:
    """The mark was set first: with ZADD or XADD refused, the record was in no history, and its events nowhere."""
    own = RedisServer()
    try:
        admin = redis_client.connect(own.url)
        own.client.execute_command("ACL", "SETUSER", "node", "on", ">p", "~*", "+@all", f"-{right}")
        outbox = HistoryOutbox("history", tmp_path, redis_client.connect(own.url.replace("://", "://node:p@")))
        outbox.start()
        ref = new_ref(NOW)
        outbox.push(record_history.entry(call(ref), EVENTS, record_of(ref), keep=True))
        assert not outbox.drain(0.5)
        own.client.execute_command("ACL", "SETUSER", "node", f"+{right}")
        assert outbox.drain(10)
        outbox.stop()
        assert refs(admin) == [ref]
        assert [stored.kind for stored in EventStore(admin).after("acme", START, 10)] == [b"call", b"record"]
    finally:
        own.close()
