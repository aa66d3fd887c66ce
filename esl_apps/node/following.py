"""Follow calls that no flow of this process runs, to their ends, and write their records.

Such a call was adopted from a process that died, or a transfer took its legs away from their sockets. The switch says
how it ended: for a leg that is still up, by its end when it comes; for one that ended meanwhile, by the file that
mod_json_cdr wrote (``esl.switch_cdr``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress

import gevent

from esl_apps.apps import application, note_hold, second_party
from esl_apps.apps.ending import conclude, end_of
from esl_apps.apps.legs import recording_name
from esl_apps.apps.transfer import KeptTransfer, consultation, leave_to_each_other
from esl_apps.core import causes, node_clock, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.billing import note_legs, note_parting
from esl_apps.core.call import Ended, Leg
from esl_apps.core.charges import Charge
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.esl.answers import SwitchFailed
from esl_apps.esl.leg_commands import is_up
from esl_apps.esl.legs import leg_of, telling
from esl_apps.esl.switch_cdr import FRESH, WRITTEN
from esl_apps.esl.wire import Event
from esl_apps.node.census import is_parked
from esl_apps.node.live import AWAY, PARKED, Live
from esl_apps.node.services import Services
from esl_apps.node.timed_calls import TimedCallPoller
from esl_apps.process import background

log = logging.getLogger(__name__)

#: Seconds after which to ask the switch for a leg whose end was not heard.
ASK_EVERY = 15.0
#: Seconds after which to look again at a consultation, whose legs may go on in other calls, and at a leg that is alone.
ALONE = 3.0
#: Seconds for which the payments for an adopted call that has ended can be returned.
RETURNABLE = 600.0
#: Seconds for which to wait for a Redis that is away, before a call ends of which it may know more.
REDIS_AWAY = 30.0
#: Seconds by which the ends of A and B may be told one after the other.
_APART = 0.3
#: Seconds within which a new leg is in the switch's list, and between two looks.
_LISTED, _LOOK = 1.0, 0.1


class Following:
    def __init__(self, services: Services, pollers: dict[str, TimedCallPoller]) -> None:
        """``pollers``: those of applications that place timed calls, by ``ref``."""
        self._services = services
        self._pollers = pollers
        self.returnable: dict[str, tuple[float, list[str], list[Charge]]] = {}
        """By ``call_ref``: until when the payments for an ended call can be returned, to which processes, and what was
        paid."""
        self.review: Callable[[Live, int], None] = lambda _live, _legs: None
        """Called with a call that goes on without a flow, and how many of its legs are up, each time that the switch
        was asked."""
        self.left: Callable[[Live], None] = lambda _live: None
        """Called with a call none of whose legs is up, before it ends."""

    def follow(self, live: Live, *, reachable: bool = True) -> None:
        """Follow a call to its end, in a greenlet of its own. ``reachable``: its switch is one of this node's."""
        background.once("call_following", self._follow, live, reachable, call_ref=live.attempt.call_ref)

    def _follow(self, live: Live, reachable: bool) -> None:
        attempt = live.attempt
        try:
            if reachable:
                self._watch(live)
            if not live.released and not attempt.ended:
                self.left(live)
            if not live.released and not attempt.ended:
                self._end(live)
            if attempt.charges and not live.released:
                self.returnable[attempt.call_ref] = (time.monotonic() + RETURNABLE, live.had_by, attempt.charges)
        except Exception:
            log.exception("following_failed", extra={"call_ref": attempt.call_ref})
            attempt.lose(node_clock.now())
        finally:
            if attempt.holder is not None and not live.released:
                # A caller who goes on in another call has the place there.
                leave = self._services.usage.leave if attempt.closes else self._services.usage.leases.let_go
                leave(attempt.holder, attempt.session_ref)

    def _watch(self, live: Live) -> None:
        """Return once the switch has no leg of the call left, or is another process than the one that carried it."""
        switch, ref, asked_at = live.switch, live.attempt.call_ref, time.monotonic()
        parked_at, listed_at = asked_at + PARKED, asked_at + _LISTED

        def over() -> bool:
            return live.released or live.attempt.ended

        while not over():
            if not live.wait(lambda: switch.connected or over(), time.monotonic() + AWAY):
                return
            if live.core_uuid is not None and switch.core_uuid != live.core_uuid:
                return
            try:
                legs = self._services.calls.census.legs(switch, asked_at).get(ref, [])
            except SwitchFailed:
                # Let the greenlet that reads the connection run, as in ``lost_socket.wait_for_end``.
                gevent.sleep(0.05)
                continue
            self._picture(live, legs)
            if legs:
                _prove(live)
            if live.attempt.followed:
                self.review(live, len(legs))
            parked = self._is_parked(live, legs)
            if parked and asked_at >= parked_at and self._is_alone(live):
                self._services.calls.reap_orphan(switch, ref)
            alive = {leg.uuid or "" for leg in legs}

            def gone(alive: set[str] = alive) -> bool:
                return alive <= live.ends.keys()

            if live.attempt.followed and not legs and not live.ends and time.monotonic() < listed_at:
                # It is young, and the switch's list lags behind its legs.
                live.wait(lambda: bool(live.ends) or over(), time.monotonic() + _LOOK)
                asked_at = time.monotonic()
                continue
            if gone():
                return
            patience = PARKED if parked else ASK_EVERY
            if consultation(live.attempt) is not None or (live.attempt.followed and len(legs) < 2):
                patience = ALONE
            live.wait(lambda: gone() or over() or not switch.connected, time.monotonic() + patience)
            if gone():
                # A and B end at about the same time, in events of their own.
                live.wait(over, time.monotonic() + _APART)
            else:
                # Its end would have been heard.
                _prove(live)
            asked_at = time.monotonic()

    def _is_parked(self, live: Live, legs: list[Event]) -> bool:
        """Whether its only leg has answered and waits for a node, none of which has told it to do anything."""
        placed = application(live.attempt.app).placed and live.attempt.state == terms.AGENT_ANSWERED
        return placed and is_parked(legs, ["socket"])

    def _is_alone(self, live: Live) -> bool:
        """Whether no process runs the call, as far as Redis knows now. False if it can't say."""
        membership = self._services.membership
        try:
            membership.say(draining=self._services.readiness.draining)
        except StoreUnavailable:
            return False
        return membership.returned(live.had_by) is None

    def _picture(self, live: Live, legs: list[Event]) -> None:
        """Bring the attempt to the state that the live legs show."""
        attempt = live.attempt
        # B's answer connects the two once A is up too. A leg that is not in the list says nothing.
        a_up = all(leg_of(event, live.clock).answered_at is not None for event in legs if event.var("esl_bleg") is None)
        for event in legs:
            leg = leg_of(event, live.clock)
            if event.var("esl_bleg") is None:
                attempt.aleg_uuid = leg.uuid
                if leg.answered_at is not None and application(attempt.app).placed:
                    attempt.enter(terms.AGENT_ANSWERED, leg.answered_at)
            elif leg.answered_at is not None and a_up:
                self._joined(attempt, leg)

    def _joined(self, attempt: Attempt, bleg: Leg) -> None:
        at = bleg.answered_at
        assert at is not None
        attempt.bleg_uuid = bleg.uuid or attempt.bleg_uuid
        joined = application(attempt.app).joined
        if joined is not None and attempt.bridged_at is None:
            joined(attempt, at, bleg, self._services.records.announce)
        else:
            attempt.enter(terms.BRIDGED, at)

    # Their records ------------------------------------------------------------------------------------

    def _end(self, live: Live) -> None:
        services, attempt = self._services, live.attempt
        if self._is_others(live):
            return
        alegs, blegs = self._legs(live)
        # Its files may have taken seconds to come.
        if self._is_others(live):
            return
        session = application(attempt.app).session
        if session:
            services.learn_owner(attempt, self._account_of(live))
        if services.calls.leave(live, dialled=attempt.number is not None if session else bool(blegs)):
            if attempt.holder is not None:
                services.usage.leases.let_go(attempt.holder, attempt.session_ref)
            return
        if attempt.dialed_at is None:
            attempt.dialed_at = min((leg.created_at for leg in alegs + blegs if leg.created_at), default=None)
        aleg, bleg = telling(alegs), telling(blegs)
        end = end_of(aleg, bleg, node_clock.now())
        self._learn(attempt, end, aleg, bleg)
        fared = application(attempt.app).fared
        if fared is not None:
            fared(attempt, blegs)
        self._conclude(live, end, aleg, bleg)
        if attempt.app in self._pollers:
            self._pollers[attempt.app].settle(attempt)

    def _learn(self, attempt: Attempt, end: Ended, aleg: Leg | None, bleg: Leg | None) -> None:
        """Note what the ends of a call's legs tell."""
        if attempt.consultation is not None and (aleg or bleg) is not None:
            # The party that asks goes on there, on a leg that hasn't ended.
            note_parting(attempt, end.at, end.at)
        if bleg is not None and end.both_up:
            # First, because it names the agent who has answered.
            self._joined(attempt, bleg)
        note_legs(attempt, aleg, bleg, second_party(attempt))
        if attempt.bridged_at is not None:
            self._find_recording(attempt)
        if (aleg or bleg) is not None or attempt.followed:
            note_hold(attempt, end.at, aleg, bleg)
        if aleg is not None and application(attempt.app).placed and attempt.answered_at is None:
            attempt.answered_at = aleg.answered_at

    def _conclude(self, live: Live, end: Ended, aleg: Leg | None, bleg: Leg | None) -> None:
        """End a call as its legs ended."""
        attempt, at = live.attempt, end.at
        consult = consultation(attempt)
        if consult is not None and consult.held and bleg is None and self._talks_on(live, consult):
            leave_to_each_other(attempt, consult, at)
        elif attempt.cancelled_by is not None and attempt.bridged_at is None:
            attempt.end(terms.CANCELLED, causes.NORMAL_CLEARING, attempt.cancelled_by, at)
        elif aleg is None and bleg is None:
            # Nothing is known of its legs: the switch was killed, or keeps no CDR files.
            attempt.lose(at)
        elif bleg is None and attempt.bridged_at is None and aleg is not None and not aleg.hung_up_itself:
            self._end_of_a(attempt, aleg, at)
        else:
            conclude(attempt, end, None, second_party(attempt))

    def _is_others(self, live: Live) -> bool:
        """Leave a call to the process that has it, or has ended it. Return False if none has, or Redis can't say for
        long. While it is away, no record would be delivered either."""
        until = time.monotonic() + REDIS_AWAY
        while not live.released and not live.attempt.ended:
            try:
                return self._is_others_now(live)
            except StoreUnavailable:
                if time.monotonic() > until:
                    return False
                gevent.sleep(_LOOK)
        return True

    def _is_others_now(self, live: Live) -> bool:
        """:raises StoreUnavailable: Redis is down."""
        services, attempt = self._services, live.attempt
        is_here = services.store.has(attempt.call_ref)
        known = services.store.call(attempt.call_ref) if is_here else None
        if live.released or attempt.ended:
            # Meanwhile: what Redis knows of its end is this process's word.
            return True
        if not is_here:
            # The node to which the caller was handed has taken it over, or another, as this one was stopped.
            services.calls.release(live)
            self.let_go(attempt)
            return True
        if known is not None and known.get("record") is not None:
            # Its own process lives after all, and knew more of it: that it was transferred, for one.
            services.calls.give_back(live)
            self.let_go(attempt)
            services.store.forget(attempt.call_ref)
            return True
        # It may have been cancelled at another node, or too late for its own to write that down.
        services.calls.learn_cancels([live])
        return False

    def let_go(self, attempt: Attempt) -> None:
        """Leave a call to the process that has it, or has ended it."""
        if attempt.holder is not None:
            self._services.usage.leases.let_go(attempt.holder, attempt.session_ref)
        self._services.call_log.ended(attempt.call_ref)

    def _talks_on(self, live: Live, consult: KeptTransfer) -> bool:
        """Return whether the new party of a consultation has been left to the one on hold, although the party that
        asked is gone. The two may have hung up since."""
        attempt = live.attempt
        if attempt.bridged_at is None or attempt.bleg_uuid is None or attempt.cancelled_by is not None:
            return False
        for cdr in self._services.switch_cdr.legs(consult.next):
            if cdr.uuid == attempt.bleg_uuid and cdr.event.var("last_bridge_to") == consult.held:
                return True
        with suppress(SwitchFailed):
            return is_up(live.switch, attempt.bleg_uuid)
        return False

    def _end_of_a(self, attempt: Attempt, aleg: Leg, at: float) -> None:
        """End a call of which only A is known, and A didn't hang up itself."""
        code = aleg.q850 or causes.NORMAL_UNSPECIFIED
        if application(attempt.app).placed and aleg.answered_at is None and code != causes.NORMAL_CLEARING:
            attempt.end(f"agent_{causes.failure(code)}", code, terms.AGENT, at)
        else:
            # No node went on with it, and the switch gave it up.
            attempt.lose(at)

    def _legs(self, live: Live) -> tuple[list[Leg], list[Leg]]:
        """The call's A-legs and B-legs, from events and from the switch's CDR files."""
        ref, a_uuid = live.attempt.call_ref, live.attempt.aleg_uuid
        # A leg that was B in the call before may have ended before the switch knew that it is A in this one.
        found: dict[str, tuple[bool, Leg]] = {
            uuid: (uuid != a_uuid and event.var("esl_bleg") is not None, leg_of(event, live.clock))
            for uuid, event in live.ends.items()
        }
        switch_cdr = self._services.switch_cdr
        until = time.monotonic() + WRITTEN
        while True:
            switch_cdr.look()
            for cdr in switch_cdr.legs(ref):
                found.setdefault(cdr.uuid, (cdr.uuid != a_uuid and cdr.bleg, cdr.leg(live.clock)))
            if any(not bleg for bleg, _leg in found.values()) or not switch_cdr.there or time.monotonic() > until:
                break
            if live.attempt.followed and found:
                # The other leg may have ended in another call.
                break
            gevent.sleep(FRESH)
        return [leg for bleg, leg in found.values() if not bleg], [leg for bleg, leg in found.values() if bleg]

    def _account_of(self, live: Live) -> str | None:
        """The account that a leg of the call names."""
        cdrs = self._services.switch_cdr.legs(live.attempt.call_ref)
        events = [*live.ends.values(), *(cdr.event for cdr in cdrs)]
        return next(filter(None, (event.var("esl_account_id") for event in events)), None)

    def _find_recording(self, attempt: Attempt) -> None:
        integrator = self._services.policy.config.integrator(attempt.integrator or "")
        if integrator is not None and integrator.record and application(attempt.app).recorded:
            attempt.recording_url = recording_name(attempt)


def _prove(live: Live) -> None:
    """A call is up now."""
    for charge in live.attempt.charges:
        charge.prove()
