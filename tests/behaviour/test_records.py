"""One record per call, whatever dies: Redis, the switch, the sockets, the node.

``ESL_APPS_OUTAGE=30`` keeps Redis down for 30 s; by default it is a second.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.rig.base import Script, eventually
from tests.rig.sandbox import SandboxRig
from tests.support.node import ADMIN_TOKEN, CDRS, Node, RedisServer, configuration, request
from tests.support.ports import free_port

OUTAGE = float(os.environ.get("ESL_APPS_OUTAGE", "1"))
CALLEE, DID = "0820001234", "27115550000"


class Stage:
    """A switch, a Redis that keeps its data when killed, and a node, shared by a module's tests."""

    def __init__(self) -> None:
        self.sandbox = SandboxRig()
        self.redis = RedisServer(persistent=True)
        self.node = self.start()

    def start(self, *, drain_timeout: float = 5, **integrator: Any) -> Node:
        config = configuration(self.sandbox, self.redis, agent_timeout=60, callee_timeout=60)
        config["node"]["drain_timeout"] = drain_timeout
        config["inbound"] = {DID: {"integrator": "acme", "agents": ["1000", "1001"], "ring_timeout": 5}}
        config["integrators"][0].update(integrator)
        return Node(config)

    def stop(self, node: Node) -> None:
        """Stop a node and check that it exited with 0 and logged no traceback."""
        try:
            node.end()
        except subprocess.TimeoutExpired:
            node.stop(signal.SIGKILL)
            raise

    def clear(self) -> None:
        self.sandbox.reset()
        eventually(lambda: live(self.node) == waiting(self.node) == 0)
        self.redis.flush()

    def close(self) -> None:
        self.stop(self.node)
        self.sandbox.close()
        self.redis.close()


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def clean(stage: Stage) -> Iterator[None]:
    eventually(lambda: ready(stage.node))
    yield
    stage.clear()


@pytest.fixture
def sandbox(stage: Stage) -> SandboxRig:
    return stage.sandbox


@pytest.fixture
def mortal(stage: Stage) -> RedisServer:
    return stage.redis


@pytest.fixture
def node(stage: Stage) -> Node:
    """The stage's node; a test that ends a node starts one of its own."""
    return stage.node


@pytest.fixture
def start(stage: Stage) -> Iterator[Callable[..., Node]]:
    """Start nodes for one test."""
    nodes: list[Node] = []

    def make(**more: Any) -> Node:
        nodes.append(stage.start(**more))
        return nodes[-1]

    yield make
    stage.sandbox.reset()
    for one in nodes:
        stage.stop(one)


def live(node: Node) -> float:
    return metric(node, "esl_apps_live_calls{")


def waiting(node: Node) -> float:
    """Count the notifications that are not in Redis yet."""
    return metric(node, "esl_apps_outbox_depth{")


def metric(node: Node, begin: str) -> float:
    text = request(node.admin, "GET", "/metrics", token=None).body.decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(begin))


def ready(node: Node) -> bool:
    return request(node.admin, "GET", "/readyz", token=ADMIN_TOKEN).status == 200


def records(redis: RedisServer, count: int, within: float = 10.0) -> list[dict[str, Any]]:
    """Pop the next records; AssertionError if there are fewer, or more."""
    found = [redis.pop(timeout=within) for _ in range(count)]
    time.sleep(0.1)
    assert not redis.client.lrange(CDRS, 0, -1), [record["call_ref"] for record in found]
    return found


def by_ref(found: list[dict[str, Any]]) -> dict[str, tuple[str, int]]:
    made = {record["call_ref"]: (record["end_reason"], record["end_code"]) for record in found}
    assert len(made) == len(found), "a call has two records"
    return made


def in_state(node: Node, state: str, *refs: str) -> None:
    for ref in refs:
        eventually(lambda ref=ref: node.get(ref)["state"] == state, message=f"{ref} is not {state}")  # type: ignore[misc]


# Redis dies ----------------------------------------------------------------------------------------------


def hundred_calls(node: Node, sandbox: SandboxRig) -> list[str]:
    """Place a hundred calls that stay bridged until they are hung up."""
    for number in range(100):
        sandbox.phone(str(1000 + number), Script(answer_after=0.0))
        sandbox.outside(f"08200{number:05}", Script(answer_after=0.0))
    with ThreadPoolExecutor(8) as pool:
        refs = list(pool.map(lambda number: node.call(str(1000 + number), f"08200{number:05}"), range(100)))
    eventually(lambda: sandbox.live_channels() == 200)
    in_state(node, "bridged", *refs)
    return refs


def test_records_redis_down_for_a_hundred_calls_lose_none(node: Node, sandbox: SandboxRig, mortal: RedisServer) -> None:
    refs = hundred_calls(node, sandbox)
    order = []
    for ref in refs[:30]:
        node.delete(ref)
        order.append(ref)
        in_state(node, "ended", ref)
    mortal.kill()
    for ref in refs[30:70]:
        assert node.delete(ref).status == 202
        order.append(ref)
        channels = 2 * (100 - len(order))
        eventually(lambda channels=channels: sandbox.live_channels() == channels)  # type: ignore[misc]
    time.sleep(OUTAGE)
    assert sandbox.live_channels() == 60, "a call dropped because Redis was away"
    mortal.start()
    for ref in refs[70:]:
        node.delete(ref)
        order.append(ref)
        channels = 2 * (100 - len(order))
        eventually(lambda channels=channels: sandbox.live_channels() == channels)  # type: ignore[misc]
    found = records(mortal, 100)
    assert [record["call_ref"] for record in found] == order
    first = found[0]["seq"]
    assert [record["seq"] for record in found] == list(range(first, first + 100))
    assert {(record["end_reason"], record["hung_up_by"]) for record in found} == {("answered", "api")}


def test_records_survive_a_redis_that_comes_back_empty(node: Node, sandbox: SandboxRig, mortal: RedisServer) -> None:
    sandbox.phone("1000")
    sandbox.outside(CALLEE, Script(answer_after=0.0))
    # From now on it has nothing on disk, and no client takes this one's record.
    mortal.client.config_set("appendonly", "no")
    waiting = node.call("1000", CALLEE)
    node.delete(waiting)
    eventually(lambda: mortal.client.llen(CDRS) == 1)
    refs = [node.call("1000", CALLEE)]
    in_state(node, "bridged", *refs)
    mortal.kill()
    node.delete(refs[0])
    eventually(lambda: sandbox.live_channels() == 0)
    mortal.start()
    mortal.client.flushall()
    mortal.client.script_flush()
    # Those of the seconds before may come again, too.
    found: dict[str, str] = {}
    while not {waiting, refs[0]} <= set(found):
        record = mortal.pop()
        found[record["call_ref"]] = record["end_reason"]
    assert (found[waiting], found[refs[0]]) == ("cancelled", "answered")
    eventually(lambda: ready(node))


def test_records_integrators_own_redis_gets_only_its_own(
    start: Callable[..., Node], sandbox: SandboxRig, mortal: RedisServer, redis: RedisServer
) -> None:
    redis.client.flushdb()
    node = start(redis={"url": redis.url})
    sandbox.phone("1000", Script(reject=486))
    ref = node.call("1000", CALLEE)
    assert by_ref(records(redis, 1)) == {ref: ("agent_busy", 17)}
    assert mortal.client.llen(CDRS) == 0


# The switch dies -----------------------------------------------------------------------------------------


def calls_in_each_state(node: Node, sandbox: SandboxRig) -> dict[str, str]:
    """Place one call for each state; return their references by state."""
    sandbox.phone("1000", Script(answer_after=None))
    sandbox.phone("1001")
    sandbox.phone("1002")
    sandbox.outside("0820000001", Script(answer_after=None))
    sandbox.outside("0820000002", Script(answer_after=0.0))
    made = {
        "agent_ringing": node.call("1000", CALLEE),
        "callee_ringing": node.call("1001", "0820000001"),
        "bridged": node.call("1002", "0820000002"),
    }
    for state, ref in made.items():
        in_state(node, state, ref)
    return made


def works(node: Node, sandbox: SandboxRig, redis: RedisServer) -> None:
    """Check that a new call goes through, without a restart of the node."""
    eventually(lambda: ready(node))
    sandbox.phone("1005")
    sandbox.outside("0820000005", Script(answer_after=0.0, hangup_after=0.1))
    ref = node.call("1005", "0820000005")
    assert by_ref(records(redis, 1)) == {ref: ("answered", 16)}


@pytest.mark.parametrize("away", [0.0, 6.0], ids=["a moment", "for long"])
def test_records_killed_switch_loses_calls_but_no_record(
    node: Node, sandbox: SandboxRig, mortal: RedisServer, away: float
) -> None:
    made = calls_in_each_state(node, sandbox)
    sandbox.kill()
    if away:
        found = records(mortal, 3, within=away + 4)
        sandbox.start()
    else:
        sandbox.start()
        found = records(mortal, 3)
    assert by_ref(found) == dict.fromkeys(made.values(), ("lost", 31))
    assert {record["hung_up_by"] for record in found} == {"system"}
    works(node, sandbox, mortal)


def test_records_cancel_while_the_switch_is_away_is_one(node: Node, sandbox: SandboxRig, mortal: RedisServer) -> None:
    made = calls_in_each_state(node, sandbox)
    sandbox.kill()
    for ref in made.values():
        assert node.delete(ref).status in (200, 202)
    sandbox.start()
    reasons = by_ref(records(mortal, 3))
    assert reasons.keys() == set(made.values())
    assert {reason for reason, _code in reasons.values()} <= {"cancelled", "lost", "answered"}
    works(node, sandbox, mortal)


def test_records_switch_stalls_for_a_moment_loses_none(node: Node, sandbox: SandboxRig, mortal: RedisServer) -> None:
    made = calls_in_each_state(node, sandbox)
    sandbox.pause()
    time.sleep(1.0)
    sandbox.resume()
    for ref in made.values():
        node.delete(ref)
    reasons = by_ref(records(mortal, 3))
    assert reasons[made["agent_ringing"]] == reasons[made["callee_ringing"]] == ("cancelled", 16)
    assert reasons[made["bridged"]] == ("answered", 16)
    works(node, sandbox, mortal)


# The sockets drop, the calls stay --------------------------------------------------------------------------


def test_socket_dropped_in_a_talk_keeps_the_true_cause(node: Node, sandbox: SandboxRig, mortal: RedisServer) -> None:
    sandbox.phone("1000")
    callee = sandbox.outside(CALLEE, Script(answer_after=0.0))
    ref = node.call("1000", CALLEE)
    in_state(node, "bridged", ref)
    sandbox.drop_sockets()
    time.sleep(0.5)
    assert sandbox.live_channels() == 2
    assert mortal.client.llen(CDRS) == 0
    callee.calls[0].hangup()
    (record,) = records(mortal, 1)
    assert (record["call_ref"], record["end_reason"], record["end_code"]) == (ref, "answered", 16)
    assert record["hung_up_by"] == "callee"
    works(node, sandbox, mortal)


def test_socket_dropped_while_the_agent_rang_still_joins(node: Node, sandbox: SandboxRig, mortal: RedisServer) -> None:
    sandbox.phone("1000", Script(answer_after=1.0))
    sandbox.outside(CALLEE, Script(answer_after=0.1, hangup_after=0.3))
    ref = node.call("1000", CALLEE)
    in_state(node, "agent_ringing", ref)
    sandbox.drop_sockets()
    assert by_ref(records(mortal, 1)) == {ref: ("answered", 16)}


@pytest.mark.parametrize(
    ("callee", "expected"),
    [
        (Script(answer_after=0.8, hangup_after=0.3), ("answered", 16)),
        (Script(reject=486, answer_after=0.8), ("callee_busy", 17)),
        (Script(reject=404, answer_after=0.8), ("callee_failed", 1)),
    ],
    ids=["answers", "busy", "unknown"],
)
def test_socket_dropped_while_the_callee_rang_has_a_record(
    node: Node, sandbox: SandboxRig, mortal: RedisServer, callee: Script, expected: tuple[str, int]
) -> None:
    sandbox.phone("1000")
    sandbox.outside(CALLEE, callee)
    ref = node.call("1000", CALLEE)
    in_state(node, "callee_ringing", ref)
    sandbox.drop_sockets()
    assert by_ref(records(mortal, 1)) == {ref: expected}
    eventually(lambda: sandbox.live_channels() == 0)


def test_socket_dropped_while_agents_rang_has_a_record(node: Node, sandbox: SandboxRig, mortal: RedisServer) -> None:
    sandbox.phone("1000", Script(answer_after=None))
    answers = sandbox.phone("1001", Script(answer_after=1.2, hangup_after=0.3))
    sandbox.route(DID, "inbound", node.config["node"]["listen"])
    sandbox.outside("0825556666").dial(DID)
    eventually(lambda: answers.calls)
    time.sleep(0.1)
    sandbox.drop_sockets()
    (record,) = records(mortal, 1)
    assert (record["end_reason"], record["hung_up_by"], record["extension"]) == ("answered", "agent", "1001")
    assert record["hold_time"] == pytest.approx(answers.calls[0].leg.answered_after, abs=0.6)
    announced = mortal.pop("enigma:notifications:inbound")
    assert (announced["call_ref"], announced["ref"]) == (record["call_ref"], "1001")


def test_socket_dropped_call_can_be_cancelled(node: Node, sandbox: SandboxRig, mortal: RedisServer) -> None:
    made = calls_in_each_state(node, sandbox)
    sandbox.drop_sockets()
    eventually(lambda: ready(node))
    for ref in made.values():
        assert node.delete(ref).status in (200, 202)
    reasons = by_ref(records(mortal, 3))
    assert reasons[made["agent_ringing"]] == ("cancelled", 16)
    assert reasons[made["bridged"]] == ("answered", 16)
    eventually(lambda: sandbox.live_channels() == 0)


# The node ends -------------------------------------------------------------------------------------------


def told_to_stop(node: Node) -> None:
    assert node.process is not None
    node.process.send_signal(signal.SIGTERM)
    eventually(lambda: not ready(node))


def test_stop_lets_calls_end_and_takes_no_more(
    start: Callable[..., Node], sandbox: SandboxRig, mortal: RedisServer
) -> None:
    node = start()
    sandbox.phone("1000")
    callee = sandbox.outside(CALLEE, Script(answer_after=0.0))
    ref = node.call("1000", CALLEE)
    in_state(node, "bridged", ref)
    told_to_stop(node)
    answer = node.post("1000", CALLEE)
    assert answer.status == 503
    assert answer.headers["retry-after"]
    assert "draining" in answer.json["errors"][0]["message"]
    assert request(node.admin, "GET", "/healthz").status == 200
    assert sandbox.live_channels() == 2
    callee.calls[0].hangup()
    assert node.process is not None
    assert node.process.wait(5) == 0
    assert by_ref(records(mortal, 1)) == {ref: ("answered", 16)}


def test_stop_while_the_agent_rings_still_joins(
    start: Callable[..., Node], sandbox: SandboxRig, mortal: RedisServer
) -> None:
    node = start()
    agent = sandbox.phone("1000", Script(answer_after=0.5))
    sandbox.outside(CALLEE, Script(answer_after=0.1, hangup_after=0.3))
    ref = node.call("1000", CALLEE)
    in_state(node, "agent_ringing", ref)
    told_to_stop(node)
    assert agent.calls[0].leg.answered_at is None
    assert node.process is not None
    assert node.process.wait(8) == 0
    assert by_ref(records(mortal, 1)) == {ref: ("answered", 16)}


def test_stop_gives_a_new_caller_a_cause(start: Callable[..., Node], sandbox: SandboxRig, mortal: RedisServer) -> None:
    node = start()
    sandbox.phone("1000", Script(answer_after=1.0))
    sandbox.route(DID, "inbound", node.config["node"]["listen"])
    ref = node.call("1000", CALLEE)
    in_state(node, "agent_ringing", ref)
    told_to_stop(node)
    leg = sandbox.outside("0825556666").dial(DID)
    eventually(lambda: leg.leg.ended_at is not None, message="the caller was left in silence")
    assert leg.leg.answered_at is None
    node.delete(ref)
    records(mortal, 1)


def test_stop_waits_no_longer_than_drain_timeout(
    start: Callable[..., Node], sandbox: SandboxRig, mortal: RedisServer
) -> None:
    node = start(drain_timeout=0.5)
    sandbox.phone("1000")
    sandbox.outside(CALLEE, Script(answer_after=0.0))
    in_state(node, "bridged", node.call("1000", CALLEE))
    began = time.monotonic()
    assert node.stop() == 0
    assert time.monotonic() - began < 10
    assert sandbox.live_channels() == 2, "the two who talk were cut"


def test_stop_with_many_redises_down_takes_no_longer(start: Callable[..., Node], sandbox: SandboxRig) -> None:
    node = start(drain_timeout=0.5)
    assert node.stop() == 0
    first = node.config["integrators"][0]
    for number in range(16):
        away = {"listen": f"127.0.0.1:{free_port()}", "redis": {"url": f"redis://127.0.0.1:{free_port()}/0"}}
        node.config["integrators"].append({**first, "name": f"away{number}", **away})
    node.start()
    sandbox.phone("1000", Script(reject=486))
    order = {"agent": "1000", "callee": CALLEE, "outbound_id": "27115550000"}
    for one in node.config["integrators"][1:]:
        ref = request(one["listen"], "POST", "/click2dial/calls", order).json["call_ref"]
        in_state_by_log(node, ref)
    began = time.monotonic()
    assert node.stop() == 0
    assert time.monotonic() - began < 12  # one after the other, they would take 16 s and more


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_records_redis_did_not_take_come_with_the_next_run(
    start: Callable[..., Node], sandbox: SandboxRig, mortal: RedisServer, sig: signal.Signals
) -> None:
    node = start(drain_timeout=0.5)
    sandbox.phone("1000")
    callee = sandbox.outside(CALLEE, Script(answer_after=0.0))
    refs = []
    for _ in range(3):
        refs.append(node.call("1000", CALLEE))
        in_state(node, "bridged", refs[-1])
    mortal.kill()
    for call, ref in zip(callee.calls, refs, strict=True):
        call.hangup()
        in_state_by_log(node, ref)
    assert node.stop(sig) == (0 if sig == signal.SIGTERM else -sig)
    mortal.start()
    assert mortal.client.llen(CDRS) == 0
    node.start()
    found = records(mortal, 3)
    assert [record["call_ref"] for record in found] == refs
    assert by_ref(found) == dict.fromkeys(refs, ("answered", 16))


def in_state_by_log(node: Node, ref: str) -> None:
    """Redis is down and cannot be asked."""
    eventually(lambda: any(line["event"] == "record" and line["call_ref"] == ref for line in node.lines()))


def test_records_for_a_redis_no_longer_configured_are_kept(
    start: Callable[..., Node], sandbox: SandboxRig, mortal: RedisServer
) -> None:
    own = RedisServer()
    node = start(drain_timeout=0.5, redis={"url": own.url})
    own.close()
    sandbox.phone("1000", Script(reject=486))
    ref = node.call("1000", CALLEE)
    in_state_by_log(node, ref)
    assert node.stop() == 0
    del node.config["integrators"][0]["redis"]
    node.start()
    assert by_ref(records(mortal, 1)) == {ref: ("agent_busy", 17)}
    node.stop()
    node.start()
    time.sleep(0.2)
    assert mortal.client.llen(CDRS) == 0
