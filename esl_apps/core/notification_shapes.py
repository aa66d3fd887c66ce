"""The shape of each notification as a Struct, and of each event, from which their JSON Schemas are made.

They are made of the same declarations as the notifications themselves (``call_fields``), so they can't differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, defstruct
from msgspec.structs import fields

from esl_apps.core import notification, status
from esl_apps.core.call_fields import Published

#: ``payload`` of an integrator.
PAYLOADS = ("v2", "v3", "v4")
_SEQ = Annotated[int, Meta(ge=1, description="Counts the notifications of a list on the Redis that holds it.")]
_REASONS = Annotated[
    str, Meta(description="Teleforge's word: callee_hungup, agent_hungup, hungup, busy, timeout, reject or error.")
]


class C2d(Struct):
    """One call in the deprecated list ``c2d``."""

    extension: str | None
    disposition: Literal["ANSWER", "BUSY", "NOANSWER", "CANCEL", "CONGESTION", "CHANUNAVAIL"]
    recording_url: str | None
    call_ref: str
    end_code: Annotated[int, Meta(ge=1, le=127)]


class C2dNotification(Struct, forbid_unknown_fields=True):
    notifications: list[C2d]


class WebhookTestPayload(Struct):
    webhook: str
    integrator: str


class WebhookTest(Struct, tag="test"):
    """The message of ``esl-apps webhook test``."""

    payload: WebhookTestPayload


class _Happened(Struct):
    """What every event says first."""

    state: status.State
    at: Annotated[float, Meta(description="Unix seconds")]


def cdr(payload: str, dispositions: str = "esl_apps") -> type[Struct]:
    """Return the shape of the notification of type ``cdr``."""
    form = notification.CDR[payload]
    types: dict[str, Any] = {**_types(form), "dialed_at": int}
    if payload == "v2":
        types["ref"] = types.pop("number")
    if payload != "v4":
        # Not one of these forms' own keys: only requests with metadata have it.
        types["metadata"] = dict[str, str] | msgspec.UnsetType
    if dispositions == "teleforge":
        types["outcome"], types["end_reason"] = types["end_reason"], _REASONS
    name = f"Cdr{_suffix(payload)}" + ("Teleforge" if dispositions == "teleforge" else "")
    return _enveloped(name, "cdr", types, closed=payload != "v4")


def inbound(payload: str) -> type[Struct]:
    """Return the shape of the notification of type ``call``: an agent has answered an inbound call."""
    types = {**_types(notification.INBOUND[payload]), "call_dir": Literal["inbound"]}
    if payload == "v2":
        del types["call_dir"]
        types["campaign_ref"] = Literal["inbound"]
    return _enveloped(f"Inbound{_suffix(payload)}", "call", types, closed=payload != "v4")


def session() -> type[Struct]:
    """Return the shape of the closing entry of a session."""
    types = {field.encode_name: field.type for field in fields(notification.SessionRecord)}
    return _enveloped("Session", "session", types, closed=False)


def event(kind: str) -> type[Struct]:
    """Return the shape of an event's data. ``kind``: ``call``, ``inbound`` or ``record``."""
    types = {field.encode_name: field.type for field in fields(_Happened)}
    if kind == "record":
        record = _types(notification.CDR["v4"])
        return _open("RecordEvent", {**types, "agent": str | None, **record, "dialed_at": int})
    if kind == "inbound":
        types["hold_time"] = Annotated[int, Meta(ge=0, description="Seconds that the caller waited.")]
    shown = {field.encode_name: field.type for field in fields(status.CallStatus) if field.encode_name in status.STEADY}
    ended = dict.fromkeys(("end_reason", "hung_up_by"), str | msgspec.UnsetType)
    extra = {**ended, "end_code": int | msgspec.UnsetType} if kind == "call" else {}
    return _open(f"{kind.capitalize()}Event", {**types, **shown, **extra})


def explained(name: str, reasons: Iterable[str]) -> type[Struct]:
    """Return the shape of the data of an event that no call has caused."""
    return defstruct(name, [("reason", Literal[tuple(reasons)]), ("message", str)], kw_only=True)


def schemas(*shapes: type[Struct], ref: str = "#/$defs/{name}") -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the JSON Schema (2020-12) of each shape, and the schemas that they refer to."""
    found, defined = msgspec.json.schema_components(shapes, ref_template=ref)
    return list(found), defined


def _types(form: Published) -> dict[str, Any]:
    return {field.encode_name: field.type for field in fields(form.struct("_"))}


def _suffix(payload: str) -> str:
    return payload.upper()


def _enveloped(name: str, kind: str, types: Mapping[str, Any], *, closed: bool) -> type[Struct]:
    made = [*_members(types), ("seq", _SEQ)]
    payload = defstruct(f"{name}Payload", made, kw_only=True, forbid_unknown_fields=closed)
    return defstruct(name, [("type", Literal[kind]), ("payload", payload)], kw_only=True, forbid_unknown_fields=closed)


def _open(name: str, types: Mapping[str, Any]) -> type[Struct]:
    return defstruct(name, _members(types), kw_only=True)


def _members(types: Mapping[str, Any]) -> list[Any]:
    return [(key, kind, msgspec.UNSET) if _optional(kind) else (key, kind) for key, kind in types.items()]


def _optional(kind: Any) -> bool:
    return msgspec.UnsetType in getattr(kind, "__args__", ())
