"""Digits that a phone sends."""

from __future__ import annotations

import threading

from tests.rig.sandbox import SandboxRig
from tests.support.captures import Frame
from tests.support.event_socket import Client, Node, inbound


def test_diverted_pin_reaches_its_own_socket_alone(rig: SandboxRig) -> None:
    """Hazard 27: 18 bytes per digit, and nothing else anywhere. Hazard 28: ``**``, and a single star late."""
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
    call.digits("*,**")  # the first star passes after the digit time-out
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
