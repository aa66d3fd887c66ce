"""Keys that a caller presses: at the other side of each application, and while a PIN is keyed; on both switches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from esl_apps.esl.presses import key_of_info
from esl_apps.store.cards import hash_pin
from tests.rig.base import PhoneLeg, Rig, Script, eventually
from tests.support.callers import (
    AGENT,
    CALLEE,
    CALLER,
    CALLER_E164,
    CB,
    CC,
    DIALTONE,
    DISA,
    DISA_PIN,
    E164,
    STRANGER,
    card,
    disa_config,
)
from tests.support.event_socket import Client
from tests.support.event_socket import Node as Application
from tests.support.node import ADMIN_TOKEN, Node, RedisServer, asks, request

CARD_PIN, LONG_PIN, PIN_KEY = "482190735", "482190735612", "key-for-tests"
OTHER, OTHER_E164 = "0831112222", "27831112222"
DID, HASHED_DISA = "27115550000", "27115550007"
FAR = 900
METHODS = ["rfc2833", "info", "inband"]


def CONFIG(config: dict[str, Any]) -> None:
    disa_config(config)
    config["pin_key"] = PIN_KEY
    config["accounts"]["acme"]["disa"]["hashed"] = {"pin_hash": hash_pin(PIN_KEY, LONG_PIN)}
    config["cccp"] = {"cccp_cb_number": CB, "cccp_cc_number": CC, "callback_delay": 0.2, "prompt_delay": 0.1}
    config["callback"] = {"cool_down": 0, "per_day": 1000}
    config["inbound"] = {DID: {"integrator": "acme", "agents": [AGENT], "ring_timeout": 5}}


@pytest.fixture(autouse=True)
def routed(rig: Rig, node: Node) -> None:
    listen = node.config["node"]["listen"]
    paths = {DISA: "disa/acme/front", HASHED_DISA: "disa/acme/hashed", CC: "dialthrough", CB: "callback"}
    for number, path in {**paths, DID: "inbound"}.items():
        rig.route(number, path, listen)


def near_script(method: str) -> Script:
    """A caller's phone that has one way to say its keys. Tones are heard only without telephone-event."""
    return Script(answer_after=0.1, telephone_event=method == "rfc2833")


def dialled(rig: Rig, number: str, script: Script, did: str) -> PhoneLeg:
    """Dial, and wait until the PIN is asked for."""
    leg = rig.outside(number, script).dial(did)
    eventually(lambda: asks(rig, "enter_pin"))
    return leg


def by_disa(rig: Rig, node: Node, method: str) -> PhoneLeg:
    leg = dialled(rig, CALLER, near_script(method), DISA)
    leg.digits(DISA_PIN, method)
    assert leg.hears(*DIALTONE)
    leg.digits(CALLEE + "#", method)
    return leg


def by_dialthrough(rig: Rig, node: Node, method: str) -> PhoneLeg:
    card(node, pin=CARD_PIN)
    leg = dialled(rig, STRANGER, near_script(method), CC)
    leg.digits(CARD_PIN + "#" + CALLEE + "#", method)
    return leg


def by_callback(rig: Rig, node: Node, method: str) -> PhoneLeg:
    card(node, cid=CALLER)
    back = rig.outside(CALLER_E164, near_script(method))
    rig.outside(CALLER).dial(CB)
    eventually(lambda: back.calls and asks(rig, "enter_number"))
    back.calls[0].digits(CALLEE + "#", method)
    return back.calls[0]


def by_autodial(rig: Rig, node: Node, method: str) -> PhoneLeg:
    near = rig.outside(OTHER_E164, near_script(method))
    data = {"data": {"a_leg_number": OTHER, "b_leg_number": CALLEE}}
    assert request(node.admin, "PUT", "/v2/accounts/acme/cccps/autodial", data, token=ADMIN_TOKEN).status < 300
    eventually(lambda: near.calls and near.calls[0].leg.answered_at is not None)
    return near.calls[0]


def by_click(rig: Rig, node: Node, method: str) -> PhoneLeg:
    agent = rig.phone(AGENT, near_script(method))
    node.call(AGENT, CALLEE)
    eventually(lambda: agent.calls and agent.calls[0].leg.answered_at is not None)
    return agent.calls[0]


SESSIONS = {"disa": by_disa, "dialthrough": by_dialthrough, "callback": by_callback}
OTHERS = {"autodial": by_autodial, "click2dial": by_click}
Placed = Callable[[Rig, Node, str], PhoneLeg]


def far_leg(rig: Rig, near: PhoneLeg, far: Any) -> PhoneLeg:
    eventually(lambda: far.calls and far.calls[0].leg.answered_at is not None, message="the far side's answer")
    assert near.hears(FAR)
    leg: PhoneLeg = far.calls[0]
    return leg


def all_came(far: PhoneLeg, keys: str) -> None:
    eventually(lambda: far.received == keys or far.leg.ended_at, message=f"{keys} at the far side")
    assert (far.received, far.leg.ended_at) == (keys, None)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("application", SESSIONS)
def test_keys_reach_the_far_side_in_a_session(
    rig: Rig, node: Node, redis: RedisServer, application: str, method: str
) -> None:
    far = rig.outside(E164, Script(answer_after=0.1, tone=FAR))
    near = SESSIONS[application](rig, node, method)
    leg = far_leg(rig, near, far)
    near.digits("1*9#00", method)
    all_came(leg, "1*9#00")
    # Two single stars, which aren't **.
    near.digits("*", method)
    time.sleep(1.2)
    near.digits("*", method)
    all_came(leg, "1*9#00**")
    near.digits("**", method)
    eventually(lambda: leg.leg.ended_at is not None)
    second = rig.outside(OTHER_E164, Script(answer_after=0.1, tone=FAR))
    if application == "disa":
        assert near.hears(*DIALTONE)
    else:
        eventually(lambda: asks(rig, "enter_number"))
    near.digits(OTHER + "#", method)
    leg = far_leg(rig, near, second)
    near.digits("27#", method)
    all_came(leg, "27#")
    near.hangup()
    assert [redis.pop()["hung_up_by"], redis.pop()["hung_up_by"]] == ["agent", "agent"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("application", OTHERS)
def test_keys_reach_the_far_side_of_a_placed_call(
    rig: Rig, node: Node, redis: RedisServer, application: str, method: str
) -> None:
    far = rig.outside(E164, Script(answer_after=0.1, tone=FAR))
    if application == "click2dial":
        far = rig.outside(CALLEE, Script(answer_after=0.1, tone=FAR))
    near = OTHERS[application](rig, node, method)
    leg = far_leg(rig, near, far)
    keys_pass(near, leg, method)
    near.hangup()
    redis.pop()


@pytest.mark.parametrize("method", METHODS)
def test_keys_reach_the_agent_of_an_inbound_call(rig: Rig, node: Node, redis: RedisServer, method: str) -> None:
    agent = rig.phone(AGENT, Script(answer_after=0.1, tone=FAR))
    near = rig.outside(CALLER, near_script(method)).dial(DID)
    keys_pass(near, far_leg(rig, near, agent), method)
    near.hangup()
    redis.pop()


def keys_pass(near: PhoneLeg, far: PhoneLeg, method: str) -> None:
    """Check that keys, ** too, pass in a call without keypad: tones as tones."""
    if method == "inband":
        near.digits("111", method)
        assert far.hears(697) or far.hears(1209)
        return
    near.digits("1**9#00", method)
    all_came(far, "1**9#00")


def test_keys_of_a_pin_are_sensitive_and_no_others(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.outside(E164, Script(answer_after=0.1, tone=FAR))
    leg = dialled(rig, CALLER, Script(), DISA)

    def variables() -> list[str]:
        names = ("sensitive_dtmf", "playback_terminators")
        (uuid,) = [row.split(",")[0] for row in rig.api("show channels").splitlines() if ",inbound," in row]
        return [rig.api(f"uuid_getvar {uuid} {name}").strip() for name in names]

    assert variables() == ["true", "none"]
    leg.digits(DISA_PIN)
    assert leg.hears(*DIALTONE)
    assert variables() == ["true", "none"]
    leg.digits(CALLEE + "#")
    assert leg.hears(FAR)
    assert variables() == ["_undef_", "_undef_"]
    leg.hangup()
    redis.pop()


def say_twice(leg: PhoneLeg, keys: str, first: str, second: str, lag: float) -> None:
    """Press each key as a phone with two ways to say it, the second ``lag`` seconds after the first."""
    for key in keys:
        leg.digits(key, first)
        time.sleep(lag)
        leg.digits(key, second)
        time.sleep(0.25)


@pytest.mark.parametrize(("first", "second", "lag"), [("rfc2833", "info", 0.0), ("inband", "info", 0.12)])
def test_keys_said_in_two_ways_count_once(
    rig: Rig, node: Node, redis: RedisServer, first: str, second: str, lag: float
) -> None:
    """Hazard 42. The phone says each key by RFC 2833 and INFO, or as a tone and by INFO a little later."""
    card(node, pin=CARD_PIN)
    far = rig.outside(E164, Script(answer_after=0.1, tone=FAR))
    near = dialled(rig, STRANGER, near_script(first), CC)
    say_twice(near, CARD_PIN + "#" + CALLEE + "#", first, second, lag)
    leg = far_leg(rig, near, far)
    say_twice(near, "1*9#00", first, second, lag)
    all_came(leg, "1*9#00")
    say_twice(near, "*", first, second, lag)
    all_came(leg, "1*9#00*")
    # One star, though heard twice, didn't end the talk. Two do.
    assert leg.leg.ended_at is None
    say_twice(near, "**", first, second, lag)
    eventually(lambda: leg.leg.ended_at is not None)
    near.hangup()
    record = redis.pop()
    assert (record["end_reason"], record["number"]) == ("answered", "+27820001234")


@pytest.mark.parametrize("method", METHODS)
def test_keys_pressed_twice_quickly_are_two(rig: Rig, node: Node, redis: RedisServer, method: str) -> None:
    card(node, pin="110022993")
    far = rig.outside(E164, Script(answer_after=0.1, tone=FAR))
    near = dialled(rig, STRANGER, near_script(method), CC)
    near.digits("110022993#" + CALLEE + "#", method)
    far_leg(rig, near, far)
    near.hangup()
    assert redis.pop()["number"] == "+27820001234"


def test_keys_of_a_long_hashed_pin_open_a_disa(rig: Rig, node: Node, redis: RedisServer) -> None:
    """Nothing says how long the PIN is, and the number is typed right behind it."""
    far = rig.outside(E164, Script(answer_after=0.1, tone=FAR))
    near = dialled(rig, CALLER, Script(), HASHED_DISA)
    near.digits(LONG_PIN + CALLEE + "#")
    far_leg(rig, near, far)
    near.hangup()
    assert redis.pop()["number"] == "+27820001234"


# What the switches do, on which the above relies ---------------------------------------------------------


def test_sensitive_digits_go_no_further_than_the_switch(rig: Rig) -> None:
    """Hazard 35."""
    far = rig.phone(AGENT, Script(answer_after=0.1))
    sensitive, reset = threading.Event(), threading.Event()

    def steps(client: Client) -> None:
        client.begin()
        client.run("answer")
        client.run("set", "sensitive_dtmf=true")
        client.execute("bridge", f"user/{AGENT}@127.0.0.1")
        client.until(kind="CHANNEL_BRIDGE")
        sensitive.set()
        # The first digits were read from the queue when this one comes.
        assert reset.wait(30)
        client.ask(f"api uuid_setvar {client.uuid} sensitive_dtmf")
        client.until(kind="CHANNEL_HANGUP_COMPLETE")

    switch = Application(steps)
    rig.route("27115550009", "x", switch.address)
    near = rig.outside(CALLER).dial("27115550009")
    assert sensitive.wait(30)
    near.digits("12")
    time.sleep(0.8)
    assert far.calls[0].received == ""
    reset.set()
    time.sleep(0.2)
    near.digits("34")
    all_came(far.calls[0], "34")
    near.hangup()
    switch.finish(20)


def test_binding_of_another_name_replaces_the_first(rig: Rig) -> None:
    got: list[str] = []
    bound = [threading.Event(), threading.Event()]

    def steps(client: Client) -> None:
        client.begin()
        client.run("answer")
        client.ask("divert_events on")
        client.run("set", "bind_digit_digit_timeout=300")
        client.run("bind_digit_action", "keys,~^(.)$,key,x")
        client.execute("playback", "silence_stream://-1")
        client.until(kind="PLAYBACK_START")
        bound[0].set()
        while b"key: x" not in (raw := client.read_raw()):
            pass
        got.append(raw.decode().partition("\n\n")[2])
        client.execute("bind_digit_action", "talk,**,key,x")
        client.until(lambda frame: frame.get("Application") == "bind_digit_action", "CHANNEL_EXECUTE_COMPLETE")
        bound[1].set()
        while len(got) < 3:
            raw = client.read_raw()
            if b"\n\nkey: x" in raw or b"\n\ndigits: " in raw:
                got.append(raw.decode().partition("\n\n")[2])
        client.execute("hangup")
        client.until(kind="CHANNEL_HANGUP_COMPLETE")

    switch = Application(steps)
    rig.route("27115550009", "x", switch.address)
    near = rig.outside(CALLER).dial("27115550009")
    assert bound[0].wait(30)
    near.digits("4")
    assert bound[1].wait(30)
    near.digits("8**")
    switch.finish(20)
    assert got == ["key: x\ndigits: 4\n\n", "digits: 8\n\n", "key: x\ndigits: **\n\n"]


def test_info_is_reported_with_the_key_in_its_body(rig: Rig) -> None:
    answered = threading.Event()
    bodies: list[str] = []

    def steps(client: Client) -> None:
        client.begin()
        client.run("answer")
        answered.set()
        frame = client.until(kind="RECV_INFO")
        assert frame.get("Unique-ID") == client.uuid
        bodies.append(frame.body.decode())
        client.execute("hangup")
        client.until(kind="CHANNEL_HANGUP_COMPLETE")

    switch = Application(steps)
    rig.route("27115550009", "x", switch.address)
    near = rig.outside(CALLER).dial("27115550009")
    assert answered.wait(30)
    near.digits("5", "info")
    switch.finish(20)
    assert key_of_info(bodies[0]) == "5"


def test_digits_received_by_command_go_past_the_bindings(rig: Rig) -> None:
    def steps(client: Client) -> None:
        client.begin()
        client.run("answer")
        client.run("bind_digit_action", "keys,~^(.)$,key,x")
        client.execute("playback", "silence_stream://-1")
        client.until(kind="PLAYBACK_START")
        client.ask(f"api uuid_recv_dtmf {client.uuid} 5")
        assert client.until(kind="DTMF").get("DTMF-Digit") == "5"
        client.execute("hangup")
        client.until(kind="CHANNEL_HANGUP_COMPLETE")

    switch = Application(steps)
    rig.route("27115550009", "x", switch.address)
    rig.outside(CALLER).dial("27115550009")
    switch.finish(20)
