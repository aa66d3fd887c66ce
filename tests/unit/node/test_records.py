"""A call's traces: in the call log and Redis while it lives, in the outbox at its end."""

from __future__ import annotations

import json
import time
import wave
from pathlib import Path
from typing import Any

import gevent
import pytest

from esl_apps.apps.legs import recording_path
from esl_apps.core import terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.call_fields import Before
from esl_apps.core.notification import C2D_LIST, CDR_LIST, INBOUND_LIST
from esl_apps.node.record_expiry import RecordExpiry
from esl_apps.process.folder import Folder
from esl_apps.store import keys
from esl_apps.store.call_events import START, EventStore
from esl_apps.store.journal import Entry
from esl_apps.store.record_history import Chosen
from tests.support.bench import DID, Bench, Build
from tests.support.call_switch import AT
from tests.support.hung_disk import hung_disk
from tests.support.peer import eventually

ACME = {"name": "acme", "listen": "127.0.0.1:8300", "token": "acme-token-for-tests", "caller_ids": [DID]}


def begin(bench: Bench, **fields: Any) -> Attempt:
    attempt = Attempt(**{"app": "click-dial", "call_dir": "internal", "integrator": "acme", **fields})
    bench.services.calls.begin(attempt, bench.services.switches[0])
    return attempt


def left(bench: Bench) -> list[str]:
    """The calls that the next run would find in the call log."""
    return [call.call_ref for call in bench.services.call_log._read()]


def answered(attempt: Attempt) -> None:
    attempt.enter(terms.BRIDGED, AT + 3.0)
    attempt.end(terms.ANSWERED, 16, terms.AGENT, AT + 9.0)


def metric(bench: Bench, name: str, **labels: str) -> float | None:
    value: float | None = bench.services.metrics.registry.get_sample_value(name, labels)
    return value


def test_records_call_is_in_the_call_log_before_redis(build: Build) -> None:
    bench = build()
    attempt = begin(bench)
    assert left(bench) == [attempt.call_ref]
    assert not bench.redis_server.client.exists(keys.call(attempt.call_ref))
    bench.flush()
    assert json.loads(str(bench.redis_server.client.get(keys.call(attempt.call_ref))))["state"] == terms.QUEUED


def test_records_ended_call_is_struck_after_its_record_is_kept(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the two, the next run finds it in both, and Redis takes the record once."""
    bench = build()
    attempt = begin(bench)
    seen: list[list[str]] = []
    outbox = bench.services.outboxes.of("acme")
    push = outbox.push

    def pushed(item: Entry) -> None:
        push(item)
        seen.append(left(bench))

    monkeypatch.setattr(outbox, "push", pushed)
    answered(attempt)
    assert (seen, left(bench)) == ([[attempt.call_ref]], [])
    assert bench.record()["call_ref"] == attempt.call_ref
    assert metric(bench, "esl_apps_calls_total", app="click-dial", end_reason="answered") == 1.0
    assert metric(bench, "esl_apps_end_codes_total", app="click-dial", end_code="16") == 1.0


def test_records_session_with_a_record_gets_no_empty_one(build: Build) -> None:
    bench = build()
    attempt = begin(bench, follows=True)
    attempt.end(terms.ABANDONED, 16, terms.AGENT, AT)
    assert (bench.records(), left(bench)) == ([], [])
    dialled = begin(bench, app="disa", follows=True, number="0820001234")
    answered(dialled)
    assert bench.record()["call_ref"] == dialled.call_ref
    # Outside a session the number says nothing: it is known before a phone rings.
    begin(bench, follows=True, number="0820001234").end(terms.LOST, 31, terms.SYSTEM, AT)
    assert bench.records() == []


@pytest.mark.parametrize("reason", [terms.ABANDONED, terms.REJECTED])
def test_records_session_is_closed_after_its_last_record(build: Build, reason: str) -> None:
    bench = build(records={"session_records": True})
    first = begin(bench, app="disa", integrator=None, number="0820001234", closes=False)
    answered(first)
    last = begin(
        bench, app="disa", integrator=None, session_ref=first.call_ref, follows=True, before=Before(1, 0.0, 6.0)
    )
    last.end(reason, 16, terms.AGENT, AT + 12.0)
    record, entry = bench.records()
    assert (record["call_ref"], "calls" in record) == (first.call_ref, False)
    assert (entry["session_ref"], entry["calls"]) == (first.call_ref, 1)
    assert (record["seq"], entry["seq"]) == (1, 2)
    assert left(bench) == []


def test_records_session_has_no_closing_entry_by_default(build: Build) -> None:
    bench = build()
    answered(begin(bench))
    assert "calls" not in bench.record()


@pytest.mark.parametrize("exists", [True, False])
def test_records_recording_is_named_if_it_exists(build: Build, exists: bool, caplog: pytest.LogCaptureFixture) -> None:
    bench = build()
    attempt = begin(bench)
    attempt.recording_url = f"{attempt.call_ref}.wav"
    if exists:
        file = Path(recording_path(bench.config.recordings.dir, "acme", attempt.recording_url))
        file.parent.mkdir(parents=True)
        file.touch()
    answered(attempt)
    assert bench.record()["recording_url"] == (f"{attempt.call_ref}.wav" if exists else None)
    assert ("recording_missing" in caplog.messages) is not exists


def test_records_recording_is_measured(build: Build) -> None:
    bench = build(integrators=[{**ACME, "payload": "v4"}])
    attempt = begin(bench)
    attempt.recording_url = f"{attempt.call_ref}.wav"
    file = Path(recording_path(bench.config.recordings.dir, "acme", attempt.recording_url))
    file.parent.mkdir(parents=True)
    with wave.open(str(file), "wb") as wav:
        wav.setparams((2, 2, 8000, 0, "NONE", ""))
        wav.writeframes(bytes(32000))
    answered(attempt)
    found = bench.record()["recording"]
    assert len(found.pop("sha256")) == 64
    assert found == {"seconds": 1.0, "bytes": 32044, "channels": 2, "rate": 8000}


def test_records_of_a_closed_node_write_nothing(build: Build) -> None:
    bench = build()
    attempt = begin(bench)
    bench.services.records.closed = True
    attempt.save()
    assert bench.services.records.has_recording(attempt)
    bench.flush()
    assert left(bench) == [attempt.call_ref]


def test_records_of_all_live_calls_are_written_again_to_redis(build: Build) -> None:
    """Redis came back, perhaps without what it was told last."""
    bench = build()
    attempt = begin(bench)
    bench.flush()
    bench.redis_server.client.flushall()
    bench.redis.break_after(0)
    bench.services.store.watch.check()
    bench.redis.mend()
    bench.services.store.watch.check()
    bench.flush()
    assert bench.redis_server.client.exists(keys.call(attempt.call_ref))
    assert bench.redis_server.client.hexists(keys.live(bench.services.membership.boot), attempt.call_ref)


def test_records_time_to_ring_is_that_of_the_first_phone(build: Build) -> None:
    bench = build()
    attempt = begin(bench, queued_at=AT + 0.0)
    attempt.enter(terms.AGENT_RINGING, AT + 2.0)
    attempt.enter(terms.AGENT_ANSWERED, AT + 3.0)
    attempt.enter(terms.CALLEE_RINGING, AT + 9.0)
    assert metric(bench, "esl_apps_time_to_ring_seconds_sum", app="click-dial") == 2.0


def test_records_answered_inbound_call_is_announced(build: Build) -> None:
    bench = build()
    attempt = begin(bench, app="inbound", number="+27825556666", dial_number=DID)
    bench.services.records.announce(attempt, "1000", 7)
    (found,) = bench.pushed(INBOUND_LIST)
    assert found["hold_time"] == 7


def test_records_of_a_second_redis_and_list_go_there(build: Build, tmp_path: Path) -> None:
    bench = build(integrators=[{**ACME, "legacy_c2d": True}])
    answered(begin(bench))
    outbox = bench.services.outboxes.of("acme")
    assert [entry.list for lane in outbox for entry in lane._queue] == [CDR_LIST, C2D_LIST]


# A folder of recordings that hangs -----------------------------------------------------------------------


def test_records_recording_in_a_folder_that_hangs_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = begin(bench)
    attempt.recording_url = f"{attempt.call_ref}.wav"
    monkeypatch.setattr(bench.services.records, "_recordings", Folder("recordings", patience=0.01))
    with hung_disk() as disk:
        monkeypatch.setattr("esl_apps.node.records.os.path.exists", disk.hang)
        answered(attempt)
    assert bench.record()["recording_url"] == f"{attempt.call_ref}.wav"


def test_records_call_that_ends_twice_meanwhile_has_one(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for the recording lets other greenlets run."""
    attempt = begin(bench)
    attempt.recording_url = f"{attempt.call_ref}.wav"
    with hung_disk() as disk:
        monkeypatch.setattr("esl_apps.node.records.os.path.exists", disk.before(lambda _path: True))
        first = gevent.spawn(answered, attempt)
        eventually(lambda: disk.asked)
        second = gevent.spawn(answered, attempt)
        eventually(lambda: disk.asked == 2)
    gevent.joinall([first, second], raise_error=True)
    assert len(bench.records()) == 1


# Events and history ---------------------------------------------------------------------------------------


def events(bench: Bench, integrator: str = "acme") -> list[tuple[str, str]]:
    """Kind and state of each event, once all is written."""
    bench.services.event_writer.note_listening([integrator])
    bench.services.event_writer.flush()
    bench.records()
    stored = EventStore(bench.services.redis).after(integrator, START, 1000)
    return [(event.kind.decode(), json.loads(event.json)["state"]) for event in stored]


def test_records_make_an_event_of_each_state(build: Build) -> None:
    bench = build()
    attempt = begin(bench, extension="1000")
    attempt.enter(terms.AGENT_RINGING, AT + 1)
    attempt.enter(terms.AGENT_ANSWERED, AT + 2)
    assert events(bench) == [("call", "queued"), ("call", "agent_ringing"), ("call", "agent_answered")]
    attempt.enter(terms.CALLEE_RINGING, AT + 3)
    answered(attempt)
    rest = [("call", "callee_ringing"), ("call", "bridged"), ("call", "ended"), ("record", "ended")]
    assert events(bench)[3:] == rest
    last = EventStore(bench.services.redis).after("acme", START, 1000)[-1]
    data = json.loads(last.json)
    assert (data["call_ref"], data["agent"], data["end_reason"]) == (attempt.call_ref, "1000", "answered")


def test_records_make_an_event_of_an_inbound_answer(build: Build) -> None:
    bench = build()
    attempt = begin(bench, app="inbound", extension="1000")
    attempt.enter(terms.AGENT_RINGING, AT + 1)
    attempt.enter(terms.BRIDGED, AT + 2)
    bench.services.records.announce(attempt, "1000", 2)
    assert events(bench)[1:] == [("call", "agent_ringing"), ("call", "bridged"), ("inbound", "bridged")]


def test_records_adopted_call_goes_on_with_its_events(build: Build) -> None:
    first = build()
    attempt = begin(first)
    attempt.enter(terms.AGENT_ANSWERED, AT + 2)
    first.flush()
    events(first)
    # Killed before this was written.
    attempt.enter(terms.BRIDGED, AT + 3)
    essence = first.services.calls.live[attempt.call_ref].essence
    second = build(name="app2", known=first.switches)
    adopted = second.services.calls.adopt(essence, second.services.switches[0]).attempt
    adopted.end(terms.ANSWERED, 16, terms.AGENT, AT + 9)
    assert [state for _kind, state in events(second)] == ["queued", "agent_answered", "bridged", "ended", "ended"]


@pytest.mark.parametrize("state", terms.STATES[1:-1])
def test_records_adopted_in_any_state_are_kept(build: Build, state: str) -> None:
    first = build()
    attempt = begin(first, app="inbound", number="0820001234")
    attempt.enter(state, AT + 2)
    first.flush()
    essence = first.services.calls.live[attempt.call_ref].essence
    second = build(name="app2", known=first.switches)
    adopted = second.services.calls.adopt(essence, second.services.switches[0]).attempt
    adopted.end(terms.LOST, 31, terms.SYSTEM, AT + 9)
    assert events(second)[-2:] == [("call", "ended"), ("record", "ended")]
    (record,), _more = second.services.record_history.page("acme", Chosen(), 10)
    assert record["call_ref"] == attempt.call_ref


def test_records_session_without_a_record_still_ends(build: Build) -> None:
    bench = build()
    begin(bench, follows=True).end(terms.ABANDONED, 16, terms.AGENT, AT)
    assert events(bench) == [("call", "queued"), ("call", "ended")]
    assert bench.services.record_history.page("acme", Chosen(), 10) == ([], None)


def test_records_of_strangers_are_kept_in_a_bounded_number(
    build: Build, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("esl_apps.node.records.REFUSED_PER_HOUR", 2)
    bench = build()
    for number in range(4):
        begin(bench, app="disa", integrator=None).end(terms.REJECTED, 21, terms.SYSTEM, AT + number)
    begin(bench, app="disa", integrator=None, number="0820001234").end(terms.ANSWERED, 16, terms.AGENT, AT)
    bench.records()
    records, _more = bench.services.record_history.page("", Chosen(), 10)
    assert sorted(record["end_reason"] for record in records) == ["answered", "rejected", "rejected"]
    assert [getattr(line, "what", "") for line in caplog.records] == ["record"]


def test_records_of_sessions_do_not_use_up_the_quota(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each caller who hangs up at the dial tone after a talk was counted as a stranger."""
    for module in ("node.records", "store.calls"):
        monkeypatch.setattr(f"esl_apps.{module}.REFUSED_PER_HOUR", 2)
    bench = build()
    for _ in range(3):
        first = begin(bench, app="disa", integrator=None, number="0820001234", closes=False)
        answered(first)
        last = begin(bench, app="disa", integrator=None, session_ref=first.call_ref, follows=True)
        last.end(terms.ABANDONED, 16, terms.AGENT, AT + 12.0)
    # One call each, which is refused and fits, and which was placed.
    refused = begin(bench, app="disa", integrator=None)
    refused.end(terms.REJECTED, 21, terms.SYSTEM, AT)
    cut = begin(bench, app="autodial", integrator=None, number="0820001234", placed=True)
    cut.end(terms.REJECTED, 17, terms.SYSTEM, AT)
    bench.records()
    records, _more = bench.services.record_history.page("", Chosen(fields=[("end_reason", terms.REJECTED)]), 10)
    assert {record["call_ref"] for record in records} == {refused.call_ref, cut.call_ref}
    bench.flush()
    assert all(bench.services.store.call(call.call_ref) is not None for call in (last, refused, cut))


def test_records_of_strangers_beyond_the_bound_close_sessions(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session whose calls several processes had is closed by its parts, which come with the history's entries."""
    monkeypatch.setattr("esl_apps.node.records.REFUSED_PER_HOUR", 0)
    bench = build(records={"session_records": True})
    begin(bench, app="disa", integrator=None, is_shared=True).end(terms.REJECTED, 21, terms.SYSTEM, AT)
    assert [entry.get("calls") for entry in bench.records()] == [None, 1]


def test_records_are_dropped_after_keep_days(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = build(records={"keep_days": 2})
    answered(begin(bench))
    bench.records()
    history = bench.services.record_history
    keeping = RecordExpiry(bench.services)
    ahead = time.time() + 2 * 86400 + 1
    # This node's clock alone is ahead.
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: ahead)
        keeping.trim()
    assert len(history.page("acme", Chosen(), 10)[0]) == 1
    for known, left in ((None, 1), (ahead, 0)):
        monkeypatch.setattr(bench.services.membership, "redis_time", lambda known=known: known)
        keeping.trim()
        assert len(history.page("acme", Chosen(), 10)[0]) == left


def test_call_list_is_trimmed_by_the_clock_of_redis(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = build()
    monkeypatch.setattr(time, "time", lambda now=time.time: now() + 8 * 86400)
    membership = bench.services.membership
    index = keys.calls("acme")
    assert (membership.redis_time(), bench.services.store._trim.due(index)) == (None, None)
    membership.say()
    command = bench.services.store._trim.due(index)
    assert command is not None
    oldest = command[3]
    seconds = int(oldest[1:].replace("-", ""), 16) / 1000
    assert seconds == pytest.approx(bench.redis_server.client.time()[0] - 86400, abs=5)
