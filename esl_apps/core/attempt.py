"""One call's record: what happened to one attempt to join two parties, and how it reads in Redis.

An :class:`Attempt` is filled in while the call goes on and ended exactly once, whoever ends it; the
:class:`Record` is what then stands. Fields and words: contract §6; Q.850 causes: ``causes``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from esl_apps.core import causes
from esl_apps.core.charges import Charge
from esl_apps.core.limits import Refusal
from esl_apps.core.record import Record
from esl_apps.core.reference import new_ref
from esl_apps.core.terms import AGENT_ANSWERED, BRIDGED, ENDED, QUEUED, STATES


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of a call's timeline."""

    at: float
    what: str
    """A state of :data:`STATES`, or a word for a decision."""
    detail: str = ""


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

    def pay(self, *charges: Charge) -> None:
        """Take charges on: they talk, end and are adopted with this attempt from here on.

        ``Usage.begin`` has counted them, or they go on from the attempt before, in a session.
        """
        for charge in charges:
            charge.call_ref = self.call_ref
            self.charges.append(charge)
            essence = charge.essence
            # An adopted attempt has them among its fields already.
            if essence not in self.paid_for:
                self.paid_for.append(essence)

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
