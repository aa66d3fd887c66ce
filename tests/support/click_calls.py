"""Click-to-dial calls: a talk of two phones that are told by their tones, their one record, and their recording."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.rig.base import Phone, PhoneLeg, Rig, Script, eventually
from tests.support.node import Node, RedisServer

CALLEE = "0820001234"
AGENT_HZ, CALLEE_HZ = 500, 900


def talk(rig: Rig, node: Node, phone: Phone | None = None) -> tuple[str, PhoneLeg, PhoneLeg]:
    """A call in which both parties hear each other; its reference, the agent's leg and the callee's."""
    agent = phone or rig.phone("1000", Script(answer_after=0.1, tone=AGENT_HZ))
    callee = rig.outside(CALLEE, Script(answer_after=0.1, tone=CALLEE_HZ))
    ref = node.call("1000", CALLEE)
    eventually(lambda: node.get(ref)["state"] == "bridged")
    assert agent.calls[0].hears(CALLEE_HZ)
    assert callee.calls[0].hears(AGENT_HZ)
    return ref, agent.calls[0], callee.calls[0]


def silent(call: PhoneLeg, hz: int) -> bool:
    """Whether a party stops hearing a tone, and hears none of it for a while."""
    eventually(lambda: not call.hears(hz, within=0.2))
    return not call.hears(hz, within=0.4)


def record_of(redis: RedisServer, ref: str) -> dict[str, Any]:
    """The call's one record; AssertionError if a second follows it."""
    record = redis.pop()
    assert record["call_ref"] == ref
    time.sleep(0.05)
    assert redis.client.llen("enigma:notifications:cdr") == 0
    return record


def ended(redis: RedisServer, ref: str, reason: str, code: int, by: str) -> dict[str, Any]:
    record = record_of(redis, ref)
    assert (record["end_reason"], record["end_code"], record["hung_up_by"]) == (reason, code, by), record
    return record


def recording(rig: Rig, record: dict[str, Any]) -> Path:
    found = list(Path(rig.recordings).rglob(record["recording_url"]))
    assert len(found) == 1, record
    return found[0]
