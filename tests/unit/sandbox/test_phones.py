"""Phones that call the switch."""

from __future__ import annotations

from tests.rig.base import eventually
from tests.rig.sandbox import SandboxRig
from tests.support.event_socket import Client, Node


def test_refusal_carries_one_header_twice(rig: SandboxRig) -> None:
    """Show hazard 31: a trailing space makes a second header of one name."""

    def steps(client: Client) -> None:
        client.begin()
        client.run("set", "sip_rh_X-Teleforge-Error=callee: bad")
        client.run("set", "sip_rh_X-Teleforge-Error =agent: bad")
        client.run("respond", "400 Bad Request")

    node = Node(steps)
    rig.route("0820001234", "click2dial", node.address)
    call = rig.phone("1000").dial("0820001234", {"X-Teleforge-Outbound-ID": "27115550000"})
    node.finish()
    eventually(lambda: call.leg.ended_at)
    assert call.leg.status == 400
    assert call.leg.headers["x-teleforge-error"] == ["callee: bad", "agent: bad"]


def test_registered_phone_sets_its_variables(rig: SandboxRig) -> None:
    node = Node()
    rig.route("0820001234", "click2dial", node.address)
    rig.phone("1000").dial("0820001234", {"X-Teleforge-Contact-Ref": "c1"})
    data = node.accept().ask("connect")
    assert data.get("Caller-Context") == "default"
    for name, value in (
        ("sip_authorized", "true"),
        ("sip_auth_username", "1000"),
        ("sip_from_user", "1000"),
        ("sip_h_X-Teleforge-Contact-Ref", "c1"),
        ("sip_network_ip", "127.0.0.1"),
    ):
        assert data.get(f"variable_{name}") == value


def test_asserted_identity_of_any_caller_is_believed(rig: SandboxRig) -> None:
    """Show hazard 30: any caller's P-Asserted-Identity is believed."""
    node = Node()
    rig.route("27115550000", "x", node.address)
    headers = {"P-Asserted-Identity": "<sip:27999999999@evil>", "Privacy": "id"}
    rig.outside("27831112222").dial("27115550000", headers)
    data = node.accept().ask("connect")
    assert data.get("Caller-Caller-ID-Number") == "27999999999"
    assert data.get("variable_sip_from_user") == "27831112222"
    assert data.get("Caller-Privacy-Hide-Number") == "true"
