"""The dialplan's ``socket``, which hands a channel to an application."""

from __future__ import annotations

import time

import pytest

from tests.rig.base import Script, eventually
from tests.rig.sandbox import SandboxRig
from tests.support.event_socket import EXTERNAL, Client, Node


def test_socket_list_fails_over_on_refusal_and_names_the_path(rig: SandboxRig) -> None:
    """Show hazard 9: the list of nodes is a failover only for refused connections."""
    node = Node()
    caller = rig.outside("27831112222")
    rig.route("27115550000", "disa/acme/front", f"127.0.0.1:1|{node.address}")
    caller.dial("27115550000")
    data = node.accept().ask("connect")
    assert data.get("variable_socket_path") == "disa/acme/front"
    assert data.get("variable_socket_host") == "127.0.0.1"
    assert data.get("Socket-Mode") == "async"
    assert data.get("Control") == "full"


def test_socket_without_a_node_plays_a_tone_and_hangs_up(rig: SandboxRig) -> None:
    rig.route("27115550000", "x", "127.0.0.1:1")
    call = rig.outside("27831112222").dial("27115550000")
    assert call.hears(620)
    eventually(lambda: call.leg.ended_at)
    assert (call.leg.status, call.leg.answered_at) == (503, None)


def test_watchdog_leaves_a_stopped_node(rig: SandboxRig) -> None:
    """Show hazard 9: a stopped node accepts and says nothing."""
    node = Node()
    rig.extension(
        "public",
        "1",
        [("sched_transfer", "+1 esl_apps_unavailable XML public"), ("socket", f"{node.address}/x async full")],
    )
    call = rig.outside("27831112222").dial("1")
    node.accept()
    assert call.hears(620, within=3)


@pytest.mark.parametrize("say", ["", "connect\n\nexit\n\n"])
def test_socket_closed_at_once_strands_the_caller(rig: SandboxRig, say: str) -> None:
    """Show hazard 10: the channel is parked, and the dialplan doesn't go on."""
    node = Node()
    rig.extension("public", "1", [("socket", f"{node.address}/x async full"), ("hangup", "USER_BUSY")])
    call = rig.outside("27831112222").dial("1")
    client = node.accept()
    client.send(say.encode())
    if say:
        client.read()
    client.close()
    time.sleep(0.4)
    assert call.leg.ended_at is None
    assert rig.live_channels() == 1


def test_dropped_socket_lets_playback_end_then_dialplan_go_on(rig: SandboxRig) -> None:
    """Show hazard 11: the dialplan's next action runs once the playback has ended."""
    second = Node()

    def steps(client: Client) -> None:
        client.begin()
        client.run("answer")
        client.run("set", "kept=yes")
        client.execute("playback", "tone_stream://%(600,0,440)")
        client.until(kind="PLAYBACK_START")

    first = Node(steps)
    sockets = [("socket", f"{node.address}/x async full") for node in (first, second)]
    rig.extension("public", "1", [*sockets, ("hangup", "USER_BUSY")])
    call = rig.outside("27831112222").dial("1")
    first.finish()
    dropped = time.monotonic()
    client = second.accept()
    assert time.monotonic() - dropped > 0.3
    assert client.begin().get("variable_kept") == "yes"
    # One that closes within some 5 ms of ``connect`` strands its caller (hazard 10), which is another test's matter.
    client.run("set", "taken=over")
    client.close()
    eventually(lambda: call.leg.ended_at)


def test_dropped_socket_does_not_cut_a_bridge(rig: SandboxRig) -> None:
    """Show hazard 11: ``hangup_after_bridge`` ends the call with the bridge's cause."""
    callee = rig.outside("27820001234", Script(hangup_after=0.7, tone=600))

    def steps(client: Client) -> None:
        client.begin()
        client.run("set", "hangup_after_bridge=true")
        client.execute("bridge", EXTERNAL + "27820001234")
        client.until(kind="CHANNEL_BRIDGE")

    node = Node(steps)
    rig.route("27115550000", "x", node.address)
    caller = rig.outside("27831112222", Script(tone=700)).dial("27115550000")
    node.finish()
    assert caller.hears(600)
    assert callee.calls[0].hears(700)
    eventually(lambda: caller.leg.ended_at)
    ended_at, answered_at = caller.leg.ended_at, caller.leg.answered_at
    assert ended_at is not None
    assert answered_at is not None
    assert ended_at - answered_at > 0.5


def test_two_executes_without_a_lock_run_in_reverse(rig: SandboxRig) -> None:
    """Show hazard 12: the second execute runs inside the first."""
    order: dict[bool, list[str]] = {}

    def steps(client: Client) -> None:
        client.begin("CHANNEL_EXECUTE_COMPLETE")
        client.run("answer")
        for lock in (False, True):
            client.execute("playback", "tone_stream://%(150,0,440)", uuid="first", lock=lock)
            client.execute("playback", "tone_stream://%(150,0,440)", uuid="second", lock=lock)
            order[lock] = [client.until(kind="CHANNEL_EXECUTE_COMPLETE").get("Application-UUID") for _ in "12"]
        client.execute("hangup")

    node = Node(steps)
    rig.route("27115550000", "x", node.address)
    rig.outside("27831112222").dial("27115550000")
    node.finish()
    assert order == {False: ["second", "first"], True: ["first", "second"]}


def test_socket_without_full_refuses_most_commands(rig: SandboxRig) -> None:
    """Show hazard 13: ``socket`` without ``full`` refuses most commands."""
    node = Node()
    rig.phone("1000")
    rig.api(f"originate user/1000@127.0.0.1 &socket({node.address}/x async full)")
    client = node.accept()
    assert client.ask("connect").get("Control") == "single-channel"
    for command in ("linger", "event plain all", "api status", "nosuch"):
        assert client.ask(command).get("Reply-Text") == "-ERR command not found"
    assert client.ask("myevents").get("Reply-Text") == "+OK Events Enabled"
