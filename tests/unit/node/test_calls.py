"""The live calls of a node: placed, cancelled, heard of."""

from __future__ import annotations

import json
import time
from typing import Any
from uuid import uuid4

import gevent
import pytest

from esl_apps.core import terms
from esl_apps.core.attempt import Attempt
from esl_apps.node import calls as calls_module
from esl_apps.node import census, line
from esl_apps.node.calls import Calls
from esl_apps.node.live import Live
from esl_apps.store import keys
from tests.support.bench import Bench, Build, ScriptedPlaced, essence_of, placed, write_cdr
from tests.support.call_switch import AT, B, at, ends
from tests.support.peer import OTHER_UUID, UUID, api_response, event, eventually


def calls_of(bench: Bench) -> Calls:
    return bench.services.calls


def begin(bench: Bench, **fields: Any) -> Live:
    return calls_of(bench).begin(Attempt(app="disa", call_dir="external", **fields), bench.services.switches[0])


def ring(bench: Bench) -> ScriptedPlaced:
    """A call whose agent is being rung."""
    order = placed(integrator="acme")
    bench.outgoing.place(order)
    eventually(bench.originates)
    return order


def tell(bench: Bench, name: str, order: ScriptedPlaced, **headers: Any) -> None:
    bench.switch.say(event(name, {"variable_esl_call_ref": order.attempt.call_ref, **headers}))


def hupalls(bench: Bench) -> list[str]:
    return [text for text in bench.switch.heard if text.startswith("api hupall")]


def ended(bench: Bench, order: ScriptedPlaced) -> None:
    eventually(lambda: order.attempt.ended)
    assert bench.live == {}


# Life ---------------------------------------------------------------------------------------------------


def test_calls_begun_call_is_known_everywhere(bench: Bench) -> None:
    live = begin(bench)
    bench.flush()
    ref = live.attempt.call_ref
    client = bench.redis_server.client
    assert json.loads(str(client.get(keys.call(ref))))["state"] == "queued"
    assert client.hexists(keys.live(bench.services.membership.boot), ref)
    told = next(text for text in _heard(bench) if text.startswith("sendevent CUSTOM"))
    assert "Event-Subclass: esl_apps::call" in told
    assert f"esl_call_ref: {ref}" in told
    assert (live.attempt.switch, calls_of(bench).count("disa"), calls_of(bench).count("inbound")) == ("fs1", 1, 0)


def _heard(bench: Bench) -> list[str]:
    eventually(lambda: any(text.startswith("sendevent") for text in bench.switch.heard))
    return bench.switch.heard


def test_calls_end_wakes_those_that_wait_for_it(bench: Bench) -> None:
    live = begin(bench)
    waiting = gevent.spawn(live.wait, lambda: live.attempt.ended, time.monotonic() + 60.0)
    gevent.sleep(0)
    live.attempt.lose(AT)
    eventually(waiting.ready)


def test_calls_call_of_an_older_version_says_its_second_party(bench: Bench) -> None:
    attempt = Attempt(app="inbound", call_dir="inbound")
    calls_of(bench).begin(attempt, bench.services.switches[0])
    assert attempt.second_party == terms.AGENT


def test_calls_ended_call_is_live_no_more(bench: Bench) -> None:
    attempt = begin(bench).attempt
    attempt.end(terms.ABANDONED, 16, terms.AGENT, AT)
    assert bench.live == {}
    assert not attempt.end(terms.LOST, 31, terms.SYSTEM, AT)
    assert bench.reason() == (terms.ABANDONED, 16, terms.AGENT)


def test_calls_of_a_closed_node_change_nothing(bench: Bench) -> None:
    """Its last seconds: calls that are still up belong to another process."""
    attempt = begin(bench).attempt
    bench.services.records.closed = True
    attempt.end(terms.LOST, 31, terms.SYSTEM, AT)
    assert bench.records() == []
    assert attempt.call_ref in bench.live


def test_calls_released_call_wakes_its_follower(bench: Bench) -> None:
    """It would go on asking the switch about a call that another process has."""
    live = calls_of(bench).adopt(essence_of(), bench.services.switches[0])
    following = gevent.spawn(live.wait, lambda: live.released, time.monotonic() + 20)
    gevent.sleep(0)
    calls_of(bench).release(live)
    assert following.get(timeout=5)
    assert bench.live == {}


# Placing ------------------------------------------------------------------------------------------------


def test_calls_answered_leg_runs_its_application(bench: Bench) -> None:
    order = ring(bench)
    assert calls_of(bench).expected() == 1
    tell(bench, "CHANNEL_PROGRESS", order, **{"Caller-Channel-Progress-Time": at(1)})
    eventually(lambda: order.attempt.state == terms.AGENT_RINGING)
    assert order.attempt.aleg_uuid == UUID
    bench.answer_originate(f"+OK {UUID}\n")
    visitor = bench.visit("click2dial", variable_esl_call_ref=order.attempt.call_ref).served()
    assert order.answered_by[0].uuid == UUID
    assert visitor.error is None
    assert calls_of(bench).expected() == 0
    assert bench.record()["end_reason"] == terms.ABANDONED


def test_calls_phone_that_rings_wakes_no_greenlet(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for it, and a greenlet that is woken sets its timer again."""
    order = ring(bench)
    woken: list[Live] = []
    monkeypatch.setattr(Live, "poke", woken.append)
    tell(bench, "CHANNEL_PROGRESS", order, **{"Caller-Channel-Progress-Time": at(1)})
    eventually(lambda: order.attempt.state == terms.AGENT_RINGING)
    assert woken == []


def test_calls_socket_may_come_before_the_originates_answer(bench: Bench) -> None:
    order = ring(bench)
    bench.visit("click2dial", variable_esl_call_ref=order.attempt.call_ref).served()
    bench.answer_originate(f"+OK {UUID}\n")
    assert [found["call_ref"] for found in bench.records()] == [order.attempt.call_ref]


def test_calls_leg_that_hangs_up_as_it_answers_is_abandoned(bench: Bench) -> None:
    order = ring(bench)
    headers: dict[str, Any] = {"variable_esl_call_ref": order.attempt.call_ref}
    bye: dict[str, Any] = {"variable_sip_hangup_disposition": "recv_bye"}
    bench.switch.say(ends("NORMAL_CLEARING", 16, uuid=UUID, answered=True, **headers, **bye))
    bench.answer_originate(f"+OK {UUID}\n")
    ended(bench, order)
    assert bench.reason() == (terms.ABANDONED, 16, "agent")


def test_calls_other_phones_end_is_not_the_answered_ones(bench: Bench) -> None:
    """An agent's phones that lost the race end before the answered leg's socket comes."""
    order = ring(bench)
    headers: dict[str, Any] = {"variable_esl_call_ref": order.attempt.call_ref}
    bench.switch.say(ends("LOSE_RACE", 502, uuid=OTHER_UUID, **headers))
    bench.answer_originate(f"+OK {UUID}\n")
    eventually(lambda: OTHER_UUID in bench.live[order.attempt.call_ref].ends)
    gevent.sleep(0.005)
    assert not order.attempt.ended


def test_calls_answered_leg_without_a_socket_is_lost(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_module, "ATTACH", 0.02)
    order = ring(bench)
    bench.answer_originate(f"+OK {UUID}\n")
    ended(bench, order)
    assert hupalls(bench) == [f"api hupall NORMAL_CLEARING esl_call_ref {order.attempt.call_ref}"]
    assert bench.reason() == (terms.LOST, 31, terms.SYSTEM)


def test_calls_phone_that_leaves_as_its_leg_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_module, "ATTACH", 0.02)
    monkeypatch.setattr(calls_module, "KILLED", 5.0)
    order = ring(bench)
    bench.answer_originate(f"+OK {UUID}\n")
    eventually(lambda: hupalls(bench))
    headers: dict[str, Any] = {"variable_esl_call_ref": order.attempt.call_ref}
    bye: dict[str, Any] = {"variable_sip_hangup_disposition": "recv_bye"}
    bench.switch.say(ends("NORMAL_CLEARING", 16, uuid=UUID, answered=True, **headers, **bye))
    ended(bench, order)
    assert bench.reason() == (terms.ABANDONED, 16, "agent")


def test_calls_phone_that_left_unheard_before_its_socket(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both connections broke as it answered: only the switch's file tells that it hung up itself."""
    monkeypatch.setattr(calls_module, "ATTACH", 0.02)
    monkeypatch.setattr(calls_module, "KILLED", 0.02)
    order = ring(bench)
    write_cdr(bench, UUID, ref=order.attempt.call_ref, answered=3, sip_hangup_disposition="recv_bye")
    bench.answer_originate(f"+OK {UUID}\n")
    ended(bench, order)
    assert bench.reason() == (terms.ABANDONED, 16, "agent")


@pytest.mark.parametrize("heard", [True, False])
def test_calls_unserved_leg_that_another_node_cancels(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, heard: bool
) -> None:
    """That node hung up the leg, and its word to this one was lost with the connection."""
    monkeypatch.setattr(calls_module, "ATTACH", 0.02)
    order = ring(bench)
    bench.services.store.note_cancel(order.attempt.call_ref, terms.API)
    if heard:
        headers: dict[str, Any] = {"variable_esl_call_ref": order.attempt.call_ref}
        bench.switch.say(ends("NORMAL_CLEARING", 16, uuid=UUID, answered=True, **headers))
    bench.answer_originate(f"+OK {UUID}\n")
    ended(bench, order)
    assert bench.reason() == (terms.CANCELLED, 16, terms.API)


def test_calls_fault_while_ringing_costs_this_call_alone(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    order = placed()
    order.endpoints = ["user/1\n\napi shutdown"]
    bench.outgoing.place(order).get(timeout=5)
    assert order.attempt.ended
    assert "ringing_failed" in caplog.messages
    assert not any("shutdown" in text for text in bench.switch.heard)
    # Whether a leg was placed is not known.
    assert hupalls(bench) == [f"api hupall NORMAL_CLEARING esl_call_ref {order.attempt.call_ref}"]
    assert bench.record()["end_reason"] == terms.LOST


@pytest.mark.parametrize(
    ("output", "reason", "code", "by"),
    [
        ("-ERR USER_BUSY\n", "agent_busy", 17, "agent"),
        ("-ERR NO_ANSWER\n", "agent_no_answer", 19, "agent"),
        ("-ERR USER_NOT_REGISTERED\n", "agent_failed", 20, "agent"),
        ("-ERR NETWORK_OUT_OF_ORDER\n", "agent_failed", 38, "agent"),
    ],
)
def test_calls_unanswered_leg_has_its_record(bench: Bench, output: str, reason: str, code: int, by: str) -> None:
    order = ring(bench)
    bench.answer_originate(output)
    ended(bench, order)
    assert bench.reason() == (reason, code, by)


def test_calls_gateway_failure_tries_the_next_switch(build: Build) -> None:
    bench = build(switches=("fs1", "fs2")).connect()
    order = placed()
    bench.outgoing.place(order, bench.services.switches[0])
    bench.answer_originate("-ERR NETWORK_OUT_OF_ORDER\n", switch="fs1")
    bench.answer_originate("-ERR USER_BUSY\n", switch="fs2")
    ended(bench, order)
    assert bench.record()["switch"] == "fs2"


def test_calls_originate_on_a_silent_switch_is_lost(
    bench: Bench, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped with the originate unread. It stays away, so whether the phone rings is not known."""
    monkeypatch.setattr(line, "AWAY", 0.2)
    bench.switch.stop_at("bgapi")
    order = placed(integrator="acme")
    bench.outgoing.place(order)
    eventually(bench.originates)
    request.getfixturevalue("impatient")
    bench.switch.server.stop()
    ended(bench, order)
    assert bench.reason() == (terms.LOST, 31, terms.SYSTEM)


# Cancelling ---------------------------------------------------------------------------------------------


def test_calls_cancel_while_ringing_hangs_up_until_it_ends(bench: Bench) -> None:
    order = ring(bench)
    calls = calls_of(bench)
    assert calls.cancel(order.attempt.call_ref, "api")
    assert calls.cancel(order.attempt.call_ref, "another")
    # Repeated: a leg that doesn't exist yet is missed by a single one.
    eventually(lambda: len(hupalls(bench)) >= 3)
    bench.answer_originate("-ERR NORMAL_CLEARING\n")
    ended(bench, order)
    assert bench.reason() == (terms.CANCELLED, 16, "api")


def test_calls_cancel_that_races_the_answer_ends_cancelled(bench: Bench) -> None:
    """The agent answers while the cancel is on its way: the application sees it, and dials nothing."""
    click = bench.services.policy.clients["acme"].read(
        {"agent": "1000", "callee": "0820001234", "outbound_id": "27115550000"}
    )
    attempt = bench.outgoing.click2dial(click, bench.services.policy.clients["acme"], "")
    bench.answer_originate(f"+OK {UUID}\n")
    calls_of(bench).cancel(attempt.call_ref, "api")
    visitor = bench.visit("click2dial", variable_esl_call_ref=attempt.call_ref).served()
    assert [app for app, _ in visitor.switch.executed] == ["hangup"]
    assert bench.reason() == (terms.CANCELLED, 16, "api")


def test_calls_cancel_of_an_ended_call_is_refused(bench: Bench) -> None:
    attempt = begin(bench).attempt
    attempt.end(terms.ABANDONED, 16, terms.AGENT, AT)
    assert not calls_of(bench).cancel(attempt.call_ref, "api")


def test_calls_cancel_of_a_switch_away_is_made_up_for(bench: Bench) -> None:
    ref = begin(bench).attempt.call_ref
    bench.switch.drop()
    eventually(lambda: not bench.services.switches[0].connected)
    calls_of(bench).reap(bench.services.switches[0], ref)
    assert hupalls(bench) == []
    eventually(lambda: hupalls(bench) == [f"api hupall NORMAL_CLEARING esl_call_ref {ref}"])


def test_calls_refused_hangup_is_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.switch.answers["api hupall"] = api_response("-ERR no such thing\n")
    calls_of(bench).reap(bench.services.switches[0], "r-1")
    assert "hupall_refused" in caplog.messages


def test_calls_switch_is_told_what_takes_a_new_legs_place(bench: Bench) -> None:
    """Hazard 47: also after its restart."""
    told = ["api global_setvar current_application=hangup", "api global_setvar current_application_data=CALL_REJECTED"]

    def heard() -> list[str]:
        return [text for text in bench.switch.heard if text.startswith("api global_setvar")]

    eventually(lambda: heard() == told)
    bench.switch.drop()
    eventually(lambda: heard() == told * 2)


# Events -------------------------------------------------------------------------------------------------


def test_calls_events_of_other_calls_are_ignored(bench: Bench) -> None:
    live = begin(bench)
    for tags in ({}, {"variable_esl_call_ref": ""}, {"variable_esl_call_ref": "another"}):
        bench.switch.say(event("CHANNEL_HANGUP_COMPLETE", tags))
    bench.switch.say(event("CHANNEL_HANGUP_COMPLETE", {"variable_esl_call_ref": live.attempt.call_ref}, uuid=B))
    eventually(lambda: live.ends)
    assert list(live.ends) == [B]


@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize(
    ("cause", "variables"),
    [("PICKED_OFF", {}), ("ATTENDED_TRANSFER", {}), ("NORMAL_CLEARING", {"variable_transfer_to": f"att:{OTHER_UUID}"})],
)
def test_calls_leg_that_a_stranger_replaces_ends_all(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, cause: str, variables: dict[str, Any], over: bool
) -> None:
    """``over``: the leg's own socket has told of its end first, and the call has its record."""
    monkeypatch.setattr(calls_module, "_ONCE_MORE", 0.02)
    attempt = begin(bench).attempt
    if over:
        attempt.end(terms.ANSWERED, 16, terms.SYSTEM, AT)
    session: dict[str, Any] = {"variable_esl_session_ref": OTHER_UUID, **variables}
    bench.switch.say(ends(cause, 16, uuid=UUID, answered=True, variable_esl_call_ref=attempt.call_ref, **session))
    call = f"api hupall CALL_REJECTED esl_call_ref {attempt.call_ref}"
    blegs = f"api hupall NORMAL_CLEARING esl_bleg {OTHER_UUID}"
    eventually(lambda: hupalls(bench) == [call, blegs, call, blegs])


@pytest.mark.parametrize("listed", [None, "not JSON", "-ERR busy"])
@pytest.mark.parametrize(
    ("application", "data", "others"),
    [
        ("conference", "acme~board@default", "other~board@default"),
        ("endless_playback", "local_stream://acme", "local_stream://other"),
        ("park", "", "other"),
    ],
)
def test_calls_stranger_who_runs_a_legs_application_ends(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, application: str, data: str, others: str, listed: str | None
) -> None:
    """A party's place in a conference, or that of a party on hold. Without data the switch uses the global variable."""
    monkeypatch.setattr(calls_module, "_ONCE_MORE", 0.02)
    monkeypatch.setattr(census, "SOUGHT", 0.0)
    monkeypatch.setattr(census, "EVERY", 0.01)
    rows = [
        {"uuid": UUID, "dest": "27831112222"},
        {"uuid": OTHER_UUID, "dest": f"answer,{application}:{data or 'CALL_REJECTED'}"},
        {"uuid": B, "dest": f"answer,{application}:{others}"},
    ]
    answer = listed or json.dumps({"row_count": 3, "rows": rows})
    bench.switch.answers["api show channels"] = api_response(answer)
    ref = begin(bench).attempt.call_ref
    doing: dict[str, Any] = {
        "variable_current_application": application,
        **({"variable_current_application_data": data} if data else {}),
    }
    bench.switch.say(ends("ATTENDED_TRANSFER", 16, uuid=UUID, answered=True, variable_esl_call_ref=ref, **doing))
    killed = f"api uuid_kill {OTHER_UUID} CALL_REJECTED"
    eventually(lambda: len(hupalls(bench)) == 4)
    eventually(lambda: bench.switch.heard.count("api show channels as json") == 1)
    wanted = [] if listed else [killed]
    eventually(lambda: [text for text in bench.switch.heard if "uuid_kill" in text] == wanted)


@pytest.mark.parametrize("function", ["eavesdrop", "audio", "inband_dtmf"])
def test_calls_stranger_who_overhears_a_leg_ends(bench: Bench, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    """An INVITE with Replaces and Call-Info. The call goes on."""
    monkeypatch.setattr(census, "SOUGHT", 0.0)
    monkeypatch.setattr(census, "EVERY", 0.01)
    rows = [
        {"uuid": B, "dest": f"answer,sofia_sla:{UUID}"},
        {"uuid": "supervisor", "dest": "5000"},
        {"uuid": "elsewhere", "dest": "answer,sofia_sla:another"},
    ]
    bench.switch.answers["api show channels"] = api_response(json.dumps({"row_count": 3, "rows": rows}))
    ref = begin(bench).attempt.call_ref
    headers: dict[str, Any] = {"Media-Bug-Function": function, "variable_esl_call_ref": ref}
    bench.switch.say(event("MEDIA_BUG_START", headers, uuid=UUID))
    bench.switch.say(event("CHANNEL_HANGUP_COMPLETE", {"variable_esl_call_ref": ref}, uuid=OTHER_UUID))
    eventually(lambda: OTHER_UUID in bench.live[ref].ends)
    wanted = [f"api uuid_kill {B} CALL_REJECTED"] if function == "eavesdrop" else []
    eventually(lambda: [text for text in bench.switch.heard if "uuid_kill" in text] == wanted)
    assert hupalls(bench) == []


def test_calls_strangers_are_looked_for_together(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of thousands of channels costs milliseconds, and each INVITE would ask for some."""
    monkeypatch.setattr(census, "SOUGHT", 0.04)
    monkeypatch.setattr(census, "EVERY", 0.02)
    bench.switch.answers["api show channels"] = api_response(json.dumps({"row_count": 0}))
    ref = begin(bench).attempt.call_ref
    headers: dict[str, Any] = {"Media-Bug-Function": "eavesdrop", "variable_esl_call_ref": ref}
    began = time.monotonic()
    for _ in range(50):
        bench.switch.say(event("MEDIA_BUG_START", headers, uuid=str(uuid4())))
    bench.switch.say(event("CHANNEL_HANGUP_COMPLETE", {"variable_esl_call_ref": ref}, uuid=OTHER_UUID))
    eventually(lambda: OTHER_UUID in bench.live[ref].ends)
    gevent.sleep(0.1)
    lists = bench.switch.heard.count("api show channels as json")
    assert 0 < lists <= (time.monotonic() - began) / 0.02 + 1


@pytest.mark.parametrize("disposition", ["recv_bye", "recv_refuse", "recv_cancel"])
def test_calls_far_end_that_names_a_switchs_cause_ends_alone(bench: Bench, disposition: str) -> None:
    """``Reason: FreeSWITCH;cause=805``."""
    attempt = begin(bench).attempt
    headers: dict[str, Any] = {
        "variable_esl_call_ref": attempt.call_ref,
        "variable_sip_hangup_disposition": disposition,
    }
    bench.switch.say(ends("PICKED_OFF", 16, uuid=UUID, answered=True, **headers))
    eventually(lambda: UUID in bench.live[attempt.call_ref].ends)
    gevent.sleep(0.01)
    assert hupalls(bench) == []


@pytest.mark.parametrize("destination", ["blind:0820001234", "sofia/x att: y"])
def test_calls_leg_that_was_transferred_blindly_ends_alone(bench: Bench, destination: str) -> None:
    attempt = begin(bench).attempt
    headers: dict[str, Any] = {"variable_esl_call_ref": attempt.call_ref, "variable_transfer_to": destination}
    bench.switch.say(ends("NORMAL_CLEARING", 16, uuid=UUID, answered=True, **headers))
    eventually(lambda: UUID in bench.live[attempt.call_ref].ends)
    gevent.sleep(0.01)
    assert hupalls(bench) == []


def test_calls_progress_of_an_attached_leg_changes_nothing(bench: Bench) -> None:
    order = ring(bench)
    live = bench.live[order.attempt.call_ref]
    live.attached = True
    tell(bench, "CHANNEL_PROGRESS", order)
    tell(bench, "CHANNEL_HANGUP_COMPLETE", order)
    eventually(lambda: live.ends)
    assert (order.attempt.state, order.attempt.aleg_uuid) == (terms.QUEUED, None)
