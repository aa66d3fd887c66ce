"""A call's status, as clients and operators see it, and as it is kept in Redis for a day."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, defstruct, to_builtins

from esl_apps.core import node_clock, notification, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.call_fields import CallFields, Published, agents_of

_REF = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
Ref = Annotated[str, Meta(pattern="^[0-9a-f-]{36}$", description="A call's reference: a UUID, version 7.")]
State = Annotated[str, Meta(extra_json_schema={"enum": list(terms.STATES)})]
Time = Annotated[float | None, Meta(description="Unix seconds")]

_STATES = frozenset(terms.STATES)
#: Its keys in the order that is promised to clients.
_STATUS = Published(
    "status",
    CallFields,
    (
        "call_ref",
        "contact_ref",
        "session_ref",
        "app",
        "integrator",
        "state",
        "agent",
        "callee",
        "outbound_id",
        "call_dir",
        "switch",
        "dialed_at",
        "answered_at",
        "bridged_at",
    ),
)
#: The keys that every event of a call has: all but its state and its times.
STEADY = tuple(key for key in _STATUS.fields if key != "state" and key not in _STATUS.rounded)
_steady_values = attrgetter(*(_STATUS.fields[key] for key in STEADY))
_Steady: Any = defstruct("_Steady", STEADY)
_Fields: Any = _STATUS.struct(
    "_Fields", {"call_ref": Ref, "session_ref": Ref, "state": State, **dict.fromkeys(_STATUS.rounded, Time)}
)


class TimelineEntry(Struct):
    state: State
    at: float
    detail: str = ""


class Decision(Struct):
    what: str
    at: float
    detail: str = ""


class CallStatus(_Fields, kw_only=True):  # type: ignore[misc, call-arg] # of a class that is made
    """The shape of a :func:`snapshot`, to describe it and to check those in Redis."""

    timeline: list[TimelineEntry]
    decisions: list[Decision]
    record: notification.CallRecord | UnsetType = UNSET
    """Once the call has ended."""


#: The same for :func:`document`, whose fields are given by position.
_Document: Any = defstruct("_Document", CallStatus.__struct_fields__)

#: A filter on one pair of a call's metadata begins with it.
METADATA = "metadata."


def values_by(field: str, call: Mapping[str, Any]) -> Sequence[Any]:
    """Return the values by which a filter on a snapshot's field, or on ``metadata.NAME``, finds the call."""
    if field.startswith(METADATA):
        return [(call.get("metadata") or {}).get(field.removeprefix(METADATA))]
    if field == "agent":
        return agents_of(call.get("agent"), call.get("agents"))
    return [call.get(field)]


def is_ref(text: str) -> bool:
    """Whether a text is a call's reference."""
    return _REF.fullmatch(text) is not None


def document(attempt: Attempt) -> Any:
    """Return a call as it is now, to be encoded: it takes half as long as a :func:`snapshot` with its encoding."""
    shift = node_clock.clock.shift
    timeline: list[TimelineEntry] = []
    decisions: list[Decision] = []
    for moment in attempt.timeline:
        what, at = moment.what, _shown(moment.at) if shift else moment.at
        if what in _STATES:
            timeline.append(TimelineEntry(what, at, moment.detail))
        else:
            decisions.append(Decision(what, at, moment.detail))
    record = UNSET if attempt.record is None else notification.cdr(attempt.record)
    result = _Document(*_STATUS.values(attempt), timeline, decisions, record)
    if shift:
        for key in _STATUS.rounded:
            time = getattr(result, key)
            setattr(result, key, None if time is None else _shown(time))
    return result


def snapshot(attempt: Attempt) -> dict[str, Any]:
    """Return a call as it is now, in JSON's own types."""
    result: dict[str, Any] = to_builtins(document(attempt))
    return result


def steady(attempt: Attempt) -> Any:
    """Return what is known of a call, without its state and its times, to be encoded."""
    return _Steady(*_steady_values(attempt))


def _shown(at: float) -> float:
    return node_clock.milliseconds(node_clock.shown(at))
