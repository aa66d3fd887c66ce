"""Compare the sandbox with captures of a real FreeSWITCH."""

from __future__ import annotations

import difflib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.rig.sandbox import SandboxRig
from tests.support import captures
from tests.support.captures import Frame
from tests.support.event_socket import UUID, Client, Node

MACHINE = {
    # These come from the probe's SIP stack, not from FreeSWITCH.
    "variable_sip_contact_port",
    "variable_sip_to_port",
    "variable_rtp_use_codec_string",
}
LATE = "text/disconnect-notice"
"""This notice comes at the socket's next tick, anywhere between CHANNEL_HANGUP and the end."""


def probe_dialplan(rig: SandboxRig) -> None:
    """Add the part of the captured switch's dialplan that matters here."""
    tone = ("playback", "tone_stream://%(1000,0,440);loops=60")
    rig.extension("probe", "answer", [("answer", ""), tone])
    rig.extension("probe", "busy", [("respond", "486")])
    rig.extension("probe", "noanswer", [("ring_ready", ""), ("sleep", "60000")])
    rig.extension("probe", "^dial(.*)$", [("answer", ""), ("sleep", "1500"), ("send_dtmf", "$1"), tone])


PATIENCE = 45
"""Seconds within which the capture's order of events must occur."""
REPLIES = ("CHANNEL_DATA", "command/reply", "api/response")


def replay(name: str, client: Client, meanwhile: Callable[[Frame], object] = lambda frame: None) -> list[str]:
    """Replay a capture's client against the sandbox, and return the differences in words.

    ``meanwhile`` gets each frame as it comes, to act as other clients did during the capture.
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
                # A client's command depends on the events before it, so read those first. Replies can wait, so that
                # ``myevents`` comes before CHANNEL_PARK, about a millisecond after ``connect``.
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
    """Yield how two runs of frames differ in kind, order, or the names and order of headers."""

    def movable(frame: Frame) -> bool:
        return frame.kind == LATE and frame.get("Content-Disposition") == "linger"

    assert [movable(f) for f in wanted].count(True) == [movable(f) for f in came].count(True)

    def sorted_out(frames: list[Frame]) -> list[Frame]:
        # Jobs run independently of the connection, so their events come anywhere between replies.
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


#: The leg of a call that names it.
NAMED = "6f1c2a52-0c7e-4a55-9a5e-000000000001"
CALLS = {
    "outbound-bridge-busy": "loopback/answer/probe sock{port} XML probe",
    "outbound-bridge-no-answer": "loopback/answer/probe sock{port} XML probe",
    "outbound-bridge-unregistered": "loopback/answer/probe sock{port} XML probe",
    "outbound-caller-gone-linger": "loopback/answer/probe sock{port} XML probe",
    "outbound-click2dial-aleg-path": (
        f"{{{{origination_uuid={NAMED},esl_call_ref={NAMED},"
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
    """Return a function that acts as another client did during the capture."""

    def act(frame: Frame) -> None:
        if name == "outbound-caller-gone-linger" and frame.kind == "PLAYBACK_START":
            rig.api(f"uuid_kill {frame.get('Unique-ID')}")
        if name == "outbound-click2dial-aleg-path" and frame.kind == "CHANNEL_BRIDGE":
            # End both parties by one command, B first, as in the capture. Between two commands the bridge might see
            # one end and hang up the other itself.
            rig.api(f"hupall MANAGER_REQUEST call_uuid {frame.get('Unique-ID')}")

    return act


@pytest.fixture(scope="module")
def replayed(switches: tuple[SandboxRig, SandboxRig]) -> dict[str, list[str]]:
    """Replay all outbound calls at once. Return the differences by capture."""
    paced = switches[1]
    paced.reset()
    probe_dialplan(paced)
    paced.extension("probe", r"^sock(\d+)$", [("socket", "127.0.0.1:$1 async full")])
    found: dict[str, list[str]] = {}

    def call(name: str) -> None:
        # A capture is one of several possible orders of a switch's and a client's actions. On a busy machine another
        # may occur first (``myevents`` after CHANNEL_PARK), so try until this one does.
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
            if NAMED in CALLS[name]:
                # No other leg can have its name while it is up.
                paced.api(f"uuid_kill {NAMED}")

    threads = [threading.Thread(target=call, args=[name], daemon=True) for name in CALLS]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join(2 * PATIENCE)
    paced.reset()
    return found


@pytest.mark.parametrize("name", sorted(CALLS))
def test_capture_of_an_outbound_call_replays_alike(replayed: dict[str, list[str]], name: str) -> None:
    assert_same(replayed[name])


@pytest.mark.parametrize("name", captures.names("inbound-"))
def test_capture_of_an_inbound_connection_replays_alike(paced: SandboxRig, name: str) -> None:
    probe_dialplan(paced)
    host, port = paced.esl_address.split(":")
    assert_same(replay(name, Client(socket.create_connection((host, int(port)), 5))))


def test_capture_of_a_hostile_caller_replays_alike(rig: SandboxRig) -> None:
    """Hazard 1: an escaped newline in From arrives as one, escaped again; a literal ``%0A`` passes unchanged."""
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
