"""What happens to a call, as events for clients: each state, an inbound call's answer, and the record of the end.

An event's data is JSON: ``state``, ``at``, and then the call as its status shows it, without times, or its record. The
second part is the same for all events of a call that are written together, so it is encoded once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from esl_apps.core import node_clock, status, terms
from esl_apps.core.attempt import Attempt, Moment
from esl_apps.core.call_fields import agents_of
from esl_apps.core.node_clock import milliseconds
from esl_apps.core.record import Record

CALL, INBOUND, RECORD = "call", "inbound", "record"
KINDS = (CALL, INBOUND, RECORD)
#: Ranks from one state to the next. ``ringing`` comes again for each group of agents, and takes the milliseconds since
#: the call came: they grow at any node, also for a process that adopted the call and knows none of its groups.
_APART = 1_000_000
_RANKS = {state: _APART * number for number, state in enumerate(terms.STATES)}
#: The line of a state behind its rank, up to its time.
_LINES = {state: f' {CALL} "state":"{state}","at":' for state in terms.STATES}


class CallEvent(NamedTuple):
    rank: int
    """Its place among a call's events, which only grows: an event that isn't behind the last one is a repeat."""
    kind: str
    head: str
    """The first fields of its data, as JSON without braces."""


#: An event, or a state that becomes one when it is written: while a call is up, its states are only noted.
Noted = CallEvent | Moment


def of_end(record: Record, at: float) -> CallEvent:
    """A call has entered its last state."""
    end = {
        "state": terms.ENDED,
        "at": _shown(at),
        "end_reason": record.end_reason,
        "end_code": record.end_code,
        "hung_up_by": record.hung_up_by,
    }
    return CallEvent(_RANKS[terms.ENDED], CALL, _inside(end))


def of_answer(attempt: Attempt, hold_time: int) -> CallEvent:
    """An agent has answered an inbound call. ``hold_time``: seconds that the caller waited."""
    at = attempt.answered_at if attempt.answered_at is not None else attempt.queued_at
    head = f'"state":"{terms.BRIDGED}","at":{_json(_shown(at))},"hold_time":{hold_time}'
    return CallEvent(_RANKS[terms.BRIDGED] + 1, INBOUND, head)


def of_record(record: Record) -> CallEvent:
    """A call has ended, and this is its record."""
    head = _inside({"state": terms.ENDED, "at": milliseconds(record.ended_at), "agent": record.extension})
    return CallEvent(_RANKS[terms.ENDED] + 1, RECORD, head)


def written(attempt: Attempt, noted: Iterable[Noted]) -> str:
    """Return events of a call as the scripts of the store read them: a line for the call, and one for each event."""
    lines = [_json(status.steady(attempt))]
    for event in noted:
        if isinstance(event, Moment):
            rank = _RANKS[event.what]
            if event.what == terms.RINGING:
                rank += min(max(0, round((event.at - attempt.queued_at) * 1000)), _APART - 2)
            # A moment's time is to the millisecond already.
            at = _shown(event.at) if node_clock.clock.shift else event.at
            lines.append(f"{rank}{_LINES[event.what]}{_json(at)}")
        else:
            lines.append(f"{event.rank} {event.kind} {event.head}")
    return "\n".join(lines)


def _inside(fields: dict[str, Any]) -> str:
    return _json(fields)[1:-1]


def _json(value: Any) -> str:
    # Python's own text of a float takes seven times as long.
    return msgspec.json.encode(value).decode()


def _shown(at: float) -> float:
    """As the system's clock has it, to the millisecond."""
    return milliseconds(node_clock.shown(at))


# Filters --------------------------------------------------------------------------------------------------


class Searched(msgspec.Struct):
    """The fields of an event by which clients choose."""

    call_ref: str = ""
    agent: str | None = None
    agents: list[dict[str, Any]] | None = None
    extension: str | None = None
    contact_ref: str | None = None
    metadata: dict[str, Any] | None = None


class Wanted(msgspec.Struct, frozen=True):
    """The values that a client wants; None: any."""

    agent: str | None = None
    contact_ref: str | None = None
    metadata: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def everything(self) -> bool:
        return self.agent is None and self.contact_ref is None and not self.metadata

    def takes(self, event: Searched) -> bool:
        if self.agent is not None and self.agent not in (event.extension, *agents_of(event.agent, event.agents)):
            return False
        if self.contact_ref is not None and self.contact_ref != event.contact_ref:
            return False
        given = event.metadata or {}
        return all(given.get(name) == value for name, value in self.metadata.items())
