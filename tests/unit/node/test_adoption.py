"""Calls whose node died: each is adopted by one process, followed to its end, and recorded once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest

from esl_apps.apps import rung_agents
from esl_apps.apps.legs import recording_path
from esl_apps.apps.transfer import KeptTransfer
from esl_apps.core import node_clock, parties, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.charges import Charge
from esl_apps.core.notification import INBOUND_LIST, session_record
from esl_apps.core.reference import new_ref
from esl_apps.core.session_parts import Part
from esl_apps.core.status import document
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.core.versions import CALL
from esl_apps.node import adoption, following
from esl_apps.store import documents, keys
from esl_apps.store.documents import Refusals
from esl_apps.store.errors import NoAnswer
from esl_apps.store.essence import Essence
from tests.support.bench import E164, Bench, Build, essence_of, leave_behind, show_legs, write_cdr
from tests.support.call_switch import AT, B, C, at, ends
from tests.support.peer import UUID, api_response, eventually

REF = "01a20447-2be6-705d-bfcb-64432c6ce89b"
OUTSIDE = "0831112222"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "ASK_EVERY", 0.02)
    monkeypatch.setattr(following, "REDIS_AWAY", 0.1)


def aleg(ref: str = REF, **headers: Any) -> dict[str, object]:
    return {"Unique-ID": UUID, "variable_esl_call_ref": ref, **headers}


def bleg(ref: str = REF, answered: float = 3, **headers: Any) -> dict[str, object]:
    times = {"Caller-Channel-Answered-Time": at(answered)} if answered else {}
    return {"Unique-ID": B, "variable_esl_call_ref": ref, "variable_esl_bleg": ref, **times, **headers}


def talking(**fields: Any) -> Essence:
    """A DISA caller in a talk."""
    bridged = {"number": E164, "state": terms.BRIDGED, "answered_at": AT + 1.0, "bridged_at": AT + 3.0}
    return essence_of(**{"call_ref": REF, "dialed_at": AT + 0.5, **bridged, **fields})


def clicked(**fields: Any) -> Essence:
    """A click-to-dial call whose agent rings."""
    rings = {"extension": "1000", "number": "0820001234", "state": terms.AGENT_RINGING}
    return essence_of(**{"app": "click-dial", "call_ref": REF, "integrator": "acme", **rings, **fields})


def hang_up(
    bench: Bench, ref: str = REF, by: str = B, q850: int = 16, cause: str = "NORMAL_CLEARING", user: str = ""
) -> None:
    """Both legs end; the switch tells of both on its inbound connection."""
    tags: dict[str, Any] = {"variable_esl_call_ref": ref, "variable_esl_user_id": user}
    hung_up: dict[str, Any] = {"variable_sip_hangup_disposition": "recv_bye"}
    a, b = (hung_up, {}) if by == UUID else ({}, hung_up)
    bench.switch.say(
        ends(cause, q850, answered=True, variable_esl_bleg=ref, **tags, **b), ends(cause, q850, uuid=UUID, **tags, **a)
    )


def asked(bench: Bench, times: int = 1) -> None:
    """Wait until the switch has been asked for its legs."""
    eventually(lambda: bench.switch.heard.count("api show channels as json") >= times)


def ended(bench: Bench, ref: str = REF) -> None:
    eventually(lambda: ref not in bench.live)


# Finding calls ------------------------------------------------------------------------------------------


def test_adoption_call_of_a_dead_node_is_followed_to_its_end(bench: Bench) -> None:
    boot = leave_behind(bench, talking())
    show_legs(bench.switch, aleg(), bleg())
    bench.adoption.beat()
    asked(bench)
    assert bench.live[REF].adopted
    hang_up(bench)
    ended(bench)
    assert bench.reason() == ("answered", 16, "callee")
    assert not bench.redis_server.client.exists(keys.live(boot), keys.live(bench.services.membership.boot))


def test_adoption_hears_of_the_dead_nodes_legs(bench: Bench) -> None:
    """Events are filtered by the node that placed the leg."""
    leave_behind(bench, talking(), name="app7")
    bench.adoption.beat()
    eventually(lambda: "filter variable_esl_node app7" in bench.switch.heard)


def test_adoption_dead_process_without_calls_is_forgotten(bench: Bench) -> None:
    boot = leave_behind(bench)
    bench.adoption.beat()
    assert not bench.redis_server.client.hexists(keys.NODES, boot)


def test_adoption_last_run_that_was_taken_off_the_list(build: Build) -> None:
    """It was slow, so others had adopted its calls. It made them known again, and was killed before its next beat."""
    before = build()
    boot = before.services.membership.boot
    before.die()
    client = before.redis_server.client
    client.hset(keys.live(boot), REF, msgspec.json.encode(talking()))
    client.hdel(keys.NODES, boot)
    bench = build().connect()
    for _ in range(2):
        bench.adoption.beat()
    ended(bench)
    assert bench.record()["call_ref"] == REF
    assert bench.services.membership.dead() == []
    bench.flush()
    assert client.keys(keys.live("*")) == []


def test_adoption_living_nodes_calls_are_left_alone(bench: Bench) -> None:
    leave_behind(bench, talking(), silent=False)
    bench.adoption.beat()
    assert bench.live == {}


@pytest.mark.parametrize("late", [False, True])
def test_adoption_leaves_calls_to_the_next_run_of_their_node(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """It has them in its call log as they were last, which Redis may have refused to write."""
    monkeypatch.setattr(adoption, "_HEAD_START", 0.0 if late else 60.0)
    leave_behind(bench, clicked())
    leave_behind(bench, silent=False)
    show_legs(bench.switch, aleg())
    for _ in range(2):
        bench.adoption.beat()
    # It may be of a version that can't read them.
    assert list(bench.live) == ([REF] if late else [])


def test_adoption_draining_node_adopts_nothing(bench: Bench) -> None:
    leave_behind(bench, talking())
    bench.services.readiness.draining = True
    bench.adoption.beat()
    assert bench.live == {}
    peers = bench.services.membership.peers
    assert peers[bench.services.membership.boot].draining


def test_adoption_call_on_a_foreign_switch_is_left_to_others(bench: Bench) -> None:
    boot = leave_behind(bench, talking(switch="fs9"))
    bench.adoption.beat()
    assert bench.live == {}
    assert bench.redis_server.client.hexists(keys.live(boot), REF)


def test_adoption_own_earlier_call_on_a_lost_switch_is_ended(bench: Bench) -> None:
    """The configuration has lost a switch; no other node takes the calls of this name."""
    leave_behind(bench, talking(switch="fs9"), name="app1")
    bench.adoption.beat()
    ended(bench)
    assert bench.reason() == (terms.LOST, 31, terms.SYSTEM)


def test_adoption_of_one_call_by_two_nodes_gives_one_record(build: Build) -> None:
    first = build().connect()
    second = build(name="app3", known=first.switches).connect()
    refs = [new_ref() for _ in range(10)]
    leave_behind(first, *(talking(call_ref=ref) for ref in refs))
    show_legs(first.switch, *({**aleg(ref), "Unique-ID": ref} for ref in refs))
    nodes = [first, second]
    for node in nodes:
        node.services.membership.say()
    gevent.joinall([gevent.spawn(node.adoption.beat) for node in nodes])
    adopted = [ref for node in nodes for ref in node.live]
    assert sorted(adopted) == sorted(refs)
    show_legs(first.switch)
    for ref in refs:
        for node in nodes:
            ended(node, ref)
    assert sorted(found["call_ref"] for node in nodes for found in node.records()) == sorted(refs)


@pytest.mark.parametrize("what", ["taken", "not taken", "another was faster"])
def test_adoption_without_an_answer_loses_no_call(bench: Bench, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """The connection to Redis breaks as it takes a dead node's call over: no other node would adopt it any more."""
    boot, client = leave_behind(bench, clicked()), bench.redis_server.client
    raw = client.hget(keys.live(boot), REF)
    hdel = bench.redis.hdel

    def unanswered(*names: str) -> int:
        hdel(*names)
        raise StoreUnavailable("redis: the connection broke")

    with monkeypatch.context() as broken:
        broken.setattr(bench.redis, "hdel", unanswered, raising=False)
        bench.adoption.beat()
    assert bench.live == {}
    if what == "not taken":
        client.hset(keys.live(boot), REF, str(raw))
    elif what == "another was faster":
        leave_behind(bench, clicked(), name="app3", silent=False)
    show_legs(bench.switch, aleg())
    bench.adoption.beat()
    assert list(bench.live) == ([] if what == "another was faster" else [REF])
    bench.flush()
    assert client.hexists(keys.live(bench.services.membership.boot), REF) == bool(bench.live)
    for live in bench.live.values():
        assert live.had_by == [boot]


def test_adoption_call_that_has_ended_is_not_followed(bench: Bench) -> None:
    """Its node died between the record and the end of its entry in Redis."""
    boot = leave_behind(bench, talking())
    attempt = Attempt(app="disa", call_dir="external", call_ref=REF)
    attempt.end(terms.ANSWERED, 16, terms.AGENT, AT + 9.0)
    bench.services.store.save(REF, lambda: document(attempt), None)
    bench.flush()
    bench.adoption.beat()
    assert bench.live == {}
    assert bench.records() == []
    mine = keys.live(bench.services.membership.boot)
    assert not bench.redis_server.client.exists(keys.live(boot), mine)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"call_ref": 7}',
        b'{"call_ref": "x; api shutdown", "session_ref": "a", "contact_ref": "", "app": "disa", "queued_at": 1}',
        b'{"call_ref": "a", "session_ref": "a", "contact_ref": "a", "app": "disa", "queued_at": "soon"}',
    ],
)
def test_adoption_unreadable_call_costs_no_other(bench: Bench, value: bytes) -> None:
    boot = leave_behind(bench, talking())
    bench.redis_server.client.hset(keys.live(boot), "a", value)
    bench.adoption.beat()
    assert list(bench.live) == [REF]


def test_adoption_call_with_unknown_keys_is_followed(bench: Bench) -> None:
    """A newer version wrote it."""
    boot = leave_behind(bench)
    plain = {**msgspec.to_builtins(talking()), "colour": ["blue"], "order": {"later": {"deep": 1}}}
    bench.redis_server.client.hset(keys.live(boot), REF, json.dumps(plain))
    bench.adoption.beat()
    ended(bench)
    assert bench.record()["call_ref"] == REF


def test_adoption_learns_what_redis_did_not_have_yet(bench: Bench) -> None:
    """Redis refused the last changes of a node that ended, and took them after another one had the call."""
    boot = leave_behind(bench, talking(account_id=None, integrator=None, apart=["r-2"]))
    show_legs(bench.switch, aleg(), bleg())
    bench.adoption.beat()
    newer = talking(account_id="acme", integrator="acme", apart=["r-2", "r-3"])
    bench.redis_server.client.hset(keys.live(boot), REF, msgspec.json.encode(newer))
    bench.adoption.beat()
    attempt = bench.live[REF].attempt
    assert (attempt.account_id, attempt.integrator, attempt.apart) == ("acme", "acme", ["r-2", "r-3"])
    bench.flush()
    mine = keys.live(bench.services.membership.boot)
    assert json.loads(bench.redis_server.client.hget(mine, REF))["apart"] == ["r-2", "r-3"]
    hang_up(bench)
    ended(bench)


PAID = {"levels": ["account:gone", "card:x", "x", ""], "number": "?", "aleg": True, "owner": True, "whole": True}
ODD: dict[str, dict[str, Any]] = {
    "unknown application": {"app": "wakeup"},
    "no application": {"app": ""},
    "no switch": {"switch": None},
    "no integrator": {"integrator": "gone"},
    "no account": {"account_id": "gone", "holder": "gone:u1"},
    "unreadable number": {"paid_for": [PAID]},
    "no charge": {"paid_for": [{}]},
    "charge of other types": {"paid_for": [{**PAID, "levels": 7}, {**PAID, "number": 7}, {**PAID, "aleg": None}]},
    "ended": {"state": "ended"},
    "unknown state": {"state": "transferred"},
    "no timed call": {"order": {"pending": {}}, "app": "callback"},
    "timed call of another type": {"order": {"pending": 7}, "app": "callback"},
    "recording of another name": {"recording_url": "x.wav"},
    "reference of another form": {"call_ref": "a", "app": "click-dial", "integrator": "acme"},
    "no times": {"queued_at": 0.0, "dialed_at": None, "answered_at": None, "bridged_at": None},
}


@pytest.mark.parametrize("odd", ODD)
def test_adoption_odd_call_has_its_record_and_costs_no_other(
    bench: Bench, odd: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis is shared: with other versions, other configurations, and other programs."""
    first, last = talking(**ODD[odd]), talking(call_ref="01a20447-2be6-705d-bfcb-64432c6ce89c")
    leave_behind(bench, first, last, name="app1")
    bench.adoption.beat()
    for call in (first, last):
        ended(bench, call.call_ref)
    assert sorted(found["call_ref"] for found in bench.records()) == sorted([first.call_ref, last.call_ref])
    assert [record.message for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize("odd", ODD)
def test_adoption_odd_call_of_the_call_log_has_its_record(build: Build, odd: str) -> None:
    """A newer version wrote the log, and the operator went back to this one."""
    first = build().connect()
    calls = [talking(**ODD[odd]), talking(call_ref="01a20447-2be6-705d-bfcb-64432c6ce89c")]
    for call in calls:
        first.services.call_log.note(msgspec.json.encode(call))
    again = next_run(build, first)
    again.adoption.beat()
    for call in calls:
        ended(again, call.call_ref)
    assert sorted(found["call_ref"] for found in again.records()) == sorted(call.call_ref for call in calls)


def test_adoption_fault_with_one_call_costs_no_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = "01a20447-2be6-705d-bfcb-64432c6ce89c"
    leave_behind(bench, talking(), talking(call_ref=other))
    show_legs(bench.switch, aleg(other))
    adopt = bench.services.calls.adopt

    def faulty(call: Essence, *rest: Any) -> Any:
        if call.call_ref == REF:
            raise RuntimeError("a fault of ours")
        return adopt(call, *rest)

    monkeypatch.setattr(bench.services.calls, "adopt", faulty)
    bench.adoption.beat()
    assert list(bench.live) == [other]
    assert "adoption_failed" in caplog.messages


def test_adoption_fault_with_its_charges_costs_no_record(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_parts: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(bench.services.charging, "resume", faulty)
    leave_behind(bench, talking())
    bench.adoption.beat()
    ended(bench)
    assert bench.record()["call_ref"] == REF


# Its own earlier run ------------------------------------------------------------------------------------


def next_run(build: Build, first: Bench, **options: Any) -> Bench:
    """The node is killed, and started again."""
    first.die()
    return build(known=first.switches, **options).connect()


def begin_call(bench: Bench, **fields: Any) -> Attempt:
    attempt = Attempt(app="disa", call_dir="external", **fields)
    bench.services.calls.begin(attempt, bench.services.switches[0])
    return attempt


@pytest.mark.parametrize("in_redis", [True, False])
def test_adoption_next_run_finds_the_call_of_the_first(build: Build, in_redis: bool) -> None:
    """Killed before or after the writer had told Redis: the call log has it either way, and it is recorded once."""
    first = build().connect()
    attempt = begin_call(first)
    if in_redis:
        first.flush()
    again = next_run(build, first)
    show_legs(first.switch, aleg(attempt.call_ref))
    again.adoption.beat()
    assert list(again.live) == [attempt.call_ref]
    again.adoption.beat()
    show_legs(first.switch)
    ended(again, attempt.call_ref)
    assert again.record()["call_ref"] == attempt.call_ref


def test_adoption_next_run_records_what_the_last_went_on_with(build: Build) -> None:
    """Its caller had been handed to that run from another node, in the same call, and hung up while none was there."""
    first = build().connect()
    attempt = begin_call(first)
    first.services.store.note_gone_on(attempt.call_ref, attempt.call_ref)
    first.flush()
    again = next_run(build, first)
    show_legs(first.switch)
    again.adoption.beat()
    ended(again, attempt.call_ref)
    assert again.record()["call_ref"] == attempt.call_ref


def test_adoption_next_run_takes_the_newer_form_of_a_call(build: Build) -> None:
    """The disk was full, so the call log has the call as it was before Redis heard of its consultation."""
    first = build().connect()
    attempt = begin_call(first)
    first.services.call_log.close()
    attempt.apart = ["r-2"]
    attempt.save()
    first.flush()
    show_legs(first.switch, aleg(attempt.call_ref))
    again = next_run(build, first)
    again.adoption.beat()
    assert again.live[attempt.call_ref].attempt.apart == ["r-2"]


def test_adoption_next_run_leaves_a_call_that_the_last_ended(build: Build) -> None:
    """It ended while Redis was away, as its caller went on in another call: Redis has it as it was before."""
    before = build()
    waits = talking(number=None, state=terms.AGENT_ANSWERED, bridged_at=None)
    before.services.call_log.note(waits.encode())
    before.services.call_log.ended(REF)
    boot = before.services.membership.boot
    before.die()
    before.redis_server.client.hset(keys.live(boot), REF, msgspec.json.encode(waits))
    bench = build().connect()
    bench.adoption.beat()
    assert bench.live == {}
    assert not bench.redis_server.client.exists(keys.live(boot))
    assert bench.records() == []


@pytest.mark.parametrize("transferred", [True, False])
def test_adoption_next_run_closes_no_session_that_goes_on(build: Build, transferred: bool) -> None:
    """The last run has ended its call, and Redis has it as it was before its transfer."""
    before = build(records={"session_records": True}).connect()
    attempt = begin_call(before, number="0820001234")
    essence = before.live[attempt.call_ref].essence
    attempt.transferred_to = new_ref() if transferred else None
    attempt.end(terms.ANSWERED, 16, terms.AGENT, AT + 9.0)
    boot = before.services.membership.boot
    again = next_run(build, before, records={"session_records": True})
    again.redis_server.client.hset(keys.live(boot), attempt.call_ref, essence.encode())
    show_legs(before.switch)
    again.adoption.beat()
    ended(again, attempt.call_ref)
    outboxes = again.services.outboxes
    for outbox in outboxes:
        outbox.start()
    eventually(lambda: not outboxes.history.depth)
    eventually(lambda: not any(outbox.depth for outbox in outboxes))
    assert ["calls" in entry for entry in again.records()] == ([False] if transferred else [False, True])


@pytest.mark.parametrize("consults", [False, True])
@pytest.mark.parametrize("in_redis", [True, False])
def test_adoption_closes_a_session_once_with_all_its_calls(
    build: Build, monkeypatch: pytest.MonkeyPatch, in_redis: bool, consults: bool
) -> None:
    """Killed after a transfer's or consultation's call was noted, and before the call that it came from named it. That
    one ends before the next is adopted."""
    config = {"session_records": True}
    came_from = clicked(state=terms.BRIDGED, answered_at=AT + 1.0, bridged_at=AT + 3.0, integrator=None)
    goes_on = essence_of("transfer", session_ref=REF, number="0820001234", transferred_from=REF)
    if consults:
        kept = KeptTransfer("1001", "anonymous", terms.CALLEE, record=False, consults=terms.AGENT, held=B)
        goes_on.order = msgspec.to_builtins(kept)
    else:
        goes_on.apart = [REF]
    if in_redis:
        bench = build(records=config).connect()
        leave_behind(bench, came_from, goes_on)
    else:
        before = build(records=config).connect()
        for call in (came_from, goes_on):
            before.services.call_log.note(call.encode())
        bench = next_run(build, before, records=config)
    adopt = bench.adoption._adopt

    def adopt_and_wait(call: Essence, name: str) -> None:
        adopt(call, name)
        ended(bench, call.call_ref)

    monkeypatch.setattr(bench.adoption, "_adopt", adopt_and_wait)
    show_legs(bench.switch)
    bench.adoption.beat()
    for outbox in bench.services.outboxes:
        outbox.start()
    eventually(lambda: not any(outbox.depth for outbox in bench.services.outboxes))
    assert [entry.get("calls") for entry in bench.records()] == [None, None, 2]


def adopted_by_another(build: Build) -> tuple[Bench, Attempt, Bench]:
    """A node that has left, its call, and the node that has adopted it."""
    first = build().connect()
    attempt = begin_call(first)
    first.flush()
    other = build(name="app3", known=first.switches).connect()
    first.services.membership.say()
    first.services.membership.leave()
    show_legs(first.switch, aleg(attempt.call_ref))
    other.adoption.beat()
    return first, attempt, other


def test_adoption_next_run_leaves_a_call_that_another_node_has(build: Build) -> None:
    first, attempt, other = adopted_by_another(build)
    other.flush()
    assert list(other.live) == [attempt.call_ref]
    again = next_run(build, first)
    again.adoption.beat()
    assert again.live == {}
    # Nor does the run after that one.
    assert next_run(build, again).services.call_log.left == []


def test_adoption_next_run_goes_on_from_a_node_that_has_left(build: Build) -> None:
    """That one has adopted the call since and paid for it, and then stopped with the call up."""
    first, attempt, other = adopted_by_another(build)
    other.live[attempt.call_ref].attempt.enter(terms.AGENT_ANSWERED, AT + 1.0)
    other.flush()
    other.services.membership.leave()
    other.services.calls.release(other.live[attempt.call_ref])
    other.die()
    again = next_run(build, first)
    again.adoption.beat()
    found = again.live[attempt.call_ref]
    assert found.attempt.answered_at == AT + 1.0
    assert found.had_by == [first.services.membership.boot, other.services.membership.boot]


def test_adoption_next_run_without_redis_follows_all_the_same(build: Build, caplog: pytest.LogCaptureFixture) -> None:
    first = build().connect()
    attempt = begin_call(first)
    again = next_run(build, first)
    again.redis.break_after(0)
    for _ in range(3):
        again.adoption.beat()
    assert caplog.messages.count("membership_unreachable") == 1
    ended(again, attempt.call_ref)
    again.redis.mend()
    assert again.record()["call_ref"] == attempt.call_ref


def test_adoption_node_that_dies_at_any_step_loses_no_call(build: Build) -> None:
    """The adopter's Redis goes away after its n-th command, and the adopter dies there; the next one ends the call."""
    steps = 0
    while True:
        first = build(name=f"first{steps}").connect()
        ref = new_ref()
        leave_behind(first, talking(call_ref=ref))
        show_legs(first.switch, aleg(ref), bleg(ref))
        first.services.membership.say()
        first.redis.asked = 0
        first.redis.break_after(steps)
        first.adoption.beat()
        whole = first.redis.asked <= steps
        first.die()
        first.redis.mend()
        first.services.membership.leave()
        second = build(name=f"second{steps}", known=first.switches).connect()
        second.adoption.beat()
        second.adoption.beat()
        assert ref in second.live, f"lost after {steps} commands"
        show_legs(first.switch)
        second.switch.drop()
        ended(second, ref)
        assert [found["call_ref"] for found in second.records()] == [ref]
        if whole:
            break
        steps += 1
    assert steps >= 4


# The beat -----------------------------------------------------------------------------------------------


def test_adoption_after_late_beats_learns_of_cancels(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another node has hung up the legs of a call whose own node was stopped."""
    mine, other = Attempt(app="click-dial", call_dir="internal"), Attempt(app="click-dial", call_dir="internal")
    for attempt in (mine, other):
        bench.services.calls.begin(attempt, bench.services.switches[0])
    bench.services.store.note_cancel(mine.call_ref, terms.API)
    monkeypatch.setattr(bench.services.membership, "longest_gap", lambda: 60.0)
    bench.adoption.beat()
    assert (mine.cancelled_by, other.cancelled_by) == (terms.API, None)


def test_adoption_after_late_beats_closes_no_unfinished_session(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another node has adopted the call of a node that was stopped, begun a consultation, and ended it."""
    bench = build(records={"session_records": True})
    attempt = begin_call(bench, number="0820001234")
    there = Attempt(app="disa", call_dir="external", call_ref=attempt.call_ref, session_ref=attempt.session_ref)
    there.dialled(AT)
    there.end(terms.ANSWERED, 16, terms.SYSTEM, AT + 9.0)
    assert there.record is not None
    part = Part(attempt.call_ref, session_record(there.record, recorded=True), True, [new_ref()])
    client = bench.redis_server.client
    client.hset(keys.session_parts(attempt.session_ref), attempt.call_ref, msgspec.json.encode(part))
    monkeypatch.setattr(bench.services.membership, "longest_gap", lambda: 60.0)
    bench.adoption.beat()
    attempt.end(terms.ANSWERED, 16, terms.AGENT, AT + 9.0)
    assert ["calls" in entry for entry in bench.records()] == [False]


def test_adoption_beats_until_stopped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adoption, "BEAT", 0.001)
    beats: list[int] = []
    monkeypatch.setattr(bench.adoption, "beat", lambda: beats.append(1))
    bench.adoption.start()
    eventually(lambda: len(beats) > 3)
    bench.adoption.stop()
    count = len(beats)
    gevent.sleep(0.01)
    assert len(beats) == count


def test_adoption_beats_on_after_a_fault(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bench.services.membership, "dead", lambda: 1 / 0)
    bench.adoption.beat()
    assert "beat_failed" in caplog.messages
    assert bench.services.membership.boot in bench.services.membership.peers


def test_adoption_stop_before_start_does_nothing(bench: Bench) -> None:
    bench.adoption.stop()


# Following ----------------------------------------------------------------------------------------------


def test_adoption_brings_the_call_to_the_state_of_its_legs(bench: Bench) -> None:
    leave_behind(bench, clicked())
    show_legs(bench.switch, {**aleg(), "Caller-Channel-Answered-Time": at(2)}, bleg(answered=4))
    bench.adoption.beat()
    asked(bench)
    eventually(lambda: bench.live[REF].attempt.bridged_at)
    attempt = bench.live[REF].attempt
    assert (attempt.aleg_uuid, attempt.answered_at, attempt.bridged_at) == (UUID, AT + 2.0, AT + 4.0)
    hang_up(bench, by=UUID)
    ended(bench)
    assert bench.reason() == ("answered", 16, "agent")


def test_adoption_call_in_a_state_of_another_version_goes_on(bench: Bench) -> None:
    leave_behind(bench, clicked(state="transferred"))
    show_legs(bench.switch, {**aleg(), "Caller-Channel-Answered-Time": at(2)}, bleg(answered=4))
    bench.adoption.beat()
    asked(bench)
    eventually(lambda: bench.live[REF].attempt.bridged_at)
    hang_up(bench, by=UUID)
    ended(bench)
    assert bench.reason() == ("answered", 16, "agent")


def test_adoption_announces_an_agents_unheard_answer(bench: Bench) -> None:
    waiting: dict[str, Any] = {"app": "inbound", "integrator": "acme", "extension": "1000", "number": "+27825556666"}
    asked_agents = [{"agent": user, "seconds": 0, "end_reason": None, "end_code": None} for user in ("1000", "1001")]
    waiting["agents"] = asked_agents
    leave_behind(bench, essence_of(call_ref=REF, dialed_at=AT + 1.0, state=terms.RINGING, **waiting))
    answered = {"Caller-Channel-Answered-Time": at(4)}
    show_legs(bench.switch, {**aleg(), **answered}, bleg(answered=4, variable_esl_user_id="1000"))
    bench.adoption.beat()
    asked(bench)
    lost_race: dict[str, Any] = {"variable_esl_call_ref": REF, "variable_esl_bleg": REF, "variable_esl_user_id": "1001"}
    bench.switch.say(ends("LOSE_RACE", 502, uuid=C, **lost_race))
    hang_up(bench, user="1000")
    ended(bench)
    found = bench.record()
    assert (found["end_reason"], found["hung_up_by"], found["hold_time"]) == ("answered", "agent", 3)
    known = bench.services.store.call(REF)
    assert known is not None
    assert [(one["agent"], one["end_reason"]) for one in known["agents"]] == [
        ("1000", "answered"),
        ("1001", "elsewhere"),
    ]
    assert len(bench.pushed(INBOUND_LIST)) == 1


@pytest.mark.parametrize(("agent", "other", "gateway"), [("1000", OUTSIDE, None), (OUTSIDE, "1000", "pbx")])
def test_adoption_knows_agents_with_outside_numbers(bench: Bench, agent: str, other: str, gateway: str | None) -> None:
    """Only the ends of the legs tell who has answered."""
    plan, system = bench.services.policy.settings.plan, bench.services.policy.system
    waiting = Attempt(app="inbound", call_dir="inbound", **parties.first(plan.read(other)))
    rung_agents.ask(waiting, [plan.read(other), plan.read(agent)])
    waiting.pay(Charge(REF, [system], plan.read(OUTSIDE)))
    known = {name: getattr(waiting, name) for name in ("agents", "agents_outside", "paid_for", "extension_class")}
    leave_behind(bench, essence_of("inbound", call_ref=REF, integrator="acme", state=terms.RINGING, **known))
    show_legs(bench.switch, aleg(), bleg(answered=0, variable_esl_user_id=agent))
    bench.adoption.beat()
    asked(bench)
    of_b = {"direction": "outbound", "sip_gateway_name": "pbx", "esl_bleg": REF, "esl_user_id": agent}
    for leg, variables in ((B, of_b), (UUID, {})):
        tags: Any = {f"variable_{name}": value for name, value in {**variables, "esl_call_ref": REF}.items()}
        bench.switch.say(ends("NORMAL_CLEARING", 16, uuid=leg, answered=True, **tags))
    ended(bench)
    found = bench.services.store.call(REF)
    assert found is not None
    assert (found["agent"], found["gateway"]) == (agent, gateway)
    # Nothing was heard of the other one's phone: it isn't registered, or its gateway is down.
    unheard = {"1000": ("failed", 20), OUTSIDE: ("failed", 38)}[other]
    fared = {one["agent"]: (one["end_reason"], one["end_code"]) for one in found["agents"]}
    assert fared == {agent: ("answered", 16), other: unheard}


def test_adoption_counts_the_legs_of_many_calls_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A census costs a command for each leg of the switch."""
    monkeypatch.setattr(following, "ASK_EVERY", 60.0)
    refs = [new_ref() for _ in range(20)]
    show_legs(bench.switch, *({**aleg(ref), "Unique-ID": ref} for ref in refs))
    leave_behind(bench, *(talking(call_ref=ref) for ref in refs))
    bench.adoption.beat()
    asked(bench)
    gevent.sleep(0.01)
    # The first calls ask while the others are still adopted; those that ask at about the same time share a census.
    assert bench.switch.heard.count("api show channels as json") < 20
    assert len(bench.live) == 20


def test_adoption_leg_that_ends_during_the_census_is_gone(bench: Bench) -> None:
    leave_behind(bench, talking())
    bench.switch.answers["api show channels"] = api_response(json.dumps({"row_count": 1, "rows": [{"uuid": UUID}]}))
    bench.adoption.beat()
    ended(bench)
    assert bench.record()["end_reason"] == terms.LOST


def test_adoption_call_without_legs_is_lost(bench: Bench) -> None:
    leave_behind(bench, talking())
    bench.adoption.beat()
    ended(bench)
    assert bench.reason() == (terms.LOST, 31, terms.SYSTEM)


def test_adoption_switch_that_refuses_is_asked_again(bench: Bench) -> None:
    leave_behind(bench, talking())
    bench.switch.answers["api show channels"] = api_response("-ERR busy\n")
    bench.adoption.beat()
    asked(bench)
    gevent.sleep(0.01)
    assert REF in bench.live
    show_legs(bench.switch)
    ended(bench)
    assert bench.record()["call_ref"] == REF


@pytest.mark.parametrize("question", ["api show channels", "api uuid_dump", "filter variable_esl_node app7"])
def test_adoption_switch_that_goes_silent_is_asked_again(
    bench: Bench, question: str, impatient: Callable[[], None]
) -> None:
    leave_behind(bench, talking(), name="app7")
    show_legs(bench.switch, aleg(), bleg())
    before = dict(bench.switch.answers)
    resumed = bench.switch.stop_at(question)
    # In front of the answers to questions that begin the same.
    bench.switch.answers = {question: bench.switch.answers.pop(question), **bench.switch.answers}
    adopting = gevent.spawn(bench.adoption.beat)
    eventually(lambda: bench.services.switches[0].reconnects >= 1)
    impatient()
    bench.switch.answers = before
    resumed.set()
    adopting.get(timeout=10)
    eventually(lambda: bench.live[REF].attempt.aleg_uuid == UUID and bench.services.switches[0].connected)
    hang_up(bench)
    ended(bench)
    assert bench.reason() == ("answered", 16, "callee")


def test_adoption_lost_call_is_paid_until_its_switch_was_lost(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then its end would have been heard."""
    monkeypatch.setattr(following, "ASK_EVERY", 60.0)
    limits = {"minutes_per_day": 60}
    bench = build(accounts={"acme": {"token": "acme-cards-token", "limits": limits}}).connect()
    now = [time.monotonic()]
    usage = bench.services.usage
    usage._seconds = lambda: now[0]
    began = time.time()
    paid = {"levels": ["account:acme"], "number": E164, "aleg": False, "owner": True, "whole": False, "id": "x"}
    fields = {"bridged_at": began, "dialed_at": began, "account_id": "acme", "core_uuid": "core-1"}
    leave_behind(bench, talking(**fields, paid_for=[{**paid, "paid": {"talked": 0.0}}]))
    show_legs(bench.switch, aleg(), bleg())
    bench.adoption.beat()
    asked(bench)
    (charge,) = bench.live[REF].attempt.charges
    eventually(lambda: charge.proven > 0.0)
    now[0] += 30
    bench.switch.core_uuid = "core-2"
    bench.switch.drop()
    monkeypatch.setattr(node_clock.clock, "origin", node_clock.clock.origin + 300)
    ended(bench)
    assert bench.reason()[0] == terms.LOST
    assert 29.9 < charge.spent(now[0]) < 30.1 + time.time() - began


@pytest.mark.parametrize("whole", [False, True])
def test_adoption_call_of_a_tripped_breaker_is_ended(bench: Bench, whole: bool) -> None:
    """The operator ended the account's calls while no node had this one."""
    bench.services.breakers.trip("account:acme", "by hand", end_calls=True)
    bench.services.breakers.refresh()
    paid = {"levels": ["account:acme"], "number": E164, "aleg": whole, "owner": True, "whole": whole}
    leave_behind(bench, talking(account_id="acme", paid_for=[paid]))
    show_legs(bench.switch, aleg(), bleg())
    bench.adoption.beat()
    asked(bench)
    bench.services.usage.accrue()
    name = "esl_call_ref" if whole else "esl_bleg"
    eventually(lambda: f"api hupall ALLOTTED_TIMEOUT {name} {REF}" in bench.switch.heard)
    hang_up(bench)
    ended(bench)
    assert bench.reason()[0] == terms.ANSWERED


def test_adoption_emergency_call_of_a_tripped_breaker_goes_on(bench: Bench) -> None:
    bench.services.breakers.trip("system", "by hand", end_calls=True)
    bench.services.breakers.refresh()
    paid = {"levels": ["system"], "number": "0825556666", "aleg": True, "owner": True, "whole": True}
    leave_behind(bench, talking(number="112", number_class="emergency", paid_for=[paid]))
    show_legs(bench.switch, aleg(), bleg())
    bench.adoption.beat()
    asked(bench)
    bench.services.usage.accrue()
    gevent.sleep(0.05)
    assert not any("hupall" in command or "uuid_kill" in command for command in bench.switch.heard)
    hang_up(bench)
    ended(bench)
    assert bench.reason() == ("answered", 16, "callee")


def test_adoption_switch_that_restarted_has_lost_the_call(bench: Bench) -> None:
    leave_behind(bench, talking(core_uuid="core-0"))
    show_legs(bench.switch, aleg(), bleg())
    bench.adoption.beat()
    ended(bench)
    assert bench.reason() == (terms.LOST, 31, terms.SYSTEM)


def test_adoption_switch_that_stays_away_has_lost_the_call(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "AWAY", 0.01)
    bench = build()
    leave_behind(bench, talking())
    bench.adoption.beat()
    ended(bench)
    assert bench.reason() == (terms.LOST, 31, terms.SYSTEM)


def test_adoption_goes_on_when_its_switch_is_back(bench: Bench) -> None:
    leave_behind(bench, talking())
    show_legs(bench.switch, aleg(), bleg())
    bench.adoption.beat()
    asked(bench)
    bench.switch.drop()
    asked(bench, times=2)
    hang_up(bench)
    ended(bench)
    assert bench.reason() == ("answered", 16, "callee")


def test_adoption_orphaned_leg_is_hung_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """FreeSWITCH keeps an answered leg whose socket was lost before an application took it."""
    monkeypatch.setattr(following, "PARKED", 0.01)
    leave_behind(bench, clicked())
    show_legs(bench.switch, {**aleg(), "Caller-Channel-Answered-Time": at(2)})
    bench.adoption.beat()
    eventually(lambda: f"api hupall NORMAL_TEMPORARY_FAILURE esl_call_ref {REF}" in bench.switch.heard)


def test_adoption_ringing_or_bridged_leg_is_not_hung_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PARKED", 0.0)
    leave_behind(bench, clicked(), talking(call_ref=new_ref()))
    show_legs(bench.switch, aleg())
    bench.adoption.beat()
    asked(bench, times=3)
    assert not any("hupall" in text for text in bench.switch.heard)


def test_adoption_cancel_reaches_an_adopted_call(bench: Bench) -> None:
    leave_behind(bench, clicked())
    show_legs(bench.switch, aleg())
    bench.adoption.beat()
    asked(bench)
    assert bench.services.calls.cancel(REF, "api")
    eventually(lambda: f"api hupall NORMAL_CLEARING esl_call_ref {REF}" in bench.switch.heard)
    bench.switch.say(ends("NORMAL_CLEARING", 16, uuid=UUID, variable_esl_call_ref=REF))
    ended(bench)
    assert bench.reason() == (terms.CANCELLED, 16, "api")


def test_adoption_call_cancelled_while_no_node_had_it_is_hung_up(bench: Bench, build: Build) -> None:
    """The node that was asked doesn't reach its switch."""
    leave_behind(bench, clicked())
    show_legs(bench.switch, aleg())
    other = build(name="app3", switches=("fs2",)).connect()
    other.services.acting.cancel({"call_ref": REF, "switch": "fs1"})
    bench.services.cancel_requests.new()
    bench.adoption.beat()
    eventually(lambda: f"api hupall NORMAL_CLEARING esl_call_ref {REF}" in bench.switch.heard)


def test_adoption_call_cancelled_before_its_node_died_stays_so(bench: Bench) -> None:
    leave_behind(bench, clicked(cancelled_by="api"))
    bench.adoption.beat()
    ended(bench)
    assert bench.reason() == (terms.CANCELLED, 16, "api")


def test_adoption_fault_while_following_ends_the_call(bench: Bench) -> None:
    leave_behind(bench, talking())
    bench.switch.answers["api show channels"] = api_response("not JSON")
    bench.adoption.beat()
    ended(bench)
    assert bench.reason() == (terms.LOST, 31, terms.SYSTEM)


def test_adoption_call_taken_over_meanwhile_has_no_record_here(bench: Bench) -> None:
    """The caller was handed to another node, which has the call now."""
    leave_behind(bench, talking(holder="acme:u1"))
    show_legs(bench.switch, aleg())
    bench.adoption.beat()
    asked(bench)
    bench.services.usage.leases.renew()
    bench.flush()
    bench.redis_server.client.hdel(keys.live(bench.services.membership.boot), REF)
    show_legs(bench.switch)
    bench.switch.drop()
    ended(bench)
    assert bench.records() == []
    # The other node counts the call now, under the same reference.
    assert not bench.services.usage.enter("acme:u1", 1, "another")


def test_adoption_call_taken_over_is_not_made_known_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process was stopped. Redis would have the call as its own, and the other process would give it back."""
    leave_behind(bench, talking())
    show_legs(bench.switch, aleg())
    bench.adoption.beat()
    asked(bench)
    bench.flush()
    client = bench.services.store._client
    live = keys.live(bench.services.membership.boot)
    hexists = client.hexists

    def slowly(*args: str) -> bool:
        found: bool = hexists(*args)
        # Another greenlet makes this node's calls known again, as its beats were late.
        bench.services.records.save_all()
        gevent.sleep(0.05)
        return found

    monkeypatch.setattr(client, "hexists", slowly)
    client.hdel(live, REF)
    show_legs(bench.switch)
    bench.switch.drop()
    ended(bench)
    bench.flush()
    assert bench.records() == []
    assert not bench.redis_server.client.exists(live)


def test_adoption_call_ending_while_redis_is_away_waits_for_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis knows that its caller went on at another node, in a call that has the session's record."""
    monkeypatch.setattr(following, "REDIS_AWAY", 60.0)
    leave_behind(bench, essence_of(call_ref=REF, answered_at=AT + 1.0, state=terms.AGENT_ANSWERED))
    show_legs(bench.switch, aleg())
    bench.adoption.beat()
    asked(bench)
    bench.flush()
    bench.redis_server.client.set(keys.gone_on(REF), f"{new_ref()} another")
    bench.redis.break_after()
    show_legs(bench.switch)
    bench.switch.drop()
    gevent.sleep(0.3)
    bench.redis.mend()
    ended(bench)
    assert bench.records() == []


def test_adoption_call_ended_by_its_owner_has_no_record_here(bench: Bench) -> None:
    """The owner was stopped, and has recorded it before this node heard that it is back."""
    leave_behind(bench, talking(holder="acme:u1"))
    show_legs(bench.switch, aleg(), bleg())
    bench.adoption.beat()
    asked(bench)
    bench.flush()
    attempt = Attempt(app="disa", call_dir="external", call_ref=REF)
    attempt.end(terms.ANSWERED, 16, terms.AGENT, AT + 9.0)
    raw = documents.encode(CALL, document(attempt)).decode()
    bench.redis_server.client.set(keys.call(REF), raw)
    hang_up(bench)
    ended(bench)
    bench.flush()
    assert bench.records() == []
    assert bench.redis_server.client.get(keys.call(REF)) == raw
    assert not bench.redis_server.client.exists(keys.live(bench.services.membership.boot))
    assert bench.services.usage.leases._held == set()


def test_adoption_holds_the_place_until_the_end(bench: Bench) -> None:
    usage = bench.services.usage
    leave_behind(bench, talking(holder="acme:u1"))
    show_legs(bench.switch, aleg(), bleg())
    bench.adoption.beat()
    asked(bench)
    usage.leases.renew()
    assert not usage.enter("acme:u1", 1, "another")
    hang_up(bench)
    ended(bench)
    eventually(lambda: usage.enter("acme:u1", 1, "another"))


@pytest.mark.parametrize("goes_on", [True, False])
def test_adoption_leaves_the_place_to_the_node_with_the_caller(bench: Bench, goes_on: bool) -> None:
    """They dial on there, in another call of their session."""
    usage, key = bench.services.usage, keys.concurrent("acme:u1")
    assert usage.enter("acme:u1", 1, REF)
    usage.leases.let_go("acme:u1", REF)
    leave_behind(bench, talking(app="dialthrough", holder="acme:u1", session_ref=REF))
    if goes_on:
        bench.redis_server.client.set(keys.gone_on(REF), "01a20447-2be6-705d-bfcb-64432c6ce89c another")
    bench.adoption.beat()
    ended(bench)
    eventually(lambda: not usage.leases._held)
    assert bench.redis_server.client.zcard(key) == goes_on


def test_adoption_ends_a_call_while_redis_is_away(bench: Bench) -> None:
    leave_behind(bench, talking())
    show_legs(bench.switch, aleg(), bleg())
    bench.adoption.beat()
    asked(bench)
    bench.redis.break_after(0)
    hang_up(bench)
    ended(bench)
    bench.redis.mend()
    assert bench.reason() == ("answered", 16, "callee")


# From the switch's CDR files ----------------------------------------------------------------------------


def test_adoption_learns_whose_call_it_was_from_the_legs(build: Build) -> None:
    """Its node died before Redis knew who the caller was."""
    bench = build(accounts={"acme": {"token": "acme-cards-token", "integrator": "acme"}}).connect()
    leave_behind(bench, talking(app="dialthrough"))
    write_cdr(bench, UUID, ref=REF, answered=1, esl_account_id="acme", sip_hangup_disposition="recv_bye")
    bench.adoption.beat()
    ended(bench, REF)
    call = bench.services.store.call(REF)
    assert call is not None
    assert (call["state"], call["integrator"]) == (terms.ENDED, "acme")


def test_adoption_reads_both_legs_from_the_cdr(bench: Bench) -> None:
    leave_behind(bench, clicked())
    write_cdr(bench, UUID, ref=REF, answered=2, hold_accum=5)
    write_cdr(bench, B, ref=REF, answered=4, esl_bleg=REF, sip_hangup_disposition="recv_bye")
    bench.adoption.beat()
    ended(bench)
    found = bench.record()
    assert (found["end_reason"], found["hung_up_by"]) == ("answered", "callee")
    assert (found["answered_at"], found["bridged_at"], found["ended_at"]) == (AT + 2.0, AT + 4.0, AT + 8.0)
    assert (found["dialed_at"], found["hold_time"]) == (AT, 5)


@pytest.mark.parametrize(
    ("q850", "cause", "reason"),
    [(17, "USER_BUSY", "agent_busy"), (19, "NO_ANSWER", "agent_no_answer"), (41, "X", "agent_failed")],
)
def test_adoption_agent_who_did_not_answer_is_why(bench: Bench, q850: int, cause: str, reason: str) -> None:
    leave_behind(bench, clicked())
    write_cdr(bench, UUID, ref=REF, q850=q850, hangup_cause=cause)
    bench.adoption.beat()
    ended(bench)
    assert bench.reason() == (reason, q850, "agent")


@pytest.mark.parametrize(("answered", "q850"), [(2, 41), (0, 16)], ids=["answered", "cleared"])
def test_adoption_leg_that_no_node_took_is_lost(bench: Bench, answered: float, q850: int) -> None:
    leave_behind(bench, clicked())
    write_cdr(bench, UUID, ref=REF, answered=answered, q850=q850)
    bench.adoption.beat()
    ended(bench)
    assert bench.reason() == (terms.LOST, 31, terms.SYSTEM)


def test_adoption_caller_who_hung_up_has_abandoned(bench: Bench) -> None:
    leave_behind(bench, talking(number=None, bridged_at=None, state=terms.AGENT_ANSWERED))
    write_cdr(bench, UUID, ref=REF, answered=1, sip_hangup_disposition="recv_bye")
    bench.adoption.beat()
    ended(bench)
    assert bench.reason() == (terms.ABANDONED, 16, "agent")


def test_adoption_of_several_phones_the_one_that_answered_counts(bench: Bench) -> None:
    leave_behind(bench, clicked())
    write_cdr(bench, "other", ref=REF, q850=26, hangup_cause="LOSE_RACE")
    write_cdr(bench, UUID, ref=REF, answered=2, sip_hangup_disposition="recv_bye")
    bench.adoption.beat()
    ended(bench)
    assert bench.record()["answered_at"] == AT + 2.0


@pytest.mark.parametrize("exists", [True, False])
def test_adoption_recording_is_named_if_its_file_exists(bench: Bench, exists: bool) -> None:
    leave_behind(bench, clicked(state=terms.BRIDGED, answered_at=AT + 2.0, bridged_at=AT + 4.0))
    if exists:
        file = Path(recording_path(bench.config.recordings.dir, "acme", f"{REF}.wav"))
        file.parent.mkdir(parents=True)
        file.touch()
    write_cdr(bench, UUID, ref=REF, answered=2)
    write_cdr(bench, B, ref=REF, answered=4, esl_bleg=REF)
    bench.adoption.beat()
    ended(bench)
    assert bench.record()["recording_url"] == (f"{REF}.wav" if exists else None)


def test_adoption_consultation_listed_late_goes_on(bench: Bench) -> None:
    """A leg that was made a moment ago isn't in the switch's list yet."""
    leave_behind(bench, talking(followed=True))
    show_legs(bench.switch)
    bench.adoption.beat()
    asked(bench)
    show_legs(bench.switch, aleg(), bleg())
    asked(bench, 3)
    assert list(bench.live) == [REF]
    hang_up(bench)
    ended(bench)
    assert bench.record()["end_reason"] == terms.ANSWERED


# Timed calls --------------------------------------------------------------------------------------------


def test_adoption_end_of_a_timed_call_settles_it(bench: Bench) -> None:
    store = bench.services.timed_calls["callback"]
    card = bench.services.policy.cards.create("acme", {"cid": "+27825556666", "active": True})
    assert store.schedule("27825556666", [card.id, ""], 1.0, now=1.0)
    due = store.claim_due(2.0, 60.0)
    assert due is not None
    order = {"card": card.id, "pending": msgspec.to_builtins(due)}
    kept: dict[str, Any] = {"app": "callback", "account_id": "acme", "extension": "+27825556666", "order": order}
    leave_behind(bench, essence_of(call_ref=REF, state=terms.AGENT_RINGING, **kept))
    write_cdr(bench, UUID, ref=REF, q850=17, hangup_cause="USER_BUSY")
    bench.adoption.beat()
    ended(bench)
    # Busy: it is tried again in a minute.
    eventually(lambda: store.waiting()[0].due_at > 1_000_000.0)


# Owners that were only slow ------------------------------------------------------------------------------


def test_adoption_call_that_its_owner_ends_meanwhile_is_left(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While this process waits for the switch's files: the owner knew that the call was transferred."""
    leave_behind(bench, talking())
    read = following.Following._legs

    def legs(self: following.Following, live: Any) -> Any:
        bench.flush()
        owners = Attempt(app="disa", call_dir="external", call_ref=REF)
        owners.end(terms.ANSWERED, 16, terms.AGENT, AT + 9.0)
        bench.redis_server.client.set(keys.call(REF), msgspec.json.encode(document(owners)))
        return read(self, live)

    monkeypatch.setattr(following.Following, "_legs", legs)
    bench.adoption.beat()
    eventually(lambda: not bench.live)
    assert bench.records() == []


def beat_again(bench: Bench, boot: str, name: str = "app2", *, has: bool = True) -> None:
    """Have a process that was taken for dead beat twice, each time seen by the bench, and (``has``) make its call known
    again."""
    if has:
        bench.redis_server.client.hset(keys.live(boot), REF, talking().encode())
    for stamp in ("1.0", "2.0"):
        raw = msgspec.json.encode([name, "127.0.0.1:9999", False, stamp])
        bench.redis_server.client.hset(keys.NODES, boot, raw)
        bench.adoption.beat()


def test_adoption_call_goes_back_to_its_owner(bench: Bench) -> None:
    boot = leave_behind(bench, talking(holder="card:x"))
    show_legs(bench.switch, aleg(), bleg())
    bench.adoption.beat()
    asked(bench)
    assert bench.live[REF].had_by == [boot]
    beat_again(bench, boot)
    assert bench.live == {}
    bench.flush()
    assert not bench.redis_server.client.exists(keys.live(bench.services.membership.boot))
    assert bench.services.usage.leases._held == set()
    # The owner sees the call to its end, and records it.
    hang_up(bench)
    gevent.sleep(0)
    assert bench.records() == []


def test_adoption_call_that_its_owner_let_go_of_stays(bench: Bench) -> None:
    """The owner had adopted it itself, was stopped, and saw that another process had it by then."""
    boot = leave_behind(bench, talking())
    show_legs(bench.switch, aleg(), bleg())
    bench.adoption.beat()
    asked(bench)
    beat_again(bench, boot, has=False)
    assert list(bench.live) == [REF]
    hang_up(bench)
    ended(bench)
    assert bench.record()["call_ref"] == REF


def test_adoption_call_adopted_twice_goes_back_to_its_owner(bench: Bench) -> None:
    """The first adopter died; the owner had been stopped all the while."""
    leave_behind(bench, talking(had_by=["owner", "first"]))
    show_legs(bench.switch, aleg(), bleg())
    bench.adoption.beat()
    asked(bench)
    beat_again(bench, "owner")
    assert bench.live == {}


def test_adoption_owner_makes_its_calls_known_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was stopped for 6 s. Another node has taken its call out of its hash, and lets go now."""
    attempt = begin_call(bench)
    bench.adoption.beat()
    bench.flush()
    mine = keys.live(bench.services.membership.boot)
    bench.redis_server.client.delete(mine)
    now = bench.services.membership._clock()
    monkeypatch.setattr(bench.services.membership, "_clock", lambda: now + 6.0)
    bench.adoption.beat()
    bench.flush()
    assert bench.redis_server.client.hexists(mine, attempt.call_ref)
    assert bench.live[attempt.call_ref].attempt is attempt


def parked_leg(**headers: Any) -> dict[str, object]:
    return aleg(**{"Caller-Channel-Answered-Time": at(1), **headers})


@pytest.mark.parametrize("application", ["playback", "play_and_get_digits", "bridge", "answer"])
def test_adoption_leg_that_a_flow_has_used_is_left(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, application: str
) -> None:
    """A caller who was rung back listens to the prompt. If their node is dead, the switch ends the leg by itself."""
    monkeypatch.setattr(following, "PARKED", 0.0)
    leave_behind(bench, clicked(state=terms.AGENT_ANSWERED))
    show_legs(bench.switch, parked_leg(variable_current_application=application))
    bench.adoption.beat()
    asked(bench, 5)
    assert not [text for text in bench.switch.heard if text.startswith("api hupall")]


def test_adoption_leg_of_a_living_owner_is_left(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PARKED", 0.0)
    leave_behind(bench, clicked(state=terms.AGENT_ANSWERED))
    show_legs(bench.switch, parked_leg(variable_current_application="socket"))
    monkeypatch.setattr(bench.services.membership, "returned", lambda _boots: "owner")
    monkeypatch.setattr(bench.adoption, "_give_back", lambda: None)
    bench.adoption.beat()
    asked(bench, 5)
    assert not [text for text in bench.switch.heard if text.startswith("api hupall")]


def test_adoption_leg_is_left_while_redis_cant_say(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PARKED", 0.0)
    leave_behind(bench, clicked(state=terms.AGENT_ANSWERED))
    show_legs(bench.switch, parked_leg(variable_current_application="socket"))
    says = iter([bench.services.membership.say])

    def say(**options: Any) -> None:
        if (first := next(says, None)) is None:
            raise NoAnswer
        first(**options)

    monkeypatch.setattr(bench.services.membership, "say", say)
    bench.adoption.beat()
    asked(bench, 5)
    assert not [text for text in bench.switch.heard if text.startswith("api hupall")]


def test_adoption_call_of_days_stays_known(bench: Bench) -> None:
    """Nothing about it changes for longer than Redis keeps a call."""
    attempt = begin_call(bench, integrator="acme")
    bench.flush()
    client = bench.redis_server.client
    client.expire(keys.call(attempt.call_ref), 5)
    client.delete(keys.calls("acme"))
    bench.adoption.beat()
    assert client.ttl(keys.call(attempt.call_ref)) > 80_000
    assert client.zrange(keys.calls("acme"), 0, -1) == [attempt.call_ref]


def test_adoption_many_calls_are_refreshed_in_turns(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adoption, "_REFRESH_LEAST", 1)
    monkeypatch.setattr(adoption, "_REFRESH_EVERY", 2)
    refs = [begin_call(bench).call_ref for _ in range(5)]
    bench.flush()
    client = bench.redis_server.client
    for ref in refs:
        client.expire(keys.call(ref), 5)
    bench.adoption.beat()
    assert sum(client.ttl(keys.call(ref)) > 5 for ref in refs) == 3
    bench.adoption.beat()
    assert all(client.ttl(keys.call(ref)) > 5 for ref in refs)


def test_adoption_second_process_of_the_name_is_told_of(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """It started while Redis was away. Neither takes the other's calls."""
    boot = leave_behind(bench, talking(), name="app1", silent=False)
    for _ in range(3):
        bench.redis_server.client.hset(keys.NODES, boot, msgspec.json.encode(["app1", "h:1", False, new_ref()]))
        bench.adoption.beat()
    assert bench.live == {}
    assert caplog.messages.count("node_name_taken") == 1


# Clocks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_adoption_times_of_another_nodes_clock_become_this_ones(bench: Bench, ahead: float) -> None:
    """The dead node's clock was wrong. The switch's is known to both."""
    was = {
        name: AT + seconds - ahead for name, seconds in (("dialed_at", 0.0), ("answered_at", 1.0), ("bridged_at", 3.0))
    }
    leave_behind(bench, talking(ahead=ahead, queued_at=AT - ahead, **was))
    show_legs(bench.switch, aleg(), bleg())
    bench.adoption.beat()
    asked(bench)
    hang_up(bench)
    ended(bench)
    record = bench.record()
    assert (record["dialed_at"], record["bridged_at"], record["ended_at"]) == (AT, AT + 3.0, AT + 9.0)


def test_adoption_files_of_a_dead_switch_are_read_by_its_clock(bench: Bench) -> None:
    """The switch was an hour ahead and was killed; another process answers now."""
    leave_behind(bench, talking(core_uuid="core-0", ahead=3600.0, queued_at=AT - 3600.0, dialed_at=AT - 3600.0))
    of_b: dict[str, Any] = {"esl_bleg": REF, "sip_hangup_disposition": "recv_bye"}
    write_cdr(bench, UUID, ref=REF, answered=3)
    write_cdr(bench, B, ref=REF, answered=3, **of_b)
    bench.adoption.beat()
    ended(bench)
    record = bench.record()
    assert record["end_reason"] == "answered"
    assert record["ended_at"] - record["dialed_at"] == 8.0


# Cancels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("at_its_node", "by"), [(True, terms.API), (True, terms.SYSTEM), (False, terms.API)])
def test_adoption_call_that_was_cancelled_says_so(build: Build, at_its_node: bool, by: str) -> None:
    """Its node died in this moment: what it knew of the cancel died with it."""
    first = build().connect()
    attempt = begin_call(first, integrator="acme", number="0820001234")
    first.flush()
    other = build(name="app3", known=first.switches).connect()
    if at_its_node:
        first.services.calls.cancel(attempt.call_ref, by)
    else:
        other.services.acting.cancel({"call_ref": attempt.call_ref, "switch": "fs1"})
    eventually(lambda: other.services.store.cancelled([attempt.call_ref]) == {attempt.call_ref: by})
    first.services.membership.say()
    first.die()
    first.services.membership.leave()
    other.adoption.beat()
    ended(other, attempt.call_ref)
    record = other.record()
    assert (record["end_reason"], record["hung_up_by"]) == (terms.CANCELLED, by)


def test_adoption_note_of_a_cancel_that_is_garbage_is_none(bench: Bench) -> None:
    bench.redis_server.client.set(keys.cancelled(REF), "x")
    assert bench.services.store.cancelled([REF]) == {}


def test_adoption_call_given_back_is_not_made_known_again(bench: Bench) -> None:
    """Its follower was waiting for the switch's answer meanwhile, and sees that B has answered."""
    boot = leave_behind(bench, talking(state=terms.QUEUED, bridged_at=None))
    show_legs(bench.switch, aleg(), bleg())
    bench.adoption.beat()
    asked(bench)
    attempt = bench.live[REF].attempt
    beat_again(bench, boot)
    attempt.enter(terms.BRIDGED, AT + 3.0)
    attempt.note("late")
    attempt.save()
    bench.flush()
    assert not bench.redis_server.client.exists(keys.live(bench.services.membership.boot))


def test_adoption_give_back_that_redis_refuses_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    boot = leave_behind(bench, talking())
    show_legs(bench.switch, aleg(), bleg())
    bench.adoption.beat()
    asked(bench)
    forget, refusals = bench.services.store.forget, [StoreUnavailable("redis: OOM")]

    def refuse_once(ref: str) -> None:
        if refusals:
            raise refusals.pop()
        forget(ref)

    monkeypatch.setattr(bench.services.store, "forget", refuse_once)
    beat_again(bench, boot)
    bench.adoption.beat()
    assert not bench.redis_server.client.exists(keys.live(bench.services.membership.boot))


# Other versions --------------------------------------------------------------------------------------


def written_later(call: Essence, version: int) -> bytes:
    """A call as a node of a later version writes it."""
    return call.encode()[:-1] + b',"later":{"x":1},"v":%d}' % version


def test_adoption_keeps_what_a_later_version_knows(bench: Bench) -> None:
    boot, own = leave_behind(bench, talking()), keys.live(bench.services.membership.boot)
    client = bench.redis_server.client
    client.hset(keys.live(boot), REF, written_later(talking(), 2))
    show_legs(bench.switch, aleg(), bleg())
    bench.adoption.beat()
    asked(bench)
    bench.flush()
    kept = json.loads(client.hget(own, REF))
    assert (kept["later"], kept["v"], kept["had_by"]) == ({"x": 1}, 2, [boot])
    hang_up(bench)
    ended(bench)
    assert bench.reason() == ("answered", 16, "callee")


def test_adoption_leaves_a_call_two_versions_ahead(bench: Bench, refusals: Refusals) -> None:
    """Also its process: nodes that can read the call look for the calls of processes that are known."""
    boot, client = leave_behind(bench, talking()), bench.redis_server.client
    raw = written_later(talking(), 3)
    client.hset(keys.live(boot), REF, raw)
    for _ in range(2):
        bench.adoption.beat()
    assert bench.live == {}
    assert client.hget(keys.live(boot), REF) == raw.decode()
    assert client.hexists(keys.NODES, boot)
    (said,) = [text for text in bench.services.readiness.problems() if "version" in text]
    assert said == "a live call is of version 3, this node reads 1 to 2: upgrade this node"
    # The others of the same process are adopted.
    client.hset(keys.live(boot), "2", talking(call_ref="2").encode())
    bench.adoption.beat()
    assert list(bench.live) == ["2"]


def test_adoption_leaves_a_damaged_call_and_forgets_its_process(bench: Bench) -> None:
    boot, client = leave_behind(bench, talking()), bench.redis_server.client
    client.hset(keys.live(boot), REF, b"{")
    bench.adoption.beat()
    assert not client.hexists(keys.NODES, boot)


def test_adoption_own_call_that_a_later_node_has_is_left(build: Build) -> None:
    """Rolled back two versions: its last run's log has the call, and so has a node that is ahead."""
    before = build()
    before.services.call_log.note(talking().encode())
    before.die()
    bench = build()
    other = leave_behind(bench, talking(), silent=False)
    bench.redis_server.client.hset(keys.live(other), REF, written_later(talking(), 3))
    bench.services.membership.say()
    bench.adoption.beat()
    assert bench.live == {}
