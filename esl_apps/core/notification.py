"""The notifications: their Redis lists, and the payload of each.

A field that is declared with ``Shown(cdr=…)`` appears in the record over HTTP and in ``payload: v4``. The keys of v2
and v3 are fixed below: a client may refuse keys that it doesn't know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, structs

from esl_apps.core.attempt import Attempt
from esl_apps.core.call_fields import Before, CallFields, Published
from esl_apps.core.node_clock import milliseconds
from esl_apps.core.record import Record
from esl_apps.core.terms import ABANDONED, AGENT, ANSWERED, CALLEE, CANCELLED

CDR_LIST = "enigma:notifications:cdr"
INBOUND_LIST = "enigma:notifications:inbound"
C2D_LIST = "enigma:notifications:c2d"


#: The keys of a record in ``payload: v3``, in the order that is promised to clients.
CDR_KEYS = (
    "extension",
    "number",
    "dial_number",
    "call_ref",
    "contact_ref",
    "session_ref",
    "dialed_at",
    "end_reason",
    "end_code",
    "call_time",
    "hold_time",
    "call_dir",
    "recording_url",
    "ref",
    "answered_at",
    "bridged_at",
    "ended_at",
    "hung_up_by",
    "switch",
)
#: Those of an answered inbound call.
_INBOUND_KEYS = ("number", "dial_number", "hold_time", "call_ref", "contact_ref", "call_dir", "ref")
#: The forms of each, by ``payload``. Those of v2 are changed a little below.
CDR = {form: Published("cdr", Record, CDR_KEYS, closed=form != "v4") for form in ("v2", "v3", "v4")}
INBOUND = {form: Published("inbound", CallFields, _INBOUND_KEYS, closed=form != "v4") for form in ("v2", "v3", "v4")}
#: The record with all its keys as a Struct, for schemas. ``dialed_at`` is whole seconds.
CallRecord = CDR["v4"].struct("CallRecord", {"dialed_at": int})


def cdr(record: Record, payload: str = "v4") -> dict[str, Any]:
    """Return a record as clients see it: the payload of a ``cdr`` without its ``seq``."""
    # Made once for the list, the history and the status: a record never changes.
    fields: dict[str, Any] | None = record.__dict__.get("cdr")
    if fields is None:
        form = CDR["v4"]
        fields = record.__dict__["cdr"] = form.of(record)
        for key in form.rounded:
            at = fields[key]
            if at is not None:
                fields[key] = milliseconds(at)
        fields["dialed_at"] = int(record.dialed_at)
    return dict(fields) if payload == "v4" else {key: fields[key] for key in CDR[payload].fields}


def cdr_payload(record: Record, *, payload: str = "v3", dispositions: str = "esl_apps") -> dict[str, Any]:
    """Return a record as ``enigma:notifications:cdr`` carries it, without its ``seq``."""
    fields = cdr(record, payload)
    if payload == "v2":
        fields["ref"] = fields.pop("number")
    if record.metadata is not None:
        # A client that sends metadata knows the key, whatever its payload.
        fields["metadata"] = record.metadata
    if dispositions == "teleforge":
        fields["outcome"] = record.end_reason
        fields["end_reason"] = _teleforge(record)
    return {"type": "cdr", "payload": fields}


class SessionRecord(Struct, kw_only=True):
    """The closing entry of a session: what its legs took in all. Times are Unix seconds."""

    session_ref: str
    contact_ref: str
    ref: str
    """The application."""
    account_id: str | None
    card_id: str | None
    user_id: str | None
    extension: str | None
    extension_e164: str | None
    extension_class: str | None
    extension_country: str | None
    dialed_at: int
    """The first INVITE of its session, out or in."""
    answered_at: float | None
    """The first party's answer."""
    ended_at: float
    calls: int
    """Its records."""
    a_seconds: float | None
    """From the answer to the end of the first leg; None if the caller placed it, or its end was not seen."""
    a_rest_seconds: float | None
    """Those of ``a_seconds`` that no record has."""
    b_seconds: float
    """The sum of its records'."""
    switch: str | None


def session_record(record: Record, *, recorded: bool) -> SessionRecord:
    """Return the closing entry of a session. ``record``: its last; ``recorded``: whether that one is pushed, too."""
    before, a_seconds = record.before or Before(), record.a_seconds
    rest = 0.0 if recorded and a_seconds is not None else a_seconds
    return SessionRecord(
        **{name: getattr(record, name) for name in _AS_RECORDED},
        ref=record.app,
        dialed_at=int(record.dialed_at if record.session_at is None else record.session_at),
        answered_at=_rounded(record.session_answered_at or record.answered_at),
        ended_at=round(record.ended_at, 3),
        calls=before.calls + recorded,
        a_seconds=None if a_seconds is None else round(before.a_seconds + a_seconds, 3),
        a_rest_seconds=_rounded(rest),
        b_seconds=round(before.b_seconds + (record.b_seconds or 0.0), 3),
    )


def session_payload(closing: SessionRecord) -> dict[str, Any]:
    """Return a closing entry as ``enigma:notifications:cdr`` carries it, without its ``seq``."""
    return {"type": "session", "payload": structs.asdict(closing)}


_AS_RECORDED = (
    *("session_ref", "contact_ref", "account_id", "card_id", "user_id", "switch"),
    *("extension", "extension_e164", "extension_class", "extension_country"),
)


def _rounded(value: float | None) -> float | None:
    return None if value is None else milliseconds(value)


def inbound_payload(attempt: Attempt, agent: str, hold_time: int, *, payload: str = "v3") -> dict[str, Any]:
    """Return the notification of an answered inbound call. ``hold_time``: whole seconds."""
    result = INBOUND[payload].of(attempt)
    result["hold_time"], result["call_dir"], result["ref"] = hold_time, "inbound", agent
    if payload == "v2":
        del result["call_dir"]
        result["campaign_ref"] = "inbound"
    return {"type": "call", "payload": result}


def c2d_payload(record: Record) -> dict[str, Any]:
    """Return the deprecated ``enigma:notifications:c2d``."""
    return {
        "notifications": [
            {
                "extension": record.extension,
                "disposition": _raw_disposition(record),
                "recording_url": record.recording_url,
                "call_ref": record.call_ref,
                "end_code": record.end_code,
            }
        ]
    }


def _teleforge(record: Record) -> str:
    """Return Teleforge's word for an end."""
    reason = record.end_reason
    if reason == ANSWERED:
        return {CALLEE: "callee_hungup", AGENT: "agent_hungup"}.get(record.hung_up_by, "hungup")
    if reason.endswith("_busy"):
        return "busy"
    if reason.endswith(("_no_answer", "_unconfirmed")):
        return "timeout"
    if reason in (CANCELLED, ABANDONED):
        return "hungup"
    if reason.endswith("_failed") and record.end_code in (21, 22):
        return "reject"
    return "error"


def _raw_disposition(record: Record) -> str:
    """Return the word of ``c2d``, Asterisk's ``DIALSTATUS``."""
    words: Mapping[str, str] = {ANSWERED: "ANSWER", CANCELLED: "CANCEL", ABANDONED: "CANCEL"}
    reason = record.end_reason
    if reason in words:
        return words[reason]
    if reason.endswith("_busy"):
        return "BUSY"
    if reason.endswith(("_no_answer", "_unconfirmed")):
        return "NOANSWER"
    return "CONGESTION" if record.end_code in (34, 41, 42) else "CHANUNAVAIL"
