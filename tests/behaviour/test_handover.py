"""The shipped dialplan hands a caller back whose node or socket died in a talk; every talk has a record.

Only on a real FreeSWITCH, because FreeSWITCH itself continues the dialplan (hazard 11).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from esl_apps.cli.dialplan import render
from esl_apps.config.model import Config
from tests.conftest import ON_FREESWITCH
from tests.rig.base import PhoneLeg, Script, eventually
from tests.rig.freeswitch import FreeswitchRig
from tests.support.callers import CALLEE, CALLER, DIALTONE, DISA, DISA_PIN, E164, disa_config
from tests.support.node import Node, RedisServer, asks, configuration
from tests.support.ports import free_port

pytestmark = ON_FREESWITCH


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FreeswitchRig, str]]:
    """A switch with the shipped dialplan, rendered for a node at this address."""
    folder = tmp_path_factory.mktemp("dialplan")
    listen = f"127.0.0.1:{free_port()}"
    plain: dict[str, Any] = msgspec.to_builtins(Config())
    plain["node"]["listen"] = listen
    plain["accounts"] = {"acme": {"disa": {"front": {"numbers": [DISA]}}}}
    for name, text in render(plain).items():
        (folder / name).write_text(text)
    rig = FreeswitchRig(dialplan_files=sorted(folder.glob("*.xml")))
    yield rig, listen
    rig.close()


@pytest.fixture
def stage(shipped: tuple[FreeswitchRig, str], redis: RedisServer) -> Iterator[tuple[FreeswitchRig, Node]]:
    """That switch, and a node of the test's own."""
    rig, listen = shipped
    rig.reset()
    redis.client.flushdb()
    config = configuration(rig, redis)
    disa_config(config)
    config["integrators"][0].update(payload="v4", session_records=True)
    config["node"]["listen"] = listen
    node = Node(config)
    yield rig, node
    node.stop()


def talking(rig: FreeswitchRig) -> tuple[PhoneLeg, Any]:
    """A caller in a talk through DISA, and the far phone."""
    callee = rig.outside(E164, Script(answer_after=0.1, tone=900))
    leg = rig.outside(CALLER).dial(DISA)
    eventually(lambda: asks(rig, "enter_pin"))
    leg.digits(DISA_PIN + CALLEE + "#")
    eventually(lambda: callee.calls and callee.calls[0].leg.answered_at)
    assert leg.hears(900)
    return leg, callee


@pytest.mark.parametrize("dies", ["socket", "node"])
def test_handover_in_a_talk_has_one_record(stage: tuple[FreeswitchRig, Node], redis: RedisServer, dies: str) -> None:
    rig, node = stage
    leg, callee = talking(rig)
    if dies == "socket":
        rig.drop_sockets()
    else:
        assert node.process is not None
        node.process.kill()
        node.process.wait()
        node.start()
    time.sleep(0.5)
    assert leg.leg.ended_at is None
    callee.calls[0].hangup()
    first = redis.pop(timeout=15)
    assert (first["end_reason"], first["hung_up_by"], first["number"]) == ("answered", "callee", "+27820001234")
    # The caller is asked for the PIN again and may dial on: another attempt of the same session.
    eventually(lambda: asks(rig, "enter_pin"))
    leg.digits(DISA_PIN + CALLEE + "#")
    eventually(lambda: len(callee.calls) == 2 and callee.calls[1].leg.answered_at)
    assert leg.hears(900)
    leg.hangup()
    second = redis.pop(timeout=15)
    assert (second["end_reason"], second["hung_up_by"]) == ("answered", "agent")
    assert second["call_ref"] != first["call_ref"]
    assert second["session_ref"] == first["session_ref"]
    closing = redis.pop(timeout=15)
    assert (closing["session_ref"], closing["calls"]) == (first["session_ref"], 2)
    assert closing["b_seconds"] == pytest.approx(first["b_seconds"] + second["b_seconds"], abs=0.002)
    assert closing["dialed_at"] == first["dialed_at"]


def restart(node: Node) -> None:
    assert node.process is not None
    node.process.kill()
    node.process.wait()
    node.start()


def test_handover_while_b_rings_keeps_bs_own_end(stage: tuple[FreeswitchRig, Node], redis: RedisServer) -> None:
    rig, node = stage
    callee = rig.outside(E164, Script(answer_after=None))
    leg = rig.outside(CALLER).dial(DISA)
    eventually(lambda: asks(rig, "enter_pin"))
    leg.digits(DISA_PIN + CALLEE + "#")
    eventually(lambda: callee.calls)
    restart(node)
    callee.calls[0].reject(486)
    first = redis.pop(timeout=15)
    assert (first["end_reason"], first["end_code"], first["number"]) == ("callee_busy", 17, "+27820001234")
    leg.hangup()
    # A session that dialled a number gets no record of an attempt without one.
    assert redis.pop(timeout=15)["calls"] == 1
    no_more_records(rig, node, redis)


def no_more_records(rig: FreeswitchRig, node: Node, redis: RedisServer) -> None:
    """Return the records of ended calls: a node that stops has pushed all it had."""
    eventually(lambda: rig.live_channels() == 0 and not redis.live())
    assert node.stop() == 0
    assert redis.client.llen("enigma:notifications:cdr") == 0


def times_answered(node: Node) -> int:
    return sum(line.get("state") == "agent_answered" for line in node.lines())


@pytest.mark.parametrize("dies", ["socket", "node"])
def test_handover_while_the_caller_keys_is_one_record(
    stage: tuple[FreeswitchRig, Node], redis: RedisServer, dies: str
) -> None:
    rig, node = stage
    leg = rig.outside(CALLER).dial(DISA)
    eventually(lambda: asks(rig, "enter_pin"))
    leg.digits(DISA_PIN[:3])
    time.sleep(0.5)
    if dies == "socket":
        rig.drop_sockets()
    else:
        restart(node)
    eventually(lambda: times_answered(node) == 2 and asks(rig, "enter_pin"))
    leg.digits(DISA_PIN + "#")
    assert leg.hears(*DIALTONE)
    leg.hangup()
    record = redis.pop(timeout=15)
    assert (record["end_reason"], record["number"]) == ("abandoned", None)
    assert redis.pop(timeout=15)["calls"] == 1
    no_more_records(rig, node, redis)
