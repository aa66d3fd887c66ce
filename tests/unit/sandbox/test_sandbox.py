"""The sandbox, held to what a real FreeSWITCH sent, and to the hazards that it is there to reproduce."""

from __future__ import annotations

import contextlib
import difflib
import itertools
import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from esl_apps.sandbox.wire import strings, wire
from tests.rig.base import Script, eventually
from tests.rig.sandbox import SandboxRig
from tests.support import ROOT, captures
from tests.support.captures import Frame

UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
EXTERNAL = "sofia/gateway/pstn/"


@pytest.fixture(scope="module")
def switches() -> Iterator[tuple[SandboxRig, SandboxRig]]:
    with SandboxRig(tick=0) as quick, SandboxRig(tick=20) as paced:
        yield quick, paced


def lent(switch: SandboxRig) -> Iterator[SandboxRig]:
    switch.reset()
    yield switch
    assert "Traceback" not in switch.log.read_text()


@pytest.fixture
def rig(switches: tuple[SandboxRig, SandboxRig]) -> Iterator[SandboxRig]:
    """A sandbox that waits for no tick."""
    yield from lent(switches[0])


@pytest.fixture
def paced(switches: tuple[SandboxRig, SandboxRig]) -> Iterator[SandboxRig]:
    """A sandbox that looks every 20 ms, as FreeSWITCH does."""
    yield from lent(switches[1])


class Client:
    """One end of an event socket, blocking; reads frame by frame."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(6)
        self.file = sock.makefile("rb")
        self.uuid = ""

    def send(self, text: str | bytes) -> None:
        self.sock.sendall(text if isinstance(text, bytes) else text.encode() + b"\n\n")

    def read_raw(self) -> bytes:
        head = b""
        while not head.endswith(b"\n\n"):
            line = self.file.readline()
            if not line:
                raise EOFError
            head += line
        length = re.search(rb"^Content-Length: (\d+)$", head, re.MULTILINE)
        return head + (self.file.read(int(length[1])) if length else b"")

    def read(self) -> Frame:
        return captures.frame(self.read_raw())

    def ask(self, text: str) -> Frame:
        """Send a command; its reply."""
        self.send(text)
        while True:
            frame = self.read()
            if frame.get("Content-Type") in ("command/reply", "api/response"):
                return frame

    def execute(self, app: str, argument: str = "", *, uuid: str = "", lock: bool = False) -> None:
        lines = ["sendmsg", "call-command: execute", f"execute-app-name: {app}"]
        lines += [f"execute-app-arg: {argument}"] if argument else []
        lines += [f"Event-UUID: {uuid}"] if uuid else []
        lines += ["event-lock: true"] if lock else []
        self.send("\n".join(lines))

    def run(self, app: str, argument: str = "") -> Frame:
        """Execute, and wait for that very completion."""
        uuid = f"done-{time.monotonic()}"
        self.execute(app, argument, uuid=uuid)
        return self.until(lambda frame: frame.get("Application-UUID") == uuid, "CHANNEL_EXECUTE_COMPLETE")

    def until(self, match: Callable[[Frame], Any] | None = None, kind: str = "") -> Frame:
        """The next frame of a kind that matches."""
        while True:
            frame = self.read()
            if (not kind or frame.kind == kind) and (match is None or match(frame)):
                return frame

    def begin(self, names: str = "all") -> Frame:
        """``connect``, and this channel's events."""
        data = self.ask("connect")
        self.uuid = data.get("Unique-ID")
        self.ask("linger 5")
        self.ask(f"event plain {names}")
        self.ask(f"filter Unique-ID {self.uuid}")
        return data

    def ended(self) -> bool:
        """Nothing more comes, and the far end has closed."""
        try:
            while True:
                self.read_raw()
        except (EOFError, ConnectionError):
            return True

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.file.close()
        self.sock.close()


class Node(threading.Thread):
    """An application that takes connections and runs one function on each."""

    def __init__(self, steps: Callable[[Client], object] | None = None) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.steps = steps
        self.error: BaseException | None = None
        self.clients: list[Client] = []
        if steps:
            self.start()

    def accept(self) -> Client:
        self.listener.settimeout(30)
        client = Client(self.listener.accept()[0])
        self.clients.append(client)
        return client

    def run(self) -> None:
        assert self.steps
        try:
            client = self.accept()
            try:
                self.steps(client)
            finally:
                client.close()
        except BaseException as error:
            self.error = error

    def finish(self, within: float = 8) -> None:
        self.join(within)
        assert not self.is_alive(), "the application's script did not end"
        if self.error:
            raise self.error


def inbound(rig: SandboxRig, names: str = "") -> Client:
    """An authenticated inbound connection."""
    host, port = rig.esl_address.split(":")
    client = Client(socket.create_connection((host, int(port)), 5))
    assert client.read().get("Content-Type") == "auth/request"
    assert client.ask(f"auth {rig.esl_password}").get("Reply-Text") == "+OK accepted"
    if names:
        client.ask(f"event plain {names}")
    return client


# -- held to captures ----------------------------------------------------------------------------------------

MACHINE = {
    # Bound to the probe's SIP stack, not to FreeSWITCH's ways.
    "variable_sip_contact_port",
    "variable_sip_to_port",
    "variable_rtp_use_codec_string",
}
LATE = "text/disconnect-notice"
"""The notice comes at the socket's next look: anywhere between CHANNEL_HANGUP and the end."""


def probe_dialplan(rig: SandboxRig) -> None:
    """The dialplan of the switch on which the captures were made, as far as it shows."""
    tone = ("playback", "tone_stream://%(1000,0,440);loops=60")
    rig.extension("probe", "answer", [("answer", ""), tone])
    rig.extension("probe", "busy", [("respond", "486")])
    rig.extension("probe", "noanswer", [("ring_ready", ""), ("sleep", "60000")])
    rig.extension("probe", "^dial(.*)$", [("answer", ""), ("sleep", "1500"), ("send_dtmf", "$1"), tone])


PATIENCE = 45
"""Seconds within which a capture's own order of events must come."""
REPLIES = ("CHANNEL_DATA", "command/reply", "api/response")


def replay(name: str, client: Client, meanwhile: Callable[[Frame], object] = lambda frame: None) -> list[str]:
    """Play a capture's client against the sandbox; what differs, in words.

    ``meanwhile`` sees each frame as it comes, to do what somebody else did to the call.
    """
    wanted: list[Frame] = []
    came: list[Frame] = []
    ours: dict[bytes, bytes] = {}

    def catch_up() -> None:
        while len(came) < len(wanted):
            came.append(client.read())
            meanwhile(came[-1])

    try:
        for chunk in captures.read(name):
            if chunk.direction == ">":
                # What a client sends depends on the events that it got: those first. Mere replies may wait, so that
                # ``myevents`` is in time for CHANNEL_PARK a millisecond or so after ``connect``.
                if UUID.search(chunk.data) or any(f.kind not in REPLIES for f in wanted[len(came) :]):
                    catch_up()
                if not ours and came:
                    ours[wanted[0].get("Unique-ID").encode()] = came[0].get("Unique-ID").encode()
                client.send(UUID.sub(lambda match: ours.get(match[0], match[0]), chunk.data))
            elif chunk.direction == "<":
                wanted.append(captures.frame(chunk.data))
        catch_up()
    except (TimeoutError, EOFError) as error:
        return [f"{error!r} after", *[frame.kind for frame in came], "wanted", *[frame.kind for frame in wanted]]
    return list(differences(wanted, came))


def differences(wanted: list[Frame], came: list[Frame]) -> Iterator[str]:
    """How two runs of frames differ in kind, order, or the names and order of headers."""

    def movable(frame: Frame) -> bool:
        return frame.kind == LATE and frame.get("Content-Disposition") == "linger"

    assert [movable(f) for f in wanted].count(True) == [movable(f) for f in came].count(True)

    def sorted_out(frames: list[Frame]) -> list[Frame]:
        # Jobs run beside the connection: their events stand between replies as it happens.
        jobs = any(frame.kind == "BACKGROUND_JOB" for frame in frames)
        replies = [f for f in frames if jobs and f.kind in ("command/reply", "api/response")]
        rest = [f for f in frames if f not in replies]
        return replies + [f for f in rest if not movable(f)] + [f for f in rest if movable(f)]

    wanted, came = sorted_out(wanted), sorted_out(came)
    if [f.kind for f in wanted] != [f.kind for f in came]:
        yield from difflib.ndiff([f.kind for f in wanted], [f.kind for f in came])
        return
    for old, new in zip(wanted, came, strict=True):
        before = [n for n in old.names if n not in MACHINE]
        after = [n for n in new.names if n not in MACHINE]
        if before != after:
            missing = [n for n in before if n not in after]
            added = [n for n in after if n not in before]
            yield f"{old.kind}: missing {missing}, added {added}" + ("" if missing or added else f", order: {after}")
        for name in (
            "Channel-State",
            "Channel-Call-State",
            "Answer-State",
            "Hangup-Cause",
            "Application",
            "Application-Response",
            "Reply-Text",
            "Content-Disposition",
            "Linger-Time",
            "DTMF-Digit",
            "Playback-Status",
            "variable_originate_disposition",
            "variable_hangup_cause_q850",
            "variable_bridge_hangup_cause",
        ):
            if not UUID.search(old.get(name).encode()) and old.get(name) != new.get(name):
                yield f"{old.kind}: {name} is {new.get(name)!r}, not {old.get(name)!r}"


def assert_same(found: list[str]) -> None:
    assert not found, "\n".join(["the sandbox differs:", *found])


CALLS = {
    "outbound-bridge-busy": "loopback/answer/probe sock{port} XML probe",
    "outbound-bridge-no-answer": "loopback/answer/probe sock{port} XML probe",
    "outbound-bridge-unregistered": "loopback/answer/probe sock{port} XML probe",
    "outbound-caller-gone-linger": "loopback/answer/probe sock{port} XML probe",
    "outbound-click2dial-aleg-path": (
        "{{origination_uuid=6f1c2a52-0c7e-4a55-9a5e-000000000001,esl_call_ref=6f1c2a52-0c7e-4a55-9a5e-000000000001,"
        "origination_caller_id_number=27115550000}}loopback/answer/probe "
        "'&socket(127.0.0.1:1/click2dial|{node}/click2dial async full)'"
    ),
    "outbound-disa-myevents": (
        "{{origination_caller_id_number=27820001234,origination_caller_id_name=Bob}}loopback/dial1234567890#/probe "
        "sock{port} XML probe"
    ),
    "outbound-dtmf-events-filtered": (
        "{{origination_caller_id_number=27820001234}}loopback/dial4821#/probe sock{port} XML probe"
    ),
}


def hang_up_meanwhile(rig: SandboxRig, name: str) -> Callable[[Frame], object]:
    """What somebody else did to the captured call, at which event."""

    def act(frame: Frame) -> None:
        if name == "outbound-caller-gone-linger" and frame.kind == "PLAYBACK_START":
            rig.api(f"uuid_kill {frame.get('Unique-ID')}")
        if name == "outbound-click2dial-aleg-path" and frame.kind == "CHANNEL_BRIDGE":
            # Both parties by one command, B first, as in the capture: between two commands the bridge may see that
            # one has gone, and ends the other itself.
            rig.api(f"hupall MANAGER_REQUEST call_uuid {frame.get('Unique-ID')}")

    return act


@pytest.fixture(scope="module")
def replayed(switches: tuple[SandboxRig, SandboxRig]) -> dict[str, list[str]]:
    """All outbound calls at once: what differs, by capture."""
    paced = switches[1]
    paced.reset()
    probe_dialplan(paced)
    paced.extension("probe", r"^sock(\d+)$", [("socket", "127.0.0.1:$1 async full")])
    found: dict[str, list[str]] = {}

    def call(name: str) -> None:
        # A capture is one of the orders in which a switch and a client act side by side. On a busy machine another
        # may come (``myevents`` behind CHANNEL_PARK); that this one does come is what is asked.
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            node = Node()
            port = node.address.split(":")[1]
            reply = paced.api("originate " + CALLS[name].format(node=node.address, port=port))
            found[name] = [reply]
            if reply.startswith("+OK"):
                try:
                    found[name] = replay(name, node.accept(), hang_up_meanwhile(paced, name))
                except (AssertionError, EOFError, OSError) as error:
                    found[name].append(repr(error))
            if not found[name]:
                return

    threads = [threading.Thread(target=call, args=[name], daemon=True) for name in CALLS]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join(2 * PATIENCE)
    paced.reset()
    return found


@pytest.mark.parametrize("name", sorted(CALLS))
def test_an_outbound_call_is_as_captured(replayed: dict[str, list[str]], name: str) -> None:
    assert_same(replayed[name])


@pytest.mark.parametrize("name", captures.names("inbound-"))
def test_an_inbound_connection_is_as_captured(paced: SandboxRig, name: str) -> None:
    probe_dialplan(paced)
    host, port = paced.esl_address.split(":")
    assert_same(replay(name, Client(socket.create_connection((host, int(port)), 5))))


def test_a_hostile_caller_is_as_captured(rig: SandboxRig) -> None:
    """Hazard 1: an escaped newline in From arrives as one, escaped anew; a literal ``%0A`` passes as it is."""
    wanted = captures.frame(next(c for c in captures.read("outbound-hostile-caller-id") if c.direction == "<").data)
    node = Node()
    rig.route("sock9021", "", node.address)
    user = "27820001234%0ACaller-Caller-ID-Number%3A%2027999999999"
    headers = {"From": f'"Bob" <sip:{user}@127.0.0.1>', "X-Evil": "a%0AVariable_evil%3A%201"}
    rig.outside("27820001234").dial("sock9021", headers)
    came = node.accept().ask("connect")
    raw, ours = dict(wanted.envelope), dict(came.envelope)
    for name in (
        "Caller-Caller-ID-Number",
        "Caller-Caller-ID-Name",
        "Caller-Username",
        "Caller-ANI",
        "Channel-Name",
        "variable_sip_from_user",
        "variable_sip_from_display",
        "variable_sip_h_X-Evil",
        "Answer-State",
        "Channel-Call-State",
        "Call-Direction",
        "variable_sip_req_user",
    ):
        assert ours[name].replace("external", "internal") == raw[name]
    core = [name for name in wanted.names if not name.startswith("variable_") and "Codec" not in name]
    assert core == [name for name in came.names if not name.startswith("variable_") and "Codec" not in name]


# -- hazards ---------------------------------------------------------------------------------------------------


def test_a_socket_list_fails_over_on_refusal_and_names_the_path(rig: SandboxRig) -> None:
    """Hazard 9."""
    node = Node()
    caller = rig.outside("27831112222")
    rig.route("27115550000", "disa/acme/front", f"127.0.0.1:1|{node.address}")
    caller.dial("27115550000")
    data = node.accept().ask("connect")
    assert data.get("variable_socket_path") == "disa/acme/front"
    assert data.get("variable_socket_host") == "127.0.0.1"
    assert data.get("Socket-Mode") == "async"
    assert data.get("Control") == "full"


def test_no_node_leaves_no_silence(rig: SandboxRig) -> None:
    rig.route("27115550000", "x", "127.0.0.1:1")
    call = rig.outside("27831112222").dial("27115550000")
    assert call.hears(620, within=1)
    eventually(lambda: call.leg.ended_at)
    assert (call.leg.status, call.leg.answered_at) == (503, None)


def test_a_stopped_node_is_left_by_the_watchdog(rig: SandboxRig) -> None:
    """Hazard 9: it accepts and says nothing."""
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
def test_closing_at_once_strands_the_caller(rig: SandboxRig, say: str) -> None:
    """Hazard 10: parked, and the dialplan does not go on."""
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


def test_a_dropped_socket_lets_the_dialplan_go_on_after_what_plays(rig: SandboxRig) -> None:
    """Hazard 11."""
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


def test_a_dropped_socket_does_not_cut_a_bridge(rig: SandboxRig) -> None:
    """Hazard 11: and ``hangup_after_bridge`` ends the call with the bridge's cause."""
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
    assert caller.leg.ended_at - caller.leg.answered_at > 0.5


def test_two_executes_run_in_reverse_without_a_lock(rig: SandboxRig) -> None:
    """Hazard 12."""
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


def test_without_full_a_socket_may_little(rig: SandboxRig) -> None:
    """Hazard 13."""
    node = Node()
    rig.phone("1000")
    rig.api(f"originate user/1000@127.0.0.1 &socket({node.address}/x async full)")
    client = node.accept()
    assert client.ask("connect").get("Control") == "single-channel"
    for command in ("linger", "event plain all", "api status", "nosuch"):
        assert client.ask(command).get("Reply-Text") == "-ERR command not found"
    assert client.ask("myevents").get("Reply-Text") == "+OK Events Enabled"


def test_sendevent_reaches_listeners_unless_it_names_a_channel(rig: SandboxRig) -> None:
    """Hazard 14."""
    listener, other = inbound(rig, "CUSTOM esl_apps::call"), inbound(rig)
    rig.phone("1000")
    uuid = rig.api("originate user/1000@127.0.0.1 &park()").split()[1]
    other.ask(f"sendevent CUSTOM\nEvent-Subclass: esl_apps::call\nUnique-ID: {uuid}\nesl_n: 1")
    other.ask("sendevent CUSTOM\nEvent-Subclass: other::thing\nesl_n: 2")
    other.ask("sendevent CUSTOM\nEvent-Subclass: esl_apps::call\nesl_n: 3\nContent-Length: 5\n\nhello")
    frames = sorted((listener.read() for _ in "12"), key=lambda frame: frame.get("esl_n"))
    # The first was fired by the parked channel, as its own: with no name.
    assert [(frame.get("Event-Name"), frame.get("esl_n")) for frame in frames] == [("", "1"), ("CUSTOM", "3")]
    assert frames[1].body == b"hello"


def test_brackets_end_inside_quotes(rig: SandboxRig) -> None:
    """Hazard 15."""
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


def test_a_forked_origination_uuid_rings_the_first_phone_only(rig: SandboxRig) -> None:
    """Hazard 16, and that without it all registrations ring."""
    phone = rig.phone("1001", Script(answer_after=0.2), registrations=2)
    uuid = "6f1c2a52-0c7e-4a55-9a5e-000000000009"
    assert rig.api(f"originate {{origination_uuid={uuid}}}user/1001@127.0.0.1 &park()").strip() == f"+OK {uuid}"
    assert len(phone.calls) == 1
    rig.api("hupall")
    rig.api("originate user/1001@127.0.0.1 &park()")
    assert len(phone.calls) == 3
    eventually(lambda: sorted(call.leg.ended_at is None for call in phone.calls[1:]) == [False, True])


def test_variables_stay_on_their_leg_unless_exported(rig: SandboxRig) -> None:
    """Hazard 17."""
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
    """Hazards 18 and 19: and CHANNEL_BRIDGE comes with a 183."""
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


def test_ringback_is_heard_only_if_asked_for(rig: SandboxRig) -> None:
    """Hazard 20."""
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


def test_an_unregistered_phone_makes_no_channel_and_no_event(rig: SandboxRig) -> None:
    """Hazard 22."""
    listener = inbound(rig, "all")
    phone = rig.phone("1000")
    phone.unregister()
    began = time.monotonic()
    assert rig.api("originate user/1000@127.0.0.1 &park()") == "-ERR USER_NOT_REGISTERED\n"
    assert time.monotonic() - began < 0.1
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
def test_a_failed_leg_says_why(rig: SandboxRig, script: Script, q850: int, cause: str, disposition: str) -> None:
    """Hazard 23."""
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


def test_a_typed_pin_comes_to_its_own_socket_alone(rig: SandboxRig) -> None:
    """Hazard 27: 18 bytes a digit, and nothing else anywhere; hazard 28: ``**``, and a lone star late."""
    tap = inbound(rig, "all")
    got: list[bytes] = []
    frames: list[Frame] = []
    listening = [threading.Event(), threading.Event()]

    def steps(client: Client) -> None:
        client.begin()
        client.run("answer")
        client.run("set", "sensitive_dtmf=true")
        client.ask("divert_events on")
        client.run("bind_digit_action", "pin,~^(.)$,key,x")
        client.execute("playback", "silence_stream://-1")
        client.until(kind="PLAYBACK_START")
        listening[0].set()
        while len(got) < 2:
            raw = client.read_raw()
            if b"key: x" in raw:
                got.append(raw)
        client.ask(f"api uuid_break {client.uuid} all")
        client.run("clear_digit_action", "all")
        client.ask("divert_events off")
        client.run("set", "sensitive_dtmf=")
        client.run("unset", "last_matching_digits")
        client.run("set", "bind_digit_digit_timeout=250")
        client.run("bind_digit_action", "call,**,key,star")
        client.ask("divert_events on")
        client.execute("playback", "silence_stream://-1")
        client.until(kind="PLAYBACK_START")
        listening[1].set()
        frames.append(client.until(lambda frame: frame.get("key") == "star" or frame.get("DTMF-Digit")))
        frames.append(client.until(lambda frame: frame.get("key") == "star"))
        client.ask("divert_events off")
        client.execute("hangup")
        frames.append(client.until(kind="CHANNEL_HANGUP_COMPLETE"))

    node = Node(steps)
    rig.route("27115550000", "x", node.address)
    call = rig.outside("27831112222").dial("27115550000")
    assert listening[0].wait(30)
    call.digits("48")
    assert listening[1].wait(30)
    call.digits("*,**")  # the first goes its way after the digit time-out
    node.finish(12)
    envelope = b"Content-Length: 18\nContent-Type: text/event-plain\n\n"
    assert got == [envelope + b"key: x\ndigits: %c\n\n" % digit for digit in b"48"]
    assert frames[0].get("DTMF-Digit") == "*"
    assert frames[2].get("variable_digits_dialed") == "*"
    tap.sock.settimeout(0.5)
    seen = b""
    try:
        while True:
            seen += tap.read_raw()
    except TimeoutError:
        pass
    assert b"CHANNEL_HANGUP_COMPLETE" in seen
    assert b"DTMF-Digit: 4" not in seen
    assert b"digits: 4" not in seen


def test_a_refusal_carries_its_headers_twice_if_asked(rig: SandboxRig) -> None:
    """Hazard 31."""

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


# -- the rest of the switch ---------------------------------------------------------------------------------


def test_a_registered_phone_is_known_by_its_variables(rig: SandboxRig) -> None:
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


def test_an_asserted_identity_is_believed_from_anybody(rig: SandboxRig) -> None:
    """Hazard 30."""
    node = Node()
    rig.route("27115550000", "x", node.address)
    headers = {"P-Asserted-Identity": "<sip:27999999999@evil>", "Privacy": "id"}
    rig.outside("27831112222").dial("27115550000", headers)
    data = node.accept().ask("connect")
    assert data.get("Caller-Caller-ID-Number") == "27999999999"
    assert data.get("variable_sip_from_user") == "27831112222"
    assert data.get("Caller-Privacy-Hide-Number") == "true"


def test_a_recording_has_its_length_and_its_sides(rig: SandboxRig) -> None:
    path = rig.recordings / "call.wav"
    rig.phone("1000", Script(tone=440))
    rig.outside("27820001234", Script(tone=600, hangup_after=1.0))

    def steps(client: Client) -> None:
        client.begin()
        options = f"execute_on_answer='record_session {path}',RECORD_STEREO=true,RECORD_STEREO_SWAP=true"
        client.run("bridge", f"{{{options}}}{EXTERNAL}27820001234")
        client.execute("hangup")

    node = Node(steps)
    rig.api(f"originate {{ignore_early_media=true}}user/1000@127.0.0.1 '&socket({node.address}/x async full)'")
    node.finish()
    eventually(lambda: path.exists() and path.stat().st_size > 1000)
    with wave.open(str(path)) as file:
        assert file.getnchannels() == 2
        assert file.getnframes() / file.getframerate() == pytest.approx(1.0, abs=0.1)
        frames = file.readframes(file.getnframes())
    # The B-leg records, swapped: the agent is left.
    samples = memoryview(frames[len(frames) // 2 // 4 * 4 :]).cast("h")
    for side, hz in ((0, 440), (1, 600)):
        one = samples[side::2].tolist()
        crossings = sum(1 for a, b in itertools.pairwise(one) if a < 0 <= b)
        assert crossings / (len(one) / 8000) == pytest.approx(hz, rel=0.05)


def test_each_leg_leaves_a_cdr(rig: SandboxRig) -> None:
    for file in rig.spool.glob("*"):
        file.unlink()
    rig.outside("27820001234", Script(hangup_after=0.1))
    uuid = rig.api("originate {esl_call_ref=r-1}" + EXTERNAL + "27820001234 &park()").split()[1]
    path = rig.spool / f"{uuid}.cdr.json"

    def read() -> dict[str, Any]:
        # Written in place, as the module does: there before it is whole.
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            return dict(json.loads(path.read_text()))
        return {}

    eventually(read)
    document = read()
    assert document["variables"]["esl_call_ref"] == "r-1"
    assert document["variables"]["hangup_cause"] == "NORMAL_CLEARING"
    assert document["channel_data"]["state"] == "CS_REPORTING"
    assert document["callflow"][0]["times"]["answered_time"] != "0"


def test_one_client_s_nonsense_is_its_own(rig: SandboxRig) -> None:
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


def test_a_stalled_client_stalls_nobody(rig: SandboxRig) -> None:
    stalled = inbound(rig, "all")
    rig.outside("27820001234", Script(hangup_after=0.0, answer_after=0.0))
    for _ in range(40):
        rig.api("originate " + EXTERNAL + "27820001234 &park()")
    began = time.monotonic()
    assert rig.api("uuid_exists x") == "false"
    assert time.monotonic() - began < 0.2
    stalled.close()


def test_filters_are_or_ed_and_a_minus_takes_away(rig: SandboxRig) -> None:
    client = inbound(rig, "CUSTOM x::y")
    for command in ("filter A 1", "filter B /^2/", "filter C -3"):
        assert client.ask(command).get("Reply-Text").startswith("+OK filter added")
    other = inbound(rig)
    for headers in ("A: 1", "B: 22", "A: 2", "A: 1\nC: 3", "D: 1", "A: 1\nE: last"):
        other.ask(f"sendevent CUSTOM\nEvent-Subclass: x::y\nN: {headers.split()[-1]}\n{headers}")
    assert [client.until(kind="CUSTOM").get("N") for _ in "123"] == ["1", "22", "last"]


def test_what_the_wire_escapes() -> None:
    assert wire.url_encode("a b/c:d;e@f\n\u00e4'\"~") == "a%20b/c%3Ad%3Be%40f%0A%C3%A4'%22~"
    assert wire.url_encode("100% %0A %0a") == "100%25%20%0A%20%250a"
    reader = wire.CommandReader()
    stream = b"\n\nsendmsg x\r\nA: b: c\r\nContent-Length: 2\r\n\r\nhiexit\n\n"
    commands = [command for byte in stream for command in reader.feed(bytes([byte]))]
    assert [command.line for command in commands] == ["sendmsg x", "exit"]
    assert (commands[0].get("a"), commands[0].body) == ("b: c", "hi")


def test_the_switch_pauses_dies_and_comes_back(rig: SandboxRig) -> None:
    phone, outside = rig.phone("1000"), rig.outside("27820001234")
    rig.api("originate user/1000@127.0.0.1 &park()")
    client = inbound(rig)
    rig.pause()
    client.send("api status")
    client.sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        client.read()
    rig.resume()
    rig.kill()
    began = time.monotonic()
    rig.start()
    assert time.monotonic() - began < 2
    assert rig.api("originate user/1000@127.0.0.1 &park()").startswith("+OK")
    assert rig.api("originate " + EXTERNAL + "27820001234 &park()").startswith("+OK")
    assert (len(phone.calls), len(outside.calls)) == (2, 1)
    assert phone.calls[0].leg.answered_at


def test_it_refuses_a_port_that_is_taken(rig: SandboxRig) -> None:
    command = [sys.executable, "-m", "esl_apps.sandbox", f"--listen={rig.esl_address}"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=10, cwd=ROOT)
    assert run.returncode == 1
    assert "something listens there already" in run.stderr


def test_the_control_port_says_what_is_wrong(rig: SandboxRig) -> None:
    base = f"http://127.0.0.1:{rig.control_port}"
    assert b"/phones/NUMBER" in urllib.request.urlopen(base + "/").read()
    request = urllib.request.Request(base + "/phones/1000", b'{"script": {"anser_after": 1}}', method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == 400
    assert b"anser_after" in caught.value.read()


def test_a_dialplan_in_xml_is_obeyed(tmp_path: Path) -> None:
    """Conditions with fields, variables and API commands, their breaks, what they found, and the extensions' order."""
    there = tmp_path / "there.wav"
    there.write_bytes(b"")
    file = tmp_path / "public.xml"
    file.write_text(f"""<include>
      <!-- a first one that fails at its second condition leaves nothing of itself -->
      <extension name="other"><condition field="destination_number" expression="^27115$"/>
        <condition field="${{no_such}}" expression="."><action application="hangup" data="USER_BUSY"/></condition>
      </extension>
      <extension name="goes on" continue="true">
        <condition field="destination_number" expression="^(27)(11\\d)$(?!\\n)">
          <action application="set" data="found=$2 of $1"/></condition>
      </extension>
      <extension name="ends">
        <condition field="destination_number" expression="^27"/>
        <condition field="${{file_exists({there})}}" expression="^true$" break="never">
          <action application="set" data="file=there"/><anti-action application="set" data="file=gone"/></condition>
        <condition field="${{file_exists({there}.not)}}" expression="^true$" break="never">
          <action application="set" data="other_file=there"/>
          <anti-action application="set" data="other_file=gone"/></condition>
        <condition><action application="respond" data="480 ${{found}} ${{file}} ${{other_file}}"/></condition>
      </extension>
    </include>""")
    legs = tmp_path / "legs"
    with SandboxRig(tick=0, arguments=[f"--dialplan=public={file}", f"--legs={legs}"]) as rig:
        rig.outside("0830001111").dial("27115")
        eventually(lambda: legs.read_text())
        ran = json.loads(legs.read_text())["applications"]
        assert ran[-1][:2] == ["respond", "480 115 of 27 there gone"]
        # A number that no extension has is found where a test routed it.
        rig.extension("public", "0115551000", [("hangup", "CALL_REJECTED")])
        call = rig.outside("0830001111").dial("0115551000")
        eventually(lambda: call.leg.status == 603)


def test_a_leg_that_has_ended_is_told_of_once_though_its_switch_is_killed_while_its_socket_lingers(
    tmp_path: Path,
) -> None:
    legs = tmp_path / "legs"
    with SandboxRig(tick=0, arguments=[f"--legs={legs}"]) as rig:
        node = Node()
        rig.route("27115550000", "x", node.address)
        caller = rig.outside("27831112222").dial("27115550000")
        client = node.accept()
        client.begin()
        client.run("answer")
        ringing = rig.outside("27820001234", Script(answer_after=None))
        client.execute("bridge", EXTERNAL + "27820001234")
        eventually(lambda: ringing.calls)
        talking = rig.outside("27831113333").dial("27115550000")
        other = node.accept()
        other.begin()
        other.run("answer")
        caller.hangup()
        eventually(lambda: len(legs.read_text().splitlines()) == 2)
        assert rig.live_channels() == 2
        assert talking.leg.ended_at is None
        rig.kill()
        told = [json.loads(line) for line in legs.read_text().splitlines()]
        assert len({one["uuid"] for one in told}) == 3
        assert [one["killed"] for one in told] == [False, False, True]
        client.close()
        other.close()


def test_a_dialplan_that_is_none_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "broken.xml"
    for text, option, expected in (
        ("<include>", f"public={file}", "no element found"),
        ("<include/>", f"private={file}", "expected public or default = FILE"),
        ("<include/>", f"public={file}.not", "No such file"),
    ):
        file.write_text(text)
        command = [sys.executable, "-m", "esl_apps.sandbox", "--listen=127.0.0.1:0", f"--dialplan={option}"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert ended.returncode == 1
        assert expected in ended.stderr


def test_a_share_of_the_sockets_is_dropped(rig: SandboxRig) -> None:
    clients = [socket.create_connection(("127.0.0.1", rig.esl_port), timeout=10) for _ in range(20)]
    eventually(lambda: rig.control("GET", "/status")["listeners"] == 20)
    dropped = rig.control("POST", "/drop-sockets", {"share": 0.5})["dropped"]
    assert 0 < dropped < 20
    eventually(lambda: rig.control("GET", "/status")["listeners"] == 20 - dropped)
    for client in clients:
        client.close()
