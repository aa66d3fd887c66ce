"""The live calls of this node: placed, adopted, cancelled.

A call is heard in two ways, on its own socket and on the switch's inbound connection. They come together here.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import gevent

from esl_apps.apps import second_party
from esl_apps.apps.context import Restored
from esl_apps.apps.ending import conclude
from esl_apps.apps.ringing import Originator
from esl_apps.apps.transfer import consultation
from esl_apps.core import node_clock, terms
from esl_apps.core.attempt import Attempt, Moment
from esl_apps.core.call import Ended, Leg
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.esl import wire
from esl_apps.esl.answers import ReplyError, SwitchFailed, SwitchUnavailable
from esl_apps.esl.legs import leg_of
from esl_apps.esl.switch import Switch
from esl_apps.esl.switch_clock import SwitchClock
from esl_apps.esl.wire import Event
from esl_apps.node.census import Census, Strangers
from esl_apps.node.dial_claim import DialClaim
from esl_apps.node.line import FindCdr, SwitchLine
from esl_apps.node.live import ATTACH, KILLED, Live
from esl_apps.node.records import Records
from esl_apps.node.switch_pool import SwitchPool
from esl_apps.node.tenants import Tenants
from esl_apps.process import background
from esl_apps.store.essence import Essence, restored

log = logging.getLogger(__name__)

#: Events of the inbound connection: A-legs that ring, ends that no socket sees, and who begins to listen.
EVENTS = "BACKGROUND_JOB CHANNEL_PROGRESS CHANNEL_PROGRESS_MEDIA CHANNEL_HANGUP_COMPLETE MEDIA_BUG_START"
#: Legs of one call whose ends are kept: more than the phones that a number can ring.
_LEGS = 200
#: Hangup causes of a leg whose place another channel takes. An INVITE with Replaces is enough for that: FreeSWITCH
#: checks neither the dialplan nor a variable of the leg nor, if the profile has ``auth-calls`` off, a password.
_REPLACED = frozenset({"PICKED_OFF", "ATTENDED_TRANSFER"})
#: The function of what MEDIA_BUG_START tells, if a third party hears a leg, and the application that has it do so. An
#: INVITE with Replaces runs that one on the sender's channel if it has a Call-Info header.
_OVERHEARS, _BARGES = "eavesdrop", "sofia_sla"
#: The variable of a leg whose REFER with Replaces named an unknown dialog, once FreeSWITCH has dialled that and joined
#: it with the other leg.
_JOINED = b"\nvariable_transfer_to: att"
#: Seconds after which the legs of such a call are hung up once more: the new channel may have begun to dial.
_ONCE_MORE = 1.0


class Calls:
    """``live``: the calls that are up, by call_ref, shared with ``records``, which hears of each change."""

    def __init__(
        self,
        live: dict[str, Live],
        records: Records,
        switch_pool: SwitchPool,
        find_cdr: FindCdr = lambda _ref, _uuid: None,
    ) -> None:
        """``find_cdr``: `Spool.wait_for`."""
        self.live = live
        self.tenants = Tenants()
        self._records = records
        self._pool = switch_pool
        self._find_cdr = find_cdr
        self.census = Census()
        self._strangers = Strangers()
        self.on_change: Callable[[Attempt, Moment], None] = lambda _attempt, _moment: None
        """Called with each state that a call enters, its end included."""
        self.on_socket_lost: Callable[[Live], bool] = lambda _live: False
        """Called with a call whose socket was lost. Returns whether it goes on without a flow, and is followed."""
        self.tell_cancel: Callable[[Switch, str], None] = lambda _switch, _ref: None
        """Called with an adopted call that is being cancelled: its leg may come to another node at this moment."""
        # Calls that ended while their switch was unreachable, by its name: their legs are hung up when it is back.
        self._to_reap: dict[str, set[str]] = {}
        self._moved: dict[str, Live] = {}
        """The calls of legs that the switch still takes for another's, by UUID."""

    # Life of a call -----------------------------------------------------------------------------------

    def begin(
        self, attempt: Attempt, switch: Switch, core_uuid: str | None = None, clock: SwitchClock | None = None
    ) -> Live:
        """Make a call known: saved, logged, and announced on its switch.

        ``core_uuid`` and ``clock``: of the FreeSWITCH process that has it, if not the one that ``switch`` was last.
        """
        live = self._add(attempt, switch)
        if core_uuid is not None and clock is not None and core_uuid != switch.core_uuid:
            live.core_uuid, live.clock = core_uuid, clock
        self._records.moment(attempt, attempt.timeline[0])
        return live

    def _add(self, attempt: Attempt, switch: Switch) -> Live:
        attempt.switch = switch.name
        # Neither an installed application's call nor one of an older version need say it.
        attempt.second_party = second_party(attempt)
        attempt.observer = self
        self.live[attempt.call_ref] = live = Live(attempt, switch, switch.core_uuid, switch.clock)
        self.tenants.add(attempt)
        return live

    def adopt(self, call: Essence, switch: Switch) -> Live:
        """Follow a call of a process that died. Its earlier states are not announced again."""
        attempt = restored(call, switch.core_uuid, switch.clock.ahead)
        live = self._add(attempt, switch)
        live.core_uuid, live.had_by = call.core_uuid, list(call.had_by)
        if call.core_uuid != switch.core_uuid:
            # Read what that process has left in its files by the clock that goes with the call's times.
            live.clock = SwitchClock(call.ahead + node_clock.clock.shift)
        self._records.save(attempt)
        self._records.catch_up(attempt)
        live.attached = live.adopted = True
        attempt.note("adopted", "its node is gone")
        return live

    def release(self, live: Live) -> None:
        """Stop following an adopted call: another process, or another flow of this one, has it now."""
        live.released = True
        for charge in live.attempt.charges:
            charge.leave()
        self._drop(live)

    def give_back(self, live: Live) -> None:
        """Stop following an adopted call whose own process lives after all. That one pays for all of it."""
        live.released = True
        for charge in live.attempt.charges:
            charge.waive()
        self._drop(live)

    def leave(self, live: Live, *, dialled: bool) -> bool:
        """Leave a call's record to the process that goes on with its caller. True: in the same call, so it is let go
        of here.

        ``dialled``: there is something to record of which the other process knows nothing.
        """
        attempt = live.attempt
        new = self._records.gone_on(live)
        attempt.closes = attempt.closes and new is None
        if new == attempt.call_ref:
            self.release(live)
            self._records.let_go(attempt)
            return True
        if new is not None and not dialled:
            attempt.follows = True
        return False

    def _drop(self, live: Live) -> None:
        # Its follower may still be looking at its legs, and must not make it known as this process's again.
        live.attempt.observer = None
        self._records.released(live.attempt)
        if self.live.get(live.attempt.call_ref) is live:
            self._remove(live.attempt)
        live.poke()

    def _remove(self, attempt: Attempt) -> None:
        live = self.live.pop(attempt.call_ref, None)
        self.tenants.remove(attempt)
        if live is not None:
            live.poke()
        if self._moved:
            self._moved = {uuid: one for uuid, one in self._moved.items() if one is not live}

    @contextmanager
    def moving(self, old: Live, new: Live, *legs: str) -> Iterator[None]:
        """Move legs from one call to another, while the switch is told so: the end of one that leaves until then names
        the call before."""
        self._moved.update(dict.fromkeys(legs, new))
        new.ends.update({leg: end for leg, end in old.ends.items() if leg in legs})
        yield
        # If the switch doesn't do it, one of them has left, and its end may still come.
        for leg in legs:
            self._moved.pop(leg, None)

    def expected(self) -> int:
        """How many legs ring for this node and will come here when they answer."""
        return sum(live.placed is not None and not live.attached for live in self.live.values())

    def count(self, app: str) -> int:
        return self.counts()[app]

    def counts(self) -> Counter[str]:
        """How many calls each application has."""
        return Counter([live.attempt.app for live in self.live.values()])

    # Observing attempts -------------------------------------------------------------------------------

    def save(self, attempt: Attempt) -> None:
        if attempt.call_ref in self.live:
            self.tenants.add(attempt)
        self._records.save(attempt)

    def has_recording(self, attempt: Attempt) -> bool:
        return self._records.has_recording(attempt)

    def changed(self, attempt: Attempt, moment: Moment) -> None:
        if self._records.closed:
            return
        self._records.moment(attempt, moment)
        if attempt.ended:
            self._remove(attempt)
            self._records.record(attempt)
        self.on_change(attempt, moment)

    # Placing ------------------------------------------------------------------------------------------

    def place(
        self,
        attempt: Attempt,
        placed: Restored,
        switch: Switch,
        ring: Callable[[Originator], bool],
        claims: Sequence[DialClaim] = (),
    ) -> gevent.Greenlet[..., bool | None]:
        """Place an A-leg. Returns at once a greenlet whose value says whether it answered.

        ``ring`` rings it, in a greenlet of its own, and ends the attempt if it doesn't answer; ``placed`` goes on with
        the answered leg when its socket comes. ``claims``: without one of them, nothing is dialled any more.
        """
        live = self._add(attempt, switch)
        self._records.save(attempt)
        live.placed = placed
        ringing = background.once("call_ringing", self._ring, live, ring, claims)
        # Let the originate go out first; the client and the listeners are told after it.
        gevent.sleep(0)
        if not attempt.ended:
            self._records.moment(attempt, attempt.timeline[0])
        return ringing

    def _ring(self, live: Live, ring: Callable[[Originator], bool], claims: Sequence[DialClaim]) -> bool:
        attempt = live.attempt
        line = SwitchLine(live, self._pool, self.reap, self.census, claims, self._find_cdr)
        try:
            if not ring(line):
                return False
            # The answered leg's socket comes now, unless the phone hangs up at this moment. If several phones rang,
            # those that lost the race have ended too, so look at the answered leg only.
            answered = line.answered_uuid

            def settled() -> bool:
                return live.attached or answered in live.ends or attempt.ended

            if not live.wait(settled, time.monotonic() + ATTACH):
                self.reap(live.switch, attempt.call_ref)
                # The phone may have hung up just before: its end says so.
                live.wait(settled, time.monotonic() + KILLED)
            if not live.attached and not attempt.ended:
                # The connection may have been away when it hung up.
                end = live.ends.get(answered) or self._find_cdr(attempt.call_ref, answered)
                if not live.attached and not attempt.ended:
                    self._end_unserved(live, end)
        except Exception:
            log.exception("ringing_failed", extra={"call_ref": attempt.call_ref})
            self.reap(live.switch, attempt.call_ref)
            attempt.lose(node_clock.now())
        return True

    def _end_unserved(self, live: Live, end: Event | None) -> None:
        """End a call whose leg answered, and never came here. ``end``: the leg's, if it was heard."""
        attempt = live.attempt
        aleg = Leg("") if end is None else leg_of(end, live.clock)
        if not aleg.hung_up_itself:
            with suppress(StoreUnavailable):
                # A node that cancels it hangs up the leg if this one doesn't hear of it.
                self.learn_cancels([live])
        if end is not None:
            attempt.enter(terms.AGENT_ANSWERED, aleg.answered_at or node_clock.now())
        lost = not aleg.hung_up_itself
        conclude(attempt, Ended(aleg.ended_at or node_clock.now(), aleg, None, lost), None, terms.CALLEE)

    # Cancelling ---------------------------------------------------------------------------------------

    def cancel(self, ref: str, by: str) -> bool:
        """Hang up a call in any state. False: this node has no such live call.

        Repeated until the call has ended, because a single hang-up would miss a leg that doesn't exist yet (an
        originate under way, the next gateway's).
        """
        live = self.live.get(ref)
        if live is None:
            return False
        if live.attempt.cancelled_by is None:
            live.attempt.cancelled_by = by
            live.attempt.note("cancel", f"by {by}")
            live.attempt.save()
            background.once("call_cancelling", self._cancel, live, call_ref=ref)
        return True

    def learn_cancels(self, lives: Sequence[Live]) -> None:
        """Find out which calls other nodes have cancelled. They hang up a call's legs if its own node doesn't answer.

        :raises StoreUnavailable: Redis is down.
        """
        cancelled = self._records.cancelled([live.attempt.call_ref for live in lives])
        for live in lives:
            attempt = live.attempt
            attempt.cancelled_by = attempt.cancelled_by or cancelled.get(attempt.call_ref)

    def obey_cancels(self, lives: Sequence[Live]) -> None:
        """Hang up the calls that other nodes have cancelled: they may not reach the switch. :raises StoreUnavailable:
        Redis is down."""
        for ref, by in self._records.cancelled([live.attempt.call_ref for live in lives]).items():
            self.cancel(ref, by)

    def _cancel(self, live: Live) -> None:
        deadline = time.monotonic() + 30
        pause = 0.02
        self._records.note_cancel(live.attempt.call_ref, live.attempt.cancelled_by or terms.API)
        if live.adopted:
            self.tell_cancel(live.switch, live.attempt.call_ref)
        while not live.attempt.ended and time.monotonic() < deadline:
            if consultation(live.attempt) is None:
                self.reap(live.switch, live.attempt.call_ref)
            else:
                # The party that asks goes back to the one on hold.
                self.reap_blegs(live.switch, live.attempt.session_ref)
            live.poke()
            gevent.sleep(pause)
            pause = min(pause * 2, 1.0)

    def reap(self, switch: Switch, ref: str, cause: str = "NORMAL_CLEARING") -> None:
        """Hang up all legs of a call; if the switch is unreachable, once it is back."""
        try:
            switch.api(f"hupall {cause} esl_call_ref {ref}")
        except SwitchUnavailable:
            self._to_reap.setdefault(switch.name, set()).add(ref)
        except (ReplyError, wire.CommandError) as error:
            log.warning("hupall_refused", extra={"call_ref": ref, "reason": str(error)})

    def reap_orphan(self, switch: Switch, ref: str) -> None:
        """Hang up the last leg of a call that no node goes on with."""
        log.warning("orphaned_leg_hung_up", extra={"call_ref": ref})
        self.reap(switch, ref, "NORMAL_TEMPORARY_FAILURE")

    def reap_blegs(self, switch: Switch, session_ref: str) -> None:
        """Hang up the B-legs of a session, if its switch can be reached."""
        try:
            switch.api(f"hupall NORMAL_CLEARING esl_bleg {session_ref}")
        except (SwitchFailed, wire.CommandError) as error:
            log.warning("hupall_refused", extra={"session_ref": session_ref, "reason": str(error)})

    def _reap_all(self, switch: Switch, refs: set[str]) -> None:
        for ref in refs:
            self.reap(switch, ref)

    # Events of the switch -----------------------------------------------------------------------------

    def on_event(self, switch: Switch, event: Event) -> None:
        uuid, ref = event.uuid, event.var("esl_call_ref") or ""
        if ref and event.name == b"CHANNEL_HANGUP_COMPLETE" and _is_replaced(event):
            # Its socket may have told of its end already, so the call need not be live any more.
            session = event.var("esl_session_ref") or event.var("esl_bleg") or ref
            background.once("replaced_call_ending", self._end_replaced, switch, ref, session, call_ref=ref)
            # If the leg was in no bridge, the other channel runs its application now.
            doing = event.var("current_application") or "", event.var("current_application_data") or ""
            self._strangers.end(switch, *doing)
        if event.name == b"MEDIA_BUG_START":
            if event.get("Media-Bug-Function") == _OVERHEARS:
                log.info("leg_overheard", extra={"call_ref": ref})
                self._strangers.end(switch, _BARGES, uuid or "")
            return
        live = self._moved.get(uuid or "") or self.live.get(ref)
        if live is None:
            return
        attempt = live.attempt
        if live.placed is not None and not live.attached:
            # Until the switch has been asked for its time, the legs that it rings say enough.
            heard = time.monotonic()
            live.clock.hear(event, heard - (node_clock.now() - attempt.queued_at), heard)
        if event.name == b"CHANNEL_HANGUP_COMPLETE":
            if uuid is not None and (uuid in live.ends or len(live.ends) < _LEGS):
                live.ends[uuid] = event
            live.poke()
        elif event.name.startswith(b"CHANNEL_PROGRESS"):
            # Nothing waits for a phone to ring.
            self._rings(live, event)

    def _end_replaced(self, switch: Switch, ref: str, session_ref: str) -> None:
        """Hang up what is left of a call, a leg of which another channel has replaced: it would go on without limits,
        charges and a record. So would a B-leg of a session, whose caller may have dialled another number since.
        """
        log.warning("leg_replaced", extra={"call_ref": ref})
        for pause in (_ONCE_MORE, 0.0):
            self.reap(switch, ref, "CALL_REJECTED")
            self.reap_blegs(switch, session_ref)
            gevent.sleep(pause)

    def _rings(self, live: Live, event: Event) -> None:
        if live.placed is not None and not live.attached and len(live.rang) < _LEGS and event.uuid is not None:
            leg = leg_of(event, live.clock)
            if leg.uuid not in live.rang:
                live.rang += (leg.uuid,)
            live.attempt.aleg_uuid = leg.uuid
            live.attempt.enter(terms.AGENT_RINGING, leg.ringing_at or node_clock.now())

    def on_up(self, switch: Switch) -> None:
        for name, value in terms.IN_PLACE.items():
            # The dialplan's files set them, too, for the time before a node is there.
            switch.post_raw(wire.command(f"api global_setvar {name}={value}"))
        refs = self._to_reap.pop(switch.name, set())
        if refs:
            background.once("calls_reaping", self._reap_all, switch, refs)
        for live in list(self.live.values()):
            if live.core_uuid is not None and live.core_uuid == switch.core_uuid:
                # Its channel may have come before this connection, when the switch could only be guessed.
                self._found_on(live, switch)
            # All: one that waits for its switch may have learnt that this isn't it.
            live.poke()

    def _found_on(self, live: Live, switch: Switch) -> None:
        live.clock = switch.clock
        if live.switch is not switch:
            live.switch = switch
            live.attempt.switch = switch.name
            live.attempt.save()

    def on_down(self, switch: Switch) -> None:
        for live in list(self.live.values()):
            if live.switch is switch:
                live.poke()


def _is_replaced(end: Event) -> bool:
    """Whether another channel has taken the place of a leg that has ended."""
    if _JOINED in end.lines:
        return True
    # A far end that hangs up may write any cause of FreeSWITCH's into Reason, and one that is FreeSWITCH does.
    by_switch = not (end.var("sip_hangup_disposition") or "").startswith("recv")
    return by_switch and end.get("Hangup-Cause") in _REPLACED
