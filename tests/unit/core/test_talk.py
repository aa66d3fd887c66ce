"""The stretches of a talk, in seconds, and their sums in the record."""

from __future__ import annotations

from esl_apps.core import talk, terms
from esl_apps.core.attempt import Attempt

AT = 1000.0


def talking(**fields: object) -> Attempt:
    attempt = Attempt(app="click-dial", call_dir="outbound", queued_at=AT, **fields)  # type: ignore[arg-type]
    attempt.enter(terms.BRIDGED, AT + 5)
    return attempt


def test_talk_stretches_of_a_kind_add_up() -> None:
    attempt = talking()
    talk.hold(attempt, AT + 10, on=True)
    talk.hold(attempt, AT + 13, on=False)
    talk.hold(attempt, AT + 20, on=True)
    assert attempt.held
    assert talk.seconds(attempt, talk.HOLD, AT + 24) == 7


def test_talk_stretch_that_began_twice_counts_from_the_first() -> None:
    attempt = talking()
    talk.begin(attempt, talk.MUTE, AT + 10)
    talk.begin(attempt, talk.MUTE, AT + 12)
    talk.cease(attempt, talk.MUTE, AT + 14)
    talk.cease(attempt, talk.MUTE, AT + 19)
    assert talk.seconds(attempt, talk.MUTE, AT + 30) == 4


def test_talk_hold_time_has_that_of_the_phone() -> None:
    attempt = talking()
    talk.hold(attempt, AT + 10, on=True)
    attempt.spent[talk.BY_PHONE] = 1.5
    assert talk.hold_time(attempt, AT + 13, 4.0) == round(3 + 1.5 + 4.0)


def test_talk_mute_lasts_until_both_parties_are_heard() -> None:
    attempt = talking()
    talk.mute(attempt, ["callee"], AT + 10)
    talk.mute(attempt, ["callee", "agent"], AT + 12)
    talk.mute(attempt, ["agent"], AT + 14)
    assert attempt.muted == ["agent"]
    talk.mute(attempt, [], AT + 16)
    assert talk.seconds(attempt, talk.MUTE, AT + 30) == 6


def test_talk_record_has_the_sums_up_to_the_end() -> None:
    attempt = talking(recording_url="a.wav")
    assert attempt.recording == talk.ON
    talk.record(attempt, talk.PAUSED, AT + 10)
    talk.mute(attempt, ["agent"], AT + 12)
    attempt.end(terms.ANSWERED, 16, terms.AGENT, AT + 20)
    assert attempt.record is not None
    assert (attempt.record.mute_time, attempt.record.recording_paused) == (8, 10)
    assert (attempt.held, attempt.muted, attempt.recording, attempt.was_recorded) == (False, [], talk.OFF, False)


def test_talk_stretch_holds_though_the_clock_is_another() -> None:
    """Another node adopts the call, whose times move with its clock."""
    attempt = talking()
    talk.hold(attempt, AT + 10, on=True)
    attempt.move(100)
    assert talk.seconds(attempt, talk.HOLD, AT + 112) == 2


def test_talk_call_without_a_recording_has_none_on() -> None:
    assert talking().recording == talk.OFF
