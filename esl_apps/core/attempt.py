"""One attempt to connect two parties, while it lasts.

An :class:`Attempt` is filled in while the call goes on and ends exactly once, whatever ends it; its :class:`Record`
says how. Fields: ``call_fields``; words: ``terms``; Q.850 causes: ``causes``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct, field

from esl_apps.core import causes, node_clock, talk
from esl_apps.core.call_fields import TIMES, CallFields, show_times, values_of
from esl_apps.core.charges import Charge
from esl_apps.core.limits import Refusal
from esl_apps.core.node_clock import milliseconds
from esl_apps.core.number_classes import EMERGENCY
from esl_apps.core.quality import RingSeconds
from esl_apps.core.record import Record
from esl_apps.core.reference import new_ref
from esl_apps.core.terms import (
    AGENT,
    AGENT_ANSWERED,
    AGENT_RINGING,
    BRIDGED,
    CALLEE,
    CALLEE_RINGING,
    ENDED,
    LOST,
    QUEUED,
    REJECTED,
    RINGING,
    STATES,
    SYSTEM,
)
from esl_apps.core.versions import NOTHING, Rest

#: Fields of a call that are set once: its owner and its parties.
_LEARNT = (
    *("integrator", "account_id", "card_id", "user_id", "dial_number"),
    *("number", "number_e164", "number_class", "country"),
)


def _span(began: float | None, ended: float) -> float | None:
    return None if began is None else milliseconds(max(0.0, ended - began))


class Moment(Struct, frozen=True, gc=False):
    """One line of a call's timeline."""

    at: float
    """Unix seconds, to the millisecond: a status is made more often than a moment."""
    what: str
    """A state of :data:`STATES`, or a word for a decision."""
    detail: str = ""


class Observer(Protocol):
    """Hears of what happens to an attempt."""

    def changed(self, attempt: Attempt, moment: Moment) -> None:
        """It has entered a state, or has ended."""

    def save(self, attempt: Attempt) -> None:
        """Something is known that must outlive this process, and the state has not changed."""

    def has_recording(self, attempt: Attempt) -> bool:
        """Whether the file of ``recording_url`` exists; if so, note its ``recording_file``."""


def _missing() -> str:
    raise TypeError("Attempt() lacks app or call_dir")


class Attempt(CallFields, eq=False):
    """A live attempt: the fields of a call, and what this process alone has of it.

    It is made, by name, of ``app``, ``call_dir`` and what else is known; its references and its first state come by
    themselves. Its first fields are those of a call, in their order, for :func:`values_of`.
    """

    call_ref: str = field(default_factory=new_ref)
    session_ref: str = ""
    contact_ref: str = ""
    app: str = field(default_factory=_missing)
    queued_at: float = field(default_factory=node_clock.now)
    state: str = QUEUED
    call_dir: str = field(default_factory=_missing)
    timeline: list[Moment] = field(default_factory=list)
    record: Record | None = None
    """Once it has ended."""
    observer: Observer | None = None
    charges: list[Charge] = field(default_factory=list)
    """Its legs' charges."""
    closes: bool = True
    """Its session ends with it. False: its caller goes on."""
    unrecorded: bool = False
    """It has ended without a record of its own: nothing was dialled for it, and its session has one."""
    is_shared: bool = False
    """Another process had it before, or may have adopted it since."""
    rest: Rest = NOTHING
    """Members that a node of another version wrote and this one doesn't know."""
    was_recorded: bool = False
    """Its recording was on when it ended."""
    continues: str = ""
    """The call that its caller was in before, if Redis can't say what became of it."""
    rang_until: float | None = None
    """When the second party's phones stopped to ring without an answer. A prompt that says so may follow."""
    stranger: bool = False
    """Its caller hasn't typed the PIN yet, so it is counted apart from its account's calls."""

    def __post_init__(self) -> None:
        self.session_ref = self.session_ref or self.call_ref
        self.contact_ref = self.contact_ref or self.call_ref
        self.timeline.append(Moment(milliseconds(self.queued_at), QUEUED))

    @property
    def ended(self) -> bool:
        return self.record is not None

    @property
    def refused(self) -> bool:
        """Whether it ended without a card, and no phone was rung for it. A stranger can cause any number of these."""
        if self.record is None or self.card_id is not None or self._has_rung:
            return False
        if self.before is not None and self.before.calls:
            # A refusal ends a session, so an earlier number of this one was dialled.
            return False
        if self.number is None:
            # The caller of a session with a record has dialled before.
            return not self.follows
        return self.record.end_reason == REJECTED

    @property
    def _has_rung(self) -> bool:
        rang = self.agent_ringing_at is not None or self.callee_ringing_at is not None
        # A phone may answer before it is heard to ring.
        return self.placed or rang or self.bleg_uuid is not None

    @property
    def cut(self) -> Refusal | None:
        """Why the node ends it: a limit was reached while it was up. None: it may go on."""
        return next((charge.cut for charge in self.charges if charge.cut is not None), None)

    @property
    def is_emergency(self) -> bool:
        """Whether one of its parties is an emergency number, which was dialled: a caller who shows one has no class."""
        return EMERGENCY in (self.extension_class, self.number_class)

    def spare(self) -> None:
        """Spare its charges while one of its parties talks to an emergency number, and no longer."""
        for charge in self.charges:
            charge.spared = self.is_emergency or self.asks_emergency

    def pay(self, *charges: Charge) -> None:
        """Take charges on: they talk, end and are adopted with this attempt from here on.

        ``Usage.begin`` has counted them, or they go on from the attempt before, in a session.
        """
        for charge in charges:
            if charge.call_ref != self.call_ref:
                charge.move(self.call_ref, 0.0 if self.answered_at is None else node_clock.now() - self.answered_at)
            self.charges.append(charge)
            essence = charge.essence
            # An adopted attempt has them among its fields already.
            if essence not in self.paid_for:
                self.paid_for.append(essence)
        self.spare()

    def charges_of(self, leg: str) -> list[Charge]:
        """Return the charges of one of its two legs, by the leg's UUID."""
        return [charge for charge in self.charges if charge.of_aleg == (leg == self.aleg_uuid)]

    def began(self, charge: Charge) -> float | None:
        """Return when a charge's leg began to talk in this attempt; None: it hasn't."""
        return self.answered_at if charge.of_aleg else self.bridged_at

    def talked(self, charge: Charge, until: float) -> float:
        """Return the seconds that a charge's leg had talked at a time, by the switch's times."""
        began = self.began(charge)
        return charge.before + (0.0 if began is None else max(0.0, until - began))

    def confirm(self, charge: Charge) -> None:
        """Count a provisional charge's call for good, in whichever process it ends."""
        if charge.provisional:
            before = charge.essence
            charge.confirm()
            self.paid_for = [charge.essence if essence == before else essence for essence in self.paid_for]

    def drop(self, charge: Charge) -> None:
        """Pay for this leg no longer with the attempt: another charge does, or the leg was never answered."""
        if charge in self.charges:
            self.charges.remove(charge)
            rest = [kept.essence for kept in self.charges]
            self.paid_for = [essence for essence in self.paid_for if essence != charge.essence or essence in rest]

    def dialled(self, at: float) -> None:
        """Note the first INVITE, in or out. Later ones, to the next gateway, don't change it."""
        if self.dialed_at is None:
            self.dialed_at = at
        if self.session_at is None:
            self.session_at = at

    def enter(self, state: str, at: float, detail: str = "", *, second: str = CALLEE) -> None:
        """Enter a state. States only go forward: a late event changes nothing. ``second``: the party on the B-leg."""
        if self.ended or STATES.index(state) <= STATES.index(self.state):
            return
        self.state = state
        if state in (AGENT_RINGING, RINGING):
            self.rang(AGENT, at)
        elif state == CALLEE_RINGING:
            self.rang(second, at)
        elif state == AGENT_ANSWERED:
            self.answered_at = at
            if self.session_answered_at is None:
                self.session_answered_at = at
        elif state == BRIDGED:
            self.bridged_at = at
            if self.recording_url is not None:
                self.recording = talk.ON
        for charge in self.charges:
            if state == (AGENT_ANSWERED if charge.of_aleg else BRIDGED):
                charge.talk()
        self._moment(Moment(milliseconds(at), state, detail))

    def ring(self, agents: Sequence[str], at: float) -> None:
        """Enter ``ringing``; if other agents rang before, say which are rung now."""
        if self.state == RINGING:
            self._moment(Moment(milliseconds(at), RINGING, ", ".join(agents)))
        else:
            self.enter(RINGING, at, ", ".join(agents))

    def rang(self, party: str, at: float) -> None:
        """Note when a party's phone began to ring."""
        if party == AGENT:
            self.agent_ringing_at = self.agent_ringing_at or at
        else:
            self.callee_ringing_at = self.callee_ringing_at or at

    def stopped_ringing(self, at: float | None) -> None:
        """Note when a phone of the second party stopped to ring without an answer; None: it isn't known."""
        if at is not None:
            self.rang_until = max(at, self.rang_until or at)

    def note(self, what: str, detail: str = "", at: float | None = None) -> None:
        """Note a decision that an operator may want to see in ``esl-apps trace``."""
        if len(self.timeline) < 200:
            self.timeline.append(Moment(milliseconds(node_clock.now() if at is None else at), what, detail))

    def set(self, fields: Mapping[str, Any]) -> None:
        """Set several fields."""
        for name, value in fields.items():
            setattr(self, name, value)

    def learn(self, call: CallFields) -> None:
        """Note what the process that died knew of it, and Redis didn't yet when it was taken over."""
        before = [getattr(self, name) for name in _LEARNT], self.apart
        for name in _LEARNT:
            if getattr(self, name) is None:
                setattr(self, name, getattr(call, name))
        self.apart = [*self.apart, *(ref for ref in call.apart if ref not in self.apart)]
        if before != ([getattr(self, name) for name in _LEARNT], self.apart):
            self.save()

    def move(self, seconds: float) -> None:
        """Move all its times: they were taken by another clock."""
        if not seconds:
            return
        for name in TIMES:
            at = getattr(self, name)
            if at is not None:
                setattr(self, name, at + seconds)
        self.timeline = [
            Moment(milliseconds(moment.at + seconds), moment.what, moment.detail) for moment in self.timeline
        ]

    def save(self) -> None:
        """Make what is known of it outlive this process."""
        if self.observer is not None:
            self.observer.save(self)

    def end(self, reason: str, code: int, hung_up_by: str, at: float) -> bool:
        """End the attempt. Return False, and change nothing, if it has ended before."""
        if self.record is not None:
            return False
        recorded = self.bridged_at is not None and self._has_recording()
        if self.record is not None:
            # Looking for the recording waits for the disk: meanwhile something else has ended the attempt.
            return False
        began = self.dialed_at if self.dialed_at is not None else self.queued_at
        ended_at = max(at, began)
        if self.spent or self.since:
            self.mute_time = round(talk.seconds(self, talk.MUTE, ended_at))
            self.recording_paused = round(talk.seconds(self, talk.PAUSE, ended_at))
        self.was_recorded = self.recording == talk.ON
        self.held, self.muted, self.recording = False, [], talk.OFF
        fields = CallFields(*values_of(self))
        fields.state, fields.dialed_at = ENDED, began
        fields.ring_seconds = self._rung(ended_at)
        if self.b_seconds is None and self.bridged_at is None and reason != LOST:
            fields.b_seconds = 0.0
        if not recorded:
            fields.recording_url = None
        if node_clock.clock.shift:
            show_times(fields)
        self.record = Record.of(
            fields,
            ended_at=node_clock.shown(ended_at),
            end_reason=reason,
            end_code=causes.code(code),
            hung_up_by=hung_up_by,
            call_time=max(0, round(ended_at - began)),
        )
        self.state = ENDED
        for charge in self.charges:
            if not charge.outlives:
                # By the switch's times: this process may have learnt of the answer long after it.
                talked = self.talked(charge, ended_at)
                # An adopted call that was lost ends in its record when the loss was noticed: later than the talk.
                charge.end(min(talked, charge.proven) if charge.adopted and reason == LOST else talked)
            elif self.closes:
                # It has talked in other attempts, too.
                charge.end(ago=node_clock.now() - ended_at)
        self._moment(Moment(milliseconds(at), ENDED, f"{reason} {self.record.end_code}"))
        return True

    def lose(self, at: float) -> None:
        """End the attempt as lost: it isn't known how it ended."""
        self.end(LOST, causes.NORMAL_UNSPECIFIED, SYSTEM, at)

    def _rung(self, ended_at: float) -> RingSeconds:
        # In an inbound call and after a transfer, an agent who is rung is the second party.
        rang_first = self.placed and self.transferred_from is None
        answered_at = self.answered_at if rang_first else self.bridged_at
        unanswered = self.rang_until or ended_at
        return RingSeconds(
            agent=_span(self.agent_ringing_at, answered_at or unanswered),
            callee=_span(self.callee_ringing_at, self.bridged_at or unanswered),
        )

    def _has_recording(self) -> bool:
        return self.recording_url is not None and (self.observer is None or self.observer.has_recording(self))

    def _moment(self, moment: Moment) -> None:
        self.timeline.append(moment)
        if self.observer is not None:
            self.observer.changed(self, moment)
