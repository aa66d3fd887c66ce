"""The port of the event sockets: what strangers do there costs them, and no other call."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from esl_apps.core.reference import is_reference
from tests.conftest import on_the_sandbox
from tests.rig.base import Rig, eventually
from tests.support.http_checks import metric
from tests.support.node import Node
from tests.support.peer import channel_data, event, raw_event, reply
from tests.support.strangers import OPENINGS, FloodingSwitch, ForgedSwitch, Probe, connection, is_closed, say

pytestmark = on_the_sandbox

#: CPU seconds within which the rest of the node is served while a peer floods it. 0.01 were measured; a node that
#: doesn't yield takes as long as the flood.
BOUND = 0.25
#: How long a flood lasts.
FLOOD = 1.5


FLOODING = FloodingSwitch()


def CONFIG(config: dict[str, Any]) -> None:
    config["pin_key"] = "key-for-tests"
    config["accounts"] = {"acme": {"disa": {"open": {"allow_no_pin": True}}}}
    config["switches"].append({"name": "flooding", "address": FLOODING.address, "password": "x"})


@pytest.fixture
def flooding() -> Iterator[FloodingSwitch]:
    yield FLOODING
    FLOODING.flooding.clear()


def faults(node: Node) -> list[dict[str, Any]]:
    """The errors in its log, without those about files that the switch wrote of earlier tests' calls."""
    found = [line for line in node.lines() if line["level"] == "error" or "exception" in line]
    return [line for line in found if line["event"] != "unknown_call_in_switch_cdrs"]


def memory(node: Node) -> float:
    """The node's memory in MB."""
    assert node.process is not None
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def cpu(node: Node) -> float:
    """The seconds of CPU that the node has used."""
    assert node.process is not None
    fields = Path(f"/proc/{node.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def sockets(node: Node) -> int:
    return int(metric(node, "esl_apps_outbound_sockets"))


@pytest.mark.parametrize("ends", [True, False], ids=["ends", "stays"])
def test_stranger_costs_a_line_in_the_log_at_most(node: Node, rig: Rig, ends: bool) -> None:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connection(node.config["node"]["listen"])) for _ in OPENINGS]
        for sock, opening in zip(socks, OPENINGS.values(), strict=True):
            say(sock, opening)
            if ends:
                sock.close()
        if not ends:
            assert all(is_closed(sock, 12) for sock in socks)
    eventually(lambda: sockets(node) == 0, within=12)
    assert faults(node) == []


def test_stranger_is_given_few_seconds_and_little_memory(node: Node, rig: Rig) -> None:
    before = memory(node)
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connection(node.config["node"]["listen"])) for _ in range(16)]
        for sock in socks:
            sock.settimeout(1)
            with contextlib.suppress(OSError):
                sock.sendall(b"Content-Type: command/reply\nContent-Length: 250000001\n\n")
                for _ in range(40):
                    sock.sendall(b"x" * 1_000_000)
        assert memory(node) - before < 50
        assert all(is_closed(sock, 12) for sock in socks)


@pytest.mark.parametrize("known", [False, True], ids=["stranger", "call"])
def test_peer_byte_by_byte_costs_no_core(node: Node, rig: Rig, known: bool) -> None:
    with connection(node.config["node"]["listen"]) as sock:
        if known:
            say(sock, channel_data({"variable_socket_path": "disa/acme/open"}) + reply())
        say(sock, b"x" * 100_000)
        before = cpu(node)
        until = time.monotonic() + 2
        with contextlib.suppress(OSError):
            while time.monotonic() < until:
                sock.send(b"x")
                time.sleep(0.0002)
        assert cpu(node) - before < 0.5


#: Frames that peers flood with: the smallest, keys, ends of applications that were not started, a call's events.
FLOODS = {
    "keys": raw_event(b"key: x\ndigits: 4\n\n"),
    "nameless": raw_event(b"\n\n"),
    "complete": event("CHANNEL_EXECUTE_COMPLETE", {"Application-UUID": "99"}),
    "progress": event("CHANNEL_PROGRESS", {"variable_esl_call_ref": "x", "Caller-Channel-Created-Time": 1}, uuid="x"),
    "notices": b"Content-Type: a\n\n",
}


@pytest.mark.parametrize("kind", FLOODS)
def test_flood_of_calls_leaves_the_loop_to_others(node: Node, rig: Rig, kind: str) -> None:
    chunk = FLOODS[kind] * (65536 // len(FLOODS[kind]))
    probe = Probe(node)
    peers = [ForgedSwitch(node.config["node"]["listen"], {"variable_socket_path": "disa/acme/open"}) for _ in range(8)]
    eventually(lambda: all("playback" in " ".join(peer.commands) for peer in peers))
    with probe.running(*[partial(peer.flood, chunk) for peer in peers]):
        time.sleep(FLOOD)
        for peer in peers:
            peer.close()
    assert probe.p90() < BOUND
    assert faults(node) == []


@pytest.mark.parametrize("kind", FLOODS)
def test_flood_of_a_switch_leaves_the_loop_to_others(node: Node, rig: Rig, flooding: FloodingSwitch, kind: str) -> None:
    flooding.frames = FLOODS[kind] * (65536 // len(FLOODS[kind]))
    probe = Probe(node)
    with probe.running():
        flooding.flooding.set()
        time.sleep(FLOOD)
        flooding.flooding.clear()
    assert flooding.sent > 1_000_000
    assert probe.p90() < BOUND
    assert faults(node) == []


#: Values of another form than a reference's: one that ends every call, one that ends all that came in, and more.
FORGED = ["%20", "x%20direction%20inbound", "5555", "sofia", "..%2F..%2Fx", "x%0Aapi%20shutdown", "'", "${system(x)}"]


@pytest.mark.parametrize("value", FORGED)
def test_reference_of_a_forged_channel_is_in_no_command(node: Node, rig: Rig, value: str) -> None:
    """Another reference than a node's is as good as none: the caller is a new one, under references of this node."""
    names = ("esl_call_ref", "esl_session_ref", "esl_bleg", "esl_node", "last_bridge_to", "uuid")
    forged = {f"variable_{name}": unquote(value) for name in names}
    peer = ForgedSwitch(node.config["node"]["listen"], {"variable_socket_path": "disa/acme/open", **forged})
    eventually(lambda: "playback" in " ".join(peer.commands))
    peer.flood(b"".join(raw_event(b"key: x\ndigits: %c\n\n" % key) for key in b"0820001234#"))
    eventually(lambda: "execute-app-name: bridge" in " ".join(peer.commands))
    peer.close()
    assert not [command for command in peer.commands if unquote(value) in command.split(" ")[1:]]
    for command in peer.commands:
        words = command.partition("\n")[0].split(" ")
        assert "" not in words
        if "esl_bleg" in command or "Unique-ID" in command:
            assert "sendmsg" in words or is_reference(words[-1])
    assert faults(node) == []


@pytest.mark.parametrize("uuid", [unquote(value) for value in FORGED])
def test_channel_without_a_uuid_is_hung_up(node: Node, rig: Rig, uuid: str) -> None:
    peer = ForgedSwitch(node.config["node"]["listen"], {"variable_socket_path": "disa/acme/open"}, uuid=uuid)
    assert [command.split("\n")[0] for command in peer.ended()] == ["connect", "linger 5", "sendmsg", "exit"]
    assert faults(node) == []
