"""Click-to-dial as an integrator and two phones see it; the same on the sandbox and on a real FreeSWITCH."""

from __future__ import annotations

import time
import wave
from typing import Any

import pytest

from tests.rig.base import Phone, Rig, Script, eventually
from tests.support.click_calls import ended, record_of, recording
from tests.support.node import Node, RedisServer, asks, request

CALLEE = "0820001234"
#: More than a phone rings here with time-outs of 2 s, however busy the machine is, and less than the defaults.
LONG = 15


def CONFIG(config: dict[str, Any]) -> None:
    config["integrators"][0].update(agent_timeout=2, callee_timeout=2)


def confirms(rig: Rig, agent: Phone) -> None:
    """Press the key that an agent on an outside line is asked for."""
    eventually(lambda: asks(rig, "call_to"))
    agent.calls[0].digits("1")


def states(node: Node, ref: str) -> list[str]:
    return [moment["state"] for moment in node.get(ref)["timeline"]]


# Answered ----------------------------------------------------------------------------------------------


def test_click2dial_talk_is_in_the_record(rig: Rig, node: Node, redis: RedisServer) -> None:
    agent = rig.phone("1000", Script(answer_after=0.3, tone=500))
    callee = rig.outside(CALLEE, Script(answer_after=0.4, tone=900))
    began = time.time()
    ref = node.call("1000", CALLEE, contact_ref="lead-7.a_b~c:d")
    eventually(lambda: node.get(ref)["state"] == "bridged")
    # The agent's phone shows the callee's number, the callee's phone the integrator's.
    assert agent.calls[0].leg.caller_number == CALLEE
    assert callee.calls[0].leg.caller_number == "27115550000"
    assert agent.calls[0].hears(900)
    assert callee.calls[0].hears(500)
    callee.calls[0].hangup()
    record = ended(redis, ref, "answered", 16, "callee")
    assert record["extension"] == "1000"
    assert record["number"] == CALLEE
    assert record["dial_number"] == "27115550000"
    assert record["contact_ref"] == "lead-7.a_b~c:d"
    assert record["call_dir"] == "outbound"
    assert record["ref"] == "click-dial"
    assert record["hold_time"] == 0
    assert record["seq"] >= 1
    # In whole seconds.
    assert began - 1.1 <= record["dialed_at"] <= time.time()
    assert record["bridged_at"] > record["answered_at"] > record["dialed_at"]
    assert states(node, ref)[-3:] == ["callee_ringing", "bridged", "ended"]
    with wave.open(str(recording(rig, record))) as wav:
        assert (wav.getnchannels(), wav.getframerate()) == (2, 16000)
        seconds = wav.getnframes() / wav.getframerate()
    assert abs(seconds - (record["ended_at"] - record["bridged_at"])) < 0.4


def test_recording_has_agent_left_and_callee_right(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.phone("1000", Script(answer_after=0.1, tone=500))
    rig.outside(CALLEE, Script(answer_after=0.2, tone=900, hangup_after=1.5))
    record = ended(redis, node.call("1000", CALLEE), "answered", 16, "callee")
    path = recording(rig, record)
    if rig.name == "freeswitch":
        from tests.rig.tones import tones

        def share(hz: int, channel: int) -> float:
            found = tones(path, hz, channel)
            return sum(present for _at, present in found) / len(found)

        assert share(500, 0) > 0.7
        assert share(900, 1) > 0.7
        assert share(900, 0) < 0.1
        assert share(500, 1) < 0.1
    whole = request(node.api, "GET", f"/click2dial/recordings/{record['recording_url']}")
    assert whole.status == 200
    assert whole.headers["content-type"] == "audio/wav"
    assert whole.body == path.read_bytes()
    part = request(node.api, "GET", f"/click2dial/recordings/{record['recording_url']}", Range="bytes=4-11")
    assert part.status == 206
    assert part.body == whole.body[4:12]
    assert request(node.api, "GET", f"/click2dial/recordings/{record['recording_url']}", token="wrong").status == 401


def test_click2dial_agent_hangs_up_first_is_in_the_record(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.phone("1000", Script(answer_after=0.1, hangup_after=1.2))
    callee = rig.outside(CALLEE, Script(answer_after=0.2))
    ended(redis, node.call("1000", CALLEE), "answered", 16, "agent")
    eventually(lambda: callee.calls[0].leg.ended_at is not None)
    assert callee.calls[0].leg.ended_by == "far"


def test_cancel_during_a_talk_ends_it(rig: Rig, node: Node, redis: RedisServer) -> None:
    agent = rig.phone("1000", Script(answer_after=0.1, tone=500))
    callee = rig.outside(CALLEE, Script(answer_after=0.1, tone=900))
    ref = node.call("1000", CALLEE)
    eventually(lambda: node.get(ref)["state"] == "bridged")
    # FreeSWITCH discards a recording that has no audio in it yet.
    assert agent.calls[0].hears(900)
    assert callee.calls[0].hears(500)
    assert node.delete(ref).status == 202
    record = ended(redis, ref, "answered", 16, "api")
    assert record["recording_url"] is not None
    eventually(lambda: agent.calls[0].leg.ended_at and callee.calls[0].leg.ended_at)
    again = node.delete(ref)
    assert again.status == 200
    assert again.json["record"]["end_reason"] == "answered"


def test_callee_rings_only_after_the_agent_answered(rig: Rig, node: Node, redis: RedisServer) -> None:
    agent = rig.phone("1000", Script(answer_after=0.8))
    callee = rig.outside(CALLEE, Script(answer_after=0.1, hangup_after=0.3))
    ref = node.call("1000", CALLEE)
    ended(redis, ref, "answered", 16, "callee")
    answered_at = agent.calls[0].leg.answered_at
    assert answered_at is not None
    assert callee.calls[0].leg.started_at > answered_at


def test_agent_early_media_is_not_an_answer(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.phone("1000", Script(early_media=True, answer_after=None, tone=500))
    callee = rig.outside(CALLEE)
    ended(redis, node.call("1000", CALLEE), "agent_no_answer", 19, "system")
    assert callee.calls == []


def test_agent_hears_ringing_while_the_callee_rings(rig: Rig, node: Node, redis: RedisServer) -> None:
    agent = rig.phone("1000", Script(answer_after=0.1))
    rig.outside(CALLEE, Script(answer_after=None))
    ref = node.call("1000", CALLEE)
    eventually(lambda: agent.calls and agent.calls[0].leg.answered_at)
    assert agent.calls[0].hears(440)
    ended(redis, ref, "callee_no_answer", 19, "system")


def test_agent_hears_the_callees_early_media(rig: Rig, node: Node, redis: RedisServer) -> None:
    agent = rig.phone("1000", Script(answer_after=0.1))
    callee = rig.outside(CALLEE, Script(early_media=True, answer_after=None, tone=900))
    ref = node.call("1000", CALLEE)
    eventually(lambda: agent.calls and agent.calls[0].leg.answered_at)
    assert agent.calls[0].hears(900)
    # The time-out holds during early media, and runs from the INVITE.
    record = ended(redis, ref, "callee_no_answer", 19, "system")
    leg = callee.calls[0].leg
    eventually(lambda: callee.calls[0].leg.ended_at is not None)
    leg = callee.calls[0].leg
    assert 1.75 < leg.lasted < LONG
    assert record["recording_url"] is None


def test_early_media_and_then_busy_is_busy(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.phone("1000", Script(answer_after=0.1))
    rig.outside(CALLEE, Script(early_media=True, reject=486, answer_after=0.8, tone=900))
    ended(redis, node.call("1000", CALLEE), "callee_busy", 17, "callee")


def test_hold_time_counts_the_agents_hold(rig: Rig, node: Node, redis: RedisServer) -> None:
    agent = rig.phone("1000")
    callee = rig.outside(CALLEE, Script(tone=900))
    ref = node.call("1000", CALLEE)
    eventually(lambda: node.get(ref)["state"] == "bridged")
    assert agent.calls[0].hears(900)
    began = time.monotonic()
    agent.calls[0].hold()
    # A hold long enough to count: hold_time is in whole seconds.
    time.sleep(0.8)
    agent.calls[0].unhold()
    assert agent.calls[0].hears(900)
    most = time.monotonic() - began + 1
    callee.calls[0].hangup()
    assert 1 <= ended(redis, ref, "answered", 16, "callee")["hold_time"] < most


# Not answered ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "reason", "code"),
    [
        (Script(reject=486), "agent_busy", 17),
        (Script(reject=600), "agent_busy", 17),
        (Script(reject=603), "agent_failed", 21),
        (Script(reject=404), "agent_failed", 1),
        (Script(reject=480), "agent_no_answer", 18),
        (Script(reject=408), "agent_no_answer", 102),
        (Script(reject=488), "agent_failed", 88),
    ],
    ids=lambda value: str(getattr(value, "reject", "")),
)
def test_agent_refuses_ends_the_call(
    rig: Rig, node: Node, redis: RedisServer, script: Script, reason: str, code: int
) -> None:
    rig.phone("1000", script)
    callee = rig.outside(CALLEE)
    record = ended(redis, node.call("1000", CALLEE), reason, code, "agent")
    assert record["recording_url"] is None
    assert callee.calls == []


def test_agent_does_not_answer_within_agent_timeout(rig: Rig, node: Node, redis: RedisServer) -> None:
    agent = rig.phone("1000", Script(answer_after=None))
    ref = node.call("1000", CALLEE)
    eventually(lambda: node.get(ref)["state"] == "agent_ringing", message="agent_ringing was not seen")
    ended(redis, ref, "agent_no_answer", 19, "system")
    eventually(lambda: agent.calls[0].leg.ended_at is not None)
    leg = agent.calls[0].leg
    assert 1.75 < leg.lasted < LONG
    assert rig.live_channels() == 0


def test_agent_not_registered_fails_at_once(rig: Rig, node: Node, redis: RedisServer) -> None:
    phone = rig.phone("1009")
    phone.unregister()
    began = time.monotonic()
    ended(redis, node.call("1009", CALLEE), "agent_failed", 20, "agent")
    assert time.monotonic() - began < 10  # an unanswered agent rings for longer


@pytest.mark.parametrize(
    ("script", "reason", "code"),
    [
        (Script(reject=486), "callee_busy", 17),
        (Script(reject=603), "callee_failed", 21),
        (Script(reject=404), "callee_failed", 1),
        (Script(reject=484), "callee_failed", 28),
        (Script(reject=410), "callee_failed", 22),
        (Script(reject=480), "callee_no_answer", 18),
    ],
    ids=lambda value: str(getattr(value, "reject", "")),
)
def test_callee_refuses_ends_the_call(
    rig: Rig, node: Node, redis: RedisServer, script: Script, reason: str, code: int
) -> None:
    agent = rig.phone("1000", Script(answer_after=0.1))
    rig.outside(CALLEE, script)
    record = ended(redis, node.call("1000", CALLEE), reason, code, "callee")
    assert record["recording_url"] is None
    assert record["answered_at"] is not None
    eventually(lambda: agent.calls[0].leg.ended_at is not None)


def test_callee_does_not_answer_within_callee_timeout(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.phone("1000", Script(answer_after=0.1))
    callee = rig.outside(CALLEE, Script(answer_after=None))
    ended(redis, node.call("1000", CALLEE), "callee_no_answer", 19, "system")
    eventually(lambda: callee.calls[0].leg.ended_at is not None)
    leg = callee.calls[0].leg
    assert 1.75 < leg.lasted < LONG


def test_callee_redirects_dials_nothing(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.phone("1000", Script(answer_after=0.1))
    rig.outside(CALLEE, Script(reject=302, redirect="sip:0900123456@127.0.0.1"))
    premium = rig.outside("0900123456")
    record = record_of(redis, node.call("1000", CALLEE))
    assert record["end_reason"] == "callee_failed", record
    assert premium.calls == []


# Given up ----------------------------------------------------------------------------------------------


def test_agent_hangs_up_while_the_callee_rings_abandons(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.phone("1000", Script(answer_after=0.1, hangup_after=0.7))
    callee = rig.outside(CALLEE, Script(answer_after=None))
    ended(redis, node.call("1000", CALLEE), "abandoned", 16, "agent")
    eventually(lambda: callee.calls[0].leg.ended_at is not None)
    assert callee.calls[0].leg.status == 487


def test_cancel_while_the_agent_rings_stops_it(rig: Rig, node: Node, redis: RedisServer) -> None:
    agent = rig.phone("1000", Script(answer_after=None))
    ref = node.call("1000", CALLEE)
    eventually(lambda: agent.calls)
    assert node.delete(ref).status == 202
    ended(redis, ref, "cancelled", 16, "api")
    eventually(lambda: agent.calls[0].leg.ended_at is not None)


def test_cancel_while_the_callee_rings_stops_both(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.phone("1000", Script(answer_after=0.1))
    callee = rig.outside(CALLEE, Script(answer_after=None))
    ref = node.call("1000", CALLEE)
    eventually(lambda: node.get(ref)["state"] == "callee_ringing")
    assert node.delete(ref).status == 202
    ended(redis, ref, "cancelled", 16, "api")
    eventually(lambda: callee.calls[0].leg.ended_at is not None)


def test_cancel_right_after_the_request_cancels(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.phone("1000", Script(answer_after=None))
    ref = node.call("1000", CALLEE)
    assert node.delete(ref).status == 202
    ended(redis, ref, "cancelled", 16, "api")
    eventually(lambda: rig.live_channels() == 0)


@pytest.mark.parametrize("after", [0.08, 0.1, 0.12, 0.14])
def test_cancel_racing_the_answer_is_one_record(rig: Rig, node: Node, redis: RedisServer, after: float) -> None:
    rig.phone("1000", Script(answer_after=0.1))
    rig.outside(CALLEE, Script(answer_after=0.0))
    ref = node.call("1000", CALLEE)
    time.sleep(after)
    node.delete(ref)
    record = record_of(redis, ref)
    assert record["hung_up_by"] == "api"
    assert record["end_reason"] in ("cancelled", "answered")
    eventually(lambda: rig.live_channels() == 0)


# Whose phone rings -------------------------------------------------------------------------------------


def test_agent_registered_twice_rings_on_both_phones(rig: Rig, node: Node, redis: RedisServer) -> None:
    agent = rig.phone("1001", Script(answer_after=0.4), registrations=2)
    rig.outside(CALLEE, Script(answer_after=0.1, hangup_after=0.5))
    ended(redis, node.call("1001", CALLEE), "answered", 16, "callee")
    assert len(agent.calls) == 2
    assert all(call.leg.ringing_at for call in agent.calls)


def test_click2dial_internal_call_is_recorded_as_internal(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.phone("1000")
    callee = rig.phone("1002", Script(answer_after=0.1, hangup_after=0.5))
    record = ended(redis, node.call("1000", "1002"), "answered", 16, "callee")
    assert record["call_dir"] == "internal"
    assert callee.calls[0].leg.caller_number == "27115550000"


def test_agent_outside_sees_the_integrators_number(rig: Rig, node: Node, redis: RedisServer) -> None:
    agent = rig.outside("0831112222", Script(answer_after=0.1))
    rig.outside(CALLEE, Script(answer_after=0.1, hangup_after=0.5))
    ref = node.call("0831112222", CALLEE)
    confirms(rig, agent)
    record = ended(redis, ref, "answered", 16, "callee")
    assert record["call_dir"] == "external"
    assert agent.calls[0].leg.caller_number == "27115550000"


def test_agent_outside_and_callee_inside_is_inbound(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.outside("0831112222", Script(answer_after=0.1))
    rig.phone("1002", Script(answer_after=0.1, hangup_after=0.3))
    ref = node.call("0831112222", "1002", confirm=False)
    assert ended(redis, ref, "answered", 16, "callee")["call_dir"] == "inbound"


def test_talking_voicemail_of_an_agent_gets_no_callee(rig: Rig, node: Node, redis: RedisServer) -> None:
    """It answers, speaks, and keys a number while it does."""
    mailbox = rig.outside("0831112222", Script(answer_after=0.1, tone=700, digits="0831", digits_after=0.3))
    callee = rig.outside(CALLEE)
    ref = node.call("0831112222", CALLEE)
    ended(redis, ref, "agent_unconfirmed", 19, "system")
    assert mailbox.calls[0].leg.answered_at is not None
    assert callee.calls == []


def test_agents_keys_are_the_callees_after_the_confirming_one(rig: Rig, node: Node, redis: RedisServer) -> None:
    agent = rig.outside("0831112222", Script(answer_after=0.1))
    callee = rig.outside(CALLEE, Script(answer_after=0.1))
    ref = node.call("0831112222", CALLEE)
    confirms(rig, agent)
    eventually(lambda: callee.calls and node.get(ref)["state"] == "bridged")
    agent.calls[0].digits("**5")
    eventually(lambda: callee.calls[0].received == "**5")
    agent.calls[0].hangup()
    ended(redis, ref, "answered", 16, "agent")


def test_announcement_is_for_the_agent_alone(rig: Rig, node: Node, redis: RedisServer) -> None:
    agent = rig.phone("1000", Script(answer_after=0.1))
    callee = rig.outside(CALLEE, Script(answer_after=0.1))
    ref = node.call("1000", CALLEE, announce="beep")
    eventually(lambda: callee.calls and callee.calls[0].leg.answered_at)
    # The beep lasts 0.2 s.
    assert callee.calls[0].leg.started_at - (agent.calls[0].leg.answered_at or 0.0) > 0.19
    agent.calls[0].hangup()
    ended(redis, ref, "answered", 16, "agent")


def test_phone_that_obeys_answers_by_itself(rig: Rig, node: Node, redis: RedisServer) -> None:
    agent = rig.phone("1000", Script(answer_after=None, auto_answer=True, tone=700))
    callee = rig.outside(CALLEE, Script(answer_after=0.1, tone=900))
    ref = node.call("1000", CALLEE, auto_answer=True)
    eventually(lambda: callee.calls and callee.calls[0].leg.answered_at)
    assert agent.calls[0].hears(900)
    headers = agent.calls[0].leg.headers
    assert (headers["call-info"], headers["alert-info"]) == (
        ["<sip:auto@answer>;answer-after=0"],
        ["<http://localhost>;info=alert-autoanswer;delay=0"],
    )
    assert not {"call-info", "alert-info"} & callee.calls[0].leg.headers.keys()
    callee.calls[0].hangup()
    ended(redis, ref, "answered", 16, "callee")


def test_callee_sees_the_campaigns_number(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.phone("1000")
    callee = rig.outside(CALLEE, Script(answer_after=0.1, hangup_after=0.3))
    record = ended(redis, node.call("1000", CALLEE, "tvc_spring"), "answered", 16, "callee")
    assert record["dial_number"] == "27115550001"
    assert callee.calls[0].leg.caller_number == "27115550001"


# From a phone ------------------------------------------------------------------------------------------


def headers(family: str = "X-Teleforge", outbound: str = "27115550000", ref: str = "web-1") -> dict[str, str]:
    return {f"{family}-Outbound-ID": outbound, f"{family}-Contact-Ref": ref}


@pytest.mark.parametrize("family", ["X-Teleforge", "X-Platforma"])
def test_phone_with_headers_places_a_call(rig: Rig, node: Node, redis: RedisServer, family: str) -> None:
    rig.route(CALLEE, "click2dial/acme", node.config["node"]["listen"])
    agent = rig.phone("1000", Script(tone=500))
    callee = rig.outside(CALLEE, Script(answer_after=0.3, tone=900))
    leg = agent.dial(CALLEE, headers(family))
    eventually(lambda: leg.leg.answered_at is not None)
    assert leg.hears(900)
    assert callee.calls[0].hears(500)
    assert callee.calls[0].leg.caller_number == "27115550000"
    leg.hangup()
    record = redis.pop()
    assert (record["end_reason"], record["hung_up_by"]) == ("answered", "agent")
    assert record["extension"] == "1000"
    assert record["number"] == CALLEE
    assert record["contact_ref"] == "web-1"
    assert record["recording_url"] is not None


def test_phone_with_wrong_headers_is_told_which(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.route("12345", "click2dial/acme", node.config["node"]["listen"])
    agent = rig.phone("1000")
    leg = agent.dial("12345", headers(outbound="0110000000"))
    eventually(lambda: leg.leg.ended_at is not None)
    assert leg.leg.status == 400
    errors = leg.leg.headers["x-teleforge-error"]
    assert any(error.startswith("callee: ") for error in errors), errors
    assert any(error.startswith("outbound_id: ") for error in errors), errors
    record = redis.pop()
    assert (record["end_reason"], record["end_code"]) == ("rejected", 21)
    # The switch would say 41 of a 400: the network's failure.
    assert leg.leg.headers["reason"] == ["Q.850;cause=21"]


def test_phone_of_a_stranger_with_headers_is_refused(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.route(CALLEE, "click2dial/acme", node.config["node"]["listen"])
    callee = rig.outside(CALLEE)
    leg = rig.outside("0845550000").dial(CALLEE, headers())
    eventually(lambda: leg.leg.ended_at is not None)
    assert leg.leg.status == 400
    assert any(error.startswith("agent: ") for error in leg.leg.headers["x-teleforge-error"])
    assert callee.calls == []
    assert redis.pop()["end_reason"] == "rejected"


def test_phone_hears_that_the_callee_is_busy(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.route(CALLEE, "click2dial/acme", node.config["node"]["listen"])
    rig.outside(CALLEE, Script(reject=486))
    leg = rig.phone("1000").dial(CALLEE, headers())
    eventually(lambda: leg.leg.ended_at is not None)
    assert leg.leg.status == 486
    assert redis.pop()["end_reason"] == "callee_busy"
