"""A node that has reached ``max_calls``, or the descriptors of its process."""

from __future__ import annotations

import contextlib
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rig.base import Rig, Script, eventually
from tests.support.node import Node, RedisServer, configuration

AGENT, CALLEE, DISA, CALLER = "1000", "0820001234", "27115550002", "0825556666"


@pytest.fixture
def node(rig: Rig, redis: RedisServer) -> Iterator[Node]:
    """Allow one call."""
    rig.reset()
    redis.client.flushdb()
    config = configuration(rig, redis)
    config["node"]["max_calls"] = 1
    config["accounts"] = {"acme": {"caller_id": {"number": "+27115550000"}, "disa": {"open": {"allow_no_pin": True}}}}
    made = Node(config)
    rig.route(DISA, "disa/acme/open", config["node"]["listen"])
    yield made
    made.end()
    rig.reset()


def refused(rig: Rig) -> int | None:
    """The SIP status that a caller gets."""
    leg = rig.outside(CALLER).dial(DISA)
    eventually(lambda: leg.leg.ended_at is not None)
    assert leg.leg.answered_at is None
    return leg.leg.status


def test_full_node_lets_in_only_the_agent_it_rang(rig: Rig, redis: RedisServer, node: Node) -> None:
    """The agent's call holds its slot from the request on: a caller who took it while the agent's phone rang would cost
    a sale."""
    agent = rig.phone(AGENT, Script(answer_after=None))
    callee = rig.outside(CALLEE, Script(answer_after=0.1))
    ref = node.call(AGENT, CALLEE)
    eventually(lambda: agent.calls)
    assert refused(rig) == 503
    agent.calls[0].answer()
    eventually(lambda: callee.calls and callee.calls[0].leg.answered_at)
    assert refused(rig) == 503
    assert node.post(AGENT, CALLEE, "27115550000").status == 503
    callee.calls[0].hangup()
    record = redis.pop()
    assert (record["call_ref"], record["end_reason"]) == (ref, "answered")
    assert redis.client.llen("enigma:notifications:cdr") == 0


def test_full_node_gives_a_freed_slot_to_the_next_caller(rig: Rig, redis: RedisServer, node: Node) -> None:
    first = rig.outside(CALLER).dial(DISA)
    eventually(lambda: first.leg.answered_at is not None)
    assert refused(rig) == 503
    first.hangup()
    assert redis.pop()["end_reason"] == "abandoned"

    def answered() -> bool:
        second = rig.outside(CALLER).dial(DISA)
        eventually(lambda: second.leg.answered_at is not None or second.leg.status is not None)
        second.hangup()
        return second.leg.answered_at is not None

    # The first caller's socket lingers for a moment and still counts.
    eventually(answered)


class LowNode(Node):
    """A node in a shell that allows few descriptors, unless a process asks for more."""

    def _spawn(self, log: Any) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "esl_apps", "serve", "-c", str(self.file)]
        # Raising the hard limit again would take root.
        limits = (resource.RLIMIT_NOFILE, (100, 4096))
        return subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=lambda: resource.setrlimit(*limits))


def test_node_with_few_descriptors_asks_for_all_it_may_have(rig: Rig, redis: RedisServer) -> None:
    """Beyond its limit, the kernel completes TCP for connections that no one serves."""
    made = LowNode(configuration(rig, redis))
    host, _, port = made.config["node"]["listen"].rpartition(":")
    with contextlib.ExitStack() as peers:
        # Without a word of theirs for as long as the test lasts: they are peers that have just connected.
        sockets = [peers.enter_context(socket.create_connection((host, int(port)), 10)) for _ in range(120)]
        assert [peer.recv(9) for peer in sockets] == [b"connect\n\n"] * 120
    assert made.stop() == 0
    told = [line["reason"] for line in made.lines() if line.get("key") == "node.max_calls"]
    assert len(told) == 1
    assert "a process may have 4096" in told[0]
