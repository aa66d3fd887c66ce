"""First inputs of a search: recorded traffic, the shipped configuration, requests of every kind."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.support import DOCUMENTS, ROOT, captures
from tests.support.captures import recorded
from tests.support.peer import (
    api_response,
    complete,
    event,
    goodbye,
    linger_notice,
    raw_event,
    rejection,
    reply,
)


def esl() -> list[bytes]:
    found = [b"".join(recorded(name)) for name in captures.names("inbound-")]
    # An outbound call's events are alike, so prefer the smaller frames.
    small = {frame[:4096] for name in captures.names("outbound-") for frame in recorded(name)}
    frames = [reply(), reply("-ERR no"), api_response("true"), rejection(), goodbye(), linger_notice()]
    frames += [event("BACKGROUND_JOB", body="+OK 1\n"), raw_event(b"key: x\ndigits: 4\n\n"), b"Content-Length: x\n\n"]
    return [*found, *sorted(small, key=len)[:40], *frames]


def session() -> list[bytes]:
    answered = complete("answer", "1", uuid="1")
    calls = [
        [reply(), answered, api_response("true"), reply(), reply(), complete("playback", "2", uuid="1")],
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


def operators_body() -> list[bytes]:
    dial = {"a_leg_number": "1000", "b_leg_number": "27820001234", "callback_delay": 1, "retain_cid": True}
    card = {"pin": "123456789", "user_id": "u1", "active": True, "max_concurent_calls_per_user": 2, "comment": "a"}
    bodies: list[object] = [
        dial,
        {**dial, "b_leg_number": "conference:room", "media_id": "announcement"},
        {**dial, "a_leg_number": "112", "media_id": "../x", "callback_delay": -1},
        card,
        {"cid": "+27825556666", "cid_retain": True, "active": None},
        {**card, "cid": "1", "more": {}, "_id": "a", "pvt_x": 1},
    ]
    return [json.dumps(one).encode() for one in bodies]


def stored() -> list[bytes]:
    ref = "01a20000-0000-7000-8000-000000000000"
    call = {"call_ref": ref, "session_ref": ref, "contact_ref": "a", "app": "disa", "state": "queued"}
    call["call_dir"] = "external"
    documents: list[object] = [
        ["a" * 32, "acme", "u1", True, False, 1, ""],
        ["a" * 32, "acme", "u1", True, False, 1, "", "fr"],
        {"name": "a", "realm": "a.b", "caller_id": "+27115550000", "call_restriction": {"premium": {"action": "deny"}}},
        {**call, "integrator": "acme", "timeline": [{"at": 1.0, "state": "queued", "detail": ""}], "decisions": []},
        {**call, "queued_at": 1.0, "aleg_uuid": ref, "recording_url": f"{ref}.wav", "order": {"a": "1000"}},
        {"body": "a", "call_ref": ref, "boot": "b"},
        {"cccp_cb_number": "5142223333", "allowed_callee_regex": "("},
    ]
    return [b"27820001234", b"\xff", *(json.dumps(one).encode() for one in documents)]


def kazoo() -> list[bytes]:
    folder = DOCUMENTS
    shown = {"external": {"number": "+27115550000"}}
    account = {"_id": "acme", "pvt_type": "account", "realm": "a.b", "caller_id": shown}
    card = {"_id": "a" * 32, "pvt_type": "cccp", "pvt_account_id": "acme", "pin": "123456789", "active": True}
    rules = {"premium": {"action": "deny"}}
    user = {"_id": "u", "pvt_type": "user", "pvt_account_id": "acme", "call_restriction": rules}
    several = {"rows": [{"doc": account}, {"doc": card}, {"doc": user}]}
    texts = [json.dumps(one) for one in (account, card, user, several, [account, {"docs": [card]}])]
    return [path.read_bytes() for path in sorted(folder.glob("*.json"))] + [text.encode() for text in texts]


def spool() -> list[bytes]:
    times = {"created_time": "1700000000000000", "answered_time": "1", "hangup_time": "1700000009000000"}
    variables = {"uuid": "a", "esl_call_ref": "b", "hangup_cause": "USER_BUSY", "hangup_cause_q850": "17"}
    variables["esl_bleg"] = "%41"
    flow = {"times": times, "caller_profile": {"uuid": "a"}}
    whole = {"core-uuid": "c", "variables": variables, "callflow": [flow, flow]}
    documents: list[object] = [whole, {**whole, "callflow": flow}, {"variables": {}}, []]
    return [json.dumps(document).encode() for document in documents]


SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "esl": esl,
    "session": session,
    "config": config,
    "body": body,
    "operators_body": operators_body,
    "stored": stored,
    "kazoo": kazoo,
    "spool": spool,
}


_ESL_WORDS = (
    "\n\n",
    "Content-Type: ",
    "Content-Length: ",
    "text/event-plain",
    "command/reply",
    "api/response",
    "-ERR ",
    "text/disconnect-notice",
    "Content-Disposition: linger",
    "Event-Name: ",
    "Unique-ID: eb43d895-1f07-4a4e-93fc-ba8febf183b8",
    "%0A",
    "CHANNEL_HANGUP",
    "CHANNEL_EXECUTE_COMPLETE",
    "Application-UUID: 1",
    "Reply-Text: ",
)

#: Words that a search may insert whole.
WORDS: dict[str, tuple[str, ...]] = {
    "esl": _ESL_WORDS,
    "session": _ESL_WORDS,
    "config": ("switches:", "integrators:", "dial:", "cccp:", "accounts:", "callflow.disa:", "${FS_PASSWORD}", "null"),
    "body": (
        '"agent":',
        '"callee":',
        '"outbound_id":',
        '"contact_ref":',
        '"call_ref":',
        '"27820001234"',
        '"1000"',
        '"tvc_spring"',
        '"112"',
        "\\u0000",
        "\\n",
        "}",
        "sofia/gateway/",
    ),
    "operators_body": (
        '"a_leg_number":',
        '"b_leg_number":',
        '"media_id":',
        '"callback_delay":',
        '"conference:',
        '"pin":',
        '"cid":',
        '"user_id":',
        '"active":',
        "1e999",
        "null",
        "\\ud800",
    ),
    "stored": ('"call_ref":', '"timeline":', '"integrator":', '"state":', '"call_restriction":', "null", "[", "1e400"),
    "kazoo": ('"_id":', '"pvt_type":', '"pvt_account_id":', '"docs":', '"rows":', '"doc":', '"default":', "[[", "\n{"),
    "spool": ('"variables":', '"callflow":', '"times":', '"hangup_time":', "%0A", "null", "{}"),
}
