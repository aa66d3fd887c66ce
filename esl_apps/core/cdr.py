"""One call's record: what happened to one attempt to join two parties, and how it reads in Redis.

An :class:`Attempt` is filled in while the call goes on and ended exactly once, whoever ends it; the
:class:`Record` is what then stands. Fields and words: contract §6; Q.850 causes: ``causes``.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from esl_apps.core import causes
from esl_apps.core.numbers import Number

if TYPE_CHECKING:
    from esl_apps.core.spending import Charge, Refusal

QUEUED, AGENT_RINGING, AGENT_ANSWERED = "queued", "agent_ringing", "agent_answered"
CALLEE_RINGING, BRIDGED, ENDED = "callee_ringing", "bridged", "ended"
STATES = (QUEUED, AGENT_RINGING, AGENT_ANSWERED, CALLEE_RINGING, BRIDGED, ENDED)

ANSWERED, CANCELLED, ABANDONED = "answered", "cancelled", "abandoned"
REJECTED, LOST = "rejected", "lost"

AGENT, CALLEE, API, SYSTEM = "agent", "callee", "api", "system"


def new_ref(now: float | None = None) -> str:
    """A call's reference: a UUID version 7 (RFC 9562), so that references sort by time.

    FreeSWITCH, Redis keys and file names take it as it is.
    """
    ms = int((time.time() if now is None else now) * 1000)
    value = (ms & (1 << 48) - 1) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(3 << 62) | 2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def began(ref: str) -> float:
    """When a reference was made, by its own time."""
    return int(ref[:8] + ref[9:13], 16) / 1000


def direction(a: Number | None, b: Number | None) -> str:
    """``call_dir``: who is inside. A party without a readable number is outside."""
    a_inside = a is not None and a.is_extension
    b_inside = b is not None and b.is_extension
    if a_inside:
        return "internal" if b_inside else "outbound"
    return "inbound" if b_inside else "external"


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of a call's timeline."""

    at: float
    what: str
    """A state of :data:`STATES`, or a word for a decision."""
    detail: str = ""


@dataclass(slots=True)
class Record:
    """An ended attempt. Times are Unix seconds with fractions; None where the thing did not happen."""

    call_ref: str
    session_ref: str
    contact_ref: str
    app: str
    integrator: str | None
    extension: str | None
    number: str | None
    dial_number: str | None
    call_dir: str
    dialed_at: float
    answered_at: float | None
    bridged_at: float | None
    ended_at: float
    end_reason: str
    end_code: int
    hung_up_by: str
    hold_time: int
    recording_url: str | None
    switch: str | None

    @property
    def call_time(self) -> int:
        """Whole seconds from the first INVITE to the end."""
        return max(0, round(self.ended_at - self.dialed_at))


@dataclass(slots=True)
class Attempt:
    """A live attempt. ``on_change`` is called at each new state and at the end, with the moment."""

    app: str
    integrator: str | None
    extension: str | None
    number: str | None
    dial_number: str | None
    call_dir: str
    account_id: str | None = None
    """Whose call it is: the integrator or the account."""
    contact_ref: str = ""
    call_ref: str = field(default_factory=new_ref)
    session_ref: str = ""
    queued_at: float = field(default_factory=time.time)
    switch: str | None = None
    aleg_uuid: str | None = None
    state: str = QUEUED
    dialed_at: float | None = None
    answered_at: float | None = None
    bridged_at: float | None = None
    hold_time: int = 0
    cancelled_by: str | None = None
    recording_url: str | None = None
    follows: bool = False
    """Of a session that has its record: where this one dials nothing, it is no record of its own."""
    holder: str | None = None
    """Whose place among the concurrent calls its session has."""
    order: dict[str, Any] | None = None
    """What another process needs to go on with it, by its application."""
    timeline: list[Moment] = field(default_factory=list)
    record: Record | None = None
    on_change: Callable[[Attempt, Moment], None] | None = None
    charges: list[Charge] = field(default_factory=list)
    """What its legs are paid from."""
    paid_for: list[dict[str, Any]] = field(default_factory=list)
    """The same, for another process: ``Charge.essence``."""
    on_save: Callable[[Attempt], None] | None = None
    """Called where something is known that is to outlive this process, and no state has changed."""

    def __post_init__(self) -> None:
        self.session_ref = self.session_ref or self.call_ref
        self.contact_ref = self.contact_ref or self.call_ref
        self.timeline.append(Moment(self.queued_at, QUEUED))

    @property
    def ended(self) -> bool:
        return self.record is not None

    @property
    def cut(self) -> Refusal | None:
        """Why it is ended by us, where what it may spend is spent."""
        return next((charge.cut for charge in self.charges if charge.cut is not None), None)

    def dialled(self, at: float) -> None:
        """The first INVITE, in or out; later ones (the next gateway) do not move it."""
        if self.dialed_at is None:
            self.dialed_at = at

    def enter(self, state: str, at: float, detail: str = "") -> None:
        """A new state. States only go forward: a late event changes nothing."""
        if self.ended or STATES.index(state) <= STATES.index(self.state):
            return
        self.state = state
        if state == AGENT_ANSWERED:
            self.answered_at = at
        elif state == BRIDGED:
            self.bridged_at = at
        for charge in self.charges:
            if state == (AGENT_ANSWERED if charge.aleg else BRIDGED):
                charge.talk()
        self._moment(Moment(at, state, detail))

    def note(self, what: str, detail: str = "", at: float | None = None) -> None:
        """A decision worth seeing in ``trace``."""
        if len(self.timeline) < 200:
            self.timeline.append(Moment(time.time() if at is None else at, what, detail))

    def save(self) -> None:
        """What is known of it now outlives this process."""
        if self.on_save is not None:
            self.on_save(self)

    def end(self, reason: str, code: int, hung_up_by: str, at: float) -> bool:
        """End the attempt, once: False, and nothing changed, where it had ended before."""
        if self.record is not None:
            return False
        began = self.dialed_at if self.dialed_at is not None else self.queued_at
        self.record = Record(
            call_ref=self.call_ref,
            session_ref=self.session_ref,
            contact_ref=self.contact_ref,
            app=self.app,
            integrator=self.integrator,
            extension=self.extension,
            number=self.number,
            dial_number=self.dial_number,
            call_dir=self.call_dir,
            dialed_at=began,
            answered_at=self.answered_at,
            bridged_at=self.bridged_at,
            ended_at=max(at, began),
            end_reason=reason,
            end_code=causes.code(code),
            hung_up_by=hung_up_by,
            hold_time=self.hold_time,
            recording_url=self.recording_url if self.bridged_at is not None else None,
            switch=self.switch,
        )
        self.state = ENDED
        for charge in self.charges:
            if not charge.outlives:
                # The switch's own times: the leg's answer may have been learnt long after it.
                began_at = self.answered_at if charge.aleg else self.bridged_at
                talked = 0.0 if began_at is None else self.record.ended_at - began_at
                # What the process that died had paid for, is.
                charge.end(None if charge.adopted else talked)
        self._moment(Moment(at, ENDED, f"{reason} {self.record.end_code}"))
        return True

    def _moment(self, moment: Moment) -> None:
        self.timeline.append(moment)
        if self.on_change is not None:
            self.on_change(self, moment)


# How a record reads ----------------------------------------------------------------------------------

CDR_LIST = "enigma:notifications:cdr"
INBOUND_LIST = "enigma:notifications:inbound"
C2D_LIST = "enigma:notifications:c2d"


def cdr_payload(record: Record, *, payload: str = "v3", dispositions: str = "esl_apps") -> dict[str, Any]:
    """A record as ``enigma:notifications:cdr`` carries it, without its ``seq``."""
    result: dict[str, Any] = {
        "extension": record.extension,
        "number": record.number,
        "dial_number": record.dial_number,
        "call_ref": record.call_ref,
        "contact_ref": record.contact_ref,
        "session_ref": record.session_ref,
        "dialed_at": int(record.dialed_at),
        "end_reason": record.end_reason,
        "end_code": record.end_code,
        "call_time": record.call_time,
        "hold_time": record.hold_time,
        "call_dir": record.call_dir,
        "recording_url": record.recording_url,
        "ref": record.app,
        "answered_at": _stamp(record.answered_at),
        "bridged_at": _stamp(record.bridged_at),
        "ended_at": _stamp(record.ended_at),
        "hung_up_by": record.hung_up_by,
        "switch": record.switch,
    }
    if payload == "v2":
        result["ref"] = result.pop("number")
    if dispositions == "teleforge":
        result["outcome"] = record.end_reason
        result["end_reason"] = _teleforge(record)
    return {"type": "cdr", "payload": result}


def inbound_payload(
    attempt: Attempt, agent: str, hold_time: int, *, payload: str = "v3"
) -> dict[str, Any]:
    """The notification of an answered inbound call."""
    result: dict[str, Any] = {
        "number": attempt.number,
        "dial_number": attempt.dial_number,
        "hold_time": hold_time,
        "call_ref": attempt.call_ref,
        "contact_ref": attempt.contact_ref,
        "call_dir": "inbound",
        "ref": agent,
    }
    if payload == "v2":
        del result["call_dir"]
        result["campaign_ref"] = "inbound"
    return {"type": "call", "payload": result}


def c2d_payload(record: Record) -> dict[str, Any]:
    """The deprecated ``enigma:notifications:c2d``."""
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


def _stamp(at: float | None) -> float | None:
    return None if at is None else round(at, 3)


def _teleforge(record: Record) -> str:
    """Teleforge's word for an end (contract §6)."""
    reason = record.end_reason
    if reason == ANSWERED:
        return {CALLEE: "callee_hungup", AGENT: "agent_hungup"}.get(record.hung_up_by, "hungup")
    if reason.endswith("_busy"):
        return "busy"
    if reason.endswith("_no_answer"):
        return "timeout"
    if reason in (CANCELLED, ABANDONED):
        return "hungup"
    if reason.endswith("_failed") and record.end_code in (21, 22):
        return "reject"
    return "error"


def _raw_disposition(record: Record) -> str:
    """``c2d``'s word, Asterisk's ``DIALSTATUS``."""
    words: Mapping[str, str] = {ANSWERED: "ANSWER", CANCELLED: "CANCEL", ABANDONED: "CANCEL"}
    reason = record.end_reason
    if reason in words:
        return words[reason]
    if reason.endswith("_busy"):
        return "BUSY"
    if reason.endswith("_no_answer"):
        return "NOANSWER"
    return "CONGESTION" if record.end_code in (34, 41, 42) else "CHANUNAVAIL"
