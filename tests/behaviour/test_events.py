"""Events of calls, live: every state once and in order, whichever node the reader is at and whatever dies."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from esl_apps.store import keys
from tests.conftest import on_the_sandbox
from tests.rig.base import Rig, Script, eventually
from tests.support.callers import AGENT, CALLEE
from tests.support.event_reader import EventReader
from tests.support.node import Node, RedisServer, configuration
from tests.support.ports import free_port

ALL = ["queued", "agent_ringing", "agent_answered", "callee_ringing", "bridged", "ended", "record"]
DID, IN_ORDER = "27115550000", "27115550001"


class Stage:
    """Two nodes of one installation, and readers."""

    def __init__(self, rig: Rig, redis: RedisServer) -> None:
        self._config = configuration(rig, redis)
        queue = {"integrator": "acme", "agents": ["1000"], "ring_timeout": 5}
        in_order = {**queue, "agents": ["1000", "1001"], "strategy": "in_order"}
        self._config["inbound"] = {DID: queue, IN_ORDER: in_order}
        self.first, self.second = self.start(), self.start()
        self.readers: list[EventReader] = []

    def start(self) -> Node:
        config = dict(self._config)
        port = f"127.0.0.1:{free_port()}"
        folder = f"{self._config['node']['state_dir']}-{port[-5:]}"
        config["node"] = {**config["node"], "name": f"events-{port[-5:]}", "listen": port, "state_dir": folder}
        config["admin"] = {**config["admin"], "listen": f"127.0.0.1:{free_port()}"}
        config["integrators"] = [{**config["integrators"][0], "listen": f"127.0.0.1:{free_port()}"}]
        return Node(config)

    def listen(self, node: Node, query: str = "") -> EventReader:
        self.readers.append(EventReader(node.api, query))
        return self.readers[-1]

    def close(self) -> None:
        for reader in self.readers:
            reader.close()
        for node in (self.first, self.second):
            node.stop()
            assert "Traceback" not in node.log.read_text(), node.log.read_text()


@pytest.fixture
def stage(rig: Rig, redis: RedisServer) -> Iterator[Stage]:
    rig.reset()
    redis.client.flushdb()
    made = Stage(rig, redis)
    yield made
    made.close()
    rig.reset()


@pytest.fixture
def phones(rig: Rig) -> Callable[[], Any]:
    """An agent who answers, and a callee who answers and hangs up."""
    rig.phone(AGENT, Script(answer_after=0.05))
    return lambda: rig.outside(CALLEE, Script(answer_after=0.05, hangup_after=0.2))


def test_events_of_a_call_are_all_its_states(rig: Rig, stage: Stage, phones: Callable[[], Any]) -> None:
    reader = stage.listen(stage.second)
    phones()
    ref = stage.first.call(AGENT, CALLEE, metadata={"lead": "7"})
    eventually(lambda: reader.states(ref) == ALL)
    record = reader.events[-1].data
    assert (record["end_reason"], record["metadata"]) == ("answered", {"lead": "7"})


def test_events_reader_that_moves_sees_no_gap(
    rig: Rig, redis: RedisServer, stage: Stage, phones: Callable[[], Any]
) -> None:
    reader, steady = stage.listen(stage.first), stage.listen(stage.second)
    phones()
    nodes = [stage.first, stage.second]
    refs = []
    # No more than a phone takes at a time.
    for number in range(4):
        refs.append(nodes[number % 2].call(AGENT, CALLEE))
        reader.move(nodes[(number + 1) % 2].api)
    eventually(lambda: all(steady.states(ref)[-1:] == ["record"] for ref in refs))
    eventually(lambda: len(reader.events) == len(steady.events))
    stored = redis.client.xrange(keys.events(keys.history("acme")))
    assert [event.id for event in reader.events] == [event.id for event in steady.events] == [id for id, _ in stored]
    assert [reader.states(ref) for ref in refs] == [ALL] * 4


@on_the_sandbox
def test_events_of_a_node_that_is_killed_go_on(rig: Rig, redis: RedisServer, stage: Stage) -> None:
    reader = stage.listen(stage.first)
    rig.phone(AGENT, Script(answer_after=0.05))
    callee = rig.outside(CALLEE, Script(answer_after=0.05))
    ref = stage.first.call(AGENT, CALLEE)
    eventually(lambda: reader.states(ref)[-1:] == ["bridged"])
    stage.first.stop(signal.SIGKILL)
    reader.move(stage.second.api)
    callee.calls[0].hangup()
    eventually(lambda: reader.states(ref) == ALL)
    assert not [event for event in reader.events if event.kind in ("gap", "end")]


@on_the_sandbox
def test_events_of_an_inbound_call_begin_with_ringing(rig: Rig, stage: Stage) -> None:
    rig.route(DID, "inbound", stage.first.config["node"]["listen"])
    reader = stage.listen(stage.second)
    agent = rig.phone("1000", Script(answer_after=None))
    rig.outside("0825556666").dial(DID)
    eventually(lambda: "ringing" in [event.data["state"] for event in reader.events])
    agent.calls[0].answer()
    eventually(lambda: "inbound" in [event.kind for event in reader.events])
    agent.calls[0].hangup()
    ref = reader.events[0].data["call_ref"]
    eventually(lambda: reader.states(ref)[-3:] == ["inbound", "ended", "record"])
    (inbound,) = [event.data for event in reader.events if event.kind == "inbound"]
    assert (inbound["agent"], inbound["callee"]) == ("1000", "0825556666")
    assert 0 <= inbound["hold_time"] <= 5


@on_the_sandbox
def test_events_of_an_inbound_call_reach_all_whom_it_rang(rig: Rig, stage: Stage) -> None:
    rig.route(IN_ORDER, "inbound", stage.first.config["node"]["listen"])
    every, first, second = (stage.listen(stage.second, query) for query in ("", "?agent=1000", "?agent=1001"))
    rig.phone("1000", Script(answer_after=0.2, reject=486))
    agent = rig.phone("1001", Script(answer_after=None))
    rig.outside("0825556666").dial(IN_ORDER)
    eventually(lambda: [event.data["state"] for event in every.events].count("ringing") == 2)
    agent.calls[0].answer()
    eventually(lambda: "inbound" in [event.kind for event in every.events])
    agent.calls[0].hangup()
    ref = every.events[0].data["call_ref"]
    states = ["queued", "ringing", "ringing", "bridged", "inbound", "ended", "record"]
    eventually(lambda: every.states(ref) == first.states(ref) == states)
    # Events that are written together show the same agents.
    eventually(lambda: second.states(ref)[-5:] == states[2:])
