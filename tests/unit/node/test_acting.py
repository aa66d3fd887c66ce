"""Actions on a live call: on this node's, on another node's, and on one that can't have them now."""

from __future__ import annotations

from typing import Any

import gevent
import msgspec
import pytest

from esl_apps.apps import inbound, rung_agents
from esl_apps.core import terms
from esl_apps.core.actions import Action, Outcome, Undone
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Leg
from esl_apps.core.reference import new_ref
from esl_apps.core.status import snapshot
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.esl.answers import SwitchUnavailable
from esl_apps.node import acting
from esl_apps.node.acting import ACTION, OUTCOME
from esl_apps.node.live import Live
from esl_apps.testing import PLAN
from tests.support.bench import Bench, Build, pass_on, placed
from tests.support.call_switch import AT, B
from tests.support.peer import UUID, api_response, event, eventually

HELD = f"sendmsg {B}"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stalled machine isn't a node that is gone."""
    monkeypatch.setattr(acting, "_TOLD", 30.0)


def begin(bench: Bench, **fields: Any) -> Live:
    """A call whose agent is A and whose customer is B."""
    attempt = Attempt(app="click-dial", call_dir="outbound", integrator="acme", **fields)
    return bench.services.calls.begin(attempt, bench.services.switches[0])


def talking(bench: Bench, **fields: Any) -> Live:
    live = begin(bench, aleg_uuid=UUID, bleg_uuid=B, **fields)
    live.attempt.enter(terms.BRIDGED, AT)
    return live


def act(bench: Bench, live: Live, name: str, **parts: Any) -> Any:
    attempt = live.attempt
    call = {"call_ref": attempt.call_ref, "switch": "fs1", "state": attempt.state}
    return bench.services.acting.act(call, Action(name, **parts))


def heard(bench: Bench, *starts: str) -> list[str]:
    """What the switch was told, of the commands that begin like this."""
    bench.services.switches[0].api("status")
    return [text for text in bench.switch.heard if text.startswith(starts)]


def commands(bench: Bench) -> list[str]:
    wanted = ("api uuid_audio", "api uuid_break", "api uuid_record", "api uuid_send_dtmf", "api uuid_setvar")
    return [text.removeprefix("api ") for text in heard(bench, *wanted)]


def refusal(bench: Bench, live: Live, name: str, **parts: str) -> tuple[int, str, str]:
    with pytest.raises(Undone) as error:
        act(bench, live, name, **parts)
    return error.value.status, error.value.code, error.value.state


# What the switch is told ---------------------------------------------------------------------------------


def test_acting_hold_plays_music_to_the_customer_once(bench: Bench) -> None:
    live = talking(bench)
    assert act(bench, live, "hold").held
    assert act(bench, live, "hold").held
    (told,) = heard(bench, "sendmsg")
    assert told.split("\n") == [
        HELD,
        "call-command: execute",
        "execute-app-name: playback",
        "Event-UUID: 0",
        "loops: -1",
        "content-type: text/plain",
        "content-length: 49",
        "",
        "file_string://${hold_music}!silence_stream://1000",
    ]


def test_acting_hold_of_an_inbound_call_is_the_callers(bench: Bench) -> None:
    live = talking(bench)
    live.attempt.app = "inbound"
    act(bench, live, "hold")
    assert heard(bench, "sendmsg")[0].startswith(f"sendmsg {UUID}\n")


def test_acting_hold_music_is_the_configurations(build: Build) -> None:
    bench = build(dial={"hold_music": "local_stream://jazz"}).connect()
    act(bench, talking(bench), "hold")
    assert heard(bench, "sendmsg")[0].endswith("\n\nfile_string://local_stream://jazz!silence_stream://1000")


def test_acting_resume_breaks_the_music_once(bench: Bench) -> None:
    live = talking(bench)
    act(bench, live, "hold")
    assert not act(bench, live, "resume").held
    assert not act(bench, live, "resume").held
    assert commands(bench) == [f"uuid_setvar {B} playback_terminators none", f"uuid_break {B} all"]


def test_acting_mute_silences_the_partys_own_leg(bench: Bench) -> None:
    live = talking(bench)
    act(bench, live, "mute", party="agent")
    assert act(bench, live, "mute", party="callee").muted == ["agent", "callee"]
    assert act(bench, live, "unmute", party="agent").muted == ["callee"]
    assert act(bench, live, "unmute", party="agent").muted == ["callee"]
    assert commands(bench) == [
        f"uuid_audio {UUID} start read mute 1",
        f"uuid_audio {B} start read mute 1",
        f"uuid_audio {UUID} stop",
    ]


def test_acting_undoes_what_a_dead_node_has_not_saved(bench: Bench) -> None:
    """It answered the action, and died before it wrote the call."""
    live = talking(bench, **NOTICED)
    live.adopted = True
    act(bench, live, "unmute", party="agent")
    act(bench, live, "resume")
    assert act(bench, live, "record", step="resume").recording == "on"
    assert commands(bench) == [
        f"uuid_audio {UUID} stop",
        f"uuid_break {B} all",
        f"uuid_record {B} unmask {bench.services.acting.recording(live.attempt)}",
    ]
    assert [moment.what for moment in live.attempt.timeline] == ["queued", "bridged"]


def test_acting_digits_reach_one_party_and_no_log(bench: Bench) -> None:
    live = talking(bench)
    act(bench, live, "digits", party="callee", digits="12#")
    assert commands(bench) == [f"uuid_send_dtmf {B} 12#"]
    assert "12#" not in str(live.attempt.timeline)


def test_acting_record_pauses_with_silence_and_goes_on(bench: Bench) -> None:
    live = talking(bench, recording_url="01900000-0000-7000-8000-000000000000.wav")
    states = [act(bench, live, "record", step=step).recording for step in ("pause", "pause", "resume", "stop", "stop")]
    assert states == ["paused", "paused", "on", "off", "off"]
    path = f"{bench.folder}/recordings/acme/20240610/01900000-0000-7000-8000-000000000000.wav"
    assert commands(bench) == [f"uuid_record {B} {verb} {path}" for verb in ("mask", "unmask", "stop")]


def test_acting_record_start_names_a_file_and_appends(bench: Bench) -> None:
    live = talking(bench)
    assert act(bench, live, "record", step="start").recording == "on"
    assert live.attempt.recording_url == f"{live.attempt.call_ref}.wav"
    settings, start = commands(bench)
    assert settings.startswith(f"uuid_setvar_multi {B} ")
    assert "RECORD_APPEND=true" in settings
    assert start.startswith(f"uuid_record {B} start /")


@pytest.mark.parametrize(
    ("fields", "leg", "swap"),
    [
        ({}, B, "true"),
        ({"app": "inbound"}, UUID, "true"),
        ({"app": "transfer", "transferred_from": new_ref(), "order": {"second_party": "callee"}}, B, "true"),
        ({"app": "transfer", "transferred_from": new_ref(), "order": {"second_party": "agent"}}, B, "false"),
    ],
)
def test_acting_record_start_has_the_agent_left(bench: Bench, fields: dict[str, Any], leg: str, swap: str) -> None:
    live = talking(bench)
    live.attempt.set(fields)
    act(bench, live, "record", step="start")
    settings, _start = commands(bench)
    assert settings.startswith(f"uuid_setvar_multi {leg} ")
    assert f"RECORD_STEREO_SWAP={swap}" in settings


def test_acting_record_start_needs_the_integrators_leave(bench: Bench) -> None:
    live = talking(bench)
    live.attempt.integrator = "another"
    assert refusal(bench, live, "record", step="start") == (409, "state", "bridged")
    assert commands(bench) == []


@pytest.mark.parametrize("step", ["pause", "resume"])
def test_acting_record_of_a_call_without_one_is_409(bench: Bench, step: str) -> None:
    assert refusal(bench, talking(bench), "record", step=step) == (409, "state", "bridged")


# Not now --------------------------------------------------------------------------------------------------


GETVAR = "api uuid_getvar"
NOTICED = {"recording_url": "01900000-0000-7000-8000-000000000000.wav", "recording": "on"}


def noticed(build: Build) -> Bench:
    """A node whose recordings begin with a notice."""
    return build(recordings={"notice": "recording_notice"}).connect()


def playing(bench: Bench, data: str | None = None) -> None:
    """Have the customer's leg play this file; by default, the notice."""
    notice = bench.services.policy.settings.notice
    assert notice is not None
    bench.switch.answers[GETVAR] = api_response(notice if data is None else data)


@pytest.mark.parametrize(
    ("name", "parts"), [("record", {"step": "pause"}), ("transfer", {"to": "1001", "by": "agent", "mode": "blind"})]
)
def test_acting_during_a_long_notice_is_409(
    build: Build, monkeypatch: pytest.MonkeyPatch, name: str, parts: dict[str, str]
) -> None:
    monkeypatch.setattr(acting, "_NOTICE", 0.0)
    bench = noticed(build)
    live = talking(bench, **NOTICED)
    playing(bench)
    with pytest.raises(Undone, match="the recording notice is being played") as error:
        act(bench, live, name, **parts)
    assert (error.value.status, error.value.state) == (409, "bridged")
    assert live.attempt.recording == "on"


def test_acting_pauses_a_recording_once_the_notice_is_over(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting, "_NOTICE", 30.0)
    monkeypatch.setattr(acting, "_LOOK", 0.005)
    bench = noticed(build)
    live = talking(bench, **NOTICED)
    playing(bench)
    asked = gevent.spawn(act, bench, live, "record", step="pause")
    eventually(lambda: len(heard(bench, GETVAR)) > 2)
    assert commands(bench) == []
    playing(bench, "/var/lib/recordings/one.wav")
    assert asked.get(timeout=10).recording == "paused"
    assert heard(bench, GETVAR)[-1] == f"{GETVAR} {B} current_application_data"


def test_acting_asks_for_no_notice_where_there_is_none(bench: Bench) -> None:
    act(bench, talking(bench, **NOTICED), "record", step="pause")
    assert heard(bench, GETVAR) == []


def test_acting_before_the_two_are_connected_is_409(bench: Bench) -> None:
    live = begin(bench, aleg_uuid=UUID)
    live.attempt.enter(terms.AGENT_ANSWERED, AT)
    assert refusal(bench, live, "hold") == (409, "state", "agent_answered")
    assert heard(bench, "sendmsg") == []


def test_acting_on_a_leg_that_ends_is_409(bench: Bench) -> None:
    bench.switch.answers["api uuid_audio"] = api_response("-ERR No such channel!\n")
    live = talking(bench)
    assert refusal(bench, live, "mute", party="agent") == (409, "state", "bridged")
    assert live.attempt.muted == []


def test_acting_on_a_switch_away_is_503(bench: Bench) -> None:
    live = talking(bench)
    bench.switch.drop()
    eventually(lambda: not bench.services.switches[0].connected)
    assert refusal(bench, live, "hold") == (503, "unavailable", "")
    assert not live.attempt.held


def test_acting_that_the_switch_does_not_confirm_is_unknown(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    live = talking(bench)

    def lose(_command: str) -> str:
        raise SwitchUnavailable("no reply")

    monkeypatch.setattr(live.switch, "api", lose)
    assert refusal(bench, live, "digits", party="callee", digits="12") == (503, "unknown", "")


def test_acting_on_an_ended_call_is_409(bench: Bench) -> None:
    with pytest.raises(Undone) as error:
        bench.services.acting.act({"call_ref": "r-1", "switch": "fs1", "state": "ended"}, Action("hold"))
    assert (error.value.status, error.value.state) == (409, "ended")


def test_acting_on_a_call_of_an_unknown_switch_is_503(bench: Bench) -> None:
    with pytest.raises(Undone) as error:
        bench.services.acting.act({"call_ref": "r-1", "switch": "fs9", "state": "bridged"}, Action("hold"))
    assert error.value.status == 503


# Another node ---------------------------------------------------------------------------------------------


def test_acting_reaches_a_call_of_another_node(build: Build) -> None:
    first = build().connect()
    second = build(name="app3", known=first.switches).connect()
    live = talking(first)
    asked = gevent.spawn(act, second, live, "mute", party="callee")
    pass_on(first.switch, ACTION)
    pass_on(first.switch, OUTCOME)
    assert asked.get(timeout=10).muted == ["callee"]
    assert live.attempt.muted == ["callee"]


def test_acting_on_a_call_that_two_nodes_have_is_done_once(build: Build) -> None:
    """A node that was stopped is back, and the one that adopted its call hasn't heard of that yet."""
    first = build().connect()
    second = build(name="app3", known=first.switches).connect()
    third = build(name="app4", known=first.switches).connect()
    live = talking(first)
    talking(second, call_ref=live.attempt.call_ref)
    asked = gevent.spawn(act, third, live, "digits", party="callee", digits="12")
    pass_on(first.switch, ACTION)
    pass_on(first.switch, OUTCOME)
    asked.get(timeout=10)
    gevent.sleep(0.05)
    assert commands(first) == [f"uuid_send_dtmf {B} 12"]


def test_acting_without_redis_is_done_all_the_same(build: Build) -> None:
    first = build().connect()
    second = build(name="app3", known=first.switches).connect()
    live = talking(first)
    first.redis.break_after()
    asked = gevent.spawn(act, second, live, "mute", party="callee")
    pass_on(first.switch, ACTION)
    pass_on(first.switch, OUTCOME)
    assert asked.get(timeout=10).muted == ["callee"]


def test_acting_refusal_of_another_node_keeps_its_words(build: Build) -> None:
    first = build().connect()
    second = build(name="app3", known=first.switches).connect()
    live = begin(first)
    asked = gevent.spawn(refusal, second, live, "hold")
    pass_on(first.switch, ACTION)
    pass_on(first.switch, OUTCOME)
    assert asked.get(timeout=10) == (409, "state", "queued")


def test_acting_another_node_that_is_gone_is_503(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting, "_TOLD", 0.02)
    first = build().connect()
    second = build(name="app3", known=first.switches).connect()
    live = talking(first)
    assert refusal(second, live, "hold") == (503, "unavailable", "")
    # It is back, and too late.
    pass_on(first.switch, ACTION)
    gevent.sleep(0.05)
    assert not live.attempt.held
    # If Redis is away, it may have begun.
    second.redis.break_after()
    assert refusal(second, live, "hold") == (503, "unknown", "")


def test_acting_forged_event_does_nothing(bench: Bench) -> None:
    live = talking(bench)
    ref = {"variable_esl_call_ref": live.attempt.call_ref}
    unknown = msgspec.json.encode(Action("explode")).hex()
    for headers in ({}, {"esl_action": "zz"}, {"esl_action": b"[]".hex()}, {"esl_action": unknown}):
        bench.switch.say(event("CUSTOM", {"Event-Subclass": ACTION, **ref, **headers}))
    done = msgspec.json.encode(Outcome()).hex()
    bench.switch.say(event("CUSTOM", {"Event-Subclass": OUTCOME, "esl_question": "x", "esl_outcome": done}))
    assert act(bench, live, "hold").held
    assert not live.attempt.ended


# Cancels --------------------------------------------------------------------------------------------------


def test_acting_cancel_reaches_a_call_of_another_node(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting, "_TOLD", 0.02)
    first = build().connect()
    second = build(name="app3", known=first.switches).connect()
    order = placed(integrator="acme")
    first.outgoing.place(order)
    eventually(first.originates)
    ref = order.attempt.call_ref
    second.services.acting.cancel({"call_ref": ref, "switch": "fs1"})
    pass_on(first.switch, ACTION)
    eventually(lambda: order.attempt.cancelled_by == "api")
    # Had that node died, the other one would hang the legs up.
    eventually(lambda: f"api hupall NORMAL_CLEARING esl_call_ref {ref}" in first.switch.heard)


def ringing(bench: Bench, *agents: str) -> Live:
    attempt = Attempt(app="inbound", call_dir="inbound", integrator="acme", extension=agents[0])
    rung_agents.ask(attempt, [PLAN.read(agent) for agent in agents])
    attempt.ring(list(agents), AT)
    return bench.services.calls.begin(attempt, bench.services.switches[0])


def cancel_for(bench: Bench, call: dict[str, Any], agent: str) -> str:
    """Cancel a call by an agent's token. Return the refusal."""
    try:
        bench.services.acting.cancel(call, agent)
    except Undone as undone:
        return f"{undone.status} {undone.code}"
    return ""


def test_acting_cancel_for_an_agent_is_checked_by_its_node(build: Build) -> None:
    """The snapshot of the node that is asked is from before another agent's answer."""
    first = build().connect()
    second = build(name="app3", known=first.switches).connect()
    live = ringing(first, "1000", "1001")
    call = {**snapshot(live.attempt), "switch": "fs1"}
    inbound.agent_answered(live.attempt, AT, Leg(B, user="1001"), lambda *_: None)
    asked = gevent.spawn(cancel_for, second, call, "1000")
    pass_on(first.switch, ACTION)
    pass_on(first.switch, OUTCOME)
    assert asked.get(timeout=10) == "403 agent"
    assert live.attempt.cancelled_by is None


@pytest.mark.parametrize(("agents", "refused"), [(("1000",), ""), (("1000", "1001"), "403 agent")])
def test_acting_cancel_for_an_agent_whose_phone_rings(bench: Bench, agents: tuple[str, ...], refused: str) -> None:
    live = ringing(bench, *agents)
    assert cancel_for(bench, snapshot(live.attempt), "1000") == refused
    assert (live.attempt.cancelled_by is None) == bool(refused)


def test_acting_for_an_agent_who_is_not_in_the_call_is_403(bench: Bench) -> None:
    live = talking(bench, extension="1001")
    assert refusal(bench, live, "hold", agent="1000") == (403, "agent", "")
    assert commands(bench) == []
    assert act(bench, live, "hold", agent="1001").held


def test_acting_cancel_is_told_again_before_the_hang_up(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first word was lost with the connection of the call's node."""
    monkeypatch.setattr(acting, "_TOLD", 0.02)
    bench = build().connect()
    bench.services.acting.cancel({"call_ref": "r-1", "switch": "fs1"})
    eventually(lambda: "api hupall NORMAL_CLEARING esl_call_ref r-1" in bench.switch.heard)
    words = ["hupall" if "hupall" in text else "told" for text in bench.switch.heard if "r-1" in text]
    assert words == ["told", "told", "hupall"]


def test_acting_cancel_of_an_adopted_call_is_told_to_others(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its leg has answered, and another node takes it over at this moment."""
    monkeypatch.setattr(acting, "_TOLD", 0.02)
    live = begin(bench)
    live.adopted = True
    ref = live.attempt.call_ref
    bench.services.acting.cancel({"call_ref": ref, "switch": "fs1"})
    eventually(lambda: f"api hupall NORMAL_CLEARING esl_call_ref {ref}" in bench.switch.heard)
    orders = [text.split()[0] for text in bench.switch.heard if ref in text and ("hupall" in text or ACTION in text)]
    assert orders[0] == "sendevent"


def test_acting_cancel_takes_its_own_call_first(bench: Bench) -> None:
    live = begin(bench)
    bench.services.acting.cancel({"call_ref": live.attempt.call_ref, "switch": "fs1"})
    assert live.attempt.cancelled_by == "api"
    assert not any(ACTION in text and "sendevent" in text for text in bench.switch.heard)


def test_acting_cancel_on_an_unknown_switch_reaches_its_node(build: Build) -> None:
    """A node doesn't need to know all switches."""
    first = build().connect()
    second = build(name="app3", switches=("fs2",)).connect()
    live = begin(first)
    second.services.acting.cancel({"call_ref": live.attempt.call_ref, "switch": "fs1"})
    first.adoption.beat()
    assert live.attempt.cancelled_by == "api"
    eventually(lambda: any("api hupall" in text for text in first.switch.heard))
    assert heard(second, "api hupall") == []


def test_acting_cancel_on_a_switch_away_reaches_its_node(build: Build) -> None:
    """The node's own connection to the switch is lost, and the other node's isn't."""
    first = build().connect()
    second = build(name="app3", known=first.switches)
    live = begin(first)
    second.services.acting.cancel({"call_ref": live.attempt.call_ref, "switch": "fs1"})
    first.adoption.beat()
    assert live.attempt.cancelled_by == "api"


def test_acting_cancel_out_of_reach_without_redis_is_said(bench: Bench) -> None:
    bench.redis.break_after()
    with pytest.raises(StoreUnavailable):
        bench.services.acting.cancel({"call_ref": "r-1", "switch": "fs9"})
