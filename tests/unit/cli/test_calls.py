"""``esl-apps calls`` and ``esl-apps trace``, on what nodes have written to Redis."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest

from esl_apps.core.status import snapshot
from esl_apps.store import keys, membership
from esl_apps.store.essence import Essence, restored
from tests.support.node import RedisServer
from tests.unit.cli.conftest import Run, Settings

REF = "01a22692-54fc-74a4-bcc3-d9fa0291b388"


def essence(ref: str, **fields: Any) -> Essence:
    known: dict[str, Any] = {
        "call_ref": ref,
        "session_ref": ref,
        "contact_ref": "lead-7",
        "app": "click-dial",
        "queued_at": time.time() - 3,
        "state": "agent_ringing",
        "call_dir": "outbound",
        "integrator": "acme",
        "extension": "1000",
        "number": "0820001234",
        "switch": "fs1",
    }
    return Essence(**{**known, **fields})


@pytest.fixture
def live(redis: RedisServer, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> list[Essence]:
    """Two live calls, of two processes."""
    calls = [essence("b-2", app="disa", integrator=None, number=None, switch=None), essence("a-1")]
    for boot, call in zip(("boot-1", "boot-2"), calls, strict=True):
        redis.client.hset(keys.live(boot), call.call_ref, msgspec.json.encode(call))
    monkeypatch.setattr(membership, "boots", lambda _client: ["boot-1", "boot-2"])
    return calls


@pytest.mark.usefixtures("live")
def test_calls_lists_all_processes_in_order(run: Run, settings: Settings) -> None:
    ran = run("calls", "-c", settings.written())
    assert (ran.status, ran.err) == (0, "2 live\n")
    first, second = ran.out.splitlines()
    assert first.startswith("a-1  agent_ringing")
    assert first.endswith("s  click-dial   1000 -> 0820001234  acme  fs1")
    assert second.endswith("s  disa         1000 -> -  -  -")


@pytest.mark.usefixtures("live")
def test_calls_json_has_a_line_for_each_call(run: Run, settings: Settings) -> None:
    ran = run("calls", "-c", settings.written(), "--json")
    assert (ran.status, ran.err) == (0, "")
    first, second = ran.json
    assert (first["call_ref"], first["agent"], first["callee"]) == ("a-1", "1000", "0820001234")
    assert 3 <= first["age"] < 60
    assert second["integrator"] is None


def test_calls_of_an_idle_system(run: Run, settings: Settings) -> None:
    assert run("calls", "-c", settings.written()).err == "0 live\n"
    assert run("calls", "-c", settings.written(), "--json").out == ""


def ended_call() -> dict[str, Any]:
    """A call as a node has written it."""
    call = snapshot(restored(essence(REF, state="ended")))
    call["timeline"] = [
        {"state": "queued", "at": 100.0, "detail": ""},
        {"state": "agent_ringing", "at": 100.5, "detail": ""},
        {"state": "ended", "at": 103.25, "detail": "agent_no_answer 19"},
    ]
    call["decisions"] = [{"what": "limits", "at": 100.25, "detail": "none"}]
    return call


@pytest.fixture
def ended(redis: RedisServer, settings: Settings) -> None:
    redis.client.set(keys.call(REF), json.dumps(ended_call()))


@pytest.mark.usefixtures("ended")
def test_trace_tells_a_calls_story_in_order(run: Run, settings: Settings) -> None:
    ran = run("trace", "-c", settings.written(), REF)
    assert ran.status == 0
    head, *lines = ran.out.splitlines()
    assert head == f"{REF}  click-dial  1000 -> 0820001234  shown -  contact_ref lead-7"
    assert [line.split() for line in lines] == [
        ["0.000", "queued"],
        ["0.250", "limits", "none"],
        ["0.500", "agent_ringing"],
        ["3.250", "ended", "agent_no_answer", "19"],
    ]


@pytest.mark.usefixtures("ended")
def test_trace_json_is_the_call(run: Run, settings: Settings) -> None:
    (call,) = run("trace", "-c", settings.written(), REF, "--json").json
    assert call["call_ref"] == REF
    assert [moment["state"] for moment in call["timeline"]] == ["queued", "agent_ringing", "ended"]


@pytest.mark.parametrize("ref", ["none", "a b", "*", "../x", "é", "x" * 5000])
def test_trace_of_an_unknown_call(run: Run, settings: Settings, ref: str) -> None:
    ran = run("trace", "-c", settings.written(), ref)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == f"esl-apps: no such call: {ref} (calls are kept for a day)\n"


@pytest.mark.parametrize("stored", [b"", b"{", b"[]", b"\xff", b'{"call_ref": 1}'])
def test_trace_of_what_cannot_be_read(run: Run, settings: Settings, redis: RedisServer, stored: bytes) -> None:
    redis.client.set(keys.call(REF), stored)
    ran = run("trace", "-c", settings.written(), REF)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("esl-apps: ")


@pytest.mark.parametrize("argv", [["calls"], ["trace", REF], ["locks"], ["breaker"]], ids=lambda argv: argv[0])
def test_a_key_of_another_type_is_redis_fault(
    run: Run, settings: Settings, redis: RedisServer, argv: list[str], live: list[Essence]
) -> None:
    for key in (keys.live("boot-1"), keys.call(REF), keys.PIN_LOCKS, keys.TRIPPED):
        redis.client.delete(key)
        redis.client.rpush(key, "x")
    ran = run(argv[0], "-c", settings.written(), *argv[1:])
    assert ran.status == 1
    assert "esl-apps: Redis: " in ran.err
    assert "WRONGTYPE" in ran.err
    # One process's key hides no other process's calls.
    assert bool(ran.out) == (argv[0] == "calls")
