"""Hold, mute, digits and recording as the two parties hear them; the same on the sandbox and on a real FreeSWITCH."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.rig.base import PhoneLeg, Rig, Script, eventually
from tests.rig.fs_configuration import MOH_HZ
from tests.rig.tones import read_wav, tone_timeline
from tests.support.click_calls import AGENT_HZ, CALLEE, CALLEE_HZ, ended, recording, silent, talk
from tests.support.node import Node, RedisServer, configuration, request


def CONFIG(config: dict[str, Any]) -> None:
    config["integrators"][0]["payload"] = "v4"
    config["dial"]["hold_music"] = f"tone_stream://%(10000,0,{MOH_HZ});loops=-1"


def act(node: Node, ref: str, name: str, body: object = None) -> dict[str, Any]:
    """Do an action twice: the second time changes nothing."""
    answers = [request(node.api, "POST", f"/click2dial/calls/{ref}/{name}", body) for _ in range(2)]
    for answer in answers:
        assert answer.status == 202, answer.body
    assert answers[0].json == answers[1].json
    return dict(answers[0].json)


def test_hold_plays_music_and_parts_the_two(rig: Rig, node: Node, redis: RedisServer) -> None:
    ref, agent, callee = talk(rig, node)
    assert act(node, ref, "hold")["held"]
    assert callee.hears(MOH_HZ)
    assert silent(callee, AGENT_HZ)
    assert silent(agent, CALLEE_HZ)
    assert node.get(ref)["held"]
    assert not act(node, ref, "resume")["held"]
    assert agent.hears(CALLEE_HZ)
    assert callee.hears(AGENT_HZ)
    assert silent(callee, MOH_HZ)
    callee.hangup()
    assert ended(redis, ref, "answered", 16, "callee")["hold_time"] >= 1


def test_hold_ends_with_the_agent(rig: Rig, node: Node, redis: RedisServer) -> None:
    """Some applications go on playing on a leg whose bridge has ended."""
    ref, agent, callee = talk(rig, node)
    act(node, ref, "hold")
    assert callee.hears(MOH_HZ)
    agent.hangup()
    eventually(lambda: callee.leg.ended_at)
    ended(redis, ref, "answered", 16, "agent")


def test_mute_silences_one_party(rig: Rig, node: Node, redis: RedisServer) -> None:
    ref, agent, callee = talk(rig, node)
    assert act(node, ref, "mute", {"party": "agent"})["muted"] == ["agent"]
    assert silent(callee, AGENT_HZ)
    assert agent.hears(CALLEE_HZ)
    assert act(node, ref, "unmute", {"party": "agent"})["muted"] == []
    assert callee.hears(AGENT_HZ)
    act(node, ref, "mute", {"party": "callee"})
    assert silent(agent, CALLEE_HZ)
    agent.hangup()
    assert ended(redis, ref, "answered", 16, "agent")["mute_time"] >= 1


def test_mute_is_silence_in_the_recording(rig: Rig, node: Node, redis: RedisServer) -> None:
    ref, agent, callee = talk(rig, node)
    for party in ("callee", "agent"):
        heard_through(agent, 0.5)
        act(node, ref, "mute", {"party": party})
        heard_through(agent, 1.0)
        act(node, ref, "unmute", {"party": party})
    heard_through(agent, 0.5)
    callee.hangup()
    record = ended(redis, ref, "answered", 16, "callee")
    for channel, hz in ((0, AGENT_HZ), (1, CALLEE_HZ)):
        changes = [tones for _at, tones in tone_timeline(recording(rig, record), [hz], channel)]
        assert changes[-3:] == [{hz}, set(), {hz}], changes


def test_digits_reach_the_party(rig: Rig, node: Node, redis: RedisServer) -> None:
    ref, agent, callee = talk(rig, node)
    for to in ("callee", "agent"):
        body = {"to": to, "digits": "19*#"}
        assert request(node.api, "POST", f"/click2dial/calls/{ref}/digits", body).status == 202
    eventually(lambda: callee.received == "19*#" and agent.received == "19*#")
    agent.hangup()
    ended(redis, ref, "answered", 16, "agent")


def test_repeated_action_is_marked_and_done_once(rig: Rig, node: Node, redis: RedisServer) -> None:
    """With an ``Idempotency-Key``. The answer to a transfer has its reference again."""
    ref, agent, callee = talk(rig, node)
    consult = {"to": "1001", "mode": "consult"}
    rig.phone("1001", Script(answer_after=None))
    for name, body in (("digits", {"to": "callee", "digits": "5"}), ("transfer", consult)):
        path = f"/click2dial/calls/{ref}/{name}"
        first, again = (request(node.api, "POST", path, body, Idempotency_Key=f"{ref}-{name}") for _ in range(2))
        assert (first.status, again.status) == (202, 202), again.body
        assert (first.headers.get("idempotent-replayed"), again.headers.get("idempotent-replayed")) == (None, "true")
        assert again.json == first.json
    # A repetition has the same reference after the consultation, too.
    assert request(node.api, "POST", f"{path}/cancel").status == 202
    again = request(node.api, "POST", path, consult, Idempotency_Key=f"{ref}-transfer")
    assert (again.json["transfer_ref"], again.json["held"]) == (first.json["transfer_ref"], False)
    eventually(lambda: callee.received == "5")
    agent.hangup()
    redis.pop()
    redis.pop()


def test_recording_pauses_with_silence(rig: Rig, node: Node, redis: RedisServer) -> None:
    """The masked part is silent, and the recording is as long as the talk."""
    ref, agent, callee = talk(rig, node)
    heard_through(agent, 0.5)
    assert act(node, ref, "record", {"action": "pause"})["recording"] == "paused"
    assert agent.hears(CALLEE_HZ)
    heard_through(agent, 1.0)
    assert act(node, ref, "record", {"action": "resume"})["recording"] == "on"
    heard_through(agent, 0.5)
    callee.hangup()
    record = ended(redis, ref, "answered", 16, "callee")
    assert record["recording_paused"] in (1, 2)
    for channel, hz in ((0, AGENT_HZ), (1, CALLEE_HZ)):
        changes = [tones for _at, tones in tone_timeline(recording(rig, record), [hz], channel)]
        assert changes[-3:] == [{hz}, set(), {hz}], changes
    assert abs(seconds(recording(rig, record)) - (record["ended_at"] - record["bridged_at"])) < 0.5


def test_recording_stops_and_goes_on_in_one_file(rig: Rig, node: Node, redis: RedisServer) -> None:
    ref, agent, callee = talk(rig, node)
    assert act(node, ref, "record", {"action": "stop"})["recording"] == "off"
    refused = request(node.api, "POST", f"/click2dial/calls/{ref}/record", {"action": "pause"})
    assert (refused.status, refused.json["errors"][0]["state"]) == (409, "bridged")
    heard_through(agent, 1.0)
    act(node, ref, "record", {"action": "start"})
    heard_through(agent, 0.5)
    callee.hangup()
    record = ended(redis, ref, "answered", 16, "callee")
    length = record["ended_at"] - record["bridged_at"]
    assert 0.5 < seconds(recording(rig, record)) < length - 0.8


def test_action_before_the_talk_is_409(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.phone("1000", Script(answer_after=None))
    ref = node.call("1000", CALLEE)
    eventually(lambda: node.get(ref)["state"] == "agent_ringing")
    answer = request(node.api, "POST", f"/click2dial/calls/{ref}/hold")
    assert (answer.status, answer.json["errors"][0]["state"]) == (409, "agent_ringing")
    node.delete(ref)
    redis.pop()
    answer = request(node.api, "POST", f"/click2dial/calls/{ref}/hold")
    assert (answer.status, answer.json["errors"][0]["state"]) == (409, "ended")


def test_action_reaches_the_call_of_another_node(rig: Rig, node: Node, redis: RedisServer) -> None:
    other = Node(configuration(rig, redis))
    try:
        ref, _agent, callee = talk(rig, node)
        assert act(other, ref, "mute", {"party": "agent"})["muted"] == ["agent"]
        assert silent(callee, AGENT_HZ)
        callee.hangup()
        ended(redis, ref, "answered", 16, "callee")
    finally:
        other.stop()


def heard_through(call: PhoneLeg, length: float) -> None:
    """Let a talk go on for so many seconds."""
    call.hears(1, within=length)


def seconds(path: Path) -> float:
    rate, channels = read_wav(path)
    return len(channels[0]) / rate
