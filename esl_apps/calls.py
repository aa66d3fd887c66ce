"""The calls of this node: placed, taken over, cancelled, found again, and ended into records.

Between the flows of ``core`` and the edges: here a call's two ways of being heard (its own socket, and the
switch's inbound connection) come together.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Annotated, Any

import gevent
import msgspec
from gevent.event import Event as Flag

from esl_apps.core import causes, cdr
from esl_apps.core.apps.common import Line, Rang, conclude
from esl_apps.core.call import Call, Ended
from esl_apps.core.cdr import Attempt, Moment
from esl_apps.esl import wire
from esl_apps.esl.channel import leg_of
from esl_apps.esl.session import ReplyError
from esl_apps.esl.switch import Job, Switch, Unavailable
from esl_apps.esl.wire import Event
from esl_apps.fleet import Fleet

log = logging.getLogger(__name__)

#: By which a node tells another, over the switch, to cancel a call.
CANCEL = "esl_apps::cancel"
#: What the inbound connection hears: A-legs that ring, ends that no socket sees, and other nodes' cancels.
EVENTS = f"BACKGROUND_JOB CHANNEL_PROGRESS CHANNEL_PROGRESS_MEDIA CHANNEL_HANGUP_COMPLETE CUSTOM {CANCEL}"
#: Seconds for a call's own node to cancel it, once it was told to; then whoever was asked hangs its legs up.
_TOLD = 3.0
#: Seconds from an agent's answer to its leg's socket; FreeSWITCH connects at once.
ATTACH = 5.0
#: Seconds for a killed originate to report its end.
KILLED = 3.0
#: Seconds for which a switch may be away before the calls whose sockets it dropped are given up.
AWAY = 5.0


#: Makes an attempt known; given to flows that begin further ones.
Begin = Callable[[Attempt], None]


class Full(Exception):
    """This node takes no further call: ``str()`` says why (full, draining, no switch, no Redis)."""


@dataclass(slots=True, eq=False)
class Live:
    """A call that has not ended."""

    attempt: Attempt
    switch: Switch
    core_uuid: str | None = None
    """The FreeSWITCH process that has it."""
    ends: dict[str, Event] = field(default_factory=dict)
    """CHANNEL_HANGUP_COMPLETE of its A-legs, by UUID, from the inbound connection."""
    rang: frozenset[str] = frozenset()
    """The A-legs that were seen to ring: several where an agent has several phones."""
    changed: Flag = field(default_factory=Flag)
    """Set at each of: socket attached, A-leg ended, job answered, switch up or down."""
    attached: bool = False
    adopted: bool = False
    """Of a process that died; nobody's flow runs it."""
    released: bool = False
    """Adopted no more: whoever follows it stops."""
    run: Callable[[Call, Begin], None] | None = None
    """What takes the answered leg, of a call that this process placed."""

    def poke(self) -> None:
        self.changed.set()

    def wait(self, done: Callable[[], bool], deadline: float) -> bool:
        while not done():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.changed.clear()
            self.changed.wait(left)
        return True


class Calls:
    """``on_record`` gets each ended attempt, once; ``on_moment`` every change of state; ``on_save`` what is to
    outlive the process, before anything is dialled and whenever it changes."""

    def __init__(
        self,
        on_moment: Callable[[Attempt, Moment], None],
        on_record: Callable[[Attempt], None],
        on_save: Callable[[Attempt], None],
        fleet: Fleet,
    ) -> None:
        self.fleet = fleet
        self.live: dict[str, Live] = {}
        self.closed = False
        """This process ends: what is still up is another's."""
        self._on_save = on_save
        self._on_moment = on_moment
        self._on_record = on_record
        # Calls that ended while their switch was away: whatever is left of them is hung up when it is back.
        self._to_reap: dict[str, set[str]] = {}

    # Life of a call -----------------------------------------------------------------------------------

    def begin(self, attempt: Attempt, switch: Switch) -> Live:
        """Make a call known and tell of it."""
        live = self._add(attempt, switch)
        # Which saves it.
        self._on_moment(attempt, attempt.timeline[0])
        return live

    def _add(self, attempt: Attempt, switch: Switch) -> Live:
        attempt.switch = switch.name
        attempt.on_change = self._changed
        attempt.on_save = self._on_save
        self.live[attempt.call_ref] = live = Live(attempt, switch, switch.core_uuid)
        return live

    def adopt(self, attempt: Attempt, switch: Switch, core_uuid: str | None) -> Live:
        """A call of a process that died: heard of from here on, and told nobody that it knew already."""
        live = self._add(attempt, switch)
        live.core_uuid = core_uuid
        self._on_save(attempt)
        live.attached = live.adopted = True
        attempt.note("adopted", "its node is gone")
        return live

    def release(self, live: Live) -> None:
        """Another process, or another flow of this one, has an adopted call now."""
        live.released = True
        for charge in live.attempt.charges:
            charge.end()
        if self.live.get(live.attempt.call_ref) is live:
            del self.live[live.attempt.call_ref]
        live.poke()

    def expected(self) -> int:
        """Legs that this node rang and whose answer would bring them here."""
        return sum(live.run is not None and not live.attached for live in self.live.values())

    def count(self, app: str) -> int:
        return sum(live.attempt.app == app for live in self.live.values())

    def _changed(self, attempt: Attempt, moment: Moment) -> None:
        if self.closed:
            return
        self._on_moment(attempt, moment)
        if attempt.ended:
            self.live.pop(attempt.call_ref, None)
            self._on_record(attempt)

    # Placing ------------------------------------------------------------------------------------------

    def place(
        self, attempt: Attempt, switch: Switch, ring: Callable[[Line], bool], run: Callable[[Call, Begin], None]
    ) -> gevent.Greenlet[..., bool]:
        """Place an A-leg; returns at once, with what will say whether it answered.

        ``ring`` rings it, in a greenlet of its own, and ends the attempt where it does not answer; ``run`` takes
        the answered leg, when its socket comes.
        """
        live = self._add(attempt, switch)
        self._on_save(attempt)
        live.run = run
        placed = gevent.spawn(self._ring, live, ring)
        # The originate goes out now; whoever asked, and whoever listens, hears of it behind that.
        gevent.sleep(0)
        if not attempt.ended:
            self._on_moment(attempt, attempt.timeline[0])
        return placed

    def _ring(self, live: Live, ring: Callable[[Line], bool]) -> bool:
        attempt = live.attempt
        line = _Line(live, self)
        try:
            if not ring(line):
                return False
            # The answered leg's socket comes now; a phone that hangs up in this instant leaves none. (Of several
            # phones that rang, those that lost the race have ended too: theirs is no news.)
            answered = line.answered_uuid
            live.wait(lambda: live.attached or answered in live.ends or attempt.ended, time.monotonic() + ATTACH)
            if live.attached or attempt.ended:
                return True
            if answered not in live.ends:
                self.reap(live.switch, attempt.call_ref)
                attempt.end(cdr.LOST, causes.NORMAL_UNSPECIFIED, cdr.SYSTEM, time.time())
                return True
            aleg = leg_of(live.ends[answered])
            attempt.enter(cdr.AGENT_ANSWERED, aleg.answered_at or time.time())
            conclude(attempt, Ended(aleg.ended_at or time.time(), aleg, None), None, cdr.CALLEE)
        except Exception:
            log.exception("ringing failed", extra={"call_ref": attempt.call_ref})
            self.reap(live.switch, attempt.call_ref)
            attempt.end(cdr.LOST, causes.NORMAL_UNSPECIFIED, cdr.SYSTEM, time.time())
        return True

    # Cancelling ---------------------------------------------------------------------------------------

    def cancel(self, ref: str, by: str) -> bool:
        """Hang a call up in any state; False where this node has no such live call.

        It is repeated until the call has ended: a leg that is not there yet (an originate under way, the next
        gateway's) is one that a single hang-up would miss.
        """
        live = self.live.get(ref)
        if live is None:
            return False
        if live.attempt.cancelled_by is None:
            live.attempt.cancelled_by = by
            live.attempt.note("cancel", f"by {by}")
            live.attempt.save()
            gevent.spawn(self._cancel, live)
        return True

    def cancel_elsewhere(self, switch: Switch, ref: str) -> None:
        """A call of another node, which is told by way of the switch that it is a cancel; returns at once."""

        def tell() -> None:
            switch.post_raw(wire.custom_event(CANCEL, {"variable_esl_call_ref": ref}))
            gevent.sleep(_TOLD)
            self.reap(switch, ref)

        gevent.spawn(tell)

    def _cancel(self, live: Live) -> None:
        deadline = time.monotonic() + 30
        pause = 0.02
        while not live.attempt.ended and time.monotonic() < deadline:
            self.reap(live.switch, live.attempt.call_ref)
            live.poke()
            gevent.sleep(pause)
            pause = min(pause * 2, 1.0)

    def reap(self, switch: Switch, ref: str, cause: str = "NORMAL_CLEARING") -> None:
        """Hang up whatever legs a call has; if the switch is away, when it is back."""
        try:
            switch.api(f"hupall {cause} esl_call_ref {ref}")
        except Unavailable:
            self._to_reap.setdefault(switch.name, set()).add(ref)
        except ReplyError as error:
            log.warning("hupall refused", extra={"call_ref": ref, "reason": str(error)})

    def _reap_all(self, switch: Switch, refs: set[str]) -> None:
        for ref in refs:
            self.reap(switch, ref)

    # What the switch says -----------------------------------------------------------------------------

    def on_event(self, switch: Switch, event: Event) -> None:
        ref = event.var("esl_call_ref")
        live = self.live.get(ref) if ref else None
        if live is None:
            return
        attempt = live.attempt
        if event.name == b"CHANNEL_HANGUP_COMPLETE":
            live.ends[event.get("Unique-ID") or ""] = event
        elif event.name.startswith(b"CHANNEL_PROGRESS"):
            if live.run is not None and not live.attached:
                leg = leg_of(event)
                live.rang |= {leg.uuid}
                attempt.aleg_uuid = leg.uuid
                attempt.enter(cdr.AGENT_RINGING, leg.ringing_at or time.time())
        elif event.get("Event-Subclass") == CANCEL:
            # Of CUSTOM events the name is not the first header.
            self.cancel(attempt.call_ref, cdr.API)
        live.poke()

    def on_up(self, switch: Switch) -> None:
        refs = self._to_reap.pop(switch.name, set())
        if refs:
            gevent.spawn(self._reap_all, switch, refs)
        self._poke_all(switch)

    def on_down(self, switch: Switch) -> None:
        self._poke_all(switch)

    def _poke_all(self, switch: Switch) -> None:
        for live in list(self.live.values()):
            if live.switch is switch:
                live.poke()

    def find_end(self, ref: str, uuid: str, core_uuid: str | None) -> Event | None:
        """The end of an A-leg whose socket was lost: waited for while the switch says that the leg lives.

        None: its FreeSWITCH is gone (another process answers, or nobody does), or does not know the leg.
        """
        live = self.live.get(ref)
        if live is None:
            return None
        switch = live.switch
        live.attempt.note("socket_lost", "the call goes on without its socket, if it lives")
        while True:
            if uuid in live.ends:
                return live.ends[uuid]
            if not live.wait(lambda: switch.connected, time.monotonic() + AWAY):
                return None
            if switch.core_uuid != core_uuid:
                return None
            try:
                alive = switch.api(f"uuid_exists {uuid}").strip() == "true"
            except (Unavailable, ReplyError):
                # A write to a connection that has just broken fails without a wait, and whoever reads it has not
                # run yet: without a pause here it never would.
                gevent.sleep(0.05)
                continue
            if not alive:
                # Its last event may be on its way still.
                live.wait(lambda: uuid in live.ends, time.monotonic() + 1.0)
                return live.ends.get(uuid)
            live.wait(lambda: uuid in live.ends or not switch.connected, time.monotonic() + 30)

    def blegs_of(self, live: Live, aleg_uuid: str) -> list[Event]:
        """The ends of a call's B-legs, in their order; ``aleg_uuid`` has ended. They come at about the same time."""
        live.wait(lambda: len(live.ends) > 1, time.monotonic() + 0.5)
        return [event for uuid, event in live.ends.items() if uuid != aleg_uuid]


class _Line:
    """``click2dial.Line`` on a switch: a job, its answer, and what to do when that does not come."""

    def __init__(self, live: Live, calls: Calls) -> None:
        self._live = live
        self._calls = calls
        self._tried: set[str] = set()
        self.answered_uuid = ""

    def elsewhere(self) -> bool:
        live = self._live
        self._tried.add(live.switch.name)
        switch = self._calls.fleet.best(self._tried)
        if switch is None:
            return False
        live.switch, live.core_uuid = switch, switch.core_uuid
        live.attempt.switch = switch.name
        live.attempt.note("switch", f"{switch.name} is tried")
        live.attempt.save()
        return True

    def originate(self, command: str, deadline: float) -> Rang:
        rang = self._originate(command, deadline)
        health = self._calls.fleet.health[self._live.switch.name]
        if rang.outcome == "answered":
            health.told(0)
        elif rang.outcome == "failed":
            health.told(rang.code)
        elif rang.outcome in ("lost", "away"):
            health.told(None)
        return rang

    def _originate(self, command: str, deadline: float) -> Rang:
        live, switch = self._live, self._live.switch
        core_uuid = switch.core_uuid
        live.ends.clear()
        live.rang = frozenset()
        try:
            job = switch.bgapi(command)
        except Unavailable as error:
            live.attempt.note("switch_away", str(error))
            return Rang("away")
        job.notify(live.poke)
        if not live.wait(lambda: job.done, deadline):
            return self._give_up(job)
        try:
            output = job.result()
        except Unavailable:
            return self._without_job(deadline, core_uuid)
        # ``+OK UUID`` of the leg that answered, or ``-ERR CAUSE``.
        verdict, _, rest = output.strip().partition(" ")
        if verdict == "+OK":
            self.answered_uuid = rest.strip()
            return Rang("answered")
        return Rang("failed", causes.q850(rest.strip()))

    def _give_up(self, job: Job) -> Rang:
        live = self._live
        self._calls.reap(live.switch, live.attempt.call_ref, "NO_ANSWER")
        live.wait(lambda: job.done, time.monotonic() + KILLED)
        return Rang("timed_out", causes.Q850["NO_ANSWER"])

    def _without_job(self, deadline: float, core_uuid: str | None) -> Rang:
        """The connection broke while the phone rang. The same FreeSWITCH, back in time, goes on ringing it."""
        live, switch = self._live, self._live.switch
        live.attempt.note("switch_lost", "while ringing")
        if not live.wait(lambda: switch.connected or live.attached, min(deadline, time.monotonic() + AWAY)):
            self._calls.reap(switch, live.attempt.call_ref)
            return Rang("lost")
        if switch.core_uuid != core_uuid:
            return Rang("lost")

        def all_ended() -> bool:
            return bool(live.ends) and live.rang <= live.ends.keys()

        live.wait(lambda: live.attached or all_ended() or live.attempt.cancelled_by is not None, deadline)
        if live.attached:
            return Rang("answered")
        if all_ended():
            leg = leg_of(next(iter(live.ends.values())))
            return Rang("failed", leg.q850 or causes.NORMAL_UNSPECIFIED)
        self._calls.reap(switch, live.attempt.call_ref, "NO_ANSWER")
        return Rang("timed_out", causes.Q850["NO_ANSWER"])


def snapshot(attempt: Attempt) -> dict[str, Any]:
    """A call as clients and operators see it."""
    record = attempt.record
    result: dict[str, Any] = {
        "call_ref": attempt.call_ref,
        "contact_ref": attempt.contact_ref,
        "session_ref": attempt.session_ref,
        "app": attempt.app,
        "integrator": attempt.integrator,
        "state": attempt.state,
        "agent": attempt.extension,
        "callee": attempt.number,
        "outbound_id": attempt.dial_number,
        "call_dir": attempt.call_dir,
        "switch": attempt.switch,
        "dialed_at": attempt.dialed_at,
        "answered_at": attempt.answered_at,
        "bridged_at": attempt.bridged_at,
        "timeline": [
            {"state": moment.what, "at": round(moment.at, 3), "detail": moment.detail}
            for moment in attempt.timeline
            if moment.what in cdr.STATES
        ],
        "decisions": [
            {"what": moment.what, "at": round(moment.at, 3), "detail": moment.detail}
            for moment in attempt.timeline
            if moment.what not in cdr.STATES
        ],
    }
    if record is not None:
        result["record"] = cdr.cdr_payload(record)["payload"]
    return result


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


def timeline(call: dict[str, Any]) -> list[str]:
    """A call's snapshot as lines: states and decisions, in the order of time."""
    lines = [
        f"{call['call_ref']}  {call['app']}  {call['agent'] or '-'} -> {call['callee'] or '-'}"
        f"  shown {call['outbound_id'] or '-'}  contact_ref {call['contact_ref']}"
    ]
    moments = [(one["at"], one["state"], one["detail"]) for one in call["timeline"]]
    moments += [(one["at"], f"  {one['what']}", one["detail"]) for one in call["decisions"]]
    start = call["timeline"][0]["at"]
    for at, what, detail in sorted(moments, key=lambda moment: moment[0]):
        lines.append(f"{at - start:9.3f}  {what:<18} {detail}".rstrip())
    return lines


def state_event(attempt: Attempt, moment: Moment) -> bytes:
    """``CUSTOM esl_apps::call``: what ``fs_cli`` shows of what the application thinks (contract §3)."""
    headers = {
        "esl_call_ref": attempt.call_ref,
        "esl_leg_uuid": attempt.aleg_uuid or "",
        "esl_app": attempt.app,
        "esl_state": moment.what,
        "esl_at": f"{moment.at:.3f}",
    }
    if attempt.record is not None:
        headers["esl_end_reason"] = attempt.record.end_reason
        headers["esl_end_code"] = str(attempt.record.end_code)
    return wire.custom_event("esl_apps::call", headers)
