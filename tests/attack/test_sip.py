"""Header forging in every SIP field that a caller writes: real INVITEs, a real FreeSWITCH, the shipped dialplan."""

from __future__ import annotations

import re
import time
from typing import Any
from urllib.parse import quote

import pytest

from tests.attack.forgeries import ATTACKER, CLAIMS, FROM, VICTIM, fields
from tests.attack.stand import AGENT, DIDS, PREMIUM, Stand, spread
from tests.conftest import ON_FREESWITCH
from tests.rig.base import Script, ended, eventually
from tests.support.node import asks

pytestmark = ON_FREESWITCH

CALLEE = "0820001234"
CALLED = [DIDS[app] for app in ("dialthrough", "disa", "inbound")]
ASKED = ["dialthrough", "disa", "inbound", "callback"]


def who(record: dict[str, Any]) -> str | None:
    """The caller whom a record names."""
    name: str | None = record["number"] if record["ref"] == "inbound" else record["extension"]
    return name


def honest(records: list[dict[str, Any]], *, lied: bool) -> None:
    """Check that no record takes its caller for the victim and that none of the calls got anywhere."""
    assert records
    for record in records:
        assert who(record) == ATTACKER or (lied and re.fullmatch(r"\+?\d{1,32}", who(record) or "0")), record
        assert who(record) != VICTIM
        assert record["bridged_at"] is None, record
        if record["ref"] == "inbound":
            # However the ringing ended, there was no answer.
            unanswered = ("abandoned", "agent_busy", "agent_no_answer", "agent_failed", "lost")
            assert record["end_reason"] in unanswered, record
        else:
            assert (record["number"], record["dial_number"]) == (None, None)
            # Lost: on a busy machine it left before its leg carried the reference that leads to its end.
            assert record["end_reason"] in ("abandoned", "rejected", "lost"), record


def test_sip_header_never_makes_another_caller(stand: Stand) -> None:
    round = spread(CLAIMS, ["dialthrough"]) + spread(CLAIMS, ["callback"]) + spread(CLAIMS, ["disa", "inbound"])
    records = stand.attack(round, talk=1.0)
    honest(records, lied=True)
    assert len([one for one in records if one["ref"] == "dialthrough"]) == len(CLAIMS)
    stand.an_honest_caller_is_served()


ROUNDS = 6


@pytest.mark.parametrize("part", range(ROUNDS))
def test_sip_field_never_carries_more_than_text(stand: Stand, part: int) -> None:
    """Try every payload in every field, a part of them in each round."""
    matrix = [one for payload in stand.payloads().values() for one in fields(payload) if not one.claims]
    records = stand.attack(spread(matrix[part::ROUNDS], ASKED), talk=1.0)
    honest(records, lied=False)
    stand.an_honest_caller_is_served()


def test_sip_from_user_is_never_more_than_a_number(stand: Stand) -> None:
    lies = [one for payload in stand.payloads().values() for one in fields(payload) if one.claims]
    records = stand.attack([(lie, app) for lie in lies for app in ASKED], talk=1.0)
    honest(records, lied=True)
    stand.an_honest_caller_is_served()


# The event socket's own text ------------------------------------------------------------------------------

#: A forged end of a second call: it was answered an hour ago, and so would have to be paid for.
FRAMES = (
    "x\n\nContent-Length: 149\nContent-Type: text/event-plain\n\nEvent-Name: CHANNEL_HANGUP_COMPLETE\nUnique-ID: 1\n"
    "Caller-Channel-Answered-Time: 1700000000000000\nCaller-Channel-Hangup-Time: 1700003600000000\n\n"
)


@pytest.mark.parametrize(
    "user",
    [FRAMES, "x\nContent-Length: 100000", "x\n\nContent-Type: api/response\n\n", "9" * 330, "9" * 600],
    ids=["event", "length", "reply", "long", "longer"],
)
def test_sip_channel_name_writes_nothing_on_the_event_socket(stand: Stand, user: str) -> None:
    """mod_event_socket puts the decoded From user into the notice of a hang-up: its content must not become a frame."""
    taken = stand.records_made()
    calls = [stand.rig.raw_call(did, [], sender=f"<sip:{quote(user)}@127.0.0.1>") for did in CALLED]
    eventually(lambda: stand.node.live_calls() == len(calls))
    for call in calls:
        call.wait(0.7)
        call.hangup()
    records = stand.records(taken)
    assert sorted(record["ref"] for record in records) == ["dialthrough", "disa", "inbound"]
    for record in records:
        assert (record["end_reason"], record["bridged_at"]) == ("abandoned", None), record
        assert record["end_code"] == 16
        assert who(record) is None
    stand.nobody_got_in()


# In a call -----------------------------------------------------------------------------------------------


def test_sip_request_in_a_call_opens_nothing(stand: Stand) -> None:
    """Send INFO, UPDATE, MESSAGE, NOTIFY, REFER and re-INVITE in a call that still waits for its PIN."""
    taken = stand.records_made()
    other = stand.rig.raw_call(DIDS["dialthrough"], [], sender=FROM)
    call = stand.rig.raw_call(DIDS["dialthrough"], [], sender=FROM)
    assert (other.wait(), call.wait()) == (200, 200)
    claims = [("P-Asserted-Identity", f"<sip:{VICTIM}@127.0.0.1>"), ("Remote-Party-ID", f"<sip:{VICTIM}@127.0.0.1>")]
    replaced = f"{other.ref}%3Bto-tag%3D{other.to.rpartition('tag=')[2]}%3Bfrom-tag%3D{other.ref[:8]}"
    targets = [f"<sip:{PREMIUM}@127.0.0.1>", f"<sip:{PREMIUM}@127.0.0.1?Replaces={replaced}>", "<sip:${system(id)}@x>"]
    for payload in stand.payloads().values():
        call.request("INFO", [], f"Signal={payload}\r\nDuration=100\r\n", "application/dtmf-relay")
        call.request("INFO", [("X-A", payload), *claims], payload, "application/x-www-form-urlencoded")
    data = f"api: originate\napi-arg: sofia/gateway/pstn/{PREMIUM} &park\n\n"
    for kind in ("freeswitch/data", "freeswitch/session-event", "application/broadsoft", "message/sipfrag"):
        call.request("INFO", [("Record", "on"), *claims], data, kind)
        call.request("MESSAGE", claims, data, kind)
        call.request("NOTIFY", [("Event", "refer"), ("Subscription-State", "active")], data, kind)
    call.request("UPDATE", claims)
    call.request("INVITE", claims, "v=0\r\n", "application/sdp")
    for target in targets:
        call.request("REFER", [("Refer-To", target), ("Referred-By", f"<sip:{VICTIM}@127.0.0.1>")])
    # The last request has its answer, so all were processed: the switch takes them in order.
    assert call.answer(within=10) == 202
    for one in (call, other):
        one.hangup()
    honest(stand.records(taken), lied=False)
    stand.nobody_got_in()
    stand.an_honest_caller_is_served()


@pytest.mark.parametrize("who_refers", ["caller", "callee", "agents-callee"])
def test_sip_refer_dials_nothing(stand: Stand, who_refers: str) -> None:
    """A party sends a REFER during the talk: the switch would send the other to any number in the dialplan."""
    stand.reset()
    stand.agent.script(Script(answer_after=0.1))
    taken = stand.records_made()
    callee = stand.rig.outside(CALLEE if "agent" in who_refers else f"27{CALLEE[1:]}", Script(answer_after=0.1))
    if "agent" in who_refers:
        ref = stand.node.call("1000", CALLEE)
        eventually(lambda: stand.node.get(ref)["state"] == "bridged")
        caller = stand.agent.calls[0]
    else:
        caller = stand.rig.outside(VICTIM).dial(DIDS["dialthrough"])
        eventually(lambda: asks(stand.rig, "enter_number"))
        caller.digits(f"{CALLEE}#")
        eventually(lambda: callee.calls and callee.calls[0].leg.answered_at)
    talks = caller if who_refers == "caller" else callee.calls[0]
    talks.transfer(f"<sip:{PREMIUM}@127.0.0.1>")
    # The transferred leg ends: the attempt is in the log, and no number was dialled.
    eventually(lambda: "esl_apps_no_transfer" in stand.rig.log_text())
    away = callee.calls[0] if who_refers == "caller" else caller
    ended(away)
    assert not stand.premium.calls
    assert not stand.rig.stray_calls
    stand.rig.api("hupall")
    records = stand.records(taken)
    assert [record["end_reason"] for record in records] == ["answered"], who_refers


# Phones that dial with headers ---------------------------------------------------------------------------


def test_sip_phones_header_dials_only_its_number(stand: Stand) -> None:
    """X-Teleforge-* headers of a registered phone: each value is an allowed number or is refused."""
    phone = stand.agent
    taken = stand.records_made()
    made = []
    for name, payload in stand.payloads().items():
        if any(mark in payload for mark in "\r\n\0") or not payload.isascii() or len(payload) > 500:
            continue  # PJSIP writes none of these
        headers = {"X-Teleforge-Outbound-ID": payload, "X-Teleforge-Contact-Ref": payload, "X-Teleforge-Error": "a"}
        made.append((name, phone.dial(CALLEE, headers)))
        if len(made) % 3 == 0:
            eventually(lambda: all(leg.leg.ended_at for _name, leg in made))
    eventually(lambda: all(leg.leg.ended_at for _name, leg in made))
    for name, leg in made:
        # 404: FreeSWITCH itself drops values that it would expand, and without one the dialplan doesn't send us the
        # call.
        assert leg.leg.status in (400, 404), (name, leg.leg)
    for record in stand.records(taken):
        assert (record["end_reason"], record["extension"], record["number"]) == ("rejected", AGENT, CALLEE)
    assert not stand.rig.stray_calls
    assert not stand.canary.exists()


def test_sip_stranger_with_a_phones_headers_is_refused(stand: Stand) -> None:
    """A call from outside that claims to be registered, as an agent, with the headers of one."""
    listen = stand.node.config["node"]["listen"]
    stand.rig.extension("public", "0120001111", [("socket", f"{listen}/click2dial async full")])
    wants = [("X-Teleforge-Outbound-ID", "27115550000"), ("X-Teleforge-Contact-Ref", "a")]
    lies = [
        [("X-sip_authorized", "true"), ("X-sip_auth_username", AGENT)],
        [("P-Asserted-Identity", f"<sip:{AGENT}@127.0.0.1>")],
        [("X-A", f"a%0Avariable_sip_authorized: true%0Avariable_sip_auth_username: {AGENT}")],
        [("X-AUTH-IP", "127.0.0.1"), ("X-Forwarded-For", "127.0.0.1")],
        [("Proxy-Require", "a"), ("Contact", f"<sip:{AGENT}@127.0.0.1>")],
    ]
    taken = stand.records_made()
    for lie in lies:
        for user in (AGENT, f"{AGENT}%0Avariable_sip_authorized%3A%20true"):
            sender = f"<sip:{user}@127.0.0.1>"
            call = stand.rig.raw_call("0120001111", [*wants, *lie], sender=sender)
            assert call.wait() in (400, 407, 420), (lie, call.responses)
            call.hangup()
    records = stand.records(taken)
    assert records
    assert {record["end_reason"] for record in records} == {"rejected"}
    stand.nobody_got_in()


@pytest.mark.parametrize("talking", [False, True])
def test_notify_talk_of_a_caller_ends_the_call(stand: Stand, *, talking: bool) -> None:
    """FreeSWITCH takes the caller's leg from the node, and looks for an extension that isn't there."""
    stand.reset()
    taken = stand.records_made()
    callee = stand.rig.outside(f"27{CALLEE[1:]}", Script(answer_after=0.1))
    call = stand.rig.raw_call(DIDS["dialthrough"], [], sender=f"<sip:{VICTIM}@127.0.0.1>")
    assert call.wait() == 200
    eventually(lambda: asks(stand.rig, "enter_number"))
    if talking:
        for key in f"{CALLEE}#":
            call.request("INFO", [], f"Signal={key}\r\nDuration=100\r\n", "application/dtmf-relay")
            assert call.answer() == 200
            time.sleep(0.15)  # a key sooner than that may be the same one by another way
        eventually(lambda: callee.calls and callee.calls[0].leg.answered_at)
    call.request("NOTIFY", [("Event", "talk"), ("Subscription-State", "active")])
    assert call.answer() == 200
    eventually(lambda: stand.rig.live_channels() == 0)
    (record,) = stand.records(taken)
    assert (record["end_reason"] == "answered") is talking, record
    assert (record["number"] is not None) is talking
    call.hangup()


def test_sip_headers_of_an_answer_go_to_no_caller(stand: Stand) -> None:
    """Neither an agent's to a customer, nor a callee's to a phone that reads X-Teleforge-Error."""
    stand.reset()
    stand.agent.script(Script(headers={"X-Agent": "1", "X-Teleforge-Error": "agent: unknown"}))
    call = stand.rig.raw_call(DIDS["inbound"], [], sender=f"<sip:{VICTIM}@127.0.0.1>")
    assert call.wait() == 200
    assert not {"x-agent", "x-teleforge-error"} & call.responses[-1][1].keys()
    call.hangup()
    eventually(lambda: stand.node.live_calls() == 0)


def test_sip_info_records_nothing(stand: Stand) -> None:
    """FreeSWITCH's own internal profile has a record-template, with which a phone's INFO records its talk."""
    stand.reset()
    call = stand.rig.raw_call(DIDS["dialthrough"], [], sender=f"<sip:{VICTIM}@127.0.0.1>")
    assert call.wait() == 200
    eventually(lambda: asks(stand.rig, "enter_number"))
    call.request("INFO", [("Record", "on")])
    assert call.answer() == 488
    assert not list(stand.rig.recordings.glob("recorded-by-info*"))
    call.hangup()
    eventually(lambda: stand.node.live_calls() == 0)
