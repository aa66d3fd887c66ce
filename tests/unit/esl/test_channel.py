"""A call's A-leg as the flows see it: the commands of each step, and the outcome of the switch's answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import gevent
import pytest

from esl_apps.core.call import Bridged, CallEnded, Ended, Leg
from esl_apps.core.dialstring import UNHEARD
from esl_apps.esl.channel import EVENTS, Channel
from esl_apps.esl.legs import leg_of
from esl_apps.esl.round_trips import RoundTrips
from esl_apps.esl.switch_clock import SwitchClock
from esl_apps.esl.wire import Framer
from tests.support.call_switch import (
    AT,
    B,
    C,
    CallSwitch,
    Ends,
    answers,
    at,
    bridge_over,
    ends,
    new_call,
    rings,
)
from tests.support.captures import recorded
from tests.support.commands import application
from tests.support.peer import (
    UUID,
    app_uuid,
    complete,
    event,
    eventually,
    linger_notice,
    raw_event,
    reply,
)

Call = tuple[Channel, CallSwitch]


@pytest.fixture
def elsewhere() -> Ends:
    """The ends of A-legs that the inbound connection saw after their sockets were lost."""
    return {}


@pytest.fixture
def call(elsewhere: Ends) -> Iterator[Call]:
    """Yield a call that has begun."""
    made, switch, session = new_call({"Channel-Read-Codec-Rate": 8000}, elsewhere)
    made.begin("ref-1", watched=True)
    switch.settle()
    switch.commands.clear()
    yield made, switch
    session.close("the test is over")
    switch.peer.close()
    switch.greenlet.kill()


Seen = list[tuple[str, float, str | None]]


def bridge(
    call: Channel,
    seen: Seen | None = None,
    *,
    timeout: float = 5,
    longest: float = 60,
    until: float | None = None,
    to: tuple[str, ...] = ("1000",),
) -> Bridged:
    """Dial extensions. ``seen`` gets the progress of their legs."""

    def progress(what: str, when: float, leg: Leg | None) -> None:
        if seen is not None:
            seen.append((what, when - AT, leg.uuid if leg else None))

    several = len(to) > 1
    endpoints = [(f"user/{number}", number if several else None) for number in to]
    return call.bridge({"esl_bleg": "ref-1"}, endpoints, timeout, longest, progress, until=until)


# Beginning --------------------------------------------------------------------------------------------


def test_begin_takes_the_watchdog_off_and_subscribes() -> None:
    made, switch, _session = new_call({})
    made.begin("ref-1", watched=True)
    switch.settle()
    assert switch.commands == [
        f"api sched_del {UUID}",
        f"filter Unique-ID {UUID}",
        "filter variable_esl_bleg ref-1",
        "filter Application-UUID -0",
        f"event plain {EVENTS}",
    ]


def test_begin_of_a_placed_call_takes_no_watchdog_off() -> None:
    made, switch, _session = new_call({})
    made.begin("ref-1", watched=False)
    switch.settle()
    assert switch.commands[0] == f"filter Unique-ID {UUID}"


def test_channel_gives_its_variables_headers_and_times() -> None:
    made, _switch, _session = new_call(
        {
            "Caller-Destination-Number": "27115550000",
            "variable_esl_callee": "27820001234",
            "variable_sip_h_X-Teleforge-Outbound-ID": "tvc_a%20b",
        }
    )
    assert made.uuid == UUID
    assert made.header("Caller-Destination-Number") == "27115550000"
    assert made.variable("esl_callee") == "27820001234"
    assert made.variable("absent") is None
    assert made.sip_header("x-teleforge-OUTBOUND-id") == "tvc_a%20b"
    assert made.sip_header("X-Teleforge-Outbound") is None
    assert (made.created_at, made.answered_at) == (AT, None)


def test_header_of_a_call_is_searched_for_once(call: Call) -> None:
    """A caller's address and number are asked for four and five times."""
    made, _ = call
    assert made.header("Unique-ID") is made.header("Unique-ID")


# Telling ----------------------------------------------------------------------------------------------


def test_set_sends_all_variables_in_one_execute(call: Call) -> None:
    made, switch = call
    made.set({"a": "1", "b": "2"})
    switch.settle()
    assert switch.executed == [("multiset", "^^|a=1|b=2")]


def test_set_with_an_expandable_value_encodes_it(call: Call) -> None:
    """It starts no second command or variable, and has nothing that the switch would expand or run."""
    made, switch = call
    made.set({"a": "1\n\napi shutdown", "b": "${system(id)}|c='2"})
    switch.settle()
    assert switch.executed == [("multiset", "^^|a=1%0A%0Aapi%20shutdown|b=%24%7Bsystem%28id%29%7D%7Cc%3D%272")]
    assert not any(command.startswith("api") for command in switch.commands)


def test_hangup_with_a_cause_raises_call_ended(call: Call) -> None:
    made, switch = call
    switch.scripts["hangup"] = lambda _uuid: event("CHANNEL_HANGUP")
    with pytest.raises(CallEnded) as caught:
        made.hangup("USER_BUSY")
    assert not caught.value.lost
    assert switch.executed == [("hangup", "USER_BUSY")]


def test_respond_with_one_header_twice_sends_both(call: Call) -> None:
    """A space behind the variable's name makes the second header: setting one name twice keeps the last (hazard 31)."""
    made, switch = call
    switch.scripts["respond"] = lambda _uuid: event("CHANNEL_HANGUP")
    made.respond(400, [("X-Error", "agent: missing"), ("X-Error", "callee: missing")])
    assert switch.executed == [
        ("multiset", "^^|sip_rh_X-Error=agent: missing|sip_rh_X-Error =callee: missing"),
        ("respond", "400"),
    ]


def test_respond_with_a_code_says_it_as_the_reason(call: Call) -> None:
    made, switch = call
    switch.scripts["respond"] = lambda _uuid: event("CHANNEL_HANGUP")
    made.respond(400, [("X-Error", "agent: missing")], code=21)
    assert switch.executed[0] == ("multiset", "^^|sip_reason=Q.850;cause=21|sip_rh_X-Error=agent: missing")


def test_play_early_answers_nothing(call: Call) -> None:
    made, switch = call
    made.play_early("unavailable", 5)
    assert switch.executed == [("pre_answer", ""), ("playback", "/prompts/8000/unavailable.wav")]


# Bridging ---------------------------------------------------------------------------------------------


def test_bridge_reports_ringing_answer_and_hangup(call: Call) -> None:
    made, switch = call
    switch.scripts["bridge"] = lambda uuid: b"".join(
        [rings(), answers(), bridge_over(uuid), ends("NORMAL_CLEARING", 16, answered=True)]
    )
    seen: Seen = []
    bridged = bridge(made, seen)
    assert [(what, uuid) for what, _, uuid in seen] == [("dialled", None), ("ringing", B), ("answered", B)]
    assert [when for _, when, _ in seen[1:]] == [1.0, 3.0]
    assert bridged.bleg is not None
    assert (bridged.answered, bridged.code, bridged.bleg.uuid) == (True, 16, B)


def test_bridge_goes_on_after_a_refused_transfer(call: Call) -> None:
    """The phone's REFER takes B out of the bridge, and the switch joins the two again."""
    made, switch = call

    def parted(uuid: str) -> bytes:
        referred = complete("bridge", uuid, {"variable_blind_transfer_uuid": B})
        return rings() + answers() + referred

    switch.scripts["bridge"] = parted
    began = time.monotonic()
    gevent.spawn_later(0.2, switch.say, ends("NORMAL_CLEARING", 16, answered=True))
    bridged = bridge(made)
    assert time.monotonic() - began > 0.15
    assert bridged.answered
    assert bridged.bleg is not None
    assert bridged.bleg.ended_at is not None


def test_bridge_measures_round_trips_if_it_is_to(call: Call) -> None:
    made, switch = call
    trip = event("RECV_RTCP_MESSAGE", {"Unique-ID": B, "Rtt0-Avg": "0.020000"})
    switch.scripts["bridge"] = lambda uuid: b"".join(
        [answers(), trip, bridge_over(uuid), ends("NORMAL_CLEARING", 16, answered=True)]
    )
    bridged = bridge(made)
    assert bridged.bleg is not None
    assert bridged.bleg.quality is not None
    assert bridged.bleg.quality.round_trip is None
    assert not [command for command in switch.commands if "RTCP" in command]
    made.round_trips = RoundTrips()
    bridged = bridge(made)
    switch.settle()
    assert switch.commands[-2:] == [f"filter Unique-ID {B}", "event plain RECV_RTCP_MESSAGE"]
    assert bridged.bleg is not None
    assert bridged.bleg.quality is not None
    assert bridged.bleg.quality.round_trip == 20.0


UNANSWERED: dict[str, Any] = {"Caller-Channel-Answered-Time": 0}


def test_bridge_of_an_unanswered_caller_waits_for_their_answer() -> None:
    """B answers first. Only then does the switch answer A."""
    made, switch, _session = new_call(UNANSWERED)
    made.begin("ref-1", watched=False)
    up = event("CHANNEL_ANSWER", {"Caller-Channel-Answered-Time": at(4)}, uuid=UUID)
    switch.scripts["bridge"] = lambda uuid: b"".join(
        [answers(), up, ends("NORMAL_CLEARING", 16, answered=True), bridge_over(uuid)]
    )
    seen: Seen = []
    assert bridge(made, seen).answered
    assert [what for what, _when, _uuid in seen] == ["dialled", "answered"]


def test_bridge_whose_caller_cannot_be_answered_is_no_answer() -> None:
    made, switch, _session = new_call(UNANSWERED)
    made.begin("ref-1", watched=False)
    switch.scripts["bridge"] = lambda uuid: b"".join(
        [
            answers(),
            event("CHANNEL_HANGUP"),
            ends("INCOMPATIBLE_DESTINATION", 88, uuid=UUID, **UNANSWERED),
            ends("NORMAL_CLEARING", 16, answered=True),
        ]
    )
    seen: Seen = []
    with pytest.raises(CallEnded):
        bridge(made, seen)
    assert [what for what, _when, _uuid in seen] == ["dialled"]
    assert not made.ended().both_up


G729_ONLY = {**UNANSWERED, "variable_endpoint_disposition": "DELAYED NEGOTIATION"}
PCMU = "CORE_PCM_MODULE.PCMU@8000h@20i@64000b"


@pytest.mark.parametrize(
    ("more", "fit"),
    [
        ({}, False),
        ({"variable_ep_codec_string": "mod_h26x.H264"}, False),
        ({"variable_ep_codec_string": PCMU}, True),
        # The dialplan has another list of codecs, or none matters.
        ({"variable_absolute_codec_string": "G729"}, True),
        ({"variable_codec_string": "G729"}, True),
        ({"variable_bypass_media": "true"}, True),
        ({"variable_proxy_media": "true"}, True),
        # The switch has negotiated already.
        ({"variable_endpoint_disposition": "EARLY MEDIA"}, True),
        ({"Caller-Channel-Answered-Time": at(1)}, True),
    ],
)
@pytest.mark.parametrize("step", ["answer", "bridge"])
def test_caller_without_a_common_codec_is_refused_first(step: str, more: dict[str, Any], fit: bool) -> None:
    made, switch, _session = new_call({**G729_ONLY, **more})
    made.begin("ref-1", watched=False)
    switch.scripts["hangup"] = lambda _uuid: event("CHANNEL_HANGUP")
    switch.scripts["answer"] = lambda uuid: complete("answer", uuid, {"variable_dtmf_type": "rfc2833"})
    switch.scripts["bridge"] = lambda uuid: bridge_over(uuid, originate_disposition="USER_BUSY")
    if fit:
        made.answer() if step == "answer" else bridge(made)
    else:
        with pytest.raises(CallEnded):
            made.answer() if step == "answer" else bridge(made)
    switch.settle()
    assert (("hangup", "INCOMPATIBLE_DESTINATION") in switch.executed) != fit
    assert any(app == step for app, _argument in switch.executed) == fit


def test_answer_that_fails_has_ended_the_call() -> None:
    made, switch, _session = new_call(UNANSWERED)
    made.begin("ref-1", watched=False)
    switch.scripts["answer"] = lambda uuid: (
        complete("answer", uuid, {"Answer-State": "hangup"}) + event("CHANNEL_HANGUP")
    )
    with pytest.raises(CallEnded):
        made.answer()


def refusal(status: int, reason: str = "") -> dict[str, Any]:
    """The variables of a leg that was refused."""
    told: dict[str, Any] = {"variable_sip_hangup_disposition": "recv_refuse", "variable_sip_term_status": status}
    return {**told, "variable_sip_reason": reason} if reason else told


def test_bridge_reads_a_refusal_from_its_status(call: Call) -> None:
    made, switch = call
    gone = ends("NORMAL_CLEARING", 16, **refusal(486, "Q.850;cause=16"))
    switch.scripts["bridge"] = lambda uuid: gone + bridge_over(uuid, originate_disposition="NORMAL_CLEARING")
    assert bridge(made).code == 17


@pytest.mark.parametrize("late", [False, True])
def test_bridge_takes_the_living_phone_of_a_user(call: Call, late: bool) -> None:
    """The last leg's end may be reported after the bridge's."""
    made, switch = call
    legs = [
        ends("NORMAL_TEMPORARY_FAILURE", 41, uuid=C, **refusal(503)),
        ends("USER_BUSY", 17, **refusal(486)),
    ]
    causes = "ARRAY::c;NORMAL_TEMPORARY_FAILURE|:b;USER_BUSY"

    def over(uuid: str) -> bytes:
        return bridge_over(uuid, originate_disposition="NORMAL_TEMPORARY_FAILURE", originate_causes=causes)

    switch.scripts["bridge"] = lambda uuid: legs[0] + (over(uuid) + legs[1] if late else legs[1] + over(uuid))
    bridged = bridge(made)
    assert (bridged.code, bridged.cause) == (17, "USER_BUSY")


def test_bridge_reads_the_status_that_a_has_of_b(call: Call) -> None:
    made, switch = call
    switch.scripts["bridge"] = lambda uuid: bridge_over(
        uuid, originate_disposition="NORMAL_CLEARING", sip_invite_failure_status="486"
    )
    assert bridge(made).code == 17


@pytest.mark.parametrize("to", [("1000",), ("1000", "1001")], ids=["one", "two"])
def test_bridge_without_a_session_is_the_switchs_failure(call: Call, to: tuple[str, ...]) -> None:
    made, switch = call
    words = {"originate_failed_cause": "DESTINATION_OUT_OF_ORDER", "originate_disposition": "DESTINATION_OUT_OF_ORDER"}
    switch.scripts["bridge"] = lambda uuid: bridge_over(uuid, **words)
    bridged = bridge(made, to=to)
    assert (bridged.by_switch, bridged.code, bridged.cause) == (True, 42, "SWITCH_CONGESTION")
    assert not bridged.gateway_failed


def test_bridge_with_the_far_sides_27_is_not_the_switchs(call: Call) -> None:
    made, switch = call
    gone = ends("DESTINATION_OUT_OF_ORDER", 27, **refusal(502, "Q.850;cause=27"))
    words = {"originate_failed_cause": "DESTINATION_OUT_OF_ORDER", "originate_causes": "b;DESTINATION_OUT_OF_ORDER"}
    switch.scripts["bridge"] = lambda uuid: gone + bridge_over(uuid, **words)
    bridged = bridge(made)
    assert (bridged.by_switch, bridged.code) == (False, 27)


def test_bridge_timed_out_with_a_busy_phone_and_a_dead_one(call: Call) -> None:
    made, switch = call
    bridging: list[str] = []
    busy = ends("USER_BUSY", 17, **refusal(486))
    switch.scripts["bridge"] = lambda uuid: bridging.append(uuid) or busy  # type: ignore[func-returns-value]
    switch.scripts["hupall"] = lambda _: ends("NO_ANSWER", 19, uuid=C) + bridge_over(bridging[0])
    bridged = bridge(made, timeout=0.05)
    assert (bridged.code, bridged.timed_out) == (17, False)


def test_bridge_timed_out_after_a_refusal_is_the_refusal(call: Call) -> None:
    made, switch = call
    bridging: list[str] = []
    rings = event("CHANNEL_PROGRESS", uuid=B)
    switch.scripts["bridge"] = lambda uuid: bridging.append(uuid) or rings  # type: ignore[func-returns-value]

    def killed(_uuid: str) -> bytes:
        gevent.spawn_later(0.01, switch.peer.say, ends("USER_BUSY", 17, **refusal(486)))
        return bridge_over(bridging[0])

    switch.scripts["hupall"] = killed
    bridged = bridge(made, timeout=0.05)
    assert (bridged.code, bridged.timed_out) == (17, False)


def test_bridge_drops_headers_that_are_not_read_later() -> None:
    made, switch, session = new_call(
        {"Channel-Read-Codec-Rate": 16000, "Caller-Channel-Answered-Time": at(2), "variable_esl_callee": "1000"}
    )
    made.begin("ref-1", watched=False)
    assert made.variable("esl_callee") == "1000"
    switch.scripts["bridge"] = lambda uuid: bridge_over(uuid, originate_disposition="USER_BUSY")
    bridge(made)
    for ask, name in ((made.variable, "esl_callee"), (made.header, "Unique-ID"), (made.sip_header, "X")):
        # Returning None would mean "not set".
        with pytest.raises(RuntimeError, match="before the first bridge"):
            ask(name)
    assert (made.uuid, made.created_at, made.answered_at) == (UUID, AT, AT + 2)
    made.play("callee_busy")
    assert switch.executed[-1] == ("playback", "/prompts/16000/callee_busy.wav")
    session.close("the test is over")
    switch.peer.close()
    switch.greenlet.kill()


def test_bridge_dials_with_the_legs_variables(call: Call) -> None:
    made, switch = call
    switch.scripts["bridge"] = lambda uuid: bridge_over(uuid, originate_disposition="USER_BUSY")
    bridge(made)
    assert switch.executed == [("bridge", "{^^!esl_bleg=ref-1}user/1000")]


def test_bridge_with_early_media_is_not_answered(call: Call) -> None:
    """The CHANNEL_BRIDGE that comes with early media isn't an answer either (hazard 19)."""
    made, switch = call
    media = event("CHANNEL_PROGRESS_MEDIA", {"Caller-Channel-Progress-Media-Time": at(2)}, uuid=B)
    switch.scripts["bridge"] = lambda uuid: b"".join([media, ends("USER_BUSY", 17), bridge_over(uuid)])
    seen: Seen = []
    bridged = bridge(made, seen)
    assert seen[1:] == [("early_media", 2.0, B)]
    assert (bridged.answered, bridged.code) == (False, 17)


@pytest.mark.parametrize(
    ("cause", "q850"),
    [("USER_BUSY", 17), ("CALL_REJECTED", 21), ("UNALLOCATED_NUMBER", 1), ("NORMAL_TEMPORARY_FAILURE", 41)],
)
def test_bridge_that_fails_has_the_cause_of_b(call: Call, cause: str, q850: int) -> None:
    made, switch = call
    switch.scripts["bridge"] = lambda uuid: b"".join(
        # A's variables may say something else (hazard 23).
        [ends(cause, q850), bridge_over(uuid, originate_disposition="NORMAL_CLEARING")]
    )
    bridged = bridge(made)
    assert (bridged.answered, bridged.code, bridged.cause) == (False, q850, cause)


def test_bridge_that_fails_keeps_the_far_ends_code(call: Call) -> None:
    """A ``Reason`` header overrides the code of the cause's name."""
    made, switch = call
    switch.scripts["bridge"] = lambda uuid: ends("CALL_REJECTED", 55) + bridge_over(uuid)
    assert bridge(made).code == 55


@pytest.mark.parametrize(
    ("capture", "cause", "q850"),
    [
        ("outbound-bridge-unregistered", "SUBSCRIBER_ABSENT", 20),
        # Through a loopback channel, which doesn't pass the 486 on.
        ("outbound-bridge-busy", "NORMAL_CLEARING", 16),
        ("outbound-bridge-no-answer", "NO_ANSWER", 19),
    ],
)
def test_bridge_of_a_recording_without_b_has_the_cause_of_a(call: Call, capture: str, cause: str, q850: int) -> None:
    made, switch = call
    frames = [frame for data in recorded(capture) for frame in Framer().feed(data)]
    (over,) = [
        frame for frame in frames if frame.name == b"CHANNEL_EXECUTE_COMPLETE" and frame.get("Application") == "bridge"
    ]

    def as_ours(uuid: str) -> bytes:
        block = over.block.replace(over.raw(b"Unique-ID") or b"", UUID.encode())
        return raw_event(block.replace(over.raw(b"Application-UUID") or b"", uuid.encode()))

    switch.scripts["bridge"] = as_ours
    bridged = bridge(made)
    assert (bridged.answered, bridged.cause, bridged.code) == (False, cause, q850)


def test_bridge_without_an_answer_times_out(call: Call) -> None:
    """The application times the leg itself: the switch's own time-outs don't work in early media (hazard 19)."""
    made, switch = call
    bridging: list[str] = []
    switch.scripts["bridge"] = lambda uuid: bridging.append(uuid) or rings()  # type: ignore[func-returns-value]
    switch.scripts["hupall"] = lambda _: ends("NO_ANSWER", 19) + bridge_over(bridging[0])
    bridged = bridge(made, timeout=0.03)
    assert "api hupall NO_ANSWER esl_bleg ref-1" in switch.commands
    assert (bridged.answered, bridged.timed_out, bridged.code) == (False, True, 19)


def test_bridge_whose_answer_crosses_the_timeout_is_not_joined(call: Call) -> None:
    made, switch = call
    bridging: list[str] = []
    switch.scripts["bridge"] = lambda uuid: bridging.append(uuid) or rings()  # type: ignore[func-returns-value]
    switch.scripts["hupall"] = lambda _: b"".join(
        [answers(), ends("NO_ANSWER", 19, answered=True), bridge_over(bridging[0])]
    )
    seen: Seen = []
    bridged = bridge(made, seen, timeout=0.03)
    assert bridged.timed_out
    assert "answered" not in [what for what, _, _ in seen]


def test_bridge_longer_than_allowed_is_ended(call: Call) -> None:
    made, switch = call
    bridging: list[str] = []
    switch.scripts["bridge"] = lambda uuid: bridging.append(uuid) or answers()  # type: ignore[func-returns-value]
    switch.scripts["hupall"] = lambda _: ends("ALLOTTED_TIMEOUT", 0, answered=True) + bridge_over(bridging[0])
    assert bridge(made, longest=0.03).answered
    assert "api hupall ALLOTTED_TIMEOUT esl_bleg ref-1" in switch.commands


def test_bridge_ends_at_its_deadline_however_long_b_rang(call: Call) -> None:
    made, switch = call
    bridging: list[str] = []
    switch.scripts["bridge"] = lambda uuid: bridging.append(uuid) or answers()  # type: ignore[func-returns-value]
    switch.scripts["hupall"] = lambda _: ends("ALLOTTED_TIMEOUT", 0, answered=True) + bridge_over(bridging[0])
    began = time.monotonic()
    assert bridge(made, until=began + 0.1).answered
    assert 0.1 <= time.monotonic() - began < 5
    assert "api hupall ALLOTTED_TIMEOUT esl_bleg ref-1" in switch.commands


def test_bridge_of_several_phones_takes_the_one_bridged(call: Call) -> None:
    made, switch = call
    switch.scripts["bridge"] = lambda uuid: b"".join(
        [
            rings(B, variable_esl_user_id="1000"),
            rings(C, variable_esl_user_id="1001"),
            # Both answer in the same tick.
            answers(B, variable_esl_user_id="1000"),
            answers(C, variable_esl_user_id="1001"),
            event("CHANNEL_BRIDGE", {"Other-Leg-Unique-ID": C}),
            ends("LOSE_RACE", 502),
            bridge_over(uuid),
        ]
    )
    bridged = bridge(made, to=("1000", "1001"))
    assert bridged.bleg is not None
    assert (bridged.answered, bridged.bleg.uuid, bridged.bleg.user) == (True, C, "1001")
    assert switch.executed[0][1] == (
        "{^^!esl_bleg=ref-1!esl_user_id=1000!presence_data=/1000@}user/1000:_:"
        "{^^!esl_bleg=ref-1!esl_user_id=1001!presence_data=/1001@}user/1001"
    )


def test_bridge_of_several_phones_that_fail_picks_the_best_cause(call: Call) -> None:
    made, switch = call
    switch.scripts["bridge"] = lambda uuid: b"".join(
        [
            ends("USER_BUSY", 17, uuid=B),
            ends("CALL_REJECTED", 21, uuid=C),
            bridge_over(uuid, originate_disposition="USER_BUSY"),
        ]
    )
    assert bridge(made, to=("1000", "1001")).code == 17


def test_bridge_of_several_phones_tells_how_each_ended(call: Call) -> None:
    made, switch = call
    bridging: list[str] = []
    switch.scripts["bridge"] = lambda uuid: (
        bridging.append(uuid)  # type: ignore[func-returns-value]
        or rings(B, variable_esl_user_id="1000") + ends("USER_BUSY", 17, uuid=C, variable_esl_user_id="1001")
    )
    # The last end comes after the bridge's.
    switch.scripts["hupall"] = lambda _: bridge_over(bridging[0]) + ends("NO_ANSWER", 19, variable_esl_user_id="1000")
    bridged = bridge(made, to=("1000", "1001"), timeout=0.03)
    assert [(leg.user, leg.cause) for leg in bridged.legs] == [("1000", "NO_ANSWER"), ("1001", "USER_BUSY")]
    assert bridge(made, timeout=0.03).legs == ()


def test_bridge_after_another_forgets_the_first(call: Call) -> None:
    made, switch = call
    switch.scripts["bridge"] = lambda uuid: ends("NETWORK_OUT_OF_ORDER", 38) + bridge_over(uuid)
    assert bridge(made).gateway_failed
    switch.scripts["bridge"] = lambda uuid: bridge_over(uuid, originate_disposition="USER_BUSY")
    assert bridge(made).code == 17


def test_bridge_that_the_switch_refuses_loses_the_call(call: Call) -> None:
    made, switch = call
    switch.answers["sendmsg"] = reply("-ERR invalid session id")
    switch.scripts["bridge"] = lambda _uuid: b""
    with pytest.raises(CallEnded, match="invalid session id") as ended:
        bridge(made)
    assert ended.value.lost
    assert made.ended().lost


def test_begin_after_the_caller_left_ends_the_first_step(elsewhere: Ends) -> None:
    made, switch, session = new_call({}, elsewhere)
    switch.greenlet.kill()
    switch.peer.close()
    made.begin("ref-1", watched=True)
    with pytest.raises(CallEnded):
        made.answer()
    session.close("the test is over")


def test_bridge_whose_caller_leaves_raises_call_ended(call: Call) -> None:
    made, switch = call
    switch.scripts["bridge"] = lambda _uuid: rings() + event("CHANNEL_HANGUP")
    with pytest.raises(CallEnded) as caught:
        bridge(made)
    assert not caught.value.lost


def test_bridge_whose_end_overtakes_the_hangup_is_not_bs_failure(call: Call) -> None:
    made, switch = call
    switch.scripts["bridge"] = lambda uuid: b"".join(
        [
            ends("ORIGINATOR_CANCEL", 487),
            complete("bridge", uuid, {"Answer-State": "hangup"}),
            event("CHANNEL_HANGUP"),
        ]
    )
    with pytest.raises(CallEnded):
        bridge(made)


def test_talk_whose_end_overtakes_the_hangup_raises_call_ended(call: Call) -> None:
    made, switch = call
    # As after ``answer``: this A-leg outlives its B-legs.
    made._keypad.heard = True
    switch.scripts["bridge"] = lambda uuid: b"".join(
        [answers(), complete("bridge", uuid, {"Answer-State": "hangup"}), event("CHANNEL_HANGUP")]
    )
    with pytest.raises(CallEnded):
        bridge(made)


# The end ----------------------------------------------------------------------------------------------


def leaves(call: Channel, switch: CallSwitch, *frames: bytes) -> Ended:
    """Send the frames of the call's end, and return `Channel.ended`."""
    switch.say(*frames)
    with pytest.raises(CallEnded):
        call.wait_for_hangup(2)
    return call.ended()


def test_ended_has_both_legs_and_their_ends(call: Call) -> None:
    made, switch = call
    last = ends("NORMAL_CLEARING", 16, uuid=UUID, variable_sip_hangup_disposition="recv_bye")
    end = leaves(made, switch, event("CHANNEL_HANGUP"), linger_notice(), last)
    assert (end.at, end.lost, end.bleg) == (AT + 9, False, None)
    assert (end.aleg.cause, end.aleg.q850, end.aleg.hung_up_itself) == ("NORMAL_CLEARING", 16, True)


def test_ended_waits_for_the_end_of_b(call: Call) -> None:
    made, switch = call
    switch.scripts["bridge"] = lambda _uuid: answers() + event("CHANNEL_HANGUP")
    with pytest.raises(CallEnded):
        bridge(made)
    switch.say(ends("NORMAL_CLEARING", 16, uuid=UUID))
    gevent.spawn_later(0.02, switch.say, ends("NORMAL_CLEARING", 16, answered=True, when=10))
    end = made.ended()
    assert end.bleg is not None
    assert (end.bleg.ended_at, end.bleg.answered_at) == (AT + 10, AT + 3)


def test_ended_after_a_lost_socket_asks_elsewhere(call: Call, elsewhere: Ends) -> None:
    made, switch = call
    (elsewhere[UUID],) = Framer().feed(ends("NORMAL_CLEARING", 16, uuid=UUID))
    switch.peer.close()
    with pytest.raises(CallEnded) as caught:
        made.wait_for_hangup(1)
    assert caught.value.lost
    assert made.ended().at == AT + 9


def test_ended_without_a_known_end_is_lost(call: Call) -> None:
    made, switch = call
    switch.peer.close()
    with pytest.raises(CallEnded):
        made.wait_for_hangup(1)
    end = made.ended()
    assert end.lost
    assert end.aleg == Leg(UUID)


def test_ended_without_events_of_b_reads_them_from_a(call: Call, elsewhere: Ends) -> None:
    made, switch = call
    last = ends(
        "NORMAL_CLEARING",
        16,
        uuid=UUID,
        variable_bridge_uepoch=at(3),
        variable_last_bridge_to=B,
        variable_last_bridge_hangup_cause="NORMAL_CLEARING",
    )
    (elsewhere[UUID],) = Framer().feed(last)
    switch.peer.close()
    with pytest.raises(CallEnded):
        made.wait_for_hangup(1)
    bleg = made.ended().bleg
    assert bleg is not None
    assert (bleg.uuid, bleg.answered_at, bleg.ended_at, bleg.q850) == (B, AT + 3, AT + 9, 16)


@pytest.mark.parametrize(
    ("cause", "q850", "expected"), [("CALL_REJECTED", 55, 55), ("CALL_REJECTED", 0, 21), ("NO_SUCH_NAME", 0, 31)]
)
def test_leg_code_is_the_switchs_number_or_its_causes(cause: str, q850: int, expected: int) -> None:
    (last,) = Framer().feed(ends(cause, q850))
    assert leg_of(last, SwitchClock()).q850 == expected


def test_leg_that_lives_has_no_cause() -> None:
    (progress,) = Framer().feed(rings())
    leg = leg_of(progress, SwitchClock())
    assert (leg.ended_at, leg.cause, leg.q850, leg.ringing_at) == (None, None, None, AT + 1)


# Keys -------------------------------------------------------------------------------------------------


def key(digit: str) -> bytes:
    """Return a key as ``bind_digit_action`` diverts it: to this socket only, and not logged (hazard 27)."""
    return raw_event(f"key: x\ndigits: {digit}\n\n".encode())


@pytest.fixture
def answered(call: Call) -> Call:
    """Yield an answered call of a phone that sends its keys by RFC 2833."""
    made, switch = call
    switch.scripts["answer"] = lambda uuid: complete("answer", uuid, {"variable_dtmf_type": "rfc2833"})
    made.answer()
    switch.settle()
    switch.commands.clear()
    return made, switch


def test_answer_diverts_keys_before_it_is_sent(call: Call) -> None:
    made, switch = call
    switch.scripts["answer"] = lambda uuid: complete("answer", uuid, {"variable_dtmf_type": "rfc2833"})
    made.answer()
    switch.settle()
    names = [name for name, _ in switch.executed]
    assert names.index("multiset") < names.index("answer")
    assert "sensitive_dtmf=true" in dict(switch.executed)["multiset"]
    assert "divert_events on" in switch.commands
    assert not [text for text in switch.commands if text.startswith("event") and "DTMF" in text]


def test_answer_sets_all_variables_in_one_execute(call: Call) -> None:
    made, switch = call
    made.answer({"esl_app": "disa", "esl_user_id": "${system(id)}"})
    sets = [argument for name, argument in switch.executed if name == "multiset"]
    encoded = "esl_user_id=%24%7Bsystem%28id%29%7D"
    assert sets == [
        f"^^|esl_app=disa|{encoded}|sensitive_dtmf=true|playback_terminators=none|bind_digit_digit_timeout=800"
    ]


def test_execute_without_a_waiter_has_the_filtered_uuid(answered: Call) -> None:
    """An event has all headers of its channel: half of a call's bytes were completions of ``set``."""
    made, switch = answered
    made.set({"a": "1"})
    made.play("enter_number")
    bridge(made)
    named = [(application(text)[0], app_uuid(text) == UNHEARD) for text in switch.commands if "sendmsg" in text]
    assert named == [
        ("multiset", True),
        ("playback", False),
        ("multiset", True),
        ("bind_digit_action", True),
        ("bridge", False),
    ]


def test_bridge_subscribes_to_b_legs_before_the_first(answered: Call) -> None:
    made, switch = answered
    bridge(made)
    bridge(made)
    asked = [text for text in switch.commands if text.startswith("event") or "app-name: bridge" in text]
    assert asked[0] == "event plain CHANNEL_PROGRESS CHANNEL_PROGRESS_MEDIA CHANNEL_ANSWER"
    assert len(asked) == 3


HIDDEN, SHOWN = "sensitive_dtmf=true|playback_terminators=none", "sensitive_dtmf=|playback_terminators="
EVERY, STARS = ("bind_digit_action", "keys,~^(.)$,key,x"), ("bind_digit_action", "talk,**,key,x")
CLEAR = ("clear_digit_action", "all")


def phases(switch: CallSwitch) -> list[tuple[str, str]]:
    """What was executed to change what the caller's keys do."""
    return [one for one in switch.executed if one[0] in ("multiset", "clear_digit_action", "bind_digit_action")]


def test_bridge_and_prompt_change_everything_of_the_keys(answered: Call) -> None:
    made, switch = answered
    made.collect(None, 1, 0.01, 0.01)
    bridge(made)
    bridge(made)
    made.play("enter_number")
    made.play("enter_number")
    made.collect(None, 1, 0.01, 0.01)
    bridge(made)
    reset = ("multiset", f"^^|{SHOWN}")
    # The keys of a number aren't logged, because they are bound, so hiding them takes no command.
    assert phases(switch) == [reset, STARS, CLEAR, EVERY, STARS]
    names = [name for name, _ in switch.executed]
    assert names.index("playback") == names.index("clear_digit_action") + 2


def test_pin_after_a_talk_is_hidden_before_it_is_asked_for(answered: Call) -> None:
    made, switch = answered
    bridge(made)
    switch.commands.clear()
    made.collect_pin("enter_pin", 1, 0.01, 0.01)
    made.collect(None, 1, 0.01, 0.01)
    made.collect_pin("enter_pin", 1, 0.01, 0.01)
    assert phases(switch) == [("multiset", f"^^|{HIDDEN}"), CLEAR, EVERY]
    assert [name for name, _ in switch.executed][3] == "playback"


def test_keys_that_are_passed_on_are_the_far_sides(answered: Call) -> None:
    """As if the caller had never been asked for one: no binding, nothing hidden, and ``**`` ends nothing."""
    made, switch = answered
    switch.commands.clear()
    made.pass_keys()
    switch.settle()
    assert "divert_events off" in switch.commands
    assert [app for app, _ in switch.executed if app != "multiset"] == ["clear_digit_action", "stop_dtmf"]
    switch.commands.clear()
    switch.scripts["bridge"] = lambda uuid: ends("USER_BUSY", 17) + bridge_over(uuid)
    assert bridge(made).code == 17
    assert [app for app, _ in switch.executed] == ["bridge"]
    made.pass_keys()


def test_several_prompts_are_one_playback(answered: Call) -> None:
    made, switch = answered
    made.play("call_to digit_1")
    assert [argument for app, argument in switch.executed if app == "playback"] == [
        "file_string:///prompts/0/call_to.wav!/prompts/0/digit_1.wav"
    ]


def test_conference_gets_the_callers_keys(answered: Call) -> None:
    made, switch = answered
    made.conference("weekly", 1)
    made.collect("enter_number", 1, 0.01, 0.01)
    assert phases(switch) == [("multiset", f"^^|{SHOWN}"), CLEAR, CLEAR, EVERY]


def test_conference_has_an_end_though_its_node_dies(answered: Call) -> None:
    made, switch = answered
    made.conference("weekly", 0.01)
    switch.settle()
    given = [command for command in switch.commands if "sched_" in command or "execute-app-name: conf" in command]
    assert [command.splitlines()[0] for command in given] == [
        f"api sched_hangup +5 {made.uuid}",
        "sendmsg",
        f"api sched_del {made.uuid}",
    ]


@pytest.mark.parametrize("another_node", [False, True])
def test_answer_clears_what_another_node_bound(another_node: bool) -> None:
    left: dict[str, object] = {"variable_bind_digit_digit_timeout": "800"} if another_node else {}
    made, switch, session = new_call(left)
    made.answer()
    switch.settle()
    bound = [name for name, _ in switch.executed if name.endswith("digit_action")]
    assert bound == [*(["clear_digit_action"] if another_node else []), "bind_digit_action"]
    session.close("the test is over")


def info(body: str) -> bytes:
    return event("RECV_INFO", {"SIP-Content-Type": "application"}, body=body)


def test_collect_counts_a_key_said_in_two_ways_once(answered: Call) -> None:
    made, switch = answered
    for digit in "44#":
        switch.say(key(digit), key(digit), info(f"Signal={digit}\r\nDuration=100\r\n"))
    assert made.collect(None, 9, 1, 1) == "44"


def test_collect_ends_with_a_key_pressed_twice(answered: Call) -> None:
    made, switch = answered
    switch.say(*(key(digit) for digit in "122"))
    began = time.monotonic()
    assert made.collect(None, 3, 5, 5) == "122"
    assert time.monotonic() - began < 4.5  # the time between two keys is five


def test_pin_ends_when_it_is_complete(answered: Call) -> None:
    made, switch = answered
    switch.say(*(key(digit) for digit in "1234#56"))
    assert made.collect_pin("enter_pin", 9, 1, 1, complete=lambda typed: typed == "1234") == "1234"
    # The # behind it belongs to it.
    assert made.collect(None, 2, 1, 1) == "56"


def test_hash_behind_a_complete_entry_stops_no_prompt(answered: Call) -> None:
    made, switch = answered
    switch.say(*(key(digit) for digit in "12"))
    assert made.collect(None, 2, 1, 60) == "12"
    playing: list[str] = []

    def prompt(uuid: str) -> bytes:
        playing.append(uuid)
        return key("#")

    def end_prompt() -> None:
        eventually(lambda: playing)
        switch.say(complete("playback", playing[0]), *(key(digit) for digit in "34#"))

    switch.scripts["playback"] = prompt
    ends = gevent.spawn(end_prompt)
    assert made.collect("enter_number", 9, 5, 5) == "34"
    ends.get(timeout=5)
    assert not [text for text in switch.commands if "uuid_break" in text]


@pytest.mark.parametrize("digits", ["125#6#", "12#5#6#"])
def test_hash_behind_another_key_ends_the_next_entry(answered: Call, digits: str) -> None:
    made, switch = answered
    switch.say(*(key(digit) for digit in digits[:2]))
    assert made.collect(None, 2, 1, 60) == "12"
    switch.say(*(key(digit) for digit in digits[2:]))
    assert [made.collect(None, 9, 1, 1) for _ in range(2)] == ["5", "6"]


def test_collect_ignores_the_other_legs_info(answered: Call) -> None:
    made, switch = answered
    switch.say(key("4"), key("4"), event("RECV_INFO", {}, uuid=B, body="Signal=4"))
    assert made.collect(None, 2, 1, 1) == "44"


def test_collect_in_doubt_ends_at_its_longest(answered: Call) -> None:
    made, switch = answered
    switch.say(key("4"), key("4"))
    assert made.collect(None, 9, 5, 5, longest=0.05) == "44"


@pytest.fixture
def twofold(answered: Call) -> Call:
    """Yield an answered call of a phone that says each key by RFC 2833 and by INFO, after its first entry."""
    made, switch = answered
    switch.say(*twice("1#"))
    assert made.collect(None, 9, 1, 1) == "1"
    return made, switch


def twice(digits: str) -> list[bytes]:
    return [frame for digit in digits for frame in (key(digit), key(digit), info(f"Signal={digit}"))]


def passed(switch: CallSwitch) -> list[str]:
    """The keys that were passed on to the far side."""
    return [text.split()[3] for text in switch.commands if text.startswith("api uuid_recv_dtmf")]


def talking_over(switch: CallSwitch, frames: list[bytes], end: float | None) -> None:
    """Have the bridge answered and these frames come; it ends by itself after ``end`` seconds, or when B is killed."""
    begun: list[str] = []

    def begins(uuid: str) -> bytes:
        begun.append(uuid)
        if end is not None:
            gevent.spawn_later(end, lambda: switch.say(complete("bridge", uuid)))
        return answers() + b"".join(frames)

    switch.scripts["bridge"] = begins
    switch.scripts["hupall"] = lambda _uuid: ends("NORMAL_CLEARING", 16, answered=True) + complete("bridge", begun[0])


def test_talk_of_a_phone_with_two_ways_passes_each_key_once(twofold: Call) -> None:
    made, switch = twofold
    talking_over(switch, twice("1*900#"), 0.3)
    assert not bridge(made).broken
    assert passed(switch) == ["1", "*9", "0", "0", "#"]
    # The keys stay bound: the switch would pass on each twice.
    assert phases(switch) == [("multiset", f"^^|{SHOWN}")]


def test_talk_of_a_phone_with_two_ways_passes_a_single_star_late(twofold: Call) -> None:
    made, switch = twofold
    talking_over(switch, twice("*"), 1.2)
    assert not bridge(made).broken
    assert passed(switch) == ["*"]


def test_talk_of_a_phone_with_two_ways_ends_at_star_star(twofold: Call) -> None:
    made, switch = twofold
    talking_over(switch, twice("7**"), None)
    assert bridge(made).broken
    assert passed(switch) == ["7"]


def test_talk_of_a_phone_with_two_ways_ends_with_its_time(twofold: Call) -> None:
    made, switch = twofold
    talking_over(switch, twice("7"), None)
    assert not bridge(made, longest=0.1).broken
    assert any(text.startswith("api hupall ALLOTTED_TIMEOUT") for text in switch.commands)


def test_keys_of_a_talk_are_not_for_the_next_prompt(answered: Call) -> None:
    made, switch = answered
    # One that passed on to the far side, without a match.
    switch.scripts["bridge"] = lambda uuid: raw_event(b"digits: 5\n\n") + complete("bridge", uuid)
    bridge(made)
    assert made.collect(None, 1, 0.01, 0.01) == ""


def test_pin_key_is_removed_before_the_break_in_one_write(call: Call) -> None:
    made, switch = call
    made.answer()
    switch.settle()
    switch.commands.clear()
    playing: list[str] = []

    def prompt(uuid: str) -> bytes:
        playing.append(uuid)
        # Two keys came in one tick of the switch.
        return key("1") + key("2")

    switch.scripts["playback"] = prompt
    gevent.spawn_later(0.02, lambda: switch.say(complete("playback", playing[0])))
    assert made.collect_pin("enter_pin", 2, 1, 1) == "12"
    forget = f"api uuid_setvar {UUID} last_matching_digits"
    asked = [text for text in switch.commands if text.startswith("api")]
    assert asked == [forget, f"api uuid_break {UUID} all", forget]


def test_collect_returns_the_keys(answered: Call) -> None:
    made, switch = answered
    switch.say(*(key(digit) for digit in "1234"))
    assert made.collect(None, 4, 1, 1) == "1234"


def test_collect_ends_at_a_hash(answered: Call) -> None:
    made, switch = answered
    switch.say(*(key(digit) for digit in "12#"))
    assert made.collect(None, 9, 1, 1) == "12"


def test_collect_without_keys_is_empty(answered: Call) -> None:
    made, _switch = answered
    assert made.collect(None, 4, 0.02, 0.02) == ""


def test_collect_ends_after_a_pause(answered: Call) -> None:
    made, switch = answered
    switch.say(key("1"), key("2"))
    assert made.collect(None, 4, 1, 0.02) == "12"


def test_drop_keys_forgets_a_greeting_to_its_end(answered: Call) -> None:
    made, switch = answered
    switch.say(key("0"), key("8"))
    gevent.spawn_later(0.02, lambda: switch.say(key("2"), key("#")))
    made.wait_for_hangup(0.01)
    made.drop_keys(0.05, 5)
    assert made.collect(None, 4, 0.02, 0.02) == ""


def test_drop_keys_without_a_key_does_not_wait(answered: Call) -> None:
    made, switch = answered
    made.drop_keys(60, 60)
    switch.say(key("1"))
    assert made.collect(None, 1, 1, 1) == "1"


def test_drop_keys_of_an_endless_greeting_ends(answered: Call) -> None:
    made, switch = answered
    switch.say(key("1"))
    made.wait_for_hangup(0.01)
    made.drop_keys(60, 0.02)
    assert made.collect(None, 4, 0.02, 0.02) == ""


def test_first_key_stops_the_prompt(answered: Call) -> None:
    made, switch = answered
    playing: list[str] = []

    def prompt(uuid: str) -> bytes:
        playing.append(uuid)
        return key("1")

    def end_prompt() -> None:
        eventually(lambda: f"api uuid_break {UUID} all" in switch.commands)
        switch.say(complete("playback", playing[0]))

    switch.scripts["playback"] = prompt
    ends = gevent.spawn(end_prompt)
    assert made.collect("enter_number", 1, 1, 1) == "1"
    ends.get(timeout=5)


OFFER = "m=audio 9 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n"


@pytest.mark.parametrize(
    ("dtmf_type", "offer", "detects"),
    [
        ("rfc2833", None, False),
        ("rfc2833", OFFER, False),
        # A profile with liberal-dtmf says so of every phone.
        ("rfc2833", "m=audio 9 RTP/AVP 0\r\n", True),
        ("info", OFFER, True),
        (None, None, True),
    ],
)
def test_answer_detects_tones_only_without_telephone_event(
    call: Call, dtmf_type: str | None, offer: str | None, detects: bool
) -> None:
    """Hazard 29: with telephone-event, a detector would hear every key of a leaky gateway a second time."""
    made, switch = call
    said = {"variable_dtmf_type": dtmf_type, "variable_switch_r_sdp": offer and quote(offer)}
    variables = {name: value for name, value in said.items() if value is not None}
    switch.scripts["answer"] = lambda uuid: complete("answer", uuid, variables)
    made.answer()
    switch.settle()
    assert ("start_dtmf" in [name for name, _ in switch.executed]) is detects


def test_key_by_info_and_in_the_audio_counts_once(call: Call) -> None:
    made, switch = call
    switch.scripts["answer"] = lambda uuid: complete("answer", uuid, {"variable_dtmf_type": "info"})
    made.answer()
    switch.settle()
    for digit in "123#":
        switch.say(key(digit), info(f"Signal={digit}"), key(digit))
    assert made.collect(None, 9, 1, 1) == "123"


def test_key_pressed_twice_by_telephone_event_counts_twice(answered: Call) -> None:
    made, switch = answered
    switch.say(*(key(digit) for digit in "11223#"))
    assert made.collect(None, 9, 1, 1) == "11223"


def test_collect_whose_caller_leaves_raises_call_ended(answered: Call) -> None:
    made, switch = answered
    switch.say(key("1"), event("CHANNEL_HANGUP"))
    with pytest.raises(CallEnded):
        made.collect(None, 4, 1, 1)
