"""Click-to-dial by script: both ways in, each outcome, and its record."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from esl_apps.apps import click2dial
from esl_apps.apps.context import Arrival, NotServed
from esl_apps.apps.legs import notice_variables, recording_variables
from esl_apps.apps.ringing import Rang, ring_aleg
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Bridged, Leg
from esl_apps.core.charges import Charge
from esl_apps.core.limits import Refusal
from esl_apps.core.order import IntegratorRules
from esl_apps.core.record import Record
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.testing import (
    PLAN,
    SETTINGS,
    Purse,
    ScriptedCall,
    ScriptedPolicy,
    caller_leaves,
    ended,
    fails,
    host,
    socket_lost,
    talks,
)

CLIENT = IntegratorRules("acme", PLAN, agent_timeout=30, callee_timeout=60, record=True)
FIELDS = {"agent": "1000", "callee": "0820001234", "outbound_id": "27115550000", "contact_ref": "lead-7"}
POLICY = ScriptedPolicy(clients={"acme": CLIENT})
GATEWAYS = ["sofia/gateway/pstn/0820001234", "sofia/gateway/spare/0820001234"]


def run(
    call: ScriptedCall, *, client: IntegratorRules = CLIENT, policy: ScriptedPolicy | None = None, **fields: str
) -> Attempt:
    """Run a call whose agent has answered."""
    order = client.read({**FIELDS, **fields})
    click = click2dial.new_call(order, client, SETTINGS)
    click.attempt.dialled(1000.0)
    click.answered(call, policy or replace(POLICY, clients={"acme": client}), host([]))
    return click.attempt


def record(attempt: Attempt) -> Record:
    assert attempt.record is not None
    return attempt.record


def told(attempt: Attempt) -> tuple[str, int, str]:
    made = record(attempt)
    return made.end_reason, made.end_code, made.hung_up_by


def bleg(disposition: str | None = None, q850: int | None = 16, answered_at: float | None = 1005.0) -> Leg:
    return Leg("B", answered_at=answered_at, ended_at=1010.0, q850=q850, disposition=disposition)


# Joined --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a_by", "b_by", "who"),
    [
        ("recv_bye", "send_bye", "agent"),
        ("send_bye", "recv_bye", "callee"),
        ("send_bye", "send_bye", "system"),
        (None, None, "system"),
    ],
)
def test_hung_up_by_is_the_party_that_sent_the_bye(a_by: str | None, b_by: str | None, who: str) -> None:
    call = ScriptedCall([talks()], ended(a_by=a_by, b=bleg(b_by)))
    assert told(run(call)) == ("answered", 16, who)


def test_answered_call_has_its_times_and_its_recording() -> None:
    attempt = run(ScriptedCall([talks()], ended(b=bleg("recv_bye"), hold=2.4)))
    made = record(attempt)
    assert (made.answered_at, made.bridged_at, made.ended_at) == (1002.0, 1005.0, 1010.0)
    assert (made.call_time, made.hold_time) == (10, 2)
    assert made.recording_url == f"{attempt.call_ref}.wav"
    states = ["agent_answered", "callee_ringing", "bridged", "ended"]
    assert [moment.what for moment in attempt.timeline if moment.what in states] == states


def test_code_of_an_answered_call_is_the_callees() -> None:
    assert told(run(ScriptedCall([talks()], ended(b=bleg(q850=102))))) == ("answered", 102, "system")


def test_callees_leg_carries_the_call() -> None:
    call = ScriptedCall([talks()], ended(b=bleg()))
    attempt = run(call)
    ((leg, endpoints, timeout, longest),) = call.did("bridge")
    assert endpoints == [(GATEWAYS[0], None)]
    assert timeout == pytest.approx(60, abs=0.5)
    assert longest == CLIENT.longest
    assert leg["esl_app"] == "click-dial"
    assert leg["esl_call_ref"] == leg["esl_bleg"] == attempt.call_ref
    assert leg["esl_contact_ref"] == "lead-7"
    assert leg["esl_account_id"] == "acme"
    assert leg["esl_user_id"] == "1000"
    assert leg["origination_caller_id_number"] == leg["origination_caller_id_name"] == "27115550000"
    assert leg["outbound_redirect_fatal"] == leg["media_mix_inbound_outbound_codecs"] == "true"
    assert leg["ignore_early_media"] == "false"
    assert leg["RECORD_STEREO"] == leg["RECORD_STEREO_SWAP"] == "true"
    assert leg["execute_on_answer"].startswith("record_session:/recordings/acme/")
    assert leg["execute_on_answer"].endswith(f"/{attempt.call_ref}.wav")


@pytest.mark.parametrize(("rate", "variable"), [(16000, "16000"), (None, None)])
def test_recording_has_the_configured_rate(rate: int | None, variable: str | None) -> None:
    call = ScriptedCall([talks()], ended(b=bleg()))
    settings = replace(SETTINGS, recording_rate=rate)
    run(call, policy=replace(POLICY, settings=settings, clients={"acme": CLIENT}))
    assert call.did("bridge")[0][0].get("record_sample_rate") == variable


def test_nothing_is_recorded_unless_the_integrator_records() -> None:
    call = ScriptedCall([talks()], ended(b=bleg()))
    made = record(run(call, client=IntegratorRules("acme", PLAN)))
    assert made.recording_url is None
    leg = dict(call.did("bridge")[0][0])
    assert leg.pop("sip_disable_recording") == "true"
    assert not [name for name, value in leg.items() if "record" in f"{name}={value}".lower()]


# B does not answer ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cause", "reason", "code"),
    [
        ("USER_BUSY", "callee_busy", 17),
        ("NO_USER_RESPONSE", "callee_no_answer", 18),
        ("RECOVERY_ON_TIMER_EXPIRE", "callee_no_answer", 102),
        ("CALL_REJECTED", "callee_failed", 21),
        ("UNALLOCATED_NUMBER", "callee_failed", 1),
        ("NUMBER_CHANGED", "callee_failed", 22),
        ("USER_NOT_REGISTERED", "callee_failed", 20),
        ("INCOMPATIBLE_DESTINATION", "callee_failed", 88),
    ],
)
def test_callee_that_refuses(cause: str, reason: str, code: int) -> None:
    call = ScriptedCall([fails(cause)], ended(a_by="send_bye"))
    attempt = run(call)
    assert told(attempt) == (reason, code, "callee")
    assert record(attempt).recording_url is None
    assert call.did("hangup") == [("NORMAL_CLEARING",)]


def test_callee_that_does_not_answer_is_ended_by_the_system() -> None:
    attempt = run(ScriptedCall([fails("NO_ANSWER", timed_out=True)], ended(a_by="send_bye")))
    assert told(attempt) == ("callee_no_answer", 19, "system")


@pytest.mark.parametrize(
    "cause",
    [
        "NORMAL_CIRCUIT_CONGESTION",
        "NETWORK_OUT_OF_ORDER",
        "NORMAL_TEMPORARY_FAILURE",
        "SWITCH_CONGESTION",
        "REQUESTED_CHAN_UNAVAIL",
    ],
)
def test_next_gateway_is_tried_when_one_fails(cause: str) -> None:
    call = ScriptedCall([fails(cause), talks()], ended(a_by="recv_bye", b=bleg()))
    assert told(run(call)) == ("answered", 16, "agent")
    assert [endpoints for _leg, endpoints, *_ in call.did("bridge")] == [[(text, None)] for text in GATEWAYS]


@pytest.mark.parametrize("cause", ["UNALLOCATED_NUMBER", "USER_BUSY", "CALL_REJECTED", "NO_ANSWER", "NORMAL_CLEARING"])
def test_next_gateway_is_not_tried_when_the_callee_failed(cause: str) -> None:
    call = ScriptedCall([fails(cause)], ended(a_by="send_bye"))
    run(call)
    assert len(call.did("bridge")) == 1


def test_one_time_out_over_all_gateways(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def slow(progress: Any) -> Any:
        now[0] += 59
        return fails("NETWORK_OUT_OF_ORDER")(progress)

    call = ScriptedCall([slow, talks()], ended(b=bleg()))
    run(call)
    assert [timeout for _leg, _endpoints, timeout, _longest in call.did("bridge")] == [60, 1]


def test_no_gateway_is_tried_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def slow(progress: Any) -> Any:
        now[0] += 61
        return fails("NETWORK_OUT_OF_ORDER")(progress)

    call = ScriptedCall([slow], ended(a_by="send_bye"))
    assert told(run(call)) == ("callee_failed", 38, "callee")


def patient(seconds: float) -> ScriptedPolicy:
    """The policy with a ``gateway_timeout``."""
    endpoints = replace(SETTINGS.endpoints, silence=seconds)
    return replace(POLICY, settings=replace(SETTINGS, endpoints=endpoints))


def test_silence_of_each_gateway_but_the_last_is_bounded() -> None:
    """The last one may only be slow, and there is nothing else to try."""
    call = ScriptedCall([fails("PROGRESS_TIMEOUT"), fails("USER_BUSY")], ended(a_by="send_bye"))
    attempt = run(call, policy=patient(5))
    assert [leg.get("leg_progress_timeout") for leg, *_ in call.did("bridge")] == ["5", None]
    assert told(attempt) == ("callee_busy", 17, "callee")
    assert [moment.detail for moment in attempt.timeline if moment.what == "gateway_failed"] == ["pstn: cause 38"]


@pytest.mark.parametrize(
    ("waited", "rang", "expected"),
    [
        (6, False, ("callee_failed", 38, "callee")),
        (6, True, ("callee_no_answer", 19, "system")),
        (4, False, ("callee_no_answer", 19, "system")),
    ],
)
def test_gateway_that_is_silent_to_the_end_has_failed(
    monkeypatch: pytest.MonkeyPatch, waited: float, rang: bool, expected: tuple[str, int, str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def waits(progress: Any) -> Any:
        now[0] += waited
        if rang:
            progress("ringing", 1003.5, None)
        return fails("NO_ANSWER", timed_out=True)(progress)

    call = ScriptedCall([fails("USER_BUSY")], ended(a_by="send_bye"))
    call.bridges = [fails("NETWORK_OUT_OF_ORDER"), waits]
    assert told(run(call, policy=patient(5))) == expected


def test_extension_that_is_silent_is_no_gateway() -> None:
    call = ScriptedCall([fails("NO_ANSWER", timed_out=True)], ended(a_by="send_bye"))
    assert told(run(call, callee="1001", policy=patient(1))) == ("callee_no_answer", 19, "system")
    ((leg, *_),) = call.did("bridge")
    assert "leg_progress_timeout" not in leg


def test_silent_gateway_of_an_outside_agent_is_passed_over() -> None:
    line = ScriptedLine(Rang("failed", 38), Rang("answered"))
    assert ring(line, patient(5), agent="0831112222")[0]
    assert ["!leg_progress_timeout=5" in command for command in line.commands] == [True, False]


def test_outside_agents_gateway_silent_to_the_end_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    class Line(ScriptedLine):
        def originate(self, command: str, deadline: float, *, phone: bool) -> Rang:
            now[0] += 6
            return super().originate(command, deadline, phone=phone)

    line = Line(Rang("failed", 41), Rang("timed_out", 19, heard=False))
    assert told(ring(line, patient(5), agent="0831112222")[1]) == ("agent_failed", 38, "agent")
    line = Line(Rang("failed", 41), Rang("timed_out", 19))
    assert told(ring(line, patient(5), agent="0831112222")[1]) == ("agent_no_answer", 19, "system")


def test_switch_without_a_session_for_the_callee_is_blamed() -> None:
    full = Bridged(False, 42, "SWITCH_CONGESTION", by_switch=True)
    call = ScriptedCall([lambda _progress: full], ended(a_by="send_bye"))
    attempt = run(call)
    assert told(attempt) == ("rejected", 42, "system")
    # The next gateway is on the same switch.
    assert len(call.did("bridge")) == 1
    assert "switch_full" in [moment.what for moment in attempt.timeline]


def test_every_gateway_failing_is_the_last_ones_cause() -> None:
    call = ScriptedCall([fails("NETWORK_OUT_OF_ORDER"), fails("SWITCH_CONGESTION")], ended(a_by="send_bye"))
    assert told(run(call)) == ("callee_failed", 42, "callee")


def test_extension_has_one_endpoint_and_no_second_try() -> None:
    call = ScriptedCall([fails("NETWORK_OUT_OF_ORDER")], ended(a_by="send_bye"))
    attempt = run(call, callee="1001")
    assert told(attempt) == ("callee_failed", 38, "callee")
    assert [endpoints for _leg, endpoints, *_ in call.did("bridge")] == [[("user/1001@127.0.0.1", None)]]
    assert attempt.call_dir == "internal"


# Hang-ups and cancels -------------------------------------------------------------------------------------


def test_agent_that_hangs_up_while_the_callee_rings_abandons() -> None:
    call = ScriptedCall([caller_leaves()], ended(a_by="recv_bye", b=bleg(q850=16, answered_at=None)))
    assert told(run(call)) == ("abandoned", 16, "agent")


def test_answer_seen_only_in_the_end_is_an_answer() -> None:
    call = ScriptedCall([caller_leaves()], ended(a_by="recv_bye", b=bleg()))
    attempt = run(call)
    assert told(attempt) == ("answered", 16, "agent")
    assert record(attempt).bridged_at == 1005.0


def test_busy_after_early_media_is_busy_though_the_agent_ended() -> None:
    leg = Leg("B", ended_at=1009.0, q850=17)
    call = ScriptedCall([caller_leaves()], ended(a_by="send_bye", b=leg))
    assert told(run(call)) == ("callee_busy", 17, "callee")


def test_cancel_before_the_agents_leg_came_dials_no_callee() -> None:
    order = CLIENT.read(FIELDS)
    click = click2dial.new_call(order, CLIENT, SETTINGS)
    attempt = click.attempt
    attempt.dialled(1000.0)
    attempt.cancelled_by = "api"
    call = ScriptedCall([], ended(a_by="send_bye"))
    click.answered(call, POLICY, host([]))
    assert call.did("bridge") == []
    assert told(attempt) == ("cancelled", 16, "api")


def cancelled(step: Callable[..., Any], end: Any) -> Attempt:
    order = CLIENT.read(FIELDS)
    click = click2dial.new_call(order, CLIENT, SETTINGS)
    attempt = click.attempt
    attempt.dialled(1000.0)

    def cancel(progress: Any) -> Any:
        attempt.cancelled_by = "api"
        return step(progress)

    click.answered(ScriptedCall([cancel], end), POLICY, host([]))
    return attempt


def test_cancel_while_the_callee_rings() -> None:
    leg = bleg(answered_at=None)
    assert told(cancelled(caller_leaves(), ended(a_by="send_bye", b=leg))) == ("cancelled", 16, "api")
    assert told(cancelled(fails("NORMAL_CLEARING"), ended(a_by="send_bye", b=leg))) == ("cancelled", 16, "api")


def test_cancel_of_a_talk_is_answered_and_hung_up_by_the_api() -> None:
    assert told(cancelled(talks(), ended(a_by="send_bye", b=bleg("send_bye")))) == ("answered", 16, "api")


def test_lost_switch_is_a_lost_call() -> None:
    assert told(run(ScriptedCall([socket_lost], ended(lost=True)))) == ("lost", 31, "system")


def test_switch_lost_while_they_talked_is_lost_too() -> None:
    def step(progress: Any) -> Any:
        talks()(progress)
        return socket_lost(progress)

    attempt = run(ScriptedCall([step], ended(lost=True)))
    assert told(attempt) == ("lost", 31, "system")


def test_cancel_of_a_lost_unanswered_call_is_cancelled() -> None:
    assert told(cancelled(socket_lost, ended(lost=True))) == ("cancelled", 16, "api")


# Ringing the agent ---------------------------------------------------------------------------------------


class ScriptedLine:
    def __init__(self, *outcomes: Rang) -> None:
        self.outcomes = list(outcomes)
        self.commands: list[str] = []
        self.deadlines: list[float] = []
        self.others = 0
        """Switches that were not tried."""

    def is_lost(self) -> bool:
        return False

    def elsewhere(self) -> bool:
        self.others -= 1
        return self.others >= 0

    def originate(self, command: str, deadline: float, *, phone: bool) -> Rang:
        self.commands.append(command)
        self.deadlines.append(deadline)
        return self.outcomes.pop(0)


def ring(line: ScriptedLine, policy: ScriptedPolicy = POLICY, **fields: str) -> tuple[bool, Attempt]:
    order = CLIENT.read({**FIELDS, **fields})
    click = click2dial.new_call(order, CLIENT, SETTINGS)
    attempt = click.attempt
    application = "socket(127.0.0.1:8084/click2dial async full)"
    return ring_aleg(line, attempt, click.aleg(policy, application)), attempt


def test_agent_that_answers_has_no_record_yet() -> None:
    line = ScriptedLine(Rang("answered"))
    answered, attempt = ring(line)
    assert answered
    assert attempt.record is None
    assert attempt.dialed_at is not None
    (command,) = line.commands
    assert command.startswith("originate {^^!esl_app=click-dial!esl_call_ref=")
    assert command.endswith("}user/1000@127.0.0.1 '&socket(127.0.0.1:8084/click2dial async full)'")
    assert "!ignore_early_media=true" in command


def test_agent_inside_sees_the_callee_outside_the_integrator() -> None:
    inside, outside = ScriptedLine(Rang("answered")), ScriptedLine(Rang("answered"))
    ring(inside)
    ring(outside, agent="0831112222")
    assert "!origination_caller_id_number=0820001234!" in inside.commands[0]
    assert "!origination_caller_id_number=27115550000!" in outside.commands[0]


def test_agents_leg_carries_the_order() -> None:
    line = ScriptedLine(Rang("answered"))
    _answered, attempt = ring(line)
    variables = dict(pair.split("=", 1) for pair in line.commands[0].partition("{^^!")[2].partition("}")[0].split("!"))
    order = click2dial.order_of(ScriptedCall(variables=variables), PLAN)
    assert order == CLIENT.read(FIELDS)
    assert variables["esl_call_ref"] == attempt.call_ref
    assert variables["esl_node"] == "app1"


@pytest.mark.parametrize(
    ("rang", "expected"),
    [
        (Rang("failed", 17), ("agent_busy", 17, "agent")),
        (Rang("failed", 18), ("agent_no_answer", 18, "agent")),
        (Rang("failed", 20), ("agent_failed", 20, "agent")),
        (Rang("failed", 21), ("agent_failed", 21, "agent")),
        (Rang("timed_out", 19), ("agent_no_answer", 19, "system")),
        (Rang("lost"), ("lost", 31, "system")),
    ],
)
def test_agent_that_does_not_answer(rang: Rang, expected: tuple[str, int, str]) -> None:
    answered, attempt = ring(ScriptedLine(rang))
    assert not answered
    assert told(attempt) == expected


def test_agent_outside_is_tried_over_the_next_gateway_in_time() -> None:
    line = ScriptedLine(Rang("failed", 41), Rang("answered"))
    answered, _attempt = ring(line, agent="0831112222")
    assert answered
    assert ["pstn" in line.commands[0], "spare" in line.commands[1]] == [True, True]
    assert line.deadlines[0] == line.deadlines[1]


@pytest.mark.parametrize("first", [Rang("failed", 20), Rang("failed", 42), Rang("away")])
def test_agent_unreachable_on_a_switch_is_rung_from_the_next(first: Rang) -> None:
    line = ScriptedLine(first, Rang("answered"))
    line.others = 1
    answered, _attempt = ring(line)
    assert answered
    assert line.commands[0] == line.commands[1]
    assert line.deadlines[0] == line.deadlines[1]


@pytest.mark.parametrize(
    "rang", [*[Rang("failed", code) for code in (1, 16, 17, 18, 21)], Rang("timed_out", 19), Rang("lost")]
)
def test_agent_who_was_rung_is_not_rung_from_another_switch(rang: Rang) -> None:
    line = ScriptedLine(rang)
    line.others = 1
    assert not ring(line)[0]
    assert len(line.commands) == 1


def test_agent_whom_no_switch_can_ring_has_failed() -> None:
    line = ScriptedLine(Rang("failed", 20), Rang("away"))
    line.others = 1
    assert told(ring(line)[1]) == ("lost", 31, "system")
    line = ScriptedLine(Rang("away"), Rang("failed", 20))
    line.others = 1
    assert told(ring(line)[1]) == ("agent_failed", 20, "agent")


def test_agent_is_rung_from_another_switch_if_one_is_full() -> None:
    line = ScriptedLine(Rang("full"), Rang("answered"))
    line.others = 1
    assert ring(line)[0]


def test_agent_whom_every_switch_is_too_full_to_ring_is_rejected() -> None:
    attempt = ring(ScriptedLine(Rang("full")))[1]
    assert told(attempt) == ("rejected", 42, "system")
    assert "switch_full" in [moment.what for moment in attempt.timeline]


def test_no_other_switch_is_tried_after_a_cancel() -> None:
    class Cancelled(ScriptedLine):
        def originate(self, command: str, deadline: float, *, phone: bool) -> Rang:
            attempts[0].cancelled_by = "api"
            return super().originate(command, deadline, phone=phone)

    order = CLIENT.read(FIELDS)
    click = click2dial.new_call(order, CLIENT, SETTINGS)
    attempts = [click.attempt]
    line = Cancelled(Rang("failed", 20))
    line.others = 1
    assert not ring_aleg(line, attempts[0], click.aleg(POLICY, "socket(x)"))
    assert told(attempts[0]) == ("cancelled", 16, "api")


def test_busy_agent_is_not_tried_over_the_next_gateway() -> None:
    line = ScriptedLine(Rang("failed", 17))
    assert told(ring(line, agent="0831112222")[1]) == ("agent_busy", 17, "agent")


def test_no_gateway_is_tried_after_a_cancel() -> None:
    order = CLIENT.read({**FIELDS, "agent": "0831112222"})
    click = click2dial.new_call(order, CLIENT, SETTINGS)
    attempt = click.attempt

    class Line(ScriptedLine):
        def originate(self, command: str, deadline: float, *, phone: bool) -> Rang:
            attempt.cancelled_by = "api"
            return super().originate(command, deadline, phone=phone)

    line = Line(Rang("failed", 41))
    assert not ring_aleg(line, attempt, click.aleg(POLICY, "socket(x)"))
    assert told(attempt) == ("cancelled", 16, "api")


# From a phone --------------------------------------------------------------------------------------------

REGISTERED = {"sip_authorized": "true", "sip_auth_username": "1000", "sip_network_ip": "10.0.0.9"}
DIALLED = {"Caller-Destination-Number": "0820001234"}
HEADERS = {"X-Teleforge-Outbound-ID": "27115550000", "X-Teleforge-Contact-Ref": "web-1"}


def dial(call: ScriptedCall, *, trusted: bool = False, client: IntegratorRules = CLIENT) -> Attempt:
    begun: list[Attempt] = []

    def begin(attempt: Attempt) -> None:
        assert not call.did("bridge"), "known before anything is dialled"
        begun.append(attempt)

    policy = replace(POLICY, trusts=trusted, clients={"acme": client})
    click2dial.arrive(call, Arrival(("click2dial",)), policy, structs.replace(host([], Purse()), begin=begin))
    (attempt,) = begun
    return attempt


def phone(*steps: Any, **changes: Any) -> ScriptedCall:
    end = changes.pop("end", None) or ended(a_by="recv_bye", b=bleg("send_bye"))
    given: dict[str, Any] = {"variables": REGISTERED, "headers": DIALLED, "sip": HEADERS, **changes}
    return ScriptedCall(list(steps), end, **given)


def errors(call: ScriptedCall) -> list[tuple[str, str]]:
    ((status, headers),) = call.did("respond")
    assert status == 400
    return list(headers)


def test_registered_phone_dials() -> None:
    call = phone(talks())
    attempt = dial(call)
    assert told(attempt) == ("answered", 16, "agent")
    made = record(attempt)
    assert (made.extension, made.number, made.dial_number) == ("1000", "0820001234", "27115550000")
    assert (made.contact_ref, made.call_dir) == ("web-1", "outbound")
    assert made.dialed_at == 1000.0
    assert call.did("set")[0][0]["esl_call_ref"] == attempt.call_ref


@pytest.mark.parametrize("family", ["X-Teleforge", "X-Platforma"])
def test_older_name_of_the_contact_reference_is_read(family: str) -> None:
    older = {f"{family}-Outbound-ID": "27115550000", f"{family}-Call-Ref": "old-1"}
    assert record(dial(phone(talks(), sip=older))).contact_ref == "old-1"
    assert record(dial(phone(talks(), sip={**older, f"{family}-Contact-Ref": "new-1"}))).contact_ref == "new-1"
    wrong = phone(sip={**older, f"{family}-Call-Ref": "a b"})
    dial(wrong)
    assert errors(wrong) == [(f"{family}-Error", "call_ref: expected letters, digits and .-_~:")]


def test_phones_headers_say_how_its_call_is_made() -> None:
    sip = {**HEADERS, "X-Teleforge-Outbound-Name": "Zo\u00eb", "X-Teleforge-Callee-Timeout": "7"}
    client = IntegratorRules("acme", PLAN, names=True)
    call = phone(talks(), sip={**sip, "X-Teleforge-Max-Duration": "20"})
    dial(call, client=client)
    ((leg, _endpoints, timeout, longest),) = call.did("bridge")
    assert leg["origination_caller_id_name"] == "Zo%C3%AB"
    assert (timeout, longest) == (pytest.approx(7, abs=0.5), 20)


def test_phones_header_that_is_not_allowed_is_refused() -> None:
    call = phone(sip={**HEADERS, "X-Teleforge-Outbound-Name": "Zo\u00eb", "X-Teleforge-Callee-Timeout": "x"})
    dial(call)
    assert errors(call) == [
        ("X-Teleforge-Error", "callee_timeout: expected a number of seconds, 1 to 3600"),
        ("X-Teleforge-Error", "outbound_name: this integrator's calls show no name (names: false)"),
    ]


def test_header_names_are_read_in_any_case() -> None:
    call = phone(talks(), sip={name.upper(): value for name, value in HEADERS.items()})
    assert told(dial(call)) == ("answered", 16, "agent")


def test_older_headers_are_read_and_answered_in_kind() -> None:
    old = {name.replace("Teleforge", "Platforma"): value for name, value in HEADERS.items()}
    assert record(dial(phone(talks(), sip=old))).contact_ref == "web-1"
    call = phone(sip=old, headers={"Caller-Destination-Number": "12345"}, end=ended())
    dial(call)
    assert [name for name, _value in errors(call)] == ["X-Platforma-Error"]


def test_older_reference_alone_is_answered_in_kind() -> None:
    call = phone(sip={"X-Platforma-Contact-Ref": "web-1"}, end=ended())
    attempt = dial(call)
    ((name, value),) = errors(call)
    assert (name, value.partition(";")[0]) == ("X-Platforma-Error", "outbound_id: missing")
    assert record(attempt).contact_ref == "web-1"


def test_older_and_newer_headers_are_read_together() -> None:
    mixed = {"X-Platforma-Outbound-ID": "27115550000", "X-Teleforge-Contact-Ref": "new-1"}
    assert record(dial(phone(talks(), sip=mixed))).contact_ref == "new-1"
    mixed = {"X-Teleforge-Outbound-ID": "27115550000", "X-Platforma-Contact-Ref": "old-1"}
    assert record(dial(phone(talks(), sip=mixed))).contact_ref == "old-1"
    both = {**mixed, "X-Platforma-Outbound-ID": "x", "X-Teleforge-Contact-Ref": "new-1"}
    assert record(dial(phone(talks(), sip=both))).contact_ref == "new-1"


def test_each_fault_has_a_header_of_its_own() -> None:
    call = phone(
        headers={"Caller-Destination-Number": "12345"},
        sip={"X-Teleforge-Outbound-ID": "x", "X-Teleforge-Contact-Ref": "a b"},
        end=ended(),
    )
    attempt = dial(call)
    assert {name for name, _value in errors(call)} == {"X-Teleforge-Error"}
    assert call.did("reason") == [(record(attempt).end_code,)]
    assert sorted(value.partition(": ")[0] for _name, value in errors(call)) == ["callee", "contact_ref", "outbound_id"]
    assert told(attempt) == ("rejected", 21, "system")
    assert call.did("bridge") == []


def test_restricted_class_is_57() -> None:
    call = phone(headers={"Caller-Destination-Number": "0900123456"}, end=ended())
    assert told(dial(call)) == ("rejected", 57, "system")


def test_without_an_outbound_id_nothing_is_dialled() -> None:
    call = phone(sip={}, end=ended())
    assert told(dial(call)) == ("rejected", 21, "system")
    assert [value.partition(": ")[0] for _name, value in errors(call)] == ["outbound_id"]


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"sip_from_user": "1000", "sip_network_ip": "203.0.113.9"},
        {"sip_authorized": "false", "sip_auth_username": "1000"},
        {"sip_authorized": "true"},
        {"sip_auth_username": "1000", "user_name": "1000"},
    ],
)
def test_stranger_may_not_dial_whatever_it_says_it_is(variables: dict[str, str]) -> None:
    call = phone(variables=variables, end=ended())
    assert told(dial(call)) == ("rejected", 21, "system")
    assert [value.partition(": ")[0] for _name, value in errors(call)] == ["agent"]


def test_trusted_address_names_the_agent_in_from() -> None:
    call = phone(talks(), variables={"sip_from_user": "1001", "sip_network_ip": "10.0.0.9"})
    assert record(dial(call, trusted=True)).extension == "1001"


def test_authenticated_user_counts_more_than_its_from() -> None:
    call = phone(talks(), variables={**REGISTERED, "sip_from_user": "0900123456"})
    assert record(dial(call, trusted=True)).extension == "1000"


@pytest.mark.parametrize("callee", ["0820001234\n\napi hupall", "0820001234}x", "sip:1001", ""])
def test_hostile_callee_stands_in_no_record(callee: str) -> None:
    call = phone(headers={"Caller-Destination-Number": callee}, end=ended())
    made = record(dial(call))
    assert made.number is None
    assert made.end_reason == "rejected"


def test_record_of_a_refused_phone_names_agent_and_callee() -> None:
    made = record(dial(phone(headers={"Caller-Destination-Number": "12345"}, end=ended())))
    assert (made.call_dir, made.extension, made.number, made.contact_ref) == ("outbound", "1000", "12345", "web-1")


def test_callees_cause_goes_back_to_the_phone() -> None:
    call = phone(fails("USER_BUSY"), end=ended(a_by="send_refuse"))
    assert told(dial(call)) == ("callee_busy", 17, "callee")
    assert call.did("hangup") == [("USER_BUSY",)]


def test_phone_that_gives_up_while_the_callee_rings_abandons() -> None:
    call = phone(caller_leaves(), end=ended(a_by="recv_cancel", b=bleg(answered_at=None)))
    assert told(dial(call)) == ("abandoned", 16, "agent")


def test_phone_gone_before_anything_was_dialled_has_one_record() -> None:
    call = phone(gone_at="set", end=ended(a_by="recv_cancel"))
    assert told(dial(call)) == ("abandoned", 16, "agent")
    assert call.did("bridge") == []


def test_path_of_an_unknown_integrator_is_not_served() -> None:
    with pytest.raises(NotServed) as refused:
        click2dial.arrive(phone(), Arrival(("click2dial", "nobody")), POLICY, host([]))
    assert refused.value.cause == "SWITCH_CONGESTION"
    with pytest.raises(NotServed):
        click2dial.arrive(phone(), Arrival(("click2dial",)), ScriptedPolicy(), host([]))


def test_phone_dials_as_the_integrator_that_its_path_names() -> None:
    begun: list[Attempt] = []
    policy = replace(POLICY, clients={"other": IntegratorRules("other", PLAN), "acme": CLIENT})
    click2dial.arrive(phone(talks()), Arrival(("click2dial", "acme")), policy, host(begun))
    assert [attempt.integrator for attempt in begun] == ["acme"]


class Away(Purse):
    def begin(self, *charges: Charge) -> Refusal | None:
        raise StoreUnavailable("redis: away")


def test_phone_is_refused_while_the_limits_cannot_be_asked() -> None:
    call = phone()
    begun: list[Attempt] = []
    click2dial.arrive(call, Arrival(("click2dial",)), POLICY, host(begun, Away()))
    assert errors(call) == [("X-Teleforge-Error", "limits: can't be asked now")]
    assert told(begun[0]) == ("rejected", 21, "system")


def test_refused_phone_takes_no_campaigns_turn() -> None:
    client = IntegratorRules("acme", PLAN, campaigns={"spring": ["27115550001", "27115550002"]})
    policy = replace(POLICY, clients={"acme": client})
    sip = {**HEADERS, "X-Teleforge-Outbound-ID": "tvc_spring"}
    for usage in (Away(), None):
        call = phone(*([] if usage else [talks()]), sip=sip)
        begun: list[Attempt] = []
        click2dial.arrive(call, Arrival(("click2dial",)), policy, host(begun, usage) if usage else host(begun))
    assert record(begun[0]).dial_number == "27115550001"


CARRIED = {"esl_user_id": "1000", "esl_callee": "0820001234", "esl_outbound_id": "27115550000"}


@pytest.mark.parametrize(
    ("integrator", "variables", "found"),
    [
        ("acme", CARRIED, True),
        ("other", CARRIED, False),
        (None, CARRIED, False),
        ("acme", {**CARRIED, "esl_callee": ""}, False),
        ("acme", {}, False),
    ],
)
def test_answered_leg_of_another_process_carries_its_order(
    integrator: str | None, variables: dict[str, str], found: bool
) -> None:
    attempt = Attempt(app="click-dial", call_dir="outbound", integrator=integrator)
    again = click2dial.restore(attempt, ScriptedCall(variables=variables), POLICY)
    assert (again is not None) == found
    if again is not None:
        assert (again.order.agent.dialled, again.order.callee.dialled) == ("1000", "0820001234")
        assert again.client is CLIENT


# Recording notice -----------------------------------------------------------------------------------------

NOTICE = "/prompts/recording_notice.wav"


@pytest.mark.parametrize("both", [True, False])
def test_recording_begins_behind_its_notice(both: bool) -> None:
    settings = replace(SETTINGS, notice=NOTICE, notice_to_both=both)
    leg = recording_variables(settings, "/recordings/a.wav")
    # The switch runs them in this order.
    started = [value for name, value in leg.items() if name.startswith("execute_on_answer")]
    assert started == [f"playback::{NOTICE}", "record_session::/recordings/a.wav"]
    other = notice_variables(settings)
    once = f"m:^:playback:{NOTICE}^unset:bridge_pre_execute_app inline"
    expected = {"bridge_pre_execute_app": "execute_extension", "bridge_pre_execute_data": once}
    assert other == (expected if both else {})


def test_recording_notice_is_in_the_calls_language() -> None:
    settings = replace(SETTINGS, notice=NOTICE, notices={"fr": "/prompts/fr/recording_notice.wav"})
    for language, file in (("fr", "/prompts/fr/recording_notice.wav"), ("xx", NOTICE), (None, NOTICE)):
        assert recording_variables(settings, "/a.wav", language)["execute_on_answer"] == f"playback::{file}"
        assert f"playback:{file}^" in notice_variables(settings, language)["bridge_pre_execute_data"]


def test_recording_without_a_notice_begins_at_the_answer() -> None:
    assert recording_variables(SETTINGS, "/a.wav")["execute_on_answer"] == "record_session:/a.wav"
    assert notice_variables(SETTINGS) == {}
