"""Find out from a call's legs how it ended, and end its attempt accordingly."""

from __future__ import annotations

from dataclasses import replace

from esl_apps.core import causes, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.billing import note_legs
from esl_apps.core.call import Bridged, Ended, Leg

#: Q.850 causes by the prompt that the caller hears. Others are busy, no answer or failed.
_NO_SUCH_NUMBER = frozenset({1, 3, 22, 28})
_REFUSED = frozenset({21, 50, 52, 54, 57})


def conclude(attempt: Attempt, end: Ended, failed: Bridged | None, party: str, *, unconfirmed: bool = False) -> None:
    """End the attempt by what the switch reported. ``party``: the party on the B-leg, ``callee`` or ``agent``.

    ``failed``: B's outcome if the two were not connected because of B; None if the A-leg left first. ``unconfirmed``:
    A had to press a key before B is dialled, and hasn't.
    """
    if unconfirmed and attempt.cancelled_by is None and attempt.cut is None and not end.lost:
        note_legs(attempt, end.aleg, None)
        by = terms.AGENT if end.aleg.hung_up_itself else terms.SYSTEM
        attempt.end(terms.AGENT_UNCONFIRMED, causes.NO_ANSWER, by, end.at)
        return
    if end.bleg is not None and end.both_up and (failed is None or not failed.timed_out):
        assert end.bleg.answered_at is not None
        # Events may come out of order, or all at once to a node that was stopped, so B's answer time decides. A B that
        # answers while the application ends it for its time-out is ended all the same.
        attempt.enter(terms.BRIDGED, end.bleg.answered_at)
    elif failed is None and end.bleg is not None and _failed_first(end, end.bleg):
        # With early media the two were bridged, so the end of B ended the A-leg.
        failed = Bridged(False, end.bleg.q850 or causes.NORMAL_UNSPECIFIED, bleg=end.bleg)
    note_legs(attempt, end.aleg, end.bleg or (failed.bleg if failed is not None else None), party)
    if attempt.bridged_at is not None:
        if end.lost:
            attempt.lose(end.at)
            return
        code = end.bleg.q850 if end.bleg is not None and end.bleg.q850 else causes.NORMAL_CLEARING
        talk = _talk_of(end)
        attempt.end(terms.ANSWERED, code, _hung_up_by(attempt, talk, party), talk.at)
    elif attempt.cut is not None:
        attempt.end(terms.REJECTED, attempt.cut.code, terms.SYSTEM, end.at)
    elif attempt.cancelled_by is not None:
        attempt.end(terms.CANCELLED, causes.NORMAL_CLEARING, attempt.cancelled_by, end.at)
    elif failed is not None:
        end_failed(attempt, failed, party, end.at)
    elif end.lost:
        attempt.lose(end.at)
    elif end.aleg.answered_at is None and end.aleg.q850 in causes.NO_MEDIA:
        attempt.end(terms.REJECTED, end.aleg.q850 or causes.INCOMPATIBLE, terms.SYSTEM, end.at)
    elif end.bleg is not None and end.aleg.uuid and end.aleg.ended_at is None:
        # The dialplan handed A back: the caller is still there, and B, which was cut off, had not answered.
        attempt.end(f"{party}_no_answer", causes.NO_ANSWER, terms.SYSTEM, end.at)
    else:
        attempt.end(terms.ABANDONED, causes.NORMAL_CLEARING, terms.other_party(party), end.at)


def failure_prompt(failed: Bridged) -> str:
    """Return the prompt that tells a caller why B did not answer."""
    if failed.by_switch:
        return "unavailable"
    if failed.code in _NO_SUCH_NUMBER:
        return "callee_no_such_number"
    return "callee_refused" if failed.code in _REFUSED else f"callee_{causes.failure(failed.code)}"


def end_failed(attempt: Attempt, failed: Bridged, party: str, at: float) -> None:
    """End an attempt whose B-leg, of this ``party``, did not answer."""
    if failed.by_switch:
        attempt.end(terms.REJECTED, failed.code, terms.SYSTEM, at)
    else:
        by = terms.SYSTEM if failed.timed_out else party
        attempt.end(f"{party}_{causes.failure(failed.code)}", failed.code, by, at)


def _hung_up_by(attempt: Attempt, end: Ended, second: str) -> str:
    """Return the party that hung up an answered call. ``second``: the party on the B-leg."""
    if attempt.cut is not None:
        return terms.SYSTEM
    if attempt.cancelled_by is not None:
        return attempt.cancelled_by
    if end.aleg.hung_up_itself:
        return terms.other_party(second)
    if end.bleg is not None and end.bleg.hung_up_itself:
        return second
    return terms.SYSTEM


#: Seconds by which a B that ends A may have the later end: FreeSWITCH takes the time in each leg's own thread.
_STAMPED_WITHIN = 0.25


def end_of(aleg: Leg | None, bleg: Leg | None, now: float) -> Ended:
    """Return how a call ended, from its legs alone. ``now``: used if neither leg says when it ended.

    A caller's leg may go on after a talk: then the talk ended with B, and A didn't end it.
    """
    ends = [leg.ended_at for leg in (aleg, bleg) if leg is not None and leg.ended_at is not None]
    if aleg is not None and bleg is not None and bleg.answered_at is not None and len(ends) == 2:
        a_ended, b_ended = ends
        if a_ended > b_ended + _STAMPED_WITHIN:
            if not _ended_by_a(aleg, bleg):
                aleg = replace(aleg, ended_at=None, disposition=None)
            return Ended(b_ended, aleg, bleg)
    return Ended(max(ends, default=now), aleg or Leg(""), bleg)


def _talk_of(end: Ended) -> Ended:
    """Return how the talk ended. A caller whose socket was lost may have gone on in the dialplan after it."""
    talk = end_of(end.aleg, end.bleg, end.at)
    return talk if talk.at < end.at else end


def _ended_by_a(aleg: Leg, bleg: Leg) -> bool:
    """Return whether A's phone hung up and the switch then ended B. A switch under load may stamp B's end first, by any
    time, so the two phones' own words come before the times. A limit ends B with another cause."""
    return aleg.hung_up_itself and bleg.disposition == "send_bye" and bleg.q850 == causes.NORMAL_CLEARING


def _failed_first(end: Ended, bleg: Leg) -> bool:
    """Return whether an unanswered B ended by itself before A did, and not because A had left."""
    if end.lost or bleg.ended_at is None or bleg.q850 in (None, causes.NORMAL_CLEARING):
        return False
    if end.aleg.ended_at is None:
        # A was there longer. Its phone may have hung up since the dialplan handed it back.
        return True
    if end.aleg.hung_up_itself:
        # A phone may hang up while the node is still about to hear of B: then B had failed well before.
        return bleg.ended_at + _STAMPED_WITHIN < end.aleg.ended_at
    if end.aleg.disposition == "send_bye":
        # The switch ended A, and B's cause is its own (if A had been ended first, B would have 16): so A ended with B.
        return True
    return bleg.ended_at <= end.aleg.ended_at + _STAMPED_WITHIN
