"""The seconds that a call's legs took, from answer to end, and how they sounded.

``a_seconds`` and ``b_seconds`` are of legs that this installation placed, by the switch's own times. A first leg that
lasts for several records is divided between them. What is left when it ends is in the closing entry of the session.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from esl_apps.core import talk, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Leg
from esl_apps.core.call_fields import Before, CallFields
from esl_apps.core.number_classes import EXTENSION
from esl_apps.core.quality import CallQuality
from esl_apps.core.record import Record


def note_legs(attempt: Attempt, aleg: Leg | None, bleg: Leg | None, second: str = terms.CALLEE) -> None:
    """Note what the two legs took, as far as it is known. ``second``: the party on the B-leg."""
    if aleg is not None:
        if attempt.placed and aleg.ended_at is not None:
            before = attempt.before.of_aleg if attempt.before is not None else 0.0
            attempt.a_seconds = max(0.0, _seconds(aleg.answered_at, aleg.ended_at) - before)
        _note_quality(attempt, terms.other_party(second), aleg)
    if bleg is not None:
        if bleg.ended_at is not None and _has_placed_b(attempt):
            # A leg that was joined with A later has been paid for in the call before. ``bridged_at`` is by another
            # reading of the switch's clock.
            before = attempt.before.bleg or 0.0 if attempt.before is not None else 0.0
            attempt.b_seconds = max(0.0, _seconds(bleg.answered_at, bleg.ended_at) - before)
        if bleg.answered_at is None:
            attempt.stopped_ringing(bleg.ended_at)
        if bleg.ringing_at is not None and not _answered_before(attempt, bleg):
            attempt.rang(second, bleg.ringing_at)
        klass = attempt.number_class if second == terms.CALLEE else attempt.extension_class
        if attempt.gateway is None and klass != EXTENSION and bleg.answered_at is not None and bleg.quality is not None:
            # No flow of this call dialled the leg, or heard which of several agents answered. An extension behind a
            # gateway isn't charged for.
            attempt.gateway = bleg.quality.gateway
        _note_quality(attempt, second, bleg)


def carried_on(last: CallFields, record: Record | None = None) -> dict[str, Any]:
    """Return the fields that a session's next attempt takes over from the last one. ``record``: of that one, if it has
    any."""
    before = last.before or Before()
    if record is not None:
        before = Before(
            before.calls + 1,
            before.a_seconds + (record.a_seconds or 0.0),
            before.b_seconds + (record.b_seconds or 0.0),
            None if before.aleg is None else before.aleg + (record.a_seconds or 0.0),
        )
    return {
        "before": before,
        "apart": list(last.apart),
        "placed": last.placed,
        "session_at": last.session_at,
        "session_answered_at": last.session_answered_at,
        # An older version's call has none, and then the next attempt keeps its own.
        **({} if last.language is None else {"language": last.language}),
    }


def note_parting(old: Attempt, a_until: float, b_until: float) -> None:
    """Note what the two legs of a talk took that its parties leave: until when each was in it."""
    if old.bridged_at is not None and _has_placed_b(old):
        old.b_seconds = max(0.0, b_until - old.bridged_at)
    if old.placed and old.answered_at is not None:
        old.a_seconds = max(0.0, a_until - old.answered_at)


def note_before_move(attempt: Attempt, legs: Mapping[str, Leg], *, holds: bool) -> None:
    """Note what the legs of a talk have told before a transfer moved them. Their ends come in other calls.

    ``legs``: by party. ``holds``: the agent's phone can put the client on hold.
    """
    for party, leg in legs.items():
        _note_quality(attempt, party, leg)
    if holds and terms.AGENT in legs:
        held = attempt.spent.get(talk.BY_PHONE, 0.0) + legs[terms.AGENT].hold_seconds
        attempt.spent[talk.BY_PHONE] = held


def divide_leg(old: Attempt, new: Attempt, leg: str) -> None:
    """Have a leg of a call that has ended go on as A of another one, which follows it in its session.

    ``leg``: its UUID. Its seconds until now are in the record of ``old``. The rest, by the switch's own times, will be
    in that of ``new``.
    """
    share = share_of(old, leg)
    new.placed = share is not None
    if share is not None:
        carry_leg(new, share)


def share_of(old: Attempt, leg: str) -> float | None:
    """Return the seconds that the records have of a leg of a call which has ended. None: no node placed that leg."""
    assert old.record is not None
    earlier = old.before or Before()
    if leg != old.aleg_uuid:
        return None if earlier.bleg is None else earlier.bleg + (old.record.b_seconds or 0.0)
    if not old.placed:
        return None
    return earlier.of_aleg + (old.record.a_seconds or 0.0)


def carry_leg(new: Attempt, share: float) -> None:
    """Have a leg that a node placed be A of a call. ``share``: its seconds that other records have."""
    new.before = new.before or Before()
    new.before.aleg = share
    new.placed = True


_SAME = (
    *("app", "integrator", "account_id", "card_id", "user_id", "call_dir", "session_ref", "contact_ref", "holder"),
    *("extension", "extension_e164", "extension_class", "extension_country", "claimed", "aleg_uuid"),
)


def next_attempt(last: Attempt) -> Attempt:
    """Return the attempt that follows one that has ended, in the same session. It has dialled nothing yet."""
    fields = {name: getattr(last, name) for name in _SAME}
    record = None if last.unrecorded else last.record
    return Attempt(**fields, **carried_on(last, record), follows=True, closes=False)


def _has_placed_b(attempt: Attempt) -> bool:
    """Return whether a node placed the B-leg. A phone can have joined A with a caller who dialled in."""
    return attempt.before is None or attempt.before.bleg is not None


def _answered_before(attempt: Attempt, leg: Leg) -> bool:
    """Return whether a leg was answered in another call, in which it rang, too."""
    return leg.answered_at is not None and attempt.dialed_at is not None and leg.answered_at < attempt.dialed_at


def _seconds(answered_at: float | None, ended_at: float) -> float:
    return 0.0 if answered_at is None else ended_at - answered_at


def _note_quality(attempt: Attempt, party: str, leg: Leg) -> None:
    if leg.quality is not None:
        attempt.quality = attempt.quality or CallQuality()
        setattr(attempt.quality, party, leg.quality)
