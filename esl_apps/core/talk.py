"""A talk's stretches: for how long a party was on hold or muted, and the recording paused.

Stretches are kept in seconds since the two were connected, so they hold by any node's clock.
"""

from __future__ import annotations

from collections.abc import Iterable

from esl_apps.core.call_fields import CallFields

HOLD, MUTE, PAUSE = "hold", "mute", "pause"
#: In ``spent``: the seconds of hold by the agent's phone before its leg was moved. The switch counts from 0 then.
BY_PHONE = "by_phone"
#: The values of ``recording``.
OFF, ON, PAUSED = "off", "on", "paused"


def begin(call: CallFields, what: str, at: float) -> None:
    """Begin a stretch, unless it has begun."""
    call.since.setdefault(what, _into(call, at))


def cease(call: CallFields, what: str, at: float) -> None:
    """End a stretch that has begun."""
    if what in call.since:
        call.spent[what] = seconds(call, what, at)
        del call.since[what]


def seconds(call: CallFields, what: str, at: float) -> float:
    """Return the seconds of all stretches of a kind; one that goes on counts up to ``at``."""
    began = call.since.get(what)
    return call.spent.get(what, 0.0) + (0.0 if began is None else max(0.0, _into(call, at) - began))


def _into(call: CallFields, at: float) -> float:
    return at - (at if call.bridged_at is None else call.bridged_at)


def hold(call: CallFields, at: float, *, on: bool) -> None:
    call.held = on
    (begin if on else cease)(call, HOLD, at)


def hold_time(call: CallFields, at: float, by_phone: float = 0.0) -> int:
    """Return the whole seconds for which the client was on hold. ``by_phone``: those that the agent's leg tells."""
    return round(seconds(call, HOLD, at) + call.spent.get(BY_PHONE, 0.0) + by_phone)


def mute(call: CallFields, muted: Iterable[str], at: float) -> None:
    """Note which parties are muted from now on."""
    call.muted = sorted(muted)
    (begin if call.muted else cease)(call, MUTE, at)


def record(call: CallFields, recording: str, at: float) -> None:
    call.recording = recording
    (begin if recording == PAUSED else cease)(call, PAUSE, at)
