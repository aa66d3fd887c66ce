"""A call's states and its end in plain words, for people."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

from esl_apps.apps import application, transfer
from esl_apps.core.terms import ABANDONED, AGENT, ANSWERED, API, CALLEE, CANCELLED, ENDED, LOST, REJECTED, SYSTEM

GOOD, MISSED, FAILED = "good", "missed", "failed"

_ENDS = {
    ANSWERED: "The two talked.",
    "agent_no_answer": "{first} didn't answer.",
    "agent_busy": "{first} was busy.",
    "agent_failed": "{first} couldn't be reached.",
    "agent_unconfirmed": "{first} answered, but didn't confirm.",
    "callee_no_answer": "{second} didn't answer.",
    "callee_busy": "{second} was busy.",
    "callee_failed": "{second} couldn't be reached.",
    CANCELLED: "A client or an operator cancelled it before the two could talk.",
    ABANDONED: "{first} hung up before {second_small} answered.",
    REJECTED: "The node refused it.",
    LOST: "Its end wasn't seen.",
}
#: Ends that are part of daily business, though the two didn't talk.
_MISSED = {
    "agent_no_answer",
    "agent_busy",
    "agent_unconfirmed",
    "callee_no_answer",
    "callee_busy",
    CANCELLED,
    ABANDONED,
}
#: Decisions that say why a call ended as it did.
_REASONS = {
    "refused",
    "unavailable",
    "gateway_failed",
    "callee_not_allowed",
    "pin_locked",
    "cut",
    "dropped",
    "switch_away",
    "switch_full",
    "switch_lost",
    "socket_lost",
    "aleg_ended",
}
#: Q.850 causes as people know them, with what to look at.
_CAUSES = {
    1: "this number doesn't exist",
    16: "a normal end",
    17: "busy",
    18: "the phone doesn't respond",
    19: "nothing was answered in time",
    20: "no phone is registered under this number, or it is switched off",
    21: "the call was refused",
    22: "the number has changed",
    27: "the switch had no session for it, or the destination is out of order",
    28: "the number is incomplete",
    31: "no reason was given",
    34: "the gateway has no free line",
    38: "the gateway is down, unknown or silent",
    41: "a temporary failure on the way",
    42: "the gateway or the node is full",
    44: "the line isn't available",
    57: "this kind of number isn't allowed",
    88: "the two have no codec or no network path in common",
    102: "a device on the way didn't answer in time",
}


def tone(end_reason: str) -> str:
    """``good``, ``missed`` or ``failed``."""
    if end_reason == ANSWERED:
        return GOOD
    return MISSED if end_reason in _MISSED else FAILED


def parties(call: Mapping[str, Any]) -> tuple[str, str]:
    """Names for the parties of a call: the first is on the A-leg."""
    if rings_agents(call):
        return "the caller" if is_inbound(call) else "the callee", "the agent"
    if application(call["app"]).session:
        return "the caller", "the callee"
    return "the agent" if call.get("integrator") else "the first party", "the callee"


def end(call: Mapping[str, Any]) -> str:
    """A sentence on how an ended call ended."""
    record = call["record"]
    first, second = parties(call)
    if rings_agents(call) and record["end_reason"] != ABANDONED:
        # The agents are rung first and are the ones who didn't answer; in the record they are A's party.
        first = second
    words = _ENDS.get(record["end_reason"])
    if words is None:
        # Another release may have others. A text from Redis is never a format.
        return str(record["end_reason"])
    return words.format(first=_large(first), second=_large(second), second_small=second)


def hung_up_by(call: Mapping[str, Any]) -> str:
    """The party that hung an ended call up."""
    first, second = parties(call)
    agent, callee = (second, first) if rings_agents(call) else (first, second)
    names = {AGENT: agent, CALLEE: callee, API: "a client or an operator", SYSTEM: "the node"}
    by = call["record"]["hung_up_by"]
    return names.get(by, str(by))


def cause(code: int) -> str:
    """A Q.850 cause in words."""
    return _CAUSES.get(code, "see the table of Q.850 causes")


def reasons(call: Mapping[str, Any]) -> list[str]:
    """The decisions that led to the end, in their own words, without repetitions."""
    # Once it has ended, the other leg is hung up: that explains nothing.
    ended_at = next((entry["at"] for entry in call["timeline"] if entry["state"] == ENDED), inf)
    found = [
        f"{decision['what'].replace('_', ' ')}: {decision['detail']}".removesuffix(": ")
        for decision in call["decisions"]
        if decision["what"] in _REASONS and decision["at"] <= ended_at
    ]
    return list(dict.fromkeys(found))


def state(call: Mapping[str, Any]) -> str:
    """A call's state in two or three words."""
    first, second = parties(call)
    if is_inbound(call):
        first = second
    return {
        "queued": "Starting",
        "ringing": "The agents are rung",
        "agent_ringing": f"{_large(first)} is rung",
        "agent_answered": f"{_large(first)} is there",
        "callee_ringing": f"{_large(second)} is rung",
        "bridged": "Talking",
        "ended": "Ended",
    }.get(call["state"], str(call["state"]))


def moment(call: Mapping[str, Any], state: str, detail: str) -> str:
    """One line of a timeline in words."""
    first, second = call["agent"], call["callee"]
    stays = first
    if rings_agents(call):
        stays, second = second, first
    if state == "agent_answered" and application(call["app"]).session:
        return f"the node answers {first}"
    words = {
        "queued": "the node has the call",
        "ringing": f"{detail}: their phones ring",
        "agent_ringing": f"{first} rings",
        "agent_answered": f"{stays} stays" if call["app"] == transfer.REF and detail else f"{first} answers",
        "callee_ringing": f"{second} rings",
        "bridged": f"{second} answers: the two can talk",
        "ended": "end_reason {}, end_code {}".format(*detail.rpartition(" ")[::2]) if " " in detail else detail,
        "dial": f"the node dials {second}",
        "card": f"allowed by card {detail}",
    }
    return words.get(state, detail)


def rings_agents(call: Mapping[str, Any]) -> bool:
    """Whether the agent is on the B-leg: in an inbound call, or in a transfer in which the customer stays."""
    stays = (entry["detail"] == transfer.STAYS[AGENT] for entry in call.get("timeline", ()))
    return is_inbound(call) or (call["app"] == transfer.REF and any(stays))


def is_inbound(call: Mapping[str, Any]) -> bool:
    """Whether a caller is on the A-leg and agents are rung for them."""
    return application(call["app"]).second_party == AGENT


def _large(name: str) -> str:
    return name[:1].upper() + name[1:]
