"""Consultations on a node: what the switch is told, what is refused, and how each end is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import pytest

from esl_apps.apps import transfer as transfer_app
from esl_apps.core import node_clock, talk, terms
from esl_apps.core.actions import BACK, CONSULTED, GONE, JOINED, RECORD, Action, CallState, Undone
from esl_apps.core.attempt import Attempt
from esl_apps.core.charges import Charge
from esl_apps.core.limits import Refusal
from esl_apps.core.reference import new_ref
from esl_apps.node import consulting, following
from esl_apps.node.acting import ACTION, OUTCOME
from esl_apps.node.consulting import Consulting
from esl_apps.node.live import Live
from tests.support.bench import DID, Bench, Build, click_talk, leave_behind, pass_on, show_legs, write_cdr
from tests.support.call_switch import AT, B, ends
from tests.support.peer import UUID, Peer, api_response, eventually

T = "cccccccc-0000-4000-8000-000000000003"
WITH_EMERGENCY = {
    "region": "ZA",
    "extension": "user/{number}@127.0.0.1",
    "external": ["sofia/gateway/pstn/{number}"],
    "emergency": "sofia/gateway/pstn/{number}",
}
#: A recorded call after a transfer to an agent, who is on the second leg.
TO_AGENT = {
    "app": "transfer",
    "transferred_from": new_ref(),
    "recording_url": f"{new_ref()}.wav",
    "order": {"to": "1000", "shown": "0820001234", "second_party": "agent", "record": True},
}
ACME = {"name": "acme", "listen": "127.0.0.1:8300", "token": "acme-token-for-tests", "caller_ids": [DID]}


@pytest.fixture(autouse=True)
def impatient_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consulting, "_SETTLED", 0.01)


def talking(bench: Bench, **fields: Any) -> Live:
    live = click_talk(bench, **fields)
    # Both legs are up, so that following it doesn't end it.
    show_legs(
        bench.switch,
        {"Unique-ID": UUID, "variable_esl_call_ref": live.attempt.call_ref},
        {"Unique-ID": B, "variable_esl_call_ref": live.attempt.call_ref, "variable_esl_bleg": live.attempt.call_ref},
    )
    return live


def act(bench: Bench, live: Live, name: str, **parts: Any) -> CallState:
    return bench.services.acting.perform(live, Action(name, **parts))


def consult(bench: Bench, live: Live, to: str = "1001", by: str = "agent") -> Live:
    """Begin a consultation, and return its call."""
    state = act(bench, live, "transfer", to=to, by=by, mode="consult")
    assert state.held
    assert isinstance(state.transfer_ref, str)
    return bench.services.calls.live[state.transfer_ref]


def refusal(bench: Bench, live: Live, name: str, **parts: Any) -> tuple[int, str]:
    with pytest.raises(Undone) as error:
        act(bench, live, name, **parts)
    return error.value.status, error.value.field or error.value.state


def commands(bench: Bench, *names: str) -> list[str]:
    starts = tuple(f"api {name}" for name in names or ("uuid_setvar", "uuid_audio", "uuid_dual_transfer", "uuid_kill"))
    return [text.removeprefix("api ") for text in bench.switch.heard if text.startswith(starts)]


def answered(asking: Live) -> None:
    asking.attempt.enter(terms.AGENT_ANSWERED, AT)
    asking.attempt.bleg_uuid = T
    asking.attempt.enter(terms.BRIDGED, AT)


def has_way(bench: Bench, way: str) -> None:
    """Have the switch say where the new party's leg goes when its bridge ends."""
    said = {f"api uuid_getvar {UUID} bridge_uuid": T, f"api uuid_getvar {T} transfer_after_bridge": way}
    bench.switch.answers.update({command: api_response(value) for command, value in said.items()})


def told(bench: Bench, live: Live, asking: Live, step: str, seconds: float | None = None, **more: Any) -> None:
    asked = transfer_app.consultation(asking.attempt)
    assert asked is not None
    ref = asking.attempt.call_ref
    action = Action(CONSULTED, step=step, ref=ref, leg=T, to=asked.to, next=asked.next, seconds=seconds, **more)
    bench.services.acting.perform(live, action)


def test_consulting_moves_both_legs_at_once(bench: Bench) -> None:
    live = talking(bench)
    asking = consult(bench, live)
    held, music, role, leg, unset, parks, move, as_before = commands(bench)
    # The talk has lasted longer than a call may.
    assert held.startswith(f"uuid_setvar_multi {B} esl_apps_limit=+1\\sALLOTTED_TIMEOUT;")
    assert music == f"uuid_setvar {B} esl_apps_music ${{hold_music}}"
    # Apart from the session's B-legs, which end together.
    assert role == f"uuid_setvar {B} esl_bleg {asking.attempt.call_ref}"
    assert leg.startswith(f"uuid_setvar_multi {UUID} esl_app=transfer;esl_call_ref={asking.attempt.call_ref};")
    assert f"set:esl_call_ref={live.attempt.call_ref}!set:esl_app=click-dial!sched_hangup" in leg
    assert f"intercept:{B}!hangup" in leg
    assert unset == f"uuid_setvar {UUID} esl_bleg"
    assert (parks, as_before) == (f"uuid_setvar {UUID} park_after_bridge true", f"uuid_setvar {UUID} park_after_bridge")
    assert move.startswith(f"uuid_dual_transfer {UUID} m:^:sched_transfer:")
    assert not live.attempt.ended
    assert (live.attempt.consultation, live.attempt.held) == (asking.attempt.call_ref, True)
    assert (asking.attempt.extension, asking.attempt.number) == ("1000", "1001")


@pytest.mark.parametrize("bound", [{"max_calls": 1}, {"integrators": [{**ACME, "max_calls": 1}]}])
def test_consulting_over_max_calls_is_429(build: Build, bound: dict[str, Any]) -> None:
    """A consultation is a call more; a blind transfer takes the place of one."""
    bench = build(**bound).connect()
    live = talking(bench)
    assert refusal(bench, live, "transfer", to="1001", by="agent", mode="consult") == (429, "limits")
    assert (commands(bench), live.attempt.consultation, live.attempt.held) == ([], None, False)
    assert act(bench, live, "transfer", to="1001", by="agent").state == terms.ENDED


def test_consulting_by_the_callee_keeps_the_role_of_the_leg(bench: Bench) -> None:
    """A leg that was rung is a B-leg again afterwards, and cancelling doesn't hang it up."""
    live = talking(bench)
    asking = consult(bench, live, "0820005678", by="callee")
    assert f"!set:esl_bleg={asking.attempt.call_ref}!" in commands(bench)[2]
    assert commands(bench)[-2].startswith(f"uuid_dual_transfer {B} ")


def test_consulting_moves_first_the_leg_that_waits(bench: Bench) -> None:
    """That leg would hang up if it saw the end of the bridge before it is moved."""
    live = talking(bench)
    bench.switch.answers[f"api uuid_dump {UUID}"] = api_response("Channel-State: CS_EXCHANGE_MEDIA\n")
    consult(bench, live)
    stays, move, as_before = commands(bench)[-3:]
    assert (stays, as_before) == (f"uuid_setvar {B} park_after_bridge true", f"uuid_setvar {B} park_after_bridge")
    assert move.startswith(f"uuid_dual_transfer {B} m:^:sched_hangup:")
    assert "/inline m:^:sched_transfer:" in move


@pytest.mark.parametrize("recording", [talk.ON, talk.PAUSED, talk.OFF])
@pytest.mark.parametrize(("fields", "by"), [({}, "callee"), ("to_agent", "agent"), ({}, "agent")])
def test_consulting_silences_the_recording_on_its_leg(bench: Bench, fields: Any, by: str, recording: str) -> None:
    """Until the switch joins the two again, also if no node is up then. A client's pause goes on."""
    live = talking(bench, **(TO_AGENT if fields else {"recording_url": f"{new_ref()}.wav"}))
    live.attempt.recording = recording
    consult(bench, live, by=by)
    path = bench.services.acting.recording(live.attempt)
    silenced = recording == talk.ON and (fields or by == "callee")
    assert commands(bench, "uuid_record") == [f"uuid_record {B} mask {path}"] * bool(silenced)
    (plan,) = [text for text in commands(bench, "uuid_setvar_multi") if "esl_apps_again" in text]
    assert plan.count(f"!record_session_unmask:{path}!intercept:") == 2 * bool(silenced)


def test_consulting_in_vain_ends_the_silence_of_the_recording(bench: Bench) -> None:
    live = talking(bench, recording_url=f"{new_ref()}.wav")
    bench.switch.answers["api uuid_dual_transfer"] = api_response("-ERR No such channel!\n")
    refusal(bench, live, "transfer", to="0820005678", by="callee", mode="consult")
    path = bench.services.acting.recording(live.attempt)
    assert commands(bench, "uuid_record") == [f"uuid_record {B} {verb} {path}" for verb in ("mask", "unmask")]


def test_consulting_ends_mutes(bench: Bench) -> None:
    live = talking(bench, muted=["callee"])
    consult(bench, live)
    assert f"uuid_audio {B} stop" in commands(bench)
    assert live.attempt.muted == []


@pytest.mark.parametrize(("step", "leg"), [(BACK, UUID), (JOINED, T)])
def test_consultations_mute_ends_with_it(bench: Bench, step: str, leg: str) -> None:
    """No call would know of it, so no unmute could end it."""
    live = talking(bench)
    asking = consult(bench, live)
    answered(asking)
    assert f"uuid_audio {leg} stop" not in commands(bench)
    told(bench, live, asking, step)
    assert f"uuid_audio {leg} stop" in commands(bench)


def test_consultation_ends_the_first_call_when_the_switch_joined(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not once the switch has answered a further command, as it may be busy."""
    live = talking(bench)
    asking = consult(bench, live)
    answered(asking)
    at = live.attempt.queued_at + 19.0
    now = [at + 1.0]
    monkeypatch.setattr(node_clock, "now", lambda: now[0])

    def slow(_switch: object, _command: str) -> None:
        now[0] += 5.0

    monkeypatch.setattr(consulting, "try_api", slow)
    told(bench, live, asking, JOINED, seconds=1.0)
    assert live.attempt.record is not None
    assert live.attempt.record.ended_at == at


def test_consulting_again_with_the_same_party_changes_nothing(bench: Bench) -> None:
    live = talking(bench)
    asking = consult(bench, live)
    before = commands(bench)
    assert consult(bench, live) is asking
    assert commands(bench) == before
    assert refusal(bench, live, "transfer", to="1002", by="agent", mode="consult") == (409, "bridged")
    assert refusal(bench, live, "transfer", to="1001", by="agent") == (409, "bridged")


@pytest.mark.parametrize("name", ["hold", "resume", "mute", "digits", "record"])
def test_consulting_refuses_other_actions_meanwhile(bench: Bench, name: str) -> None:
    live = talking(bench)
    consult(bench, live)
    assert refusal(bench, live, name, party="agent", digits="1", step="pause") == (409, "bridged")


def test_consulting_is_not_transferred_itself(bench: Bench) -> None:
    asking = consult(bench, talking(bench))
    asking.attempt.aleg_uuid = UUID
    answered(asking)
    assert refusal(bench, asking, "transfer", to="1002", by="agent") == (409, "bridged")


@pytest.mark.parametrize("to", ["0900123456", "x", "", "0820001234;ext=1", "112", "${system(id)}", "1001!hangup"])
def test_consulting_what_may_not_be_dialled_is_422(bench: Bench, to: str) -> None:
    live = talking(bench)
    assert refusal(bench, live, "transfer", to=to, by="agent", mode="consult") == (422, "to")
    assert commands(bench) == []
    assert (live.attempt.consultation, live.attempt.held) == (None, False)


def test_consulting_past_a_limit_is_429(build: Build) -> None:
    bench = build(spending={"limits": {"calls_per_day": 1}}).connect()
    consult(bench, talking(bench))
    live = talking(bench)
    assert refusal(bench, live, "transfer", to="1001", by="agent", mode="consult")[0] == 429
    assert (live.attempt.consultation, live.attempt.followed) == (None, False)


def test_consulting_a_leg_that_is_gone_changes_nothing(bench: Bench) -> None:
    live = talking(bench)
    bench.switch.answers["api uuid_dual_transfer"] = api_response("-ERR No such channel!\n")
    assert refusal(bench, live, "transfer", to="1001", by="agent", mode="consult") == (409, "bridged")
    # The attempt that was begun for it has no record, and its end is none of the call's.
    eventually(lambda: len(bench.services.calls.live) == 1)
    gevent.sleep(0.01)
    assert bench.records() == []
    assert not live.attempt.ended
    assert (live.attempt.consultation, live.attempt.held, live.attempt.followed) == (None, False, False)


def test_consulting_call_whose_socket_goes_meanwhile_is_followed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parties hang up while the switch is asked to move them: the call's flow has left it to the follower."""
    monkeypatch.setattr(following, "_LISTED", 0.01)
    live = talking(bench)

    def gone(_peer: Peer, _command: str) -> bytes:
        assert bench.services.calls.on_socket_lost(live)
        show_legs(bench.switch)
        return api_response("-ERR No such channel!\n")

    bench.switch.answers["api uuid_setvar_multi"] = gone
    assert refusal(bench, live, "transfer", to="1001", by="agent", mode="consult") == (409, "bridged")
    eventually(lambda: live.attempt.ended)
    assert bench.record()["call_ref"] == live.attempt.call_ref


# While it lasts ------------------------------------------------------------------------------------------


def test_consulting_answered_party_will_go_to_the_one_on_hold(bench: Bench) -> None:
    asking = consult(bench, talking(bench))
    answered(asking)
    eventually(lambda: commands(bench, f"uuid_setvar_multi {T}"))
    (plan,) = commands(bench, f"uuid_setvar_multi {T}")
    asked = transfer_app.consultation(asking.attempt)
    assert asked is not None
    # Also if it isn't recorded: a client may begin that later.
    stop = f"stop_record_session:{bench.folder}/recordings/acme/"
    assert plan.startswith(f"uuid_setvar_multi {T} transfer_after_bridge=\\'m:^:{stop}")
    assert f"/{asking.attempt.call_ref}.wav^set:" in plan
    assert f"set:esl_call_ref={asked.next}^intercept:{B}^hangup:NORMAL_CLEARING\\':inline" in plan


def test_consulting_complete_before_the_answer_is_409(bench: Bench) -> None:
    live = talking(bench)
    assert refusal(bench, live, "transfer/complete") == (409, "bridged")
    consult(bench, live)
    assert refusal(bench, live, "transfer/complete") == (409, "bridged")
    assert commands(bench, "uuid_kill") == []


def test_consulting_complete_lets_the_asking_party_hang_up(bench: Bench) -> None:
    live = talking(bench)
    answered(consult(bench, live))
    has_way(bench, "'m:^:…':inline")
    act(bench, live, "transfer/complete")
    assert commands(bench, "uuid_kill") == [f"uuid_kill {UUID} NORMAL_CLEARING"]


def test_consulting_complete_waits_for_the_new_partys_way(bench: Bench) -> None:
    """It has just answered. Until the switch knows where it goes next, it would end with the party that asks."""
    live = talking(bench)
    answered(consult(bench, live))
    has_way(bench, "_undef_")
    later = gevent.spawn_later(0.1, has_way, bench, "'m:^:…':inline")
    act(bench, live, "transfer/complete")
    assert later.ready()
    assert len(commands(bench, "uuid_kill")) == 1


def test_consulting_complete_without_a_way_is_409(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consulting, "_READY", 0.05)
    live = talking(bench)
    answered(consult(bench, live))
    has_way(bench, "_undef_")
    assert refusal(bench, live, "transfer/complete") == (409, "bridged")
    assert commands(bench, "uuid_kill") == []


def test_consulting_cancel_hangs_up_the_new_party_only(bench: Bench) -> None:
    live = talking(bench)
    assert act(bench, live, "transfer/cancel").state == "bridged"
    asking = consult(bench, live)
    act(bench, live, "transfer/cancel")
    eventually(lambda: commands(bench, "hupall"))
    assert set(commands(bench, "hupall")) == {f"hupall NORMAL_CLEARING esl_bleg {live.attempt.session_ref}"}
    assert asking.attempt.cancelled_by == "api"


def test_consulting_customer_who_leaves_is_not_waited_for(bench: Bench) -> None:
    live = talking(bench)
    asking = consult(bench, live)
    live.attempt.end(terms.ANSWERED, 16, terms.CALLEE, AT)
    asked = transfer_app.consultation(asking.attempt)
    assert asked is not None
    assert asked.held == ""


def test_consulting_party_on_hold_who_leaves_ends_the_recording(bench: Bench) -> None:
    """Its leg goes on with the third party, and the record measures the file."""
    live = talking(bench, recording_url=f"{new_ref()}.wav")
    consult(bench, live, by="callee")
    show_legs(bench.switch)
    bench.switch.say(ends("NORMAL_CLEARING", 16, uuid=UUID, variable_esl_call_ref=live.attempt.call_ref))
    eventually(lambda: live.attempt.ended)
    verbs = [text.split()[2] for text in commands(bench, f"uuid_record {B}")]
    assert verbs == ["mask", "stop"]


def test_consulting_new_party_stays_where_no_one_waits(bench: Bench) -> None:
    live = talking(bench)
    answered(consult(bench, live))
    live.attempt.end(terms.ANSWERED, 16, terms.CALLEE, AT)
    eventually(lambda: f"uuid_setvar {T} transfer_after_bridge" in commands(bench))


# How it ends ----------------------------------------------------------------------------------------------


def test_consulting_back_ends_the_hold(bench: Bench) -> None:
    live = talking(bench)
    told(bench, live, consult(bench, live), BACK)
    assert (live.attempt.consultation, live.attempt.held, live.attempt.ended) == (None, False, False)


def test_consulting_back_ends_the_hold_when_the_switch_did(bench: Bench) -> None:
    """A node that adopts a consultation hears of its end some seconds later."""
    live = talking(bench)
    asking = consult(bench, live)
    live.attempt.bridged_at = AT
    live.attempt.since[talk.HOLD] -= 10
    told(bench, live, asking, BACK, seconds=4)
    assert live.attempt.spent[talk.HOLD] == pytest.approx(6, abs=1)


def test_consulting_gone_with_nobody_left_is_told_by_the_legs(bench: Bench) -> None:
    """The two were joined again, and hung up before the node looked: the agent hasn't left a customer on hold."""
    live = talking(bench)
    asking = consult(bench, live)
    bench.switch.answers[f"api uuid_exists {B}"] = api_response("false")
    told(bench, live, asking, GONE)
    assert (live.attempt.consultation, live.attempt.held, live.attempt.ended) == (None, False, False)
    assert commands(bench, "hupall") == []


def test_consulting_gone_ends_the_call(bench: Bench) -> None:
    live = talking(bench)
    told(bench, live, consult(bench, live), GONE)
    assert bench.record()["hung_up_by"] == "agent"
    assert f"hupall NORMAL_CLEARING esl_call_ref {live.attempt.call_ref}" in commands(bench, "hupall")


def test_consulting_joined_is_a_call_of_the_other_two(bench: Bench) -> None:
    live = talking(bench)
    asking = consult(bench, live)
    answered(asking)
    told(bench, live, asking, JOINED)
    record = bench.record()
    new = bench.services.calls.live[live.attempt.transferred_to or ""]
    assert (record["call_ref"], record["hung_up_by"]) == (live.attempt.call_ref, "agent")
    assert (new.attempt.extension, new.attempt.number, new.attempt.state) == ("1001", "0820001234", "bridged")
    assert (new.attempt.aleg_uuid, new.attempt.bleg_uuid, new.attempt.followed) == (B, T, True)
    assert new.attempt.transferred_from == live.attempt.call_ref
    assert f"uuid_setvar {B} esl_bleg" in commands(bench)


def test_consulting_joined_stops_the_recording_on_its_leg(bench: Bench) -> None:
    """After a transfer to an agent it is theirs, and goes on if the customer asks and leaves."""
    live = talking(bench, **TO_AGENT)
    told(bench, live, consult(bench, live, by="callee"), JOINED)
    assert [text.partition(" /")[0] for text in commands(bench, f"uuid_record {B} stop")] == [f"uuid_record {B} stop"]


@pytest.mark.parametrize(
    ("held", "asked", "on"),
    [
        (talk.ON, {"recorded": True}, True),
        (talk.ON, {"recorded": False}, False),
        (talk.PAUSED, {"recorded": True}, False),
        (talk.OFF, {"recorded": True}, False),
        # A node of an earlier version doesn't say.
        (talk.ON, {}, True),
        (talk.OFF, {}, False),
    ],
)
def test_consulting_joined_is_recorded_if_both_were(bench: Bench, held: str, asked: dict[str, bool], on: bool) -> None:
    live = talking(bench, recording_url=f"{new_ref()}.wav")
    live.attempt.recording = held
    asking = consult(bench, live)
    answered(asking)
    told(bench, live, asking, JOINED, **asked)
    new = bench.services.calls.live[live.attempt.transferred_to or ""].attempt
    assert (new.recording == talk.ON) is on
    assert len(commands(bench, f"uuid_record {T} start")) == on


def test_consulting_stale_word_of_an_end_changes_nothing(bench: Bench) -> None:
    live = talking(bench)
    consult(bench, live)
    bench.services.acting.perform(live, Action(CONSULTED, step=GONE, ref="another"))
    assert not live.attempt.ended


def test_consulting_end_is_told_to_the_call_on_hold(bench: Bench) -> None:
    live = talking(bench)
    asking = consult(bench, live)
    transfer_app.note(asking.attempt, back=True)
    asking.attempt.end("callee_busy", 17, terms.CALLEE, AT)
    eventually(lambda: live.attempt.consultation is None)
    assert not live.attempt.ended


def test_consulting_asking_party_who_left_early_ends_the_call(bench: Bench) -> None:
    live = talking(bench)
    asking = consult(bench, live)
    asking.attempt.end(terms.ABANDONED, 16, terms.AGENT, AT)
    eventually(lambda: live.attempt.ended)


def test_consulting_charge_goes_on_in_the_call_of_the_other_two(build: Build) -> None:
    bench = build(spending={"limits": {"calls_per_day": 10, "minutes_per_day": 100}}).connect()
    live = talking(bench)
    asking = consult(bench, live, "0820005678")
    answered(asking)
    asked = transfer_app.consultation(asking.attempt)
    assert asked is not None
    (charge,) = asking.attempt.charges
    transfer_app.leave_to_each_other(asking.attempt, asked, AT)
    eventually(lambda: live.attempt.ended)
    assert charge.ended
    new = bench.services.calls.live[asked.next]
    (goes_on,) = new.attempt.charges
    assert goes_on.essence["number"] == "0820005678"
    assert goes_on.since is not None
    assert not goes_on.ended
    new.attempt.end(terms.ANSWERED, 16, terms.AGENT, AT)
    assert goes_on.ended


@pytest.mark.parametrize("by", ["agent", "callee"])
def test_consulting_counts_the_seconds_of_the_other_two_once(build: Build, by: str) -> None:
    """From then on the leg that was on hold pays for the levels, whichever of the two did so before."""
    bench = build(spending={"limits": {"minutes_per_day": 100}}).connect()
    system, plan = bench.services.policy.system, bench.services.policy.settings.plan
    live = talking(bench, app="callback", number="+27820001234")
    legs: list[tuple[str, dict[str, Any]]] = [
        ("0825556666", {"aleg": True}),
        ("0820001234", {"owner": False, "whole": False}),
    ]
    charges = [Charge(live.attempt.call_ref, [system], plan.read(number), **more) for number, more in legs]
    assert bench.services.usage.begin(*charges) is None
    live.attempt.pay(*charges)
    asking = consult(bench, live, "0820005678", by=by)
    answered(asking)
    # Each of the two calls has one leg that pays.
    assert [sum(charge.timed for charge in one.attempt.charges) for one in (live, asking)] == [1, 1]
    told(bench, live, asking, JOINED)
    new = bench.services.calls.live[live.attempt.transferred_to or ""].attempt
    leaves, stays = charges if by == "agent" else reversed(charges)
    assert (leaves.ended, stays.ended) == (True, False)
    assert [charge for charge in new.charges if charge.timed] == [stays]
    assert stays.whole


@pytest.mark.parametrize(("to", "gateway"), [("0820005678", "10.0.0.1"), ("1001", None)])
def test_consulting_names_the_new_partys_gateway(bench: Bench, to: str, gateway: str | None) -> None:
    """As the consultation has it: the switch has a name for some gateways only, and for a PBX of extensions, too."""
    live = talking(bench)
    asking = consult(bench, live, to)
    answered(asking)
    asking.attempt.gateway = gateway
    bench.switch.answers[f"api uuid_getvar {T} sip_gateway_name"] = api_response("pbx")
    asked = transfer_app.consultation(asking.attempt)
    assert asked is not None
    transfer_app.leave_to_each_other(asking.attempt, asked, AT)
    eventually(lambda: live.attempt.ended)
    assert bench.services.calls.live[live.attempt.transferred_to or ""].attempt.gateway == gateway


@pytest.mark.parametrize(("shared", "numbers"), [(3.0, ["0820005678"]), (None, [])])
def test_consulting_charges_a_new_party_that_was_placed(build: Build, shared: float | None, numbers: list[str]) -> None:
    """A caller whom a phone joins with a customer has dialled in."""
    bench = build(spending={"limits": {"minutes_per_day": 100}}).connect()
    live = talking(bench)
    asking = consult(bench, live, "0820005678")
    answered(asking)
    asked = transfer_app.consultation(asking.attempt)
    assert asked is not None
    ref = asking.attempt.call_ref
    action = Action(CONSULTED, step=JOINED, ref=ref, leg=T, to=asked.to, next=asked.next, shared=shared)
    bench.services.acting.perform(live, action)
    charges = [charge.essence for charge in bench.services.calls.live[asked.next].attempt.charges]
    assert sorted({charge["number"] for charge in charges}) == numbers


@pytest.mark.parametrize(("agent", "numbers"), [("0825556666", ["0825556666"]), ("1000", [])])
def test_consulting_pays_on_for_the_party_that_asks(build: Build, agent: str, numbers: list[str]) -> None:
    """The customer on hold has left, and their call paid for that leg. Its destination counts on."""
    mobile = {"class:mobile": {"minutes_per_day": 100, "longest_call": 900}}
    bench = build(spending={"limits": {"minutes_per_day": 100, "destinations": mobile}}).connect()
    live = talking(bench, placed=True, answered_at=AT, extension=agent)
    asking = consult(bench, live)
    answered(asking)
    (new,) = asking.attempt.charges
    live.attempt.a_seconds = 300.0
    live.attempt.end(terms.ANSWERED, 16, terms.CALLEE, AT)
    charges = [charge for charge in asking.attempt.charges if charge is not new]
    assert [charge.essence["number"] for charge in charges] == numbers
    for charge in charges:
        assert charge.left == pytest.approx(600, abs=1)
        assert [(ticket.bound.key, ticket.timed) for ticket in charge.tickets] == [
            ("system", False),
            ("system/class:mobile", True),
        ]
        assert charge.since is not None
    asking.attempt.end(terms.ANSWERED, 16, terms.AGENT, AT)
    assert all(charge.ended for charge in charges)


@pytest.fixture
def with_emergency(build: Build) -> Bench:
    return build(dial=WITH_EMERGENCY, spending={"limits": {"minutes_per_day": 100}}).connect()


def asks_112(bench: Bench, by: str = "agent") -> tuple[Live, Live, list[Charge]]:
    """A consultation of an emergency number, and the charges of the call on hold: of both its parties."""
    system, plan = bench.services.policy.system, bench.services.policy.settings.plan
    live = talking(bench, extension="0825556666", placed=True, answered_at=AT)
    legs: list[tuple[str, dict[str, Any]]] = [("0825556666", {"aleg": True}), ("0820001234", {"owner": False})]
    charges = [Charge(live.attempt.call_ref, [system], plan.read(number), **more) for number, more in legs]
    assert bench.services.usage.begin(*charges) is None
    live.attempt.pay(*charges)
    asking = consult(bench, live, "112", by=by)
    answered(asking)
    return live, asking, charges


def trips(bench: Bench) -> None:
    """A breaker trips that ends calls."""
    bench.services.breakers.refresh()
    bench.services.breakers.trip("system", "by hand", end_calls=True)
    bench.services.usage.accrue()


def test_consulting_an_emergency_number_spares_the_call_on_hold(with_emergency: Bench) -> None:
    """Its charges would end the leg that asks, too."""
    live, asking, charges = asks_112(with_emergency)
    trips(with_emergency)
    assert [charge.cut for charge in charges] == [None, None]
    assert all(charge.spared for charge in charges)
    told(with_emergency, live, asking, BACK)
    with_emergency.services.usage.accrue()
    assert [charge.cut for charge in charges] == [Refusal("breaker", "system")] * 2


def test_consulting_an_emergency_number_undoes_the_legs_timers(with_emergency: Bench) -> None:
    """They are of earlier calls. When the two are back, the call is as long as it may be."""
    asks_112(with_emergency, by="callee")
    heard = commands(with_emergency, "sched_del", "uuid_setvar_multi")
    assert heard[-2:] == [f"sched_del {B}", f"sched_del {UUID}"]
    assert heard[0].startswith(f"uuid_setvar_multi {UUID} esl_apps_limit=+86400\\sALLOTTED_TIMEOUT;")
    again = next(text for text in heard if text.startswith(f"uuid_setvar_multi {B} "))
    assert "!sched_hangup:+1 ALLOTTED_TIMEOUT!" in again.replace("\\s", " ")


@pytest.mark.parametrize(("to", "step", "timed"), [("112", BACK, [B]), ("112", JOINED, []), ("1001", BACK, [])])
def test_consulting_an_emergency_number_times_the_held_leg(
    with_emergency: Bench, to: str, step: str, timed: list[str]
) -> None:
    """Its own timer was cancelled, and the way back times only the leg that asked."""
    live = talking(with_emergency)
    asking = consult(with_emergency, live, to)
    answered(asking)
    told(with_emergency, live, asking, step)
    heard = commands(with_emergency, "sched_hangup")
    assert heard == [f"sched_hangup +1 {leg} ALLOTTED_TIMEOUT" for leg in timed]


def test_consulting_an_emergency_number_in_vain_spares_nothing(with_emergency: Bench) -> None:
    bench = with_emergency
    live = talking(bench)
    charge = Charge(live.attempt.call_ref, [bench.services.policy.system], None)
    assert bench.services.usage.begin(charge) is None
    live.attempt.pay(charge)
    bench.switch.answers["api uuid_dual_transfer"] = api_response("-ERR No such channel!\n")
    assert refusal(bench, live, "transfer", to="112", by="agent", mode="consult") == (409, "bridged")
    assert (live.attempt.asks_emergency, charge.spared) == (False, False)
    # The call may not go on for ever without its timers: no flow has it if it is followed.
    timed = [f"sched_hangup +1 {leg} ALLOTTED_TIMEOUT" for leg in (UUID, B)]
    assert commands(bench, "sched") == [f"sched_del {UUID}", f"sched_del {B}", *timed]


def test_consulting_party_joined_with_112_is_spared(with_emergency: Bench) -> None:
    bench = with_emergency
    live, asking, (_agent, customer) = asks_112(bench)
    trips(bench)

    def beat(_peer: Peer, _command: str) -> bytes:
        bench.services.usage.accrue()
        return api_response("+OK")

    bench.switch.answers = {
        f"api uuid_audio {T} stop": beat,
        f"api uuid_setvar_multi {B}": beat,
        **bench.switch.answers,
    }
    told(bench, live, asking, JOINED)
    new = bench.live[live.attempt.transferred_to or ""].attempt
    bench.services.usage.accrue()
    assert (new.charges, new.cut) == ([customer], None)
    # From the hold, and from the answer.
    assert commands(bench, "sched_del")[-2:] == [f"sched_del {B}", f"sched_del {T}"]


def test_consulting_party_that_asks_on_is_spared(with_emergency: Bench) -> None:
    """The customer on hold has left."""
    bench = with_emergency
    live, asking, (agent, _customer) = asks_112(bench)
    trips(bench)
    live.attempt.a_seconds = 300.0
    live.attempt.end(terms.ANSWERED, 16, terms.CALLEE, AT)
    bench.services.usage.accrue()
    (charge,) = asking.attempt.charges
    assert (charge.number, charge.cut, agent.ended) == (agent.number, None, True)


def test_consulting_emergency_call_goes_on_without_limits(with_emergency: Bench) -> None:
    """The emergency number is on hold while the agent asks a colleague, and is joined with them."""
    bench = with_emergency
    live = talking(bench, number="112", number_class="emergency")
    asking = consult(bench, live)
    answered(asking)
    assert f"uuid_setvar_multi {B} esl_apps_limit=+86400\\sALLOTTED_TIMEOUT;" in commands(bench)[0]
    told(bench, live, asking, JOINED)
    new = bench.live[live.attempt.transferred_to or ""].attempt
    trips(bench)
    assert (len(new.charges) > 0, new.cut) == (True, None)
    assert commands(bench, "sched_del") == [f"sched_del {B}", f"sched_del {T}"]


def test_consulting_call_without_legs_waits_for_its_consultation(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The switch has joined the other two, in the next call; the word of it is still on its way."""
    live = talking(bench)
    asking = consult(bench, live)
    answered(asking)
    looks: list[str] = []
    unheard = Consulting._over_unheard

    def look(self: Consulting, old: Attempt) -> Any:
        looks.append(old.call_ref)
        return unheard(self, old)

    monkeypatch.setattr(Consulting, "_over_unheard", look)
    monkeypatch.setattr(following, "_LISTED", 0.0)
    show_legs(bench.switch)
    live.poke()
    eventually(lambda: live.attempt.ended or len(looks) > 3)
    told(bench, live, asking, JOINED)
    assert (bench.record()["hung_up_by"], live.attempt.transferred_to is not None) == ("agent", True)


def test_consulting_end_while_redis_is_asked_keeps_its_status(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its legs have gone on in another call, so its follower asks whether another process has it."""
    live = talking(bench)
    consult(bench, live)
    has = bench.services.store.has

    def ends_meanwhile(ref: str) -> bool:
        is_here = has(ref)
        live.attempt.end(terms.ANSWERED, 16, terms.AGENT, AT)
        return is_here

    monkeypatch.setattr(bench.services.store, "has", ends_meanwhile)
    show_legs(bench.switch)
    live.poke()
    eventually(lambda: live.attempt.ended)
    gevent.sleep(0.05)
    bench.flush()
    kept = bench.services.store.call(live.attempt.call_ref)
    assert kept is not None
    assert kept["state"] == "ended"


# Unheard --------------------------------------------------------------------------------------------------


def test_consulting_leg_left_alone_is_hung_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consulting, "ALONE", 0.0)
    live = talking(bench)
    told(bench, live, consult(bench, live), BACK)
    for legs in (2, 1, 2, 1):
        bench.review(live, legs)
        assert commands(bench, "hupall") == []
    bench.review(live, 1)
    hung_up = f"hupall NORMAL_TEMPORARY_FAILURE esl_call_ref {live.attempt.call_ref}"
    assert commands(bench, "hupall") == [hung_up]


@pytest.mark.parametrize(("legs", "ended"), [(2, False), (1, True)])
def test_consulting_end_that_was_not_told_is_found_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, legs: int, ended: bool
) -> None:
    monkeypatch.setattr(consulting, "ALONE", 0.0)
    live = talking(bench)
    # As if the node that had it was another one, which has died.
    live.attempt.consultation, live.attempt.consults = "01a2004f-0618-7326-8e79-3050ef6dfc2c", "agent"
    live.attempt.held = True
    bench.review(live, legs)
    bench.review(live, legs)
    assert live.attempt.consultation is None
    assert (live.attempt.ended, live.attempt.held) == (ended, False)


@pytest.mark.parametrize(("step", "on"), [("resume", True), ("pause", False)])
def test_consulting_untold_join_is_recorded_if_both_were(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, step: str, on: bool
) -> None:
    monkeypatch.setattr(consulting, "ALONE", 0.0)
    monkeypatch.setattr(Consulting, "_over", lambda _self, _attempt: None)
    live = talking(bench, recording_url=f"{new_ref()}.wav")
    asking = consult(bench, live)
    answered(asking)
    asking.attempt.note(RECORD, step)
    order = transfer_app.consultation(asking.attempt)
    assert order is not None
    transfer_app.leave_to_each_other(asking.attempt, order, AT)
    bench.switch.answers[f"api uuid_getvar {B} bridge_uuid"] = api_response(T)
    bench.review(live, 1)
    bench.review(live, 1)
    assert live.attempt.transferred_to == order.next
    assert len(commands(bench, f"uuid_record {T} start")) == on


# The closing entry of a session ---------------------------------------------------------------------------


@pytest.fixture
def closing(build: Build) -> Bench:
    """A node whose integrator gets an entry for each session that has ended."""
    config = {"name": "acme", "listen": "127.0.0.1:8300", "token": "acme-token-for-tests", "session_records": True}
    return build(integrators=[config]).connect()


def closed(bench: Bench, records: int) -> int:
    """How many calls the only closing entry counts. ``records``: how many records there are, all before it."""
    pushed = bench.records()
    assert [("calls" in one) for one in pushed] == [False] * records + [True]
    return int(pushed[-1]["calls"])


def test_consulting_session_closes_with_its_last_call(closing: Bench) -> None:
    bench = closing
    live = talking(bench)
    asking = consult(bench, live)
    answered(asking)
    asked = transfer_app.consultation(asking.attempt)
    assert asked is not None
    transfer_app.leave_to_each_other(asking.attempt, asked, AT)
    eventually(lambda: live.attempt.ended)
    bench.services.calls.live[asked.next].attempt.end(terms.ANSWERED, 16, terms.AGENT, AT)
    assert closed(bench, 3) == 3


def test_consulting_session_closes_with_the_call_that_goes_on(closing: Bench) -> None:
    bench = closing
    live = talking(bench)
    asking = consult(bench, live)
    transfer_app.note(asking.attempt, back=True)
    asking.attempt.end("callee_busy", 17, terms.CALLEE, AT)
    eventually(lambda: live.attempt.consultation is None)
    live.attempt.end(terms.ANSWERED, 16, terms.AGENT, AT)
    assert closed(bench, 2) == 2


def test_consulting_session_closes_without_the_party_on_hold(closing: Bench) -> None:
    bench = closing
    live = talking(bench)
    asking = consult(bench, live)
    live.attempt.end(terms.ANSWERED, 16, terms.CALLEE, AT)
    asking.attempt.end(terms.ANSWERED, 16, terms.CALLEE, AT)
    assert closed(bench, 2) == 2


def test_transferring_session_closes_with_the_new_call(closing: Bench) -> None:
    bench = closing
    live = talking(bench)
    state = act(bench, live, "transfer", to="1001", by="agent")
    assert isinstance(state.transfer_ref, str)
    bench.services.calls.live[state.transfer_ref].attempt.end(terms.ANSWERED, 16, terms.AGENT, AT)
    assert closed(bench, 2) == 2


@pytest.mark.parametrize("first", ["the consultation", "the call on hold"])
def test_consulting_session_closes_when_both_end_at_once(closing: Bench, first: str) -> None:
    """As when their switch is killed."""
    live = talking(closing)
    both = [consult(closing, live).attempt, live.attempt]
    for attempt in both if first == "the consultation" else reversed(both):
        attempt.end(terms.LOST, 31, terms.SYSTEM, AT)
    assert closed(closing, 2) == 2


@pytest.mark.parametrize("mode", ["blind", "consult"])
def test_consulting_session_closes_if_the_call_ends_as_it_begins(closing: Bench, mode: str) -> None:
    """The switch doesn't move the leg, because both parties have hung up."""
    bench = closing
    live = talking(bench)

    def gone(_peer: Peer, _command: str) -> bytes:
        live.attempt.end(terms.ANSWERED, 16, terms.AGENT, AT)
        return api_response("-ERR No such channel!\n")

    bench.switch.answers["api uuid_setvar_multi"] = gone
    assert refusal(bench, live, "transfer", to="1001", by="agent", mode=mode)[0] == 409
    eventually(lambda: not bench.services.calls.live)
    # The record of a transferred call names the next one, which then has a record, too.
    count = 2 if mode == "blind" else 1
    assert closed(bench, count) == count


def test_transferring_session_counts_a_call_that_ended_first(closing: Bench) -> None:
    """The party that stays hangs up before its new call has heard how the old one ended."""
    bench = closing
    live = talking(bench)

    def moved(_peer: Peer, _command: str) -> bytes:
        new = bench.services.calls.live[live.attempt.transferred_to or ""]
        new.attempt.end(terms.ABANDONED, 16, terms.AGENT, AT)
        return api_response("+OK\n")

    bench.switch.answers["api uuid_transfer"] = moved
    act(bench, live, "transfer", to="1001", by="agent")
    assert closed(bench, 2) == 2


@pytest.mark.parametrize("first", ["the consultation", "the call on hold"])
def test_consulting_two_who_went_on_and_hung_up_are_found(build: Build, first: str) -> None:
    """The asking party hung up as the node died, before Redis had the call of the other two. Only the switch's files
    tell of it."""
    config = {"name": "acme", "listen": "127.0.0.1:8300", "token": "acme-token-for-tests", "session_records": True}
    dead = build(integrators=[config]).connect()
    live = talking(dead)
    asking = consult(dead, live)
    answered(asking)
    asked = transfer_app.consultation(asking.attempt)
    assert asked is not None
    asking.attempt.gateway = "10.0.0.1"
    ref, calls = live.attempt.call_ref, [asking.essence, live.essence]
    dead.die()
    heir = build(name="app2", known=dead.switches, integrators=[config]).connect()
    show_legs(heir.switch)
    bye: dict[str, Any] = {"sip_hangup_disposition": "recv_bye"}
    write_cdr(heir, UUID, ref=asking.attempt.call_ref, answered=1, **bye)
    write_cdr(heir, T, ref=asked.next, answered=2, esl_bleg=ref, last_bridge_to=B)
    write_cdr(heir, B, ref=asked.next, answered=1, esl_bleg=asking.attempt.call_ref, last_bridge_to=T, **bye)
    leave_behind(heir, *(calls if first == "the consultation" else reversed(calls)))
    heir.adoption.beat()
    eventually(lambda: not heir.live)
    *records, closing = heir.records()
    assert closing["calls"] == 3
    reasons = {one["call_ref"]: one["end_reason"] for one in records}
    assert reasons == dict.fromkeys((ref, asking.attempt.call_ref, asked.next), "answered")
    kept = heir.services.store.call(ref)
    assert kept is not None
    assert kept["record"]["transferred_to"] == asked.next
    went_on = heir.services.store.call(asked.next)
    assert went_on is not None
    assert went_on["gateway"] == "10.0.0.1"


# On two nodes --------------------------------------------------------------------------------------------


@pytest.fixture
def split(build: Build) -> Callable[..., tuple[Bench, Live, Bench, Live]]:
    """Make a consultation whose node dies, and whose two calls go to two other nodes: each with its call."""

    def split(**sections: Any) -> tuple[Bench, Live, Bench, Live]:
        config = {"name": "acme", "listen": "127.0.0.1:8300", "token": "acme-token-for-tests", "session_records": True}
        first = build(integrators=[config], **sections).connect()
        live = talking(first)
        asking = consult(first, live, "0820005678")
        answered(asking)
        taken = []
        for name, call in (("app2", live), ("app3", asking)):
            node = build(name=name, known=first.switches, integrators=[config], **sections).connect()
            adopted = node.services.calls.adopt(call.essence, node.services.switches[0])
            node.services.charging.resume(adopted.attempt)
            taken.append((node, adopted))
        first.die()
        (holds, held), (asks, asked) = taken
        return holds, held, asks, asked

    return split


@pytest.mark.parametrize("first", ["the consultation", "the call on hold"])
def test_consulting_session_of_two_nodes_counts_both_calls(split: Any, first: str) -> None:
    holds, held, asks, asking = split()
    both = [asking.attempt, held.attempt]
    for attempt in both if first == "the consultation" else reversed(both):
        attempt.end(terms.ANSWERED, 16, terms.CALLEE, AT)
    pushed = [*holds.records(), *asks.records()]
    (closing,) = [one for one in pushed if "calls" in one]
    assert (closing["session_ref"], closing["calls"]) == (held.attempt.call_ref, 2)


def test_consulting_party_is_paid_for_on_the_node_that_goes_on(split: Any) -> None:
    limited = {"limits": {"calls_per_day": 10, "minutes_per_day": 100}}
    holds, held, _asks, asking = split(spending=limited)
    told(holds, held, asking, JOINED)
    new = holds.services.calls.live[held.attempt.transferred_to or ""]
    (charge,) = new.attempt.charges
    assert charge.essence["number"] == "0820005678"
    assert charge.since is not None


def test_consulting_party_on_hold_who_leaves_is_told_of(split: Any) -> None:
    """The consultation is another node's, and would join the new party with one who has left."""
    holds, held, asks, asking = split()
    holds.flush()
    asks.flush()
    held.attempt.end(terms.ANSWERED, 16, terms.CALLEE, AT)
    pass_on(holds.switch, ACTION)
    pass_on(holds.switch, OUTCOME)
    eventually(lambda: (asking.attempt.order or {})["held"] == "")
    eventually(lambda: f"uuid_setvar {T} transfer_after_bridge" in commands(asks))
    assert not asking.attempt.ended
