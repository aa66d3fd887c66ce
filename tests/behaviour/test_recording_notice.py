"""The recording notice as the parties hear it, and the recording that follows it."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.rig.base import Rig, Script, eventually
from tests.rig.tones import read_wav, tone_timeline, tones
from tests.support.click_calls import recording
from tests.support.node import Node, RedisServer, request

CALLEE, DID = "0820001234", "27115550000"
AGENT_HZ, CALLEE_HZ = 500, 900
#: Seconds of the package's prompt.
NOTICE = 1.3


def CONFIG(config: dict[str, Any]) -> None:
    config["integrators"][0]["payload"] = "v4"
    config["recordings"]["notice"] = "recording_notice"
    config["inbound"] = {DID: {"integrator": "acme", "agents": ["1000"], "ring_timeout": 5}}


def heard(path: Path, hz: int, channel: int) -> float:
    """The share of a recording in which a tone is heard."""
    found = [present for _at, present in tones(path, hz, channel)]
    return sum(found) / len(found)


def test_recording_begins_after_the_notice(rig: Rig, node: Node, redis: RedisServer) -> None:
    agent = rig.phone("1000", Script(answer_after=0.1, tone=AGENT_HZ))
    callee = rig.outside(CALLEE, Script(answer_after=0.1, tone=CALLEE_HZ))
    ref = node.call("1000", CALLEE)
    eventually(lambda: node.get(ref)["state"] == "bridged")
    # Each hears the notice in place of the other.
    assert not callee.calls[0].hears(AGENT_HZ, within=0.5)
    assert callee.calls[0].hears(AGENT_HZ)
    assert agent.calls[0].hears(CALLEE_HZ)
    callee.calls[0].hears(1, within=0.8)
    callee.calls[0].hangup()
    record = redis.pop()
    path = recording(rig, record)
    for channel, hz in ((0, AGENT_HZ), (1, CALLEE_HZ)):
        assert heard(path, hz, channel) > 0.1, tone_timeline(path, [hz], channel)
    rate, channels = read_wav(path)
    talk = record["ended_at"] - record["bridged_at"]
    assert 0.3 < len(channels[0]) / rate < talk - NOTICE / 2
    data = path.read_bytes()
    assert record["recording"] == {
        "seconds": pytest.approx(len(channels[0]) / rate),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "channels": 2,
        "rate": 16000,
    }


def test_recording_notice_is_not_heard_again_unrecorded(rig: Rig, node: Node, redis: RedisServer) -> None:
    """Its recording was stopped: neither the consultation nor the talk after it is recorded."""
    agent = rig.phone("1000", Script(answer_after=0.1, tone=AGENT_HZ))
    callee = rig.outside(CALLEE, Script(answer_after=0.1, tone=CALLEE_HZ))
    rig.phone("1001", Script(answer_after=0.1, tone=1400))
    ref = node.call("1000", CALLEE)
    eventually(lambda: node.get(ref)["state"] == "bridged")
    assert callee.calls[0].hears(AGENT_HZ)
    (aleg,) = [leg for leg in uuids(rig) if rig.api(f"uuid_getvar {leg} bridge_pre_execute_data") != "_undef_"]
    eventually(lambda: rig.api(f"uuid_getvar {aleg} bridge_pre_execute_app") == "_undef_")
    assert agent.calls[0].hears(CALLEE_HZ)
    assert request(node.api, "POST", f"/click2dial/calls/{ref}/record", {"action": "stop"}).status == 202
    body = {"to": "1001", "mode": "consult"}
    asked = request(node.api, "POST", f"/click2dial/calls/{ref}/transfer", body).json["transfer_ref"]
    eventually(lambda: node.get(asked)["state"] == "bridged")
    assert rig.api(f"uuid_getvar {aleg} bridge_pre_execute_app") == "_undef_"
    callee.calls[0].hangup()


def uuids(rig: Rig) -> list[str]:
    return [row["uuid"] for row in json.loads(rig.api("show channels as json")).get("rows", [])]


def test_recording_notice_reaches_an_inbound_caller(rig: Rig, node: Node, redis: RedisServer) -> None:
    agent = rig.phone("1000", Script(answer_after=0.2, tone=AGENT_HZ))
    rig.route(DID, "inbound", node.config["node"]["listen"])
    caller = rig.outside("0825556666", Script(tone=CALLEE_HZ)).dial(DID)
    eventually(lambda: caller.leg.answered_at)
    assert not caller.hears(AGENT_HZ, within=0.5)
    assert caller.hears(AGENT_HZ)
    assert agent.calls[0].hears(CALLEE_HZ)
    caller.hears(1, within=0.8)
    caller.hangup()
    record = redis.pop()
    assert record["recording"]["seconds"] < record["ended_at"] - record["bridged_at"] - NOTICE / 2
    assert heard(recording(rig, record), AGENT_HZ, 0) > 0.1


def test_recording_is_deleted_once_its_call_has_ended(rig: Rig, node: Node, redis: RedisServer) -> None:
    agent = rig.phone("1000", Script(answer_after=0.1, tone=AGENT_HZ))
    rig.outside(CALLEE, Script(answer_after=0.1, tone=CALLEE_HZ))
    ref = node.call("1000", CALLEE)
    eventually(lambda: node.get(ref)["state"] == "bridged")
    path = f"/click2dial/recordings/{ref}.wav"
    assert request(node.api, "DELETE", path).status == 409
    assert agent.calls[0].hears(CALLEE_HZ)
    time.sleep(0.2)
    agent.calls[0].hangup()
    name = redis.pop()["recording_url"]
    assert name == f"{ref}.wav"
    assert request(node.api, "DELETE", path).status == 204
    assert request(node.api, "GET", path).status == 404
    assert request(node.api, "DELETE", path).status == 404


def test_pause_and_transfer_wait_for_the_notice(rig: Rig, node: Node, redis: RedisServer) -> None:
    """Asked for while the notice is played. During it the switch can do neither: the second lost the call."""
    rig.phone("1000", Script(answer_after=0.1, tone=AGENT_HZ))
    callee = rig.outside(CALLEE, Script(answer_after=0.1, tone=CALLEE_HZ))
    expert = rig.phone("1001", Script(answer_after=0.1, tone=1400))
    for name, body in (
        ("record", {"action": "pause"}),
        ("transfer", {"to": "1001", "mode": "consult"}),
        ("transfer", {"to": "1001"}),
    ):
        ref = node.call("1000", CALLEE)
        eventually(lambda ref=ref: node.get(ref)["state"] == "bridged")  # type: ignore[misc]
        answer = request(node.api, "POST", f"/click2dial/calls/{ref}/{name}", body)
        assert answer.status == 202, answer.body
        if name == "record":
            assert callee.calls[-1].hears(AGENT_HZ)
            assert node.get(ref)["recording"] == "paused"
        elif "mode" in body:
            eventually(lambda: expert.calls)
            assert node.get(ref)["held"]
            assert expert.calls[-1].hears(AGENT_HZ)
        else:
            assert callee.calls[-1].hears(1400)
        callee.calls[-1].hangup()
        eventually(lambda ref=ref: node.get(ref)["state"] == "ended")  # type: ignore[misc]
        record = node.get(ref)["record"]
        assert (record["end_reason"], record["b_seconds"] is not None) == ("answered", True)
        for phone in (expert, callee):
            for call in phone.calls:
                if call.leg.ended_at is None:
                    call.hangup()
