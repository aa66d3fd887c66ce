"""``node.secret``: a switch that has it is served as before, any other peer is hung up, and it is left nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import on_the_sandbox
from tests.rig.base import Rig, Script, eventually
from tests.support.node import Node, RedisServer
from tests.support.strangers import ForgedSwitch

SECRET = "a-secret-of-the-behaviour-tests"
CALLEE, DID, CALLER = "0820001234", "27115550000", "0825556666"


def CONFIG(config: dict[str, Any]) -> None:
    config["node"]["secret"] = SECRET
    config["inbound"] = {DID: {"integrator": "acme", "agents": ["1000"]}}


@pytest.fixture
def knowing(rig: Rig, node: Node) -> Iterator[Rig]:
    """The rig's switch, which has the secret during the test."""
    rig.api(f"global_setvar esl_apps_secret={SECRET}")
    yield rig
    rig.api("global_setvar esl_apps_secret=")


def test_switch_with_the_secret_is_served(knowing: Rig, node: Node, redis: RedisServer) -> None:
    knowing.phone("1000", Script(answer_after=0.1))
    knowing.outside(CALLEE, Script(answer_after=0.1, hangup_after=0.2))
    node.call("1000", CALLEE)
    assert redis.pop()["end_reason"] == "answered"
    for key in redis.client.keys("*"):
        assert SECRET not in str(redis.client.dump(key))
    assert SECRET not in node.log.read_text()
    for file in Path(node.config["spool"]["dir"]).glob("*"):
        assert SECRET not in file.read_text()


def test_switch_without_the_secret_is_hung_up(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.route(DID, "inbound", node.config["node"]["listen"])
    agent = rig.phone("1000", Script(answer_after=0.1))
    leg = rig.outside(CALLER).dial(DID)
    eventually(lambda: leg.leg.ended_at is not None)
    assert leg.leg.answered_at is None
    assert agent.calls == []
    assert "esl_apps_secret" in [line for line in node.lines() if line["event"] == "call_refused"][-1]["reason"]


@on_the_sandbox
def test_peer_without_the_secret_gets_nothing(node: Node, rig: Rig) -> None:
    peer = ForgedSwitch(node.config["node"]["listen"], {"variable_socket_path": "inbound"})
    names = [command.partition("\n")[0].partition(" ")[0] for command in peer.ended()]
    assert names == ["connect", "linger", "api", "sendmsg", "exit"]
