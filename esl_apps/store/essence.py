"""What another process needs to follow a call to its end."""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated, Any

import msgspec

from esl_apps.core.attempt import Attempt

#: What goes into commands to a switch: Redis is not ours alone.
_Plain = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9.-]{1,64}\Z")]


class Essence(msgspec.Struct, omit_defaults=True):
    """What it takes to end a call whose process died: which call it is, whose, and how far it had come."""

    call_ref: _Plain
    session_ref: _Plain
    contact_ref: str
    app: str
    queued_at: float
    state: str
    call_dir: str
    integrator: str | None = None
    account_id: str | None = None
    extension: str | None = None
    number: str | None = None
    dial_number: str | None = None
    dialed_at: float | None = None
    answered_at: float | None = None
    bridged_at: float | None = None
    hold_time: int = 0
    cancelled_by: str | None = None
    recording_url: _Plain | None = None
    aleg_uuid: _Plain | None = None
    switch: str | None = None
    follows: bool = False
    holder: str | None = None
    """Whose place among the concurrent calls it has."""
    paid_for: list[dict[str, Any]] = msgspec.field(default_factory=list)
    """What its legs are paid from."""
    order: dict[str, Any] | None = None
    """What its application goes on by, where its answered leg comes to another process."""
    core_uuid: str | None = None
    """Of the FreeSWITCH process that had the call: where another one answers, the call is gone."""


#: What of an attempt is its essence: all fields in a row, but for the last, the switch's process.
_kept_of = attrgetter(*Essence.__struct_fields__[:-1])


def essence(attempt: Attempt, core_uuid: str | None) -> Essence:
    fields: tuple[Any, ...] = (*_kept_of(attempt), core_uuid)
    return Essence(*fields)


def restored(known: Essence) -> Attempt:
    """An attempt of a process that can no longer end it."""
    fields = msgspec.structs.asdict(known)
    later = {name: fields.pop(name) for name in ("state", "dialed_at", "answered_at", "bridged_at", "hold_time")}
    del fields["core_uuid"]
    attempt = Attempt(**fields)
    for name, value in later.items():
        setattr(attempt, name, value)
    return attempt
