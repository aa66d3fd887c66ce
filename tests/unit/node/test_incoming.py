"""Which application serves a channel that comes to the event socket, and what it hears if none does."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from esl_apps.apps.context import AppPolicy, Arrival, Host, NotServed
from esl_apps.core import terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Call
from esl_apps.core.timed_call import TimedCall
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.esl.server import FULL
from esl_apps.node import incoming
from esl_apps.node import visit as visit_module
from esl_apps.store import keys
from esl_apps.store.documents import Refusals
from esl_apps.store.essence import Essence
from tests.support.bench import Bench, Build, essence_of, leave_behind, placed, probe, show_legs
from tests.support.call_switch import AT, new_call
from tests.support.peer import UUID, eventually

REF = "01a20447-2be6-705d-bfcb-64432c6ce89b"


# Refused ------------------------------------------------------------------------------------------------


def test_incoming_caller_who_hears_the_message_is_left_there(bench: Bench) -> None:
    visitor = bench.visit(**{"Caller-Destination-Number": incoming.UNAVAILABLE}).served()
    assert visitor.switch.commands == ["connect", "linger 5", "exit"]
    assert bench.records() == []


def test_incoming_draining_node_refuses_new_callers(bench: Bench) -> None:
    bench.services.readiness.draining = True
    assert bench.visit().served().hangup_cause == FULL
    assert bench.records() == []


def test_incoming_full_node_refuses_new_callers(bench: Bench) -> None:
    bench.services.readiness.sockets = bench.config.node.max_calls + 1
    assert bench.visit().served().hangup_cause == FULL
    bench.services.readiness.sockets -= 1
    assert bench.visit("nowhere/to/go").served().hangup_cause == FULL


def test_incoming_refusal_ends_the_watchdog_before_the_call(bench: Bench) -> None:
    visitor = bench.visit("nowhere").served()
    hangup = next(i for i, text in enumerate(visitor.switch.commands) if "execute-app-name: hangup" in text)
    assert f"api sched_del {UUID}" in visitor.switch.commands[:hangup]


@pytest.mark.parametrize("path", ["", "nowhere", "autodial", "disa", "disa/acme", "disa/acme/back", "disa//front/x"])
def test_incoming_unknown_path_is_refused_without_a_record(bench: Bench, path: str) -> None:
    cause = bench.visit(path).served().hangup_cause
    assert cause == ("UNALLOCATED_NUMBER" if path.startswith("disa") else FULL)
    assert bench.records() == []


def test_incoming_redis_away_refuses_for_a_while(bench: Bench) -> None:
    bench.redis.break_after(0)
    assert bench.visit("disa/acme/front").served().hangup_cause == "NORMAL_TEMPORARY_FAILURE"
    assert bench.records() == []


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (NotServed("no such thing", "UNALLOCATED_NUMBER"), "UNALLOCATED_NUMBER"),
        (StoreUnavailable("redis: away"), "NORMAL_TEMPORARY_FAILURE"),
    ],
)
def test_incoming_application_that_serves_not_chooses_cause(
    build: Build, monkeypatch: pytest.MonkeyPatch, error: Exception, cause: str
) -> None:
    def arrive(*_parts: object) -> None:
        raise error

    probe(monkeypatch, arrive)
    assert build().connect().visit("probe").served().hangup_cause == cause


# Served -------------------------------------------------------------------------------------------------


def test_incoming_application_gets_its_call_path_and_policy(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, Arrival, AppPolicy]] = []

    def arrive(call: Call, arrival: Arrival, policy: AppPolicy, host: Host) -> None:
        seen.append((call.uuid, arrival, policy))
        call.hangup("NORMAL_CLEARING")

    probe(monkeypatch, arrive)
    bench = build().connect()
    bench.visit("probe/acme/front").served()
    assert seen == [(UUID, Arrival(("probe", "acme", "front"), ""), bench.services.policy)]


def test_incoming_application_that_refuses_hears_hangups_alone(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def arrive(call: Call, arrival: Arrival, policy: AppPolicy, host: Host) -> None:
        call.hangup("USER_BUSY")

    probe(monkeypatch, arrive, refuses=True)
    visitor = build().connect().visit("probe").served()
    assert visitor.hangup_cause == "USER_BUSY"
    assert not any("esl_bleg" in text for text in visitor.switch.commands)
    assert f"api sched_del {UUID}" in visitor.switch.commands


def test_incoming_fault_of_an_application_leaves_a_lost_record(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def arrive(call: Call, arrival: Arrival, policy: AppPolicy, host: Host) -> None:
        host.begin(Attempt(app="probe", call_dir="external"))
        raise RuntimeError("a fault of the application's")

    probe(monkeypatch, arrive)
    bench = build().connect()
    visitor = bench.visit("probe").served()
    assert isinstance(visitor.error, RuntimeError)
    assert bench.reason() == (terms.LOST, 31, terms.SYSTEM)
    assert bench.live == {}


@pytest.mark.parametrize("error", [StoreUnavailable("redis: away"), NotServed("no such thing", "CALL_REJECTED")])
def test_incoming_application_that_gives_up_late_has_its_record(
    build: Build, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def arrive(call: Call, arrival: Arrival, policy: AppPolicy, host: Host) -> None:
        host.begin(Attempt(app="probe", call_dir="external"))
        raise error

    probe(monkeypatch, arrive)
    bench = build().connect()
    assert bench.visit("probe").served().hangup_cause is not None
    assert bench.reason() == (terms.LOST, 31, terms.SYSTEM)
    assert bench.live == {}


def test_incoming_fault_before_the_call_began_has_no_record(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def arrive(*_parts: object) -> None:
        raise RuntimeError("a fault of the application's")

    probe(monkeypatch, arrive)
    bench = build().connect()
    bench.visit("probe").served()
    assert bench.records() == []


# Afterwards ---------------------------------------------------------------------------------------------


def postponing(
    build: Build, monkeypatch: pytest.MonkeyPatch, task: Callable[[], None]
) -> tuple[Bench, Callable[[], None]]:
    """A node with an application that does a task after its caller has left."""

    def arrive(call: Call, arrival: Arrival, policy: AppPolicy, host: Host) -> None:
        host.afterwards(task)

    probe(monkeypatch, arrive)
    bench = build().connect()

    def visit() -> None:
        bench.visit("probe").served()

    return bench, visit


def test_incoming_task_is_done_after_the_channel_was_let_go(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    connected: list[bool] = []
    bench, visit = postponing(build, monkeypatch, lambda: connected.append(bench.visitors[0].session.connected))
    visit()
    assert connected == [False]


def test_incoming_task_is_tried_until_redis_is_back(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def task() -> None:
        tries.append(len(tries))
        if len(tries) < 4:
            raise StoreUnavailable("redis: away")

    _bench, visit = postponing(build, monkeypatch, task)
    visit()
    eventually(lambda: len(tries) == 4)
    gevent.sleep(0.01)
    assert len(tries) == 4


@pytest.mark.parametrize("stopped", [False, True])
def test_incoming_task_is_given_up_in_the_end(
    build: Build, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stopped: bool
) -> None:
    def task() -> None:
        raise StoreUnavailable("redis: away")

    monkeypatch.setattr(incoming, "_TRY_FOR", 60.0 if stopped else 0.01)
    bench, visit = postponing(build, monkeypatch, task)
    visit()
    if stopped:
        bench.services.readiness.stopped.set()
    eventually(lambda: "task_lost" in caplog.messages)


# Legs that this node rang -------------------------------------------------------------------------------


def ringing(bench: Bench) -> Any:
    """A call that this node places; the switch has said nothing of it yet."""
    order = placed(integrator="acme")
    bench.outgoing.place(order)
    return order


@pytest.mark.parametrize("state", ["ready", "draining", "full"])
def test_incoming_answered_leg_of_ours_goes_to_its_application(bench: Bench, state: str) -> None:
    order = ringing(bench)
    bench.services.readiness.draining = state == "draining"
    bench.services.readiness.sockets = 100_000 if state == "full" else 0
    visitor = bench.visit("click2dial", variable_esl_call_ref=order.attempt.call_ref).served()
    assert [call.uuid for call in order.answered_by] == [UUID]
    assert visitor.error is None
    assert bench.record()["call_ref"] == order.attempt.call_ref


def test_incoming_second_leg_with_a_calls_reference_is_refused(bench: Bench) -> None:
    """Anyone who reaches the switch may give a leg our variables: a call has one A-leg."""
    order = ringing(bench)
    bench.live[order.attempt.call_ref].attached = True
    headers = {"variable_esl_call_ref": order.attempt.call_ref, "variable_esl_app": "click-dial"}
    assert bench.visit("click2dial", **headers).served().hangup_cause == "NORMAL_CLEARING"
    assert order.answered_by == []
    assert not order.attempt.ended


# Legs that another process rang -------------------------------------------------------------------------


def rung_elsewhere(bench: Bench, **fields: Any) -> dict[str, object]:
    """A click-to-dial call whose node died while its agent rang; the headers of its leg."""
    call = essence_of(
        **{
            "app": "click-dial",
            "integrator": "acme",
            "extension": "1000",
            "number": "0820001234",
            "state": terms.AGENT_RINGING,
            "dialed_at": 1_700_000_001.0,
            "call_ref": REF,
            **fields,
        }
    )
    leave_behind(bench, call)
    return headers_of(call.app)


def headers_of(app: str) -> dict[str, object]:
    return {
        "variable_esl_call_ref": REF,
        "variable_esl_app": app,
        "variable_esl_user_id": "1000",
        "variable_esl_callee": "0820001234",
        "variable_esl_outbound_id": "27115550000",
        "variable_esl_contact_ref": REF,
        "Caller-Channel-Answered-Time": 1_700_000_002_000_000,
    }


def test_incoming_leg_of_a_dead_node_goes_on_here(bench: Bench) -> None:
    headers = rung_elsewhere(bench)
    visitor = bench.visit("click2dial", **headers)
    visitor.switch.scripts["bridge"] = lambda _uuid: visitor.hung_up("NORMAL_CLEARING", 16)
    visitor.served()
    assert any("0820001234" in arg for app, arg in visitor.switch.executed if app == "bridge")
    found = bench.record()
    assert (found["call_ref"], found["dialed_at"]) == (REF, 1_700_000_001)


def test_incoming_leg_that_was_seen_to_answer_goes_on(bench: Bench) -> None:
    """The switch told an adopter that the agent has answered, a moment before the leg's socket came here."""
    headers = rung_elsewhere(bench, state=terms.AGENT_ANSWERED, answered_at=1_700_000_002.0)
    visitor = bench.visit("click2dial", **headers)
    visitor.switch.scripts["bridge"] = lambda _uuid: visitor.hung_up("NORMAL_CLEARING", 16)
    visitor.served()
    assert any("0820001234" in arg for app, arg in visitor.switch.executed if app == "bridge")


def test_incoming_leg_goes_on_on_one_of_two_nodes_only(build: Build) -> None:
    first = build().connect()
    second = build(name="app3", known=first.switches).connect()
    headers = rung_elsewhere(first)
    one = first.visit("click2dial", **headers)
    one.switch.scripts["bridge"] = lambda _uuid: b""
    eventually(lambda: REF in first.live)
    # The same leg can't come twice, but its call is not to be had from Redis any more.
    assert second.visit("click2dial", **headers).served().hangup_cause == "NORMAL_CLEARING"
    one.leaves()
    one.served()
    assert [found["call_ref"] for found in (*first.records(), *second.records())] == [REF]


def test_incoming_leg_rung_before_redis_knew_says_when(bench: Bench) -> None:
    visitor = bench.visit("click2dial", **rung_elsewhere(bench, dialed_at=None, state=terms.QUEUED))
    visitor.switch.scripts["bridge"] = lambda _uuid: visitor.hung_up("NORMAL_CLEARING", 16)
    visitor.served()
    assert bench.record()["dialed_at"] == int(AT)


def test_incoming_leg_of_a_call_followed_here_is_taken_up(bench: Bench) -> None:
    """This node had adopted the call, and its leg answers here: the follower lets go, and nothing is lost."""
    headers = rung_elsewhere(bench)
    show_legs(bench.switch, {"Unique-ID": UUID, "variable_esl_call_ref": REF})
    bench.adoption.beat()
    follower = bench.live[REF]
    visitor = bench.visit("click2dial", **headers)
    visitor.switch.scripts["bridge"] = lambda _uuid: b""
    eventually(lambda: bench.live[REF] is not follower)
    assert (follower.adopted, follower.released, bench.live[REF].adopted) == (True, True, False)
    visitor.leaves()
    visitor.served()
    assert bench.record()["call_ref"] == REF


@pytest.mark.parametrize("ends", [False, True], ids=["adopted", "ended"])
def test_incoming_leg_whose_call_moves_meanwhile_is_followed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    """Between looking the call up and taking it over, another node adopts it, or it ends."""
    headers = rung_elsewhere(bench)
    adopter = leave_behind(bench, name="app4", silent=False)
    bench.services.membership.say()
    take_over = bench.services.store.take_over
    taken: list[str] = []

    def raced(call: Essence, boot: str) -> bool:
        if not taken:
            client = bench.redis_server.client
            if not ends:
                client.hset(keys.live(adopter), REF, str(client.hget(keys.live(boot), REF)))
            client.hdel(keys.live(boot), REF)
        taken.append(boot)
        return take_over(call, boot)

    monkeypatch.setattr(bench.services.store, "take_over", raced)
    visitor = bench.visit("click2dial", **headers)
    visitor.switch.scripts["bridge"] = lambda _uuid: visitor.hung_up("NORMAL_CLEARING", 16)
    visitor.served()
    assert taken[1:] == ([] if ends else [adopter])
    assert [found["call_ref"] for found in bench.records()] == ([] if ends else [REF])
    assert not bench.redis_server.client.hexists(keys.live(adopter), REF)


def test_incoming_leg_whose_call_has_ended_is_hung_up(bench: Bench) -> None:
    assert bench.visit("click2dial", **headers_of("click-dial")).served().hangup_cause == "NORMAL_CLEARING"
    assert bench.records() == []


def test_incoming_leg_while_redis_is_away_is_hung_up(bench: Bench) -> None:
    headers = rung_elsewhere(bench)
    bench.redis.break_after(0)
    assert bench.visit("click2dial", **headers).served().hangup_cause == "NORMAL_CLEARING"
    bench.redis.mend()
    assert bench.records() == []


@pytest.mark.parametrize(
    "fields",
    [{"state": terms.CALLEE_RINGING}, {"integrator": "gone"}],
    ids=["served before", "integrator gone"],
)
def test_incoming_leg_that_cannot_go_on_is_left_to_adoption(bench: Bench, fields: dict[str, Any]) -> None:
    """Adoption sees how the legs end: a phone's own call, handed over by its node, was perhaps not answered."""
    headers = rung_elsewhere(bench, **fields)
    assert bench.visit("click2dial", **headers).served().hangup_cause == "NORMAL_CLEARING"
    assert bench.records() == []
    show_legs(bench.switch)
    bench.adoption.beat()
    eventually(lambda: REF not in bench.live)
    assert bench.reason() == (terms.LOST, 31, terms.SYSTEM)


@pytest.mark.parametrize("unreadable", ["esl_callee", "esl_outbound_id"])
def test_incoming_leg_with_unreadable_variables_is_adopted(bench: Bench, unreadable: str) -> None:
    headers = {**rung_elsewhere(bench), f"variable_{unreadable}": "${system(id)}"}
    bench.visit("click2dial", **headers).served()
    show_legs(bench.switch)
    bench.adoption.beat()
    eventually(lambda: REF not in bench.live)
    assert bench.reason() == (terms.LOST, 31, terms.SYSTEM)


def test_incoming_leg_of_an_unknown_application_is_refused(bench: Bench) -> None:
    """The package isn't installed on this node, so the caller hears that no node serves them."""
    headers = rung_elsewhere(bench, app="wakeup")
    assert bench.visit("wakeup", **headers, variable_esl_session_ref=REF).served().hangup_cause == FULL


def test_incoming_answered_timed_call_is_settled(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = build().connect()
    card = bench.services.policy.cards.create("acme", {"cid": "+27825556666", "active": True})
    store = bench.services.timed_calls["callback"]
    now = time.time()
    assert store.schedule("27825556666", [card.id, ""], now, now=now)
    due = store.claim_due(now, 60.0)
    assert isinstance(due, TimedCall)
    pending = {"id": due.id, "number": due.number, "data": due.data, "attempt": due.attempt, "claim": due.claim}
    order = {"card": card.id, "pending": pending}
    headers = rung_elsewhere(bench, app="callback", account_id="acme", extension="+27825556666", order=order)
    visitor = bench.visit("callback", **headers)
    eventually(lambda: not bench.redis_server.client.exists(keys.timed_pending("callbacks")))
    visitor.leaves()
    visitor.served()
    assert bench.record()["call_ref"] == REF


# Redis away at each step --------------------------------------------------------------------------------


def is_kept(bench: Bench) -> bool:
    """Whether a process that is dead still has the call: then another node adopts it."""
    boots = [boot for boot in bench.services.membership.peers if boot != bench.services.membership.boot]
    return any(bench.redis_server.client.hexists(keys.live(boot), REF) for boot in boots)


@pytest.mark.parametrize("app", ["click-dial", "callback", "disa", "inbound"])
def test_incoming_with_redis_away_at_any_step_loses_no_call(build: Build, app: str) -> None:
    """The channel of a dead node's call comes here; after the n-th command Redis is away until the channel has gone."""
    bench = build().connect()
    card = bench.services.policy.cards.create("acme", {"cid": "+27825556666", "active": True})
    path = {"click-dial": "click2dial", "disa": "disa/acme/front"}.get(app, app)
    for step in range(30):
        headers = rung_elsewhere(
            bench,
            app=app,
            account_id="acme",
            extension="+27825556666" if app == "callback" else "1000",
            number=None if app == "disa" else "0820001234",
            order={"card": card.id},
        )
        bench.services.membership.say()
        bench.redis.asked = 0
        bench.redis.break_after(step)
        visitor = bench.visit(path, **headers, variable_esl_session_ref=REF)
        visitor.types()
        visitor.switch.scripts["bridge"] = lambda _uuid, visitor=visitor: visitor.hung_up("NORMAL_CLEARING", 16)  # type: ignore[misc]
        eventually(lambda: visitor.greenlet.dead or visitor.switch.executed)  # noqa: B023
        visitor.leaves()
        visitor.served()
        assert visitor.error is None
        whole = bench.redis.asked <= step
        bench.redis.mend()
        records = [found["call_ref"] for found in bench.records()]
        # A customer is served without Redis, in a new call.
        assert records.count(REF) == 1 or is_kept(bench), f"lost after {step} commands"
        assert records.count(REF) <= 1
        assert bench.live == {}
        for key in bench.redis_server.client.keys(keys.live("*")):
            bench.redis_server.client.delete(key)
        # The next step's record is not this one's once more.
        for key in bench.redis_server.client.keys("*:done:*"):
            bench.redis_server.client.delete(key)
        if whole:
            break
    assert whole
    assert step >= 2


# Memory -----------------------------------------------------------------------------------------------


def test_incoming_visit_is_freed_without_the_garbage_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds the channel, which asks it for prompts and its end; the session tells the channel of what comes; and all
    the events of the call hang on these."""
    channel, switch, session = new_call({"socket_path": "disa/acme/front"})

    def opened(_session: object, prompt_path: Any, find_end: Any, _clock_of: object) -> object:
        channel = made.pop()
        channel._prompt_path, channel._find_end = prompt_path, find_end
        return channel

    def serve(visit: visit_module.Visit) -> None:
        visit.channel.begin("ref-1", watched=False)
        freed.append(weakref.ref(visit))
        assert visit.channel.uuid == UUID

    made = [channel]
    freed: list[Any] = [weakref.ref(channel), weakref.ref(session)]
    monkeypatch.setattr(visit_module, "Channel", opened)
    policy = SimpleNamespace(prompt=None, settings=SimpleNamespace(rtcp_interval=None))
    services: Any = SimpleNamespace(
        switches=[SimpleNamespace(core_uuid="core", connected=True, addresses=())], policy=policy
    )
    incomings = incoming.Incoming(services, {})
    monkeypatch.setattr(incomings, "_serve", serve)
    gc.disable()
    try:
        incomings.handle(session)
        session.leave()
        del channel, session
        monkeypatch.undo()
        assert [one() for one in freed] == [None, None, None]
    finally:
        gc.enable()
        switch.peer.close()
        switch.greenlet.kill()


def test_incoming_leg_two_versions_ahead_is_refused_and_left(bench: Bench, refusals: Refusals) -> None:
    headers = {**rung_elsewhere(bench), "variable_esl_v": "3"}
    assert bench.visit("click2dial", **headers).served().hangup_cause == "NORMAL_TEMPORARY_FAILURE"
    assert REF not in bench.live
    assert refusals.current() == ["a leg on the switch is of version 3, this node reads 1 to 2: upgrade this node"]


def test_incoming_leg_one_version_ahead_goes_on_here(bench: Bench) -> None:
    headers = {**rung_elsewhere(bench), "variable_esl_v": "2"}
    visitor = bench.visit("click2dial", **headers)
    visitor.switch.scripts["bridge"] = lambda _uuid: visitor.hung_up("NORMAL_CLEARING", 16)
    visitor.served()
    assert bench.record()["call_ref"] == REF
