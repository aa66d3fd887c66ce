"""From "they couldn't hear me" to the packet capture."""

from __future__ import annotations

from typing import Any

import pytest

from esl_apps.operations import captures

AGENT_ID, CALLEE_ID = "966cf402-66be-1240-38a0-caf922039bc8", "7f3e@192.0.2.1"
URL = "https://homer.example.com/?callid={call_id}&from={from}&to={to}"


def leg(**more: Any) -> dict[str, Any]:
    return {
        "leg": "u",
        "sip_call_id": AGENT_ID,
        "sip_status": 200,
        "gateway": None,
        "codec": "PCMU/8000",
        "packets_in": 200,
        "packets_out": 199,
        "mos": 4.5,
        "loss": 0.0,
        "jitter": 2.0,
        "post_dial_delay": 0.5,
        "round_trip": None,
        **more,
    }


def call(agent: dict[str, Any] | None, callee: dict[str, Any] | None = None) -> dict[str, Any]:
    quality = {"agent": agent, "callee": callee}
    return {"record": {"dialed_at": 1000, "ended_at": 1047.5, "quality": quality}}


def test_trace_says_who_was_not_heard_and_where_to_look() -> None:
    silent = leg(packets_in=0, mos=None, loss=None, jitter=None)
    assert captures.lines(call(silent, leg(sip_call_id=CALLEE_ID, gateway="pstn")), URL) == [
        "agent   PCMU/8000  0 packets in  199 out  SIP 200",
        "        nothing was heard from the agent: their phone, or a firewall on the way, sent no sound",
        f"        Call-ID {AGENT_ID}",
        f"        https://homer.example.com/?callid={AGENT_ID}&from=940000&to=1107000",
        "callee  PCMU/8000  MOS 4.5  loss 0.0%  jitter 2 ms  200 packets in  199 out  gateway pstn  SIP 200",
        f"        Call-ID {CALLEE_ID}",
        "        https://homer.example.com/?callid=7f3e%40192.0.2.1&from=940000&to=1107000",
        f"""capture tshark -r FILE -Y 'sip.Call-ID == "{AGENT_ID}" || sip.Call-ID == "{CALLEE_ID}"'""",
    ]


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"packets_out": 0}, "the agent heard nothing: the switch sent no sound"),
        ({"mos": 2.94}, "the agent sounded bad: MOS 2.9"),
        ({"loss": 0.07}, "7 % of the agent's sound was lost"),
    ],
)
def test_leg_with_a_fault_has_it_in_words(more: dict[str, Any], fault: str) -> None:
    (found,) = captures.legs(call(leg(**more)))
    assert (found["faults"], found["capture_url"]) == ([fault], None)


def test_good_leg_has_no_fault() -> None:
    (found,) = captures.legs(call(leg()))
    assert found["faults"] == []


@pytest.mark.parametrize("call_id", ["x' || rm -rf /", 'a" || sip || "', "$(reboot)", "`id`", "a;b", None])
def test_hostile_call_id_is_in_no_command(call_id: str | None) -> None:
    assert captures.display_filter(call(leg(sip_call_id=call_id))) is None


def test_hostile_call_id_is_encoded_in_the_address() -> None:
    (found,) = captures.legs(call(leg(sip_call_id="x&callid=y#z")), URL)
    assert found["capture_url"] == "https://homer.example.com/?callid=x%26callid%3Dy%23z&from=940000&to=1107000"


@pytest.mark.parametrize("unfinished", [{}, {"record": {"quality": None}}, {"record": {}}])
def test_call_without_quality_has_no_lines(unfinished: dict[str, Any]) -> None:
    assert captures.lines(unfinished, URL) == []
