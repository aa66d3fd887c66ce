"""Event-socket clients: their commands, their events, and their end."""

from __future__ import annotations

import socket
import time

import pytest

from tests.rig.base import Script, eventually
from tests.rig.sandbox import SandboxRig
from tests.support.event_socket import EXTERNAL, Client, inbound


def test_sendevent_with_a_channel_reaches_no_listener(rig: SandboxRig) -> None:
    """Show hazard 14: an event with a channel's Unique-ID goes to that channel."""
    listener, other = inbound(rig, "CUSTOM esl_apps::call"), inbound(rig)
    rig.phone("1000")
    uuid = rig.api("originate user/1000@127.0.0.1 &park()").split()[1]
    other.ask(f"sendevent CUSTOM\nEvent-Subclass: esl_apps::call\nUnique-ID: {uuid}\nesl_n: 1")
    other.ask("sendevent CUSTOM\nEvent-Subclass: other::thing\nesl_n: 2")
    other.ask("sendevent CUSTOM\nEvent-Subclass: esl_apps::call\nesl_n: 3\nContent-Length: 5\n\nhello")
    frames = sorted((listener.read() for _ in "12"), key=lambda frame: frame.get("esl_n"))
    # The parked channel fired the first as an event of its own, without a name.
    assert [(frame.get("Event-Name"), frame.get("esl_n")) for frame in frames] == [("", "1"), ("CUSTOM", "3")]
    assert frames[1].body == b"hello"


def test_listener_with_nonsense_disturbs_no_other(rig: SandboxRig) -> None:
    good = inbound(rig)
    for nonsense in (
        b"\x00\xff" * 500 + b"\n\n",
        b"auth\nContent-Length: x\n\n",
        b"auth x\nContent-Length: -5\n\n",
        b"\n" * 5000,
        b"a" * 200_000 + b"\n\n",
        b": :\n:\n\n",
        b"sendmsg\n\n" * 100,
    ):
        client = Client(socket.create_connection(("127.0.0.1", int(rig.esl_address.split(":")[1])), 5))
        client.send(nonsense)
        client.close()
    assert good.ask("api uuid_exists x").body == b"false"


def test_listener_that_stalls_delays_no_other(rig: SandboxRig) -> None:
    stalled = inbound(rig, "all")
    rig.outside("27820001234", Script(hangup_after=0.0, answer_after=0.0))
    for _ in range(40):
        rig.api("originate " + EXTERNAL + "27820001234 &park()")
    began = time.monotonic()
    assert rig.api("uuid_exists x") == "false"
    assert time.monotonic() - began < 5
    stalled.close()


@pytest.mark.parametrize("second", ["/^2/", "22"])
def test_filters_are_ored_and_a_minus_excludes(rig: SandboxRig, second: str) -> None:
    client = inbound(rig, "CUSTOM x::y")
    for command in ("filter A 1", f"filter B {second}", "filter C -3"):
        assert client.ask(command).get("Reply-Text").startswith("+OK filter added")
    other = inbound(rig)
    for headers in ("A: 1", "B: 22", "A: 2", "A: 1\nC: 3", "D: 1", "A: 1\nE: last"):
        other.ask(f"sendevent CUSTOM\nEvent-Subclass: x::y\nN: {headers.split()[-1]}\n{headers}")
    assert [client.until(kind="CUSTOM").get("N") for _ in "123"] == ["1", "22", "last"]


def test_control_port_drops_a_share_of_the_sockets(rig: SandboxRig) -> None:
    clients = [socket.create_connection(("127.0.0.1", rig.esl_port), timeout=10) for _ in range(20)]
    eventually(lambda: rig.control("GET", "/status")["listeners"] == 20)
    dropped = rig.control("POST", "/drop-sockets", {"share": 0.5})["dropped"]
    assert 0 < dropped < 20
    eventually(lambda: rig.control("GET", "/status")["listeners"] == 20 - dropped)
    for client in clients:
        client.close()
