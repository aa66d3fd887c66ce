"""Seconds of each leg, divided between the records of a session so that their sum is the leg's own."""

from __future__ import annotations

from typing import Any

import pytest

from esl_apps.core.attempt import Attempt
from esl_apps.core.billing import carried_on, divide_leg, next_attempt, note_before_move, note_legs, note_parting
from esl_apps.core.call import Leg
from esl_apps.core.call_fields import Before
from esl_apps.core.notification import cdr, session_payload, session_record
from esl_apps.core.quality import LegQuality
from esl_apps.core.session_parts import Part, whole
from esl_apps.core.talk import BY_PHONE


def attempt(**fields: Any) -> Attempt:
    return Attempt(app="callback", call_dir="external", queued_at=1000.0, **fields)


def leg(answered_at: float | None = 1002.0, ended_at: float | None = 1047.6234, **more: Any) -> Leg:
    return Leg("A", created_at=1000.0, answered_at=answered_at, ended_at=ended_at, **more)


def recorded(one: Attempt, at: float = 1050.0) -> dict[str, Any]:
    one.end("answered", 16, "callee", at)
    assert one.record is not None
    return cdr(one.record)


def test_legs_seconds_are_from_answer_to_end_in_milliseconds() -> None:
    one = attempt(placed=True)
    note_legs(one, leg(), leg(1005.0, 1047.5))
    record = recorded(one)
    assert (record["a_seconds"], record["b_seconds"]) == (45.623, 42.5)


@pytest.mark.parametrize(("holds", "held"), [(True, 5.0), (False, 0.0)])
def test_legs_tell_their_hold_and_sound_before_a_move(holds: bool, held: float) -> None:
    one = attempt()
    for seconds in (3.0, 2.0):
        agent = leg(hold_seconds=seconds, quality=LegQuality(leg="A"))
        note_before_move(one, {"agent": agent, "callee": leg(hold_seconds=7.0)}, holds=holds)
    assert one.spent.get(BY_PHONE, 0.0) == held
    assert one.quality is not None
    assert one.quality.legs() == [("agent", LegQuality(leg="A"))]


@pytest.mark.parametrize("shared", [None, 0.5])
def test_followed_b_leg_has_its_own_times(shared: float | None) -> None:
    """``bridged_at`` is by another reading of the switch's clock, which may be some hundredths of a second off."""
    one = attempt(followed=True, bridged_at=1004.96, before=None if shared is None else Before(bleg=shared))
    note_legs(one, None, leg(1005.0, 1007.5))
    assert recorded(one)["b_seconds"] == 2.5 - (shared or 0.0)


def test_leg_that_the_caller_placed_has_no_seconds() -> None:
    one = attempt()
    note_legs(one, leg(), leg())
    assert one.a_seconds is None


def test_b_leg_that_dialled_in_has_no_seconds() -> None:
    joined = attempt(placed=True, followed=True, answered_at=1002.0, bridged_at=1002.0, before=Before(bleg=None))
    note_legs(joined, leg(), leg())
    note_parting(joined, 1047.0, 1047.0)
    record = recorded(joined)
    assert (record["a_seconds"], record["b_seconds"]) == (45.0, None)
    next_one = attempt(placed=True)
    divide_leg(joined, next_one, "B")
    assert not next_one.placed


@pytest.mark.parametrize(("known", "seconds"), [(leg(None), 0.0), (leg(ended_at=None), None)])
def test_leg_without_answer_or_end_has_its_own_seconds(known: Leg, seconds: float | None) -> None:
    one = attempt(placed=True, bridged_at=1002.0)
    note_legs(one, known, known)
    assert (one.a_seconds, one.b_seconds) == (seconds, seconds)


def test_leg_whose_end_was_seen_keeps_its_seconds() -> None:
    one = attempt(placed=True)
    note_legs(one, leg(1002.0, 1004.0), None)
    note_legs(one, leg(ended_at=None), None)
    assert one.a_seconds == 2.0


@pytest.mark.parametrize(("reason", "seconds"), [("callee_busy", 0.0), ("lost", None)])
def test_unanswered_b_costs_nothing_unless_it_was_lost(reason: str, seconds: float | None) -> None:
    one = attempt()
    one.end(reason, 17, "callee", 1010.0)
    assert one.record is not None
    assert one.record.b_seconds == seconds


@pytest.mark.parametrize(
    ("noted", "answered_at", "gateway"), [(None, 1005.0, "pstn"), (None, None, None), ("host", 1005.0, "host")]
)
def test_gateway_is_the_answered_b_legs_if_none_is_noted(
    noted: str | None, answered_at: float | None, gateway: str | None
) -> None:
    one = attempt(gateway=noted)
    note_legs(
        one,
        leg(quality=LegQuality(leg="A", gateway="a")),
        leg(answered_at, quality=LegQuality(leg="B", gateway="pstn")),
    )
    assert recorded(one)["gateway"] == gateway


@pytest.mark.parametrize("second", ["callee", "agent"])
def test_gateway_is_not_that_of_an_extensions_pbx(second: str) -> None:
    of_a, of_b = ("national", "extension") if second == "callee" else ("extension", "national")
    one = attempt(extension_class=of_a, number_class=of_b)
    note_legs(one, None, leg(quality=LegQuality(leg="B", gateway="pbx")), second)
    assert one.gateway is None


def test_quality_is_that_of_the_party_on_the_leg() -> None:
    one = attempt()
    note_legs(one, leg(quality=LegQuality(leg="A")), leg(quality=LegQuality(leg="B")), "agent")
    assert one.quality is not None
    assert one.quality.agent == LegQuality(leg="B")
    assert one.quality.callee == LegQuality(leg="A")


def test_ringing_ends_with_the_answer_or_the_call() -> None:
    one = attempt(placed=True, answered_at=1002.0)
    one.enter("agent_ringing", 1000.5)
    one.enter("agent_answered", 1002.0)
    one.enter("callee_ringing", 1003.25)
    record = recorded(one, 1010.0)
    assert record["ring_seconds"].agent == 1.5
    assert record["ring_seconds"].callee == 6.75


def test_ringing_of_an_agent_after_a_transfer_ends_with_the_talk() -> None:
    """Also if the switch's clock had them ring before the node's had the other party answer."""
    one = attempt(placed=True, transferred_from="r-1")
    one.enter("agent_answered", 1000.25)
    one.enter("callee_ringing", 1000.249, second="agent")
    one.enter("bridged", 1000.75)
    assert recorded(one, 1010.0)["ring_seconds"].agent == 0.501


@pytest.mark.parametrize("party", ["agent", "callee"])
def test_ringing_ends_before_the_prompt_that_says_so(party: str) -> None:
    one = attempt(answered_at=1002.0)
    note_legs(one, None, leg(None, 1005.0, ringing_at=1004.0), party)
    assert getattr(recorded(one, 1010.0)["ring_seconds"], party) == 1.0


def test_ringing_that_no_event_told_is_read_from_the_leg() -> None:
    one = attempt(bridged_at=1005.0)
    note_legs(one, None, leg(1005.0, 1006.0, ringing_at=1004.0))
    assert recorded(one, 1006.0)["ring_seconds"].callee == 1.0


def test_parting_is_of_each_leg_by_itself() -> None:
    one = attempt(placed=True, answered_at=1002.0, bridged_at=1005.0)
    note_parting(one, 1010.0, 1010.5)
    assert (one.a_seconds, one.b_seconds) == (8.0, 5.5)


# Sessions ------------------------------------------------------------------------------------------------


def session(*ends: float, at: float) -> list[Attempt]:
    """A leg that was answered at 1002, with calls that end at ``ends``, and that ends at ``at``."""
    current = attempt(placed=True, session_at=1000.0, session_answered_at=1002.0, card_id="c1")
    attempts = [current]
    for end in ends:
        current.number = "0820001234"
        current.follows = False
        note_legs(current, leg(1002.0, end), leg(end - 2.0, end))
        current.end("answered", 16, "callee", end)
        current = next_attempt(current)
        current.queued_at = end
        attempts.append(current)
    note_legs(current, leg(1002.0, at), None)
    current.closes = current.unrecorded = True
    current.end("abandoned", 16, "agent", at)
    return attempts


def test_session_of_two_calls_divides_the_first_leg() -> None:
    attempts = session(1010.0, 1020.5, at=1023.0)
    assert [one.a_seconds for one in attempts] == [8.0, 10.5, 2.5]
    last = attempts[-1].record
    assert last is not None
    closing = session_payload(session_record(last, recorded=False))
    assert closing["type"] == "session"
    payload = closing["payload"]
    assert (payload["calls"], payload["a_seconds"], payload["a_rest_seconds"], payload["b_seconds"]) == (
        2,
        21.0,
        2.5,
        4.0,
    )
    assert (payload["dialed_at"], payload["answered_at"], payload["ended_at"]) == (1000, 1002.0, 1023.0)
    assert payload["card_id"] == "c1"


def test_session_of_one_call_has_no_rest() -> None:
    one = attempt(placed=True, number="0820001234", session_at=1000.0)
    note_legs(one, leg(1002.0, 1010.0), leg(1004.0, 1010.0))
    one.end("answered", 16, "callee", 1010.0)
    assert one.record is not None
    payload = session_payload(session_record(one.record, recorded=True))["payload"]
    assert (payload["calls"], payload["a_seconds"], payload["a_rest_seconds"], payload["b_seconds"]) == (
        1,
        8.0,
        0.0,
        6.0,
    )


def test_session_whose_caller_dialled_in_has_no_a_seconds() -> None:
    one = attempt(number="0820001234")
    note_legs(one, leg(), leg(1005.0, 1006.0))
    one.end("answered", 16, "callee", 1006.0)
    assert one.record is not None
    payload = session_payload(session_record(one.record, recorded=True))["payload"]
    assert (payload["a_seconds"], payload["a_rest_seconds"]) == (None, None)


# Transfers -----------------------------------------------------------------------------------------------


def talk() -> Attempt:
    """A on leg A since 1002, B on leg B since 1005."""
    one = attempt(placed=True, answered_at=1002.0, bridged_at=1005.0, number="1", aleg_uuid="A", dialed_at=1000.0)
    one.session_at, one.session_answered_at = 1000.0, 1002.0
    return one


def transferred(old: Attempt, leg_uuid: str, at: float) -> Attempt:
    """The call in which a leg goes on."""
    new = attempt(session_ref=old.session_ref, answered_at=at, bridged_at=at + 3, dialed_at=at, aleg_uuid=leg_uuid)
    note_parting(old, at, at)
    old.end("answered", 16, "agent", at)
    divide_leg(old, new, leg_uuid)
    return new


@pytest.mark.parametrize(("stays", "since"), [("A", 1002.0), ("B", 1005.0)])
def test_transfer_divides_the_leg_of_the_party_that_stays(stays: str, since: float) -> None:
    old = talk()
    new = transferred(old, stays, 1010.0)
    note_legs(new, leg(since, 1030.0), leg(1013.0, 1030.0))
    new.end("answered", 16, "callee", 1030.0)
    assert old.record is not None
    assert new.record is not None
    assert (old.record.a_seconds, old.record.b_seconds) == (8.0, 5.0)
    assert (new.record.a_seconds, new.record.b_seconds) == (20.0, 17.0)
    parts = [
        Part(one.call_ref, session_record(record, recorded=True), one is new, [old.call_ref])
        for one, record in ((old, old.record), (new, new.record))
    ]
    closing = whole(parts)
    assert closing is not None
    assert closing.calls == 2
    assert (closing.a_seconds, closing.b_seconds, closing.a_rest_seconds) == (28.0, 22.0, 0.0)


def test_transfer_of_a_consultations_party_has_each_second_once() -> None:
    """B was answered at 1005, in the consultation, and joined with A at 1007."""
    old = talk()
    old.bridged_at, old.before = 1007.0, Before(bleg=2.0)
    new = transferred(old, "B", 1010.0)
    note_legs(new, leg(1005.0, 1030.0), None)
    assert (old.b_seconds, new.a_seconds) == (3.0, 20.0)


def test_transfer_of_a_transfer_has_each_second_once() -> None:
    old = talk()
    second = transferred(old, "B", 1010.0)
    third = transferred(second, "B", 1020.0)
    note_legs(third, leg(1005.0, 1030.0), leg(1023.0, 1030.0))
    third.end("answered", 16, "callee", 1030.0)
    seconds = [(one.record.a_seconds, one.record.b_seconds) for one in (old, second, third) if one.record]
    # Leg A 8, leg B 25, and two more that were answered at 1013 and 1023.
    assert sum(a + b for a, b in seconds if a is not None and b is not None) == 8 + 25 + 7 + 7


def test_transfer_of_a_caller_who_dialled_in_bills_b_alone() -> None:
    old = talk()
    old.placed = False
    new = transferred(old, "A", 1010.0)
    note_legs(new, leg(1002.0, 1030.0), leg(1013.0, 1030.0))
    assert (old.a_seconds, old.b_seconds, new.a_seconds, new.b_seconds) == (None, 5.0, None, 17.0)


def test_next_attempt_takes_over_what_it_must() -> None:
    first = attempt(placed=True, session_at=1000.0, session_answered_at=1002.0, extension="+27825556666", number="1")
    note_legs(first, leg(1002.0, 1010.0), leg(1004.0, 1010.0))
    first.end("answered", 16, "callee", 1010.0)
    following = next_attempt(first)
    assert (following.session_ref, following.extension, following.number) == (first.call_ref, "+27825556666", None)
    assert (following.placed, following.session_at, following.session_answered_at) == (True, 1000.0, 1002.0)
    assert following.before == Before(1, 8.0, 6.0)
    assert (following.follows, following.closes) == (True, False)


def test_attempt_without_a_record_adds_nothing_to_its_session() -> None:
    assert carried_on(attempt(before=Before(1, 8.0, 6.0)))["before"] == Before(1, 8.0, 6.0)
