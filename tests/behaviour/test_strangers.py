"""A stranger's claims in an INVITE are not believed and go no further."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import on_a_real_switch
from tests.rig.base import Rig, Script, eventually
from tests.rig.raw_call import RawCall
from tests.support.callers import CALLER, CC, STRANGER, card
from tests.support.node import Node, RedisServer

CALLEE, DID = "0820001234", "27115550000"
#: Names that mean something to a node, in every place where a stranger can put a name.
CARRIED = {
    "X-Teleforge-Outbound-ID": "27115550000",
    "X-Teleforge-Contact-Ref": "strangers-own",
    "X-esl_call_ref": "0192a000-0000-7000-8000-000000000001",
    "esl_call_ref": "0192a000-0000-7000-8000-000000000001",
    "variable_esl_call_ref": "0192a000-0000-7000-8000-000000000001",
    "X-sip_authorized": "true",
    "X-sip_auth_username": "1000",
    "X-FS-Auth-User": "1000",
}


def CONFIG(config: dict[str, Any]) -> None:
    config["pin_key"] = "key-for-tests"
    config["cccp"] = {"cid_trust": "any"}
    config["accounts"] = {"acme": {}}
    config["inbound"] = {DID: {"integrator": "acme", "agents": ["1000"]}}


def refused(redis: RedisServer) -> None:
    record = redis.pop()
    assert (record["end_reason"], record["end_code"], record["extension"]) == ("rejected", 21, None)
    assert record["contact_ref"] != "strangers-own"
    assert record["call_ref"] != CARRIED["esl_call_ref"]


def test_stranger_cannot_call_as_an_agent(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.route(CALLEE, "click2dial", node.config["node"]["listen"])
    callee = rig.outside(CALLEE)
    leg = rig.outside(STRANGER).dial(CALLEE, CARRIED)
    eventually(lambda: leg.leg.ended_at is not None)
    assert leg.leg.status == 400
    assert leg.leg.headers["x-teleforge-error"] == ["agent: only a registered phone or a trusted address may dial"]
    refused(redis)
    assert callee.calls == []


@on_a_real_switch
@pytest.mark.parametrize(
    "sender",
    [
        "<sip:1000@127.0.0.1;esl_call_ref=x;sip_authorized=true>;esl_call_ref=x;sip_authorized=true",
        "<sip:1000;sip_authorized=true;sip_auth_username=1000@127.0.0.1>;network_ip=10.0.0.1",
        '"variable_sip_authorized: true" <sip:1000%0Avariable_sip_authorized%3A%20true@127.0.0.1>',
    ],
)
def test_stranger_no_invite_field_makes_an_agent(rig: Any, node: Node, redis: RedisServer, sender: str) -> None:
    rig.route(CALLEE, "click2dial", node.config["node"]["listen"])
    call = rig.raw_call(CALLEE, [*CARRIED.items(), ("Referred-By", "<sip:1000@127.0.0.1>")], sender=sender)
    assert call.wait() == 400
    call.hangup()
    refused(redis)


@on_a_real_switch
@pytest.mark.parametrize(
    "headers",
    [
        [("P-Preferred-Identity", f"<sip:{CALLER}@127.0.0.1>")],
        [("Remote-Party-ID", f"<sip:{CALLER}@127.0.0.1>;party=calling;screen=yes")],
        [("P-Asserted-Identity", f"<sip:{CALLER};verstat=TN-Validation-Passed-A@127.0.0.1>")],
        [("Diversion", f"<sip:{CALLER}@127.0.0.1>"), ("Referred-By", f"<sip:{CALLER}@127.0.0.1>")],
        [("Contact", f"<sip:{CALLER}@127.0.0.1>"), ("History-Info", f"<sip:{CALLER}@127.0.0.1>;index=1")],
    ],
)
def test_stranger_no_invite_header_makes_another_caller(
    rig: Any, node: Node, redis: RedisServer, headers: list[tuple[str, str]]
) -> None:
    rig.route(CC, "dialthrough", node.config["node"]["listen"])
    card(node, cid=CALLER)
    call = rig.raw_call(CC, headers, sender=f"<sip:{STRANGER}@127.0.0.1>")
    assert call.wait() == 200
    call.hangup()
    assert redis.pop()["extension"] == STRANGER


class _TwoBodies(RawCall):
    content_type = "multipart/mixed;boundary=xx"

    def body(self, sdp: str) -> str:
        parts = {"application/sdp": sdp, "application/pidf+xml": "<presence/>\r\n"}
        return "".join(f"--xx\r\nContent-Type: {kind}\r\n\r\n{text}" for kind, text in parts.items()) + "--xx--\r\n"


@on_a_real_switch
def test_stranger_body_next_to_the_sdp_goes_no_further(rig: Any, node: Node, redis: RedisServer) -> None:
    rig.route(DID, "inbound", node.config["node"]["listen"])
    agent = rig.phone("1000", Script(answer_after=0.1, hangup_after=0.1))
    call = _TwoBodies(rig.external_port, DID, [("X-Anything", "1")], f"<sip:{STRANGER}@127.0.0.1>")
    assert call.wait() == 200
    seen = agent.calls[0].leg.headers
    assert seen["content-type"] == ["application/sdp"]
    assert "x-anything" not in seen
    call.hangup()
    assert redis.pop()["end_reason"] == "answered"
