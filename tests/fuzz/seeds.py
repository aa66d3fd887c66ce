"""Where a search begins: recorded traffic, the shipped configuration, requests of every kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.esl.peer import (
    CAPTURES,
    api_response,
    complete,
    event,
    goodbye,
    linger_notice,
    raw_event,
    recorded,
    rejection,
    reply,
)

ROOT = Path(__file__).parent.parent.parent


def esl() -> list[bytes]:
    found = [b"".join(recorded(path.name)) for path in sorted(CAPTURES.glob("inbound-*.esl"))]
    # Of an outbound call the events are alike: the smaller frames are worth more.
    small = {frame[:4096] for path in CAPTURES.glob("outbound-*.esl") for frame in recorded(path.name)}
    frames = [reply(), reply("-ERR no"), api_response("true"), rejection(), goodbye(), linger_notice()]
    frames += [event("BACKGROUND_JOB", body="+OK 1\n"), raw_event(b"key: x\ndigits: 4\n\n"), b"Content-Length: x\n\n"]
    return [*found, *sorted(small, key=len)[:40], *frames]


def session() -> list[bytes]:
    answered = complete("answer", "1", uuid="1")
    calls = [
        [reply(), answered, api_response("true"), reply(), complete("multiset", "2", uuid="1")],
        [reply("-ERR invalid session id")],
        [reply(), event("CHANNEL_HANGUP", uuid="1"), linger_notice("1"), event("CHANNEL_HANGUP_COMPLETE", uuid="1")],
        [reply(), answered, api_response("-ERR No such channel!\n")],
        [goodbye()],
    ]
    return [b"\x1f" + b"".join(frames) for frames in calls]


def config() -> list[bytes]:
    texts = [
        (ROOT / "conf" / "esl_apps.yml").read_text(),
        "switches: [{name: fs1, address: 127.0.0.1:8021, password: x}]\n",
        'cccp: {"_id": "cccp", "default": {cccp_cb_number: "5142223333"}}\n',
        "a: &a [*a]\n",
        "node: {name: 1, max_calls: many}\n",
        "redis: {url: '${NOT_THERE}'}\n",
    ]
    return [text.encode() for text in texts]


def body() -> list[bytes]:
    good = {"agent": "1000", "callee": "27820001234", "outbound_id": "27115550000", "contact_ref": "a-1"}
    bodies: list[object] = [
        good,
        {**good, "agent": "0820001234", "outbound_id": "tvc_spring"},
        {**good, "callee": "00442071234567", "contact_ref": "x" * 300},
        {**good, "callee": "112"},
        {**good, "agent": "1000}sofia/gateway/pstn/900"},
        {**good, "callee": 5, "outbound_id": None, "more": []},
        [good],
    ]
    return [json.dumps(one).encode() for one in bodies]


SEEDS: dict[str, Callable[[], list[bytes]]] = {"esl": esl, "session": session, "config": config, "body": body}


_ESL_WORDS = (
    "\n\n", "Content-Type: ", "Content-Length: ", "text/event-plain", "command/reply", "api/response", "-ERR ",
    "text/disconnect-notice", "Content-Disposition: linger", "Event-Name: ", "Unique-ID: 1", "%0A", "CHANNEL_HANGUP",
    "CHANNEL_EXECUTE_COMPLETE", "Application-UUID: 1", "Reply-Text: ",
)  # fmt: skip

#: What a search may put in whole.
WORDS: dict[str, tuple[str, ...]] = {
    "esl": _ESL_WORDS,
    "session": _ESL_WORDS,
    "config": ("switches:", "integrators:", "dial:", "cccp:", "accounts:", "callflow.disa:", "${FS_PASSWORD}", "null"),
    "body": (
        '"agent":', '"callee":', '"outbound_id":', '"contact_ref":', '"call_ref":', '"27820001234"', '"1000"',
        '"tvc_spring"', '"112"', "\\u0000", "\\n", "}", "sofia/gateway/",
    ),
}  # fmt: skip
