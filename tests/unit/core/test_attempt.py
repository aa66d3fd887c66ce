"""An attempt has one record, which reads as promised in each notification."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_apps.apps.ending import conclude, end_of
from esl_apps.core import terms
from esl_apps.core.attempt import Attempt, Moment
from esl_apps.core.call import Bridged, Ended, Leg
from esl_apps.core.call_fields import Before
from esl_apps.core.charges import Charge
from esl_apps.core.limits import Level, Limits
from esl_apps.core.notification import c2d_payload, cdr_payload, inbound_payload
from esl_apps.core.numbers import NumberPlan, direction
from esl_apps.core.record import Record
from esl_apps.core.reference import new_ref

PLAN = NumberPlan("ZA", r"^\d{3,4}$")
INSIDE, OUTSIDE = PLAN.read("1000"), PLAN.read("0820001234")

FIELDS = {
    "extension",
    "number",
    "dial_number",
    "call_ref",
    "contact_ref",
    "dialed_at",
    "end_reason",
    "end_code",
    "call_time",
    "hold_time",
    "call_dir",
    "recording_url",
    "ref",
}
END_REASONS = (
    "answered",
    "agent_no_answer",
    "agent_busy",
    "agent_failed",
    "callee_no_answer",
    "callee_busy",
    "callee_failed",
    "cancelled",
    "abandoned",
    "rejected",
    "lost",
)


def attempt(**more: Any) -> Attempt:
    return Attempt(
        app="click-dial",
        integrator="acme",
        extension="1000",
        number="0820001234",
        dial_number="27115550000",
        call_dir="outbound",
        queued_at=1000.0,
        **more,
    )


def record(reason: str = "answered", code: int = 16, by: str = "callee", **more: Any) -> Record:
    one = attempt(contact_ref="lead-7", call_ref="ref-1", recording_url="ref-1.wav", **more)
    one.dialled(1000.4)
    one.enter(terms.AGENT_ANSWERED, 1002.0)
    one.enter(terms.BRIDGED, 1005.0)
    assert one.end(reason, code, by, 1012.9)
    assert one.record is not None
    return one.record


class ListeningObserver:
    def __init__(self, *, recording: bool = True) -> None:
        self.heard: list[Moment] = []
        self.saved = 0
        self.recording = recording

    def changed(self, attempt: Attempt, moment: Moment) -> None:
        self.heard.append(moment)

    def save(self, attempt: Attempt) -> None:
        self.saved += 1

    def has_recording(self, attempt: Attempt) -> bool:
        return self.recording


# The life of an attempt ----------------------------------------------------------------------------------


def test_attempt_ends_once_whoever_ends_it_again() -> None:
    observer = ListeningObserver()
    one = attempt(observer=observer)
    assert one.end("answered", 16, "callee", 1010.0)
    assert not one.end("lost", 31, "system", 1011.0)
    assert one.record is not None
    assert one.record.end_reason == "answered"
    assert [moment.what for moment in observer.heard] == ["ended"]


@pytest.mark.parametrize("goes_on", [True, False])
def test_attempt_ends_the_charge_of_a_leg_from_another_call(*, goes_on: bool) -> None:
    """A transferred customer may hang up before their leg comes to a node: the leg would be paid for until the node
    ends. A caller who was rung back dials another number."""
    now = [100.0]
    charge = Charge("before", [Level("system", Limits(minutes_per_day=9))], None)
    charge.open(lambda: now[0], lambda _charge: None)
    charge.talk()
    charge.outlive("fs1", "leg")
    one = attempt()
    one.pay(charge)
    one.closes = not goes_on
    now[0] += 30
    assert one.end("abandoned", 16, "callee", time.time() - 1)
    now[0] += 30
    assert charge.ended is not goes_on
    assert charge.spent(now[0]) == pytest.approx(60 if goes_on else 29, abs=0.2)


@pytest.mark.parametrize(
    ("card", "number", "reason", "refused"),
    [
        (None, None, terms.ABANDONED, True),
        (None, "0820001234", terms.REJECTED, True),
        (None, "0820001234", terms.ANSWERED, False),
        # Other people's refused calls don't use up what is kept of a card's owner.
        ("card-1", None, terms.ABANDONED, False),
        ("card-1", "0820001234", terms.REJECTED, False),
    ],
)
def test_attempt_of_a_card_is_no_strangers(card: str | None, number: str | None, reason: str, refused: bool) -> None:
    one = Attempt(app="dialthrough", extension="0825550000", number=number, call_dir="external", card_id=card)
    assert not one.refused
    one.end(reason, 16, terms.CALLEE, 1010.0)
    assert one.refused is refused


@pytest.mark.parametrize(
    ("app", "fields", "reason"),
    [
        # A limit or a reload ends it after the agent was rung, which may have cost money.
        ("click-dial", {"number": "0820001234", "placed": True}, terms.REJECTED),
        # A limit ends it while the callee rings.
        ("disa", {"number": "0820001234", "callee_ringing_at": 1003.0}, terms.REJECTED),
        # The caller withholds their number, and an agent has rung or answered.
        ("inbound", {"agent_ringing_at": 1003.0}, terms.ABANDONED),
        ("inbound", {"bleg_uuid": "of-the-agent"}, terms.ANSWERED),
        # The caller leaves at the dial tone after a talk.
        ("disa", {"follows": True}, terms.ABANDONED),
        ("disa", {"follows": True}, terms.REJECTED),
        # The caller keys a denied number after a talk.
        ("disa", {"number": "0900123456", "before": Before(1)}, terms.REJECTED),
    ],
)
def test_attempt_that_rang_a_phone_is_no_strangers(app: str, fields: dict[str, Any], reason: str) -> None:
    """A placed call was forgotten as one of too many refused: a repeated request dialled again."""
    one = Attempt(app=app, call_dir="external", **fields)
    one.end(reason, 16, terms.SYSTEM, 1010.0)
    assert not one.refused


def test_states_only_go_forward() -> None:
    one = attempt()
    one.enter(terms.BRIDGED, 1005.0)
    one.enter(terms.AGENT_RINGING, 1006.0)
    one.enter(terms.BRIDGED, 1007.0)
    assert (one.state, one.bridged_at) == (terms.BRIDGED, 1005.0)
    assert [moment.what for moment in one.timeline] == ["queued", "bridged"]


def test_nothing_is_entered_after_the_end() -> None:
    one = attempt()
    one.end("lost", 31, "system", 1010.0)
    one.enter(terms.BRIDGED, 1011.0)
    assert one.bridged_at is None
    assert one.state == terms.ENDED


def test_next_gateway_does_not_move_the_first_invite() -> None:
    one = attempt()
    one.dialled(1001.0)
    one.dialled(1003.0)
    assert one.dialed_at == 1001.0


def test_call_time_runs_from_the_first_invite_ringing_included() -> None:
    made = record()
    assert (made.dialed_at, made.call_time) == (1000.4, 12)


def test_call_that_was_never_dialled_counts_from_its_request() -> None:
    one = attempt()
    one.end("cancelled", 16, "api", 1003.0)
    assert one.record is not None
    assert (one.record.dialed_at, one.record.call_time) == (1000.0, 3)


def test_clock_that_was_set_back_makes_no_negative_time() -> None:
    one = attempt()
    one.dialled(1005.0)
    one.end("lost", 31, "system", 990.0)
    assert one.record is not None
    assert one.record.call_time == 0
    assert one.record.ended_at >= one.record.dialed_at


def test_no_recording_where_the_two_did_not_talk() -> None:
    one = attempt(recording_url="x.wav")
    one.end("callee_busy", 17, "callee", 1010.0)
    assert one.record is not None
    assert one.record.recording_url is None


@given(st.integers())
def test_end_code_is_1_to_127_whatever_the_switch_said(code: int) -> None:
    assert 1 <= record(code=code).end_code <= 127


def test_refs_are_made_where_there_are_none() -> None:
    one = attempt()
    assert one.contact_ref == one.session_ref == one.call_ref
    assert attempt(contact_ref="mine").contact_ref == "mine"


def test_decisions_do_not_grow_without_end() -> None:
    one = attempt()
    for _ in range(1000):
        one.note("dial")
    assert len(one.timeline) <= 200


def test_references_are_uuids_of_version_7_that_sort_by_time() -> None:
    refs = [new_ref(now) for now in (1.0, 1000.0, 1.7e9, 1.7e9 + 0.001, 4e9)]
    assert refs == sorted(refs)
    form = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
    assert all(form.fullmatch(ref) for ref in refs)
    assert len({new_ref(1.7e9) for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (INSIDE, OUTSIDE, "outbound"),
        (OUTSIDE, INSIDE, "inbound"),
        (INSIDE, INSIDE, "internal"),
        (OUTSIDE, OUTSIDE, "external"),
        (None, INSIDE, "inbound"),
        (INSIDE, None, "outbound"),
        (None, None, "external"),
    ],
)
def test_direction(a: Any, b: Any, expected: str) -> None:
    assert direction(a, b) == expected


# v3 ------------------------------------------------------------------------------------------------------


def test_v3_has_the_contracts_fields() -> None:
    body = cdr_payload(record())
    assert body["type"] == "cdr"
    payload = body["payload"]
    assert payload.keys() >= FIELDS
    assert {name: payload[name] for name in FIELDS} == {
        "extension": "1000",
        "number": "0820001234",
        "dial_number": "27115550000",
        "call_ref": "ref-1",
        "contact_ref": "lead-7",
        "dialed_at": 1000,
        "end_reason": "answered",
        "end_code": 16,
        "call_time": 12,
        "hold_time": 0,
        "call_dir": "outbound",
        "recording_url": "ref-1.wav",
        "ref": "click-dial",
    }
    assert (payload["answered_at"], payload["bridged_at"], payload["ended_at"]) == (1002.0, 1005.0, 1012.9)
    assert payload["hung_up_by"] == "callee"


def test_whole_seconds_are_whole() -> None:
    payload = cdr_payload(record())["payload"]
    assert all(type(payload[name]) is int for name in ("dialed_at", "call_time", "hold_time", "end_code"))


# v2 ------------------------------------------------------------------------------------------------------


def test_v2_has_no_number_and_its_ref_is_the_clients() -> None:
    payload = cdr_payload(record(), payload="v2")["payload"]
    assert "number" not in payload
    assert payload["ref"] == "0820001234"
    assert payload.keys() >= FIELDS - {"number"}


# Teleforge's words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "code", "by", "word"),
    [
        ("answered", 16, "callee", "callee_hungup"),
        ("answered", 16, "agent", "agent_hungup"),
        ("answered", 16, "api", "hungup"),
        ("answered", 16, "system", "hungup"),
        ("agent_busy", 17, "agent", "busy"),
        ("callee_busy", 17, "callee", "busy"),
        ("agent_no_answer", 19, "system", "timeout"),
        ("callee_no_answer", 18, "callee", "timeout"),
        ("callee_no_answer", 102, "callee", "timeout"),
        ("callee_failed", 21, "callee", "reject"),
        ("agent_failed", 21, "agent", "reject"),
        ("callee_failed", 22, "callee", "reject"),
        ("callee_failed", 1, "callee", "error"),
        ("agent_failed", 20, "agent", "error"),
        ("cancelled", 16, "api", "hungup"),
        ("abandoned", 16, "agent", "hungup"),
        ("rejected", 21, "system", "error"),
        ("rejected", 57, "system", "error"),
        ("lost", 31, "system", "error"),
    ],
)
def test_teleforges_word_and_ours_beside_it(reason: str, code: int, by: str, word: str) -> None:
    payload = cdr_payload(record(reason, code, by), dispositions="teleforge")["payload"]
    assert (payload["end_reason"], payload["outcome"]) == (word, reason)


def test_our_words_have_no_outcome_beside_them() -> None:
    assert "outcome" not in cdr_payload(record())["payload"]


def test_v2_and_teleforges_words_go_together() -> None:
    payload = cdr_payload(record("callee_busy", 17), payload="v2", dispositions="teleforge")["payload"]
    assert (payload["ref"], payload["end_reason"], payload["outcome"]) == ("0820001234", "busy", "callee_busy")


# The inbound notification --------------------------------------------------------------------------------


def inbound() -> Attempt:
    return Attempt(
        app="inbound",
        integrator="acme",
        extension="1000",
        number="0825556666",
        dial_number="27115550000",
        call_dir="inbound",
        call_ref="ref-1",
        contact_ref="ref-1",
    )


def test_inbound_notification() -> None:
    assert inbound_payload(inbound(), "1001", 4) == {
        "type": "call",
        "payload": {
            "number": "0825556666",
            "dial_number": "27115550000",
            "hold_time": 4,
            "call_ref": "ref-1",
            "contact_ref": "ref-1",
            "call_dir": "inbound",
            "ref": "1001",
        },
    }


def test_inbound_v2_has_campaign_ref_instead_of_call_dir() -> None:
    payload = inbound_payload(inbound(), "1001", 4, payload="v2")["payload"]
    assert payload["campaign_ref"] == "inbound"
    assert "call_dir" not in payload


# c2d -----------------------------------------------------------------------------------------------------


def test_c2d_has_the_deprecated_form() -> None:
    assert c2d_payload(record()) == {
        "notifications": [
            {
                "extension": "1000",
                "disposition": "ANSWER",
                "recording_url": "ref-1.wav",
                "call_ref": "ref-1",
                "end_code": 16,
            }
        ]
    }


@pytest.mark.parametrize(
    ("reason", "code", "word"),
    [
        ("answered", 16, "ANSWER"),
        ("agent_busy", 17, "BUSY"),
        ("callee_busy", 17, "BUSY"),
        ("agent_no_answer", 19, "NOANSWER"),
        ("callee_no_answer", 18, "NOANSWER"),
        ("cancelled", 16, "CANCEL"),
        ("abandoned", 16, "CANCEL"),
        ("callee_failed", 34, "CONGESTION"),
        ("callee_failed", 42, "CONGESTION"),
        ("agent_failed", 20, "CHANUNAVAIL"),
        ("callee_failed", 1, "CHANUNAVAIL"),
        ("lost", 31, "CHANUNAVAIL"),
    ],
)
def test_c2ds_word(reason: str, code: int, word: str) -> None:
    assert c2d_payload(record(reason, code))["notifications"][0]["disposition"] == word


@pytest.mark.parametrize("reason", END_REASONS)
def test_every_end_has_a_word_in_every_form(reason: str) -> None:
    made = record(reason, 16, "system")
    assert cdr_payload(made, dispositions="teleforge")["payload"]["end_reason"] in {
        "callee_hungup",
        "agent_hungup",
        "hungup",
        "busy",
        "timeout",
        "reject",
        "error",
    }
    assert c2d_payload(made)["notifications"][0]["disposition"] in {
        "ANSWER",
        "BUSY",
        "NOANSWER",
        "CANCEL",
        "CONGESTION",
        "CHANUNAVAIL",
    }


@pytest.mark.parametrize(
    ("a", "reason"),
    [
        # The switch ended both because B rang too long. B's time may be the later one.
        (Leg("a", ended_at=30.0, q850=16, disposition="send_bye"), "callee_no_answer"),
        # The caller's own phone hung up, so B ended because of it.
        (Leg("a", ended_at=30.0, q850=16, disposition="recv_bye"), "abandoned"),
        # The phone hung up when B had failed, before the node had heard of that.
        (Leg("a", ended_at=30.3, q850=16, disposition="recv_bye"), "callee_no_answer"),
        # The same, stamped by a switch under load.
        (Leg("a", ended_at=29.0, q850=16, disposition="send_bye"), "callee_no_answer"),
        # A had left long before, while B rang on.
        (Leg("a", ended_at=29.0, q850=16, disposition="recv_bye"), "abandoned"),
        (Leg("a", ended_at=29.0, q850=16), "abandoned"),
    ],
)
def test_failed_first_allows_for_times_taken_leg_by_leg(a: Leg, reason: str) -> None:
    one = attempt()
    conclude(one, Ended(30.0, a, Leg("b", ended_at=30.005, q850=19, disposition="send_cancel")), None, terms.CALLEE)
    assert one.record is not None
    assert one.record.end_reason == reason


@pytest.mark.parametrize(
    ("b_ended", "b", "by"),
    [
        (20.0, "recv_bye", "callee"),  # B left; the caller, who left at 30, was in the session's dial tone
        (29.995, "send_bye", "agent"),  # the caller left, and B with it
        (28.5, "send_bye", "agent"),  # the same, stamped by a switch under load
        (28.5, "recv_bye", "callee"),
    ],
)
def test_talk_ends_with_b_though_the_caller_stays(b_ended: float, b: str, by: str) -> None:
    one = attempt()
    one.queued_at = 10.0
    bleg = Leg("b", answered_at=12.0, ended_at=b_ended, q850=16, disposition=b)
    conclude(
        one,
        end_of(Leg("a", answered_at=11.0, ended_at=30.0, q850=16, disposition="recv_bye"), bleg, 99.0),
        None,
        terms.CALLEE,
    )
    assert one.record is not None
    assert (one.record.end_reason, one.record.hung_up_by) == ("answered", by)
    assert abs(one.record.ended_at - b_ended) < 0.1


@pytest.mark.parametrize(("timed_out", "reason"), [(False, "answered"), (True, "callee_no_answer")])
def test_talk_seen_after_its_end_counts_unless_timed_out(timed_out: bool, reason: str) -> None:
    """A node that was stopped learns of the answer and of the end at once, and its bridge counts as failed."""
    one = attempt()
    aleg = Leg("a", answered_at=12.0, ended_at=12.4, q850=16, disposition="send_bye")
    bleg = Leg("b", answered_at=12.0, ended_at=12.3, q850=16, disposition="recv_bye")
    failed = Bridged(False, 102 if timed_out else 16, timed_out=timed_out, bleg=bleg)
    conclude(one, end_of(aleg, bleg, 99.0), failed, terms.CALLEE)
    assert one.record is not None
    assert one.record.end_reason == reason


def test_talk_that_the_switch_cut_is_nobodys() -> None:
    """A limit ended B, and the caller hung up later."""
    one = attempt()
    one.queued_at = 10.0
    bleg = Leg("b", answered_at=12.0, ended_at=20.0, q850=47, disposition="send_bye")
    aleg = Leg("a", answered_at=11.0, ended_at=30.0, q850=16, disposition="recv_bye")
    conclude(one, end_of(aleg, bleg, 99.0), None, terms.CALLEE)
    assert one.record is not None
    assert (one.record.hung_up_by, one.record.ended_at) == ("system", 20.0)


@pytest.mark.parametrize(
    ("q850", "disposition", "reason"),
    [(16, "send_cancel", "agent_no_answer"), (17, "recv_refuse", "agent_busy"), (None, None, "agent_no_answer")],
)
def test_caller_who_was_handed_back_has_abandoned_nothing(
    q850: int | None, disposition: str | None, reason: str
) -> None:
    """A is still there."""
    one = attempt()
    bleg = Leg("b", ended_at=30.0 if q850 else None, q850=q850, disposition=disposition)
    conclude(one, end_of(Leg("a"), bleg, 31.0), None, terms.AGENT)
    assert one.record is not None
    assert one.record.end_reason == reason
