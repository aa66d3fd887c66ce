"""The benchmarks' switch: what it says to libraries that ask for JSON, or that end lines as DOS does."""

from __future__ import annotations

import json
import socket

from benchmarks.load.generator import FRAMES, Call, Frame, Generator, Subscription

NAMES = frozenset({"DTMF", "CHANNEL_ANSWER"})


def frames() -> dict[str, Frame]:
    return {path.stem: Frame(path) for path in FRAMES.glob("*.esl")}


def test_events_as_json_have_the_plain_ones_values() -> None:
    plain = frames()["dtmf.4"]
    head, _, body = plain.as_json().raw.partition(b"\n\n")
    event = json.loads(body)
    assert head == b"Content-Length: %d\nContent-Type: text/event-json" % len(body)
    assert event["DTMF-Digit"] == "4"
    # Plain events are percent-encoded, JSON is not.
    assert "%2019%3A41%3A55" in plain.raw.decode()
    assert event["Event-Date-Local"] == "2026-11-21 19:41:55"


def test_replies_are_the_same_for_json() -> None:
    connect = frames()["connect"]
    assert connect.as_json() is connect


def test_json_subscription_sends_only_what_was_asked_for() -> None:
    bursts = Subscription(frames(), (NAMES, False, "", True)).bursts("answer", b"x" * 36)
    text = b"".join(bursts[0][0])
    assert text.count(b"text/event-json") == 1
    assert b'"Event-Name":"CHANNEL_ANSWER"' in text


def test_commands_with_dos_lines_are_read() -> None:
    generator = Generator(1, 1)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        call = Call(ours, b"-rest", 0.0)
        generator.add(call)
        theirs.sendall(b"filter Unique-ID 1234\r\n\r\nevent plain DTMF\r\n\r\n")
        generator.readable(call)
        assert call.filters
        assert call.names == {"DTMF"}
