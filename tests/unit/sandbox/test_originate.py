"""Legs that the switch dials."""

from __future__ import annotations

import threading
import time

import pytest

from esl_apps.sandbox.wire import strings
from tests.rig.base import Script, eventually
from tests.rig.sandbox import SandboxRig
from tests.support.captures import Frame
from tests.support.event_socket import EXTERNAL, Client, Node, inbound


def test_originate_ends_brackets_inside_quotes(rig: SandboxRig) -> None:
    """Show hazard 15: a dial string's variables end at ``}`` even inside quotes."""
    stolen, asked = rig.outside("900"), rig.outside("27820001234")
    reply = rig.api("originate {n='a}" + EXTERNAL + "900,'}" + EXTERNAL + "27820001234 &park()")
    assert reply.startswith("+OK")
    assert len(stolen.calls) == 1
    assert not asked.calls
    assert strings.brackets("{a=1,b='x,y',^=z}{c=3}rest", "{", "}", ",") == (
        {"a": "1", "b": "x,y", "^": "z", "c": "3"},
        "rest",
    )
    assert strings.brackets("[^^:a=1:b=2,3]rest", "[", "]", ",") == ({"a": "1", "b": "2,3"}, "rest")


def test_forked_origination_uuid_rings_the_first_phone_only(rig: SandboxRig) -> None:
    """Show hazard 16. Without ``origination_uuid``, all registrations ring."""
    phone = rig.phone("1001", Script(answer_after=0.2), registrations=2)
    uuid = "6f1c2a52-0c7e-4a55-9a5e-000000000009"
    assert rig.api(f"originate {{origination_uuid={uuid}}}user/1001@127.0.0.1 &park()").strip() == f"+OK {uuid}"
    assert len(phone.calls) == 1
    rig.api("hupall")
    rig.api("originate user/1001@127.0.0.1 &park()")
    assert len(phone.calls) == 3
    eventually(lambda: sorted(call.leg.ended_at is None for call in phone.calls[1:]) == [False, True])


def test_variables_stay_on_their_leg_unless_exported(rig: SandboxRig) -> None:
    """Show hazard 17: a dial string's variables are set on its own leg only."""
    rig.outside("27820001234", Script(hangup_after=0.2))
    listener = inbound(rig, "CHANNEL_ORIGINATE")

    def steps(client: Client) -> None:
        client.begin()
        client.run("multiset", "own=1 esl_app=disa esl_call_ref=r export_vars=esl_app,esl_call_ref")
        client.run("bridge", "{here=yes}" + EXTERNAL + "27820001234")

    node = Node(steps)
    rig.route("27115550000", "x", node.address)
    rig.outside("27831112222").dial("27115550000")
    leg = listener.read()
    node.finish()
    names = ("own", "esl_app", "esl_call_ref", "here")
    assert [leg.get(f"variable_{name}") for name in names] == ["", "disa", "r", "yes"]


def test_early_media_counts_as_answered_unless_ignored(rig: SandboxRig) -> None:
    """Show hazards 18 and 19: CHANNEL_BRIDGE comes with a 183."""
    agent = rig.phone("1000", Script(early_media=True, answer_after=0.6))
    assert rig.api("originate user/1000@127.0.0.1 &park()").startswith("+OK")
    assert agent.calls[0].leg.answered_at is None
    rig.api("hupall")
    began = time.monotonic()
    assert rig.api("originate {ignore_early_media=true}user/1000@127.0.0.1 &park()").startswith("+OK")
    assert time.monotonic() - began > 0.5
    rig.outside("27820001234", Script(early_media=True, answer_after=None, tone=600))
    frames: list[Frame] = []

    def steps(client: Client) -> None:
        client.begin()
        client.run("answer")
        client.execute("bridge", "{originate_timeout=1}" + EXTERNAL + "27820001234")
        frames.append(client.until(kind="CHANNEL_BRIDGE"))
        time.sleep(1.2)
        client.execute("hangup")

    node = Node(steps)
    rig.route("27115550000", "x", node.address)
    caller = rig.outside("27831112222").dial("27115550000")
    assert caller.hears(600)
    node.finish()
    assert frames[0].get("variable_originate_disposition") == "SUCCESS"


def test_enterprise_originate_cancelled_at_once_rings_no_phone(rig: SandboxRig) -> None:
    """The caller leaves in the moment between the bridge and its legs."""
    phones = [rig.outside(number, Script(answer_after=0.2)) for number in ("27820001234", "27820001235")]

    def steps(client: Client) -> None:
        uuid = client.begin().get("Unique-ID")
        legs = ":_:".join(EXTERNAL + phone.number for phone in phones)
        text = f"sendmsg\ncall-command: execute\nexecute-app-name: bridge\nexecute-app-arg: {legs}\n\n"
        client.send(f"{text}api uuid_transfer {uuid} park inline\n\n")
        time.sleep(0.2)

    node = Node(steps)
    rig.route("27115550000", "x", node.address)
    caller = rig.outside("27831112222").dial("27115550000")
    node.finish()
    time.sleep(0.5)
    assert [call.leg.answered_at for phone in phones for call in phone.calls if call.leg.answered_at] == []
    caller.hangup()


def test_ringback_is_heard_only_if_asked_for(rig: SandboxRig) -> None:
    """Show hazard 20: an answered caller hears nothing while the callee rings."""
    callee = rig.outside("27820001234", Script(ring_after=0.2, answer_after=None))
    heard = threading.Event()

    def steps(client: Client) -> None:
        client.begin()
        client.run("answer")
        client.run("set", "continue_on_fail=true")
        bridge = EXTERNAL + "27820001234"
        client.run("bridge", bridge)
        client.run("multiset", "^^;transfer_ringback=%(2000,4000,440,480);instant_ringback=true")
        client.execute("bridge", bridge)
        heard.wait(30)
        client.execute("hangup")
        client.send("api hupall")
        client.until(kind="CHANNEL_HANGUP_COMPLETE")

    node = Node(steps)
    rig.route("27115550000", "x", node.address)
    caller = rig.outside("27831112222").dial("27115550000")
    eventually(lambda: callee.calls and callee.calls[0].leg.ringing_at)
    assert not caller.hears(440, within=0.05)
    callee.calls[0].hangup()
    assert caller.hears(440)
    heard.set()
    node.finish()


def test_unregistered_phone_makes_no_channel_and_no_event(rig: SandboxRig) -> None:
    """Show hazard 22: an unregistered phone makes no channel."""
    listener = inbound(rig, "all")
    phone = rig.phone("1000")
    phone.unregister()
    began = time.monotonic()
    assert rig.api("originate user/1000@127.0.0.1 &park()") == "-ERR USER_NOT_REGISTERED\n"
    assert time.monotonic() - began < 0.9  # a phone that is gone takes a second
    rig.api("status")
    assert {listener.until(lambda f: f.kind != "CUSTOM").kind for _ in "12"} == {"API"}
    assert rig.api("originate user/99999@127.0.0.1 &park()") == "-ERR SUBSCRIBER_ABSENT\n"
    assert rig.api("originate sofia/gateway/nosuch/1 &park()") == "-ERR INVALID_GATEWAY\n"


@pytest.mark.parametrize(
    ("script", "q850", "cause", "disposition"),
    [
        (Script(reject=486), 17, "USER_BUSY", "recv_refuse"),
        (Script(reject=600), 17, "USER_BUSY", "recv_refuse"),
        (Script(reject=603), 21, "CALL_REJECTED", "recv_refuse"),
        (Script(reject=403), 21, "CALL_REJECTED", "recv_refuse"),
        (Script(reject=404), 1, "UNALLOCATED_NUMBER", "recv_refuse"),
        (Script(reject=480), 18, "NO_USER_RESPONSE", "recv_refuse"),
        (Script(reject=408), 102, "RECOVERY_ON_TIMER_EXPIRE", "recv_refuse"),
        (Script(reject=484), 28, "INVALID_NUMBER_FORMAT", "recv_refuse"),
        (Script(reject=488), 88, "INCOMPATIBLE_DESTINATION", "recv_refuse"),
        (Script(reject=410), 22, "NUMBER_CHANGED", "recv_refuse"),
        (Script(reject=503), 41, "NORMAL_TEMPORARY_FAILURE", "recv_refuse"),
        (Script(answer_after=None), 19, "NO_ANSWER", "send_cancel"),
    ],
    ids=lambda value: str(value.reject) if isinstance(value, Script) else None,
)
def test_failed_leg_has_its_cause_and_disposition(
    rig: SandboxRig, script: Script, q850: int, cause: str, disposition: str
) -> None:
    """Show hazard 23: causes and dispositions of failed legs."""
    rig.outside("27820001234", Script(**{**vars(script), "answer_after": script.answer_after and 0.02}))
    listener = inbound(rig, "CHANNEL_HANGUP_COMPLETE")
    patience = 10 if script.reject else 1
    reply = rig.api(f"originate {{originate_timeout={patience}}}{EXTERNAL}27820001234 &park()")
    assert reply == f"-ERR {cause}\n"
    leg = listener.read()
    assert leg.get("variable_hangup_cause_q850") == str(q850)
    assert leg.get("variable_sip_hangup_disposition") == disposition
    if script.reject:
        assert leg.get("variable_sip_invite_failure_status") == str(script.reject)
