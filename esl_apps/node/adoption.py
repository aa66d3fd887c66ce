"""Adopt calls whose node died: find them, follow them to their ends, write their records.

A node's calls are in its call log for its next run, and in Redis for the other nodes, which take them over once it
falls silent (``store.membership``). The switch says how they ended: for a leg that is still up, by its end when it
comes; for one that ended meanwhile, by the file that mod_json_cdr wrote (``esl.switch_cdr``). If two processes follow
one call, both push the same record and Redis takes it once.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress

import gevent

from esl_apps.apps import application, second_party
from esl_apps.apps.ending import conclude, end_of
from esl_apps.apps.legs import recording_name
from esl_apps.core import causes, node_clock, talk, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.billing import note_legs
from esl_apps.core.call import Leg
from esl_apps.core.charges import Charge
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.esl.legs import leg_of, telling
from esl_apps.esl.session import ReplyError
from esl_apps.esl.switch import SwitchUnavailable
from esl_apps.esl.switch_cdr import FRESH, WRITTEN
from esl_apps.esl.wire import Event
from esl_apps.node.live import AWAY, Live
from esl_apps.node.services import Services
from esl_apps.node.timed_calls import TimedCallPoller
from esl_apps.process import background
from esl_apps.store.essence import Essence
from esl_apps.store.membership import BEAT, DEAD

log = logging.getLogger(__name__)

#: Seconds for which an answered leg of ours may be alone. Its socket was lost before an application took it, and
#: FreeSWITCH keeps such a leg for ever (hazard 10).
PARKED = 10.0
#: Seconds after which to ask the switch for a leg whose end was not heard.
ASK_EVERY = 15.0
#: Seconds within which all live calls are refreshed in Redis, and how many are at the least at each beat.
_REFRESH_EVERY, _REFRESH_LEAST = 60, 100
#: Seconds for which the payments for an adopted call that has ended can be returned.
RETURNABLE = 600.0
#: Seconds by which the ends of A and B may be told one after the other.
_APART = 0.3


class Adoption(background.Kept):
    TASK = "adoption"

    def __init__(self, services: Services, pollers: dict[str, TimedCallPoller]) -> None:
        """``pollers``: those of applications that place timed calls, by ``ref``."""
        self._services = services
        self._pollers = pollers
        self._away = False

        self._refreshed = 0
        self._namesakes: set[str] = set()
        self._given_back: set[str] = set()
        """Calls that Redis still has as this process's."""
        self._returnable: dict[str, tuple[float, list[str], list[Charge]]] = {}

    def start(self) -> None:
        self.beat()
        super().start()

    def _run(self) -> None:
        while True:
            gevent.sleep(BEAT)
            self.beat()

    def beat(self) -> None:
        """Say that this node is alive, and adopt calls of dead nodes. Never raises."""
        services = self._services
        try:
            try:
                services.membership.say(draining=services.readiness.draining)
            finally:
                # Even if Redis is down: should another process follow one of them too, Redis takes its record once.
                self._own()
            self._reclaim()
            self._look_for_namesakes()
            self._give_back()
            self._refresh()
            if not services.readiness.draining:
                for boot in services.membership.dead():
                    self._inherit(boot)
            self._away = False
        except StoreUnavailable as error:
            if not self._away:
                log.warning("membership_unreachable", extra={"reason": str(error)})
            self._away = True
        except Exception:
            # Keep beating whatever happened: a silent node loses its calls to the others.
            log.exception("beat_failed")

    # Finding calls ------------------------------------------------------------------------------------

    def _own(self) -> None:
        """Adopt what an earlier run of this node left in its call log, unless another process has it by now."""
        services = self._services
        left, services.call_log.left = services.call_log.left, []
        for call in left:
            if self._is_followed(call.call_ref):
                services.call_log.ended(call.call_ref)
            else:
                self._adopt(call, services.policy.settings.node)

    def _is_followed(self, ref: str) -> bool:
        """Whether another live process has the call. False if Redis can't say."""
        roster = self._services.membership
        with suppress(StoreUnavailable):
            return self._services.store.essence(ref, roster.living()) is not None
        return False

    def _inherit(self, boot: str) -> None:
        """:raises StoreUnavailable: Redis is down."""
        services = self._services
        left = services.store.live([boot])[boot]
        if not left:
            services.membership.forget(boot)
            return
        peer = services.membership.peers.get(boot)
        name = peer.name if peer is not None else services.membership.name
        for call in left:
            if (
                not any(switch.name == call.switch for switch in services.switches)
                and name != services.policy.settings.node
            ):
                # Leave it to a node that has this switch or, if none has, to the dead node's next run.
                continue
            if services.store.take_over(call, boot):
                self._adopt(call, name)

    def _adopt(self, call: Essence, name: str) -> None:
        """Adopt one call, whose node's name this is. Never raises: a fault with one call must not cost the others."""
        try:
            self._begin_following(call, name)
        except Exception:
            log.exception("adoption_failed", extra={"call_ref": call.call_ref})

    def _begin_following(self, call: Essence, name: str) -> None:
        services = self._services
        ref = call.call_ref
        if ref in services.calls.live:
            return
        with suppress(StoreUnavailable):
            # If Redis is down the call may get a second record, of which Redis takes one.
            known = services.store.call(ref)
            if known is not None and known["state"] == terms.ENDED:
                services.call_log.ended(ref)
                services.store.forget(ref)
                return
        log.warning("call_adopted", extra={"call_ref": ref, "app": call.app, "from": name})
        services.metrics.adopted.inc()
        switch = next((one for one in services.switches if one.name == call.switch), services.switches[0])
        if call.core_uuid is not None:
            # The name may be a guess of a process that didn't know the switch again after its restart.
            switch = next((one for one in services.switches if one.core_uuid == call.core_uuid), switch)
        if switch.name == call.switch:
            switch.also_hear(f"variable_esl_node {name}")
        live = services.calls.adopt(call, switch)
        attempt = live.attempt
        if attempt.holder is not None:
            services.usage.leases.hold(attempt.holder, attempt.session_ref)
        services.charging.resume(attempt)
        background.once("call_following", self._follow, live, call.switch == switch.name, call_ref=ref)

    # Giving them back ---------------------------------------------------------------------------------

    def _reclaim(self) -> None:
        """Make this node's calls known again if its beats were late: others may have adopted them, and give them back
        once they hear that it lives."""
        services = self._services
        gap = services.membership.longest_gap()
        if gap > DEAD - BEAT:
            log.warning("beats_were_late", extra={"seconds": round(gap, 1)})
            services.records.save_all()

    def _look_for_namesakes(self) -> None:
        """Say loudly, once, that another process lives under this name: Redis couldn't be asked at one's start."""
        services = self._services
        for boot in services.membership.namesakes():
            if boot not in self._namesakes:
                self._namesakes.add(boot)
                log.error("node_name_taken", extra={"node": services.membership.name, "boot": boot})
                services.alerts.tell("node_name", node=services.membership.name)

    def _give_back(self) -> None:
        """Let go of calls whose own process lives after all: it was stopped, or away from Redis.

        :raises StoreUnavailable: Redis is down.
        """
        services, membership = self._services, self._services.membership
        for live in list(services.calls.live.values()):
            boot = membership.returned(live.had_by)
            if boot is None or not live.adopted:
                continue
            attempt = live.attempt
            log.warning("call_given_back", extra={"call_ref": attempt.call_ref, "to": membership.peers[boot].name})
            services.calls.give_back(live)
            if attempt.holder is not None:
                services.usage.leases.let_go(attempt.holder, attempt.session_ref)
            services.call_log.ended(attempt.call_ref)
            self._given_back.add(attempt.call_ref)
        for ref in list(self._given_back):
            # Redis may refuse it now: until it is gone there, another process would adopt it from this one.
            services.store.forget(ref)
            self._given_back.discard(ref)
        for ref, (until, had_by, charges) in list(self._returnable.items()):
            if membership.returned(had_by) is not None:
                for charge in charges:
                    charge.waive()
                del self._returnable[ref]
            elif time.monotonic() > until:
                del self._returnable[ref]

    def _refresh(self) -> None:
        """Keep what Redis has of the live calls, some at each beat. :raises StoreUnavailable: Redis is down."""
        services = self._services
        live = list(services.calls.live.values())
        count = max(_REFRESH_LEAST, len(live) // _REFRESH_EVERY + 1)
        start = self._refreshed if self._refreshed < len(live) else 0
        part = live[start : start + count]
        self._refreshed = start + len(part)
        services.store.refresh([(one.attempt.call_ref, one.attempt.integrator or "") for one in part])

    # To their ends ------------------------------------------------------------------------------------

    def _follow(self, live: Live, reachable: bool) -> None:
        attempt = live.attempt
        try:
            if reachable:
                self._watch(live)
            if not live.released and not attempt.ended:
                self._end(live)
            if attempt.charges and not live.released:
                self._returnable[attempt.call_ref] = (time.monotonic() + RETURNABLE, live.had_by, attempt.charges)
        except Exception:
            log.exception("following_failed", extra={"call_ref": attempt.call_ref})
            attempt.end(terms.LOST, causes.NORMAL_UNSPECIFIED, terms.SYSTEM, node_clock.now())
        finally:
            if attempt.holder is not None and not live.released:
                self._services.usage.leave(attempt.holder, attempt.session_ref)

    def _watch(self, live: Live) -> None:
        """Return once the switch has no leg of the call left, or is another process than the one that carried it."""
        switch, ref, asked = live.switch, live.attempt.call_ref, time.monotonic()
        parked_at = asked + PARKED

        def over() -> bool:
            return live.released or live.attempt.ended

        while not over():
            if not live.wait(lambda: switch.connected or over(), time.monotonic() + AWAY):
                return
            if live.core_uuid is not None and switch.core_uuid != live.core_uuid:
                return
            try:
                legs = self._services.calls.census.legs(switch, asked).get(ref, [])
            except (SwitchUnavailable, ReplyError):
                # Let the greenlet that reads the connection run, as in ``Calls.find_end``.
                gevent.sleep(0.05)
                continue
            self._picture(live, legs)
            parked = self._is_parked(live, legs)
            if parked and asked >= parked_at and self._is_alone(live):
                log.warning("orphaned_leg_hung_up", extra={"call_ref": ref})
                self._services.calls.reap(switch, ref, "NORMAL_TEMPORARY_FAILURE")
            alive = {leg.get("Unique-ID") or "" for leg in legs}

            def gone(alive: set[str] = alive) -> bool:
                return alive <= live.ends.keys()

            if gone():
                return
            patience = PARKED if parked else ASK_EVERY
            live.wait(lambda: gone() or over() or not switch.connected, time.monotonic() + patience)
            if gone():
                # A and B end at about the same time, in events of their own.
                live.wait(over, time.monotonic() + _APART)
            asked = time.monotonic()

    def _is_parked(self, live: Live, legs: list[Event]) -> bool:
        """Whether its only leg has answered and waits for a node, none of which has told it to do anything."""
        placed = application(live.attempt.app).placed and live.attempt.state == terms.AGENT_ANSWERED
        return placed and len(legs) == 1 and legs[0].var("current_application") in (None, "socket")

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
        with suppress(StoreUnavailable):
            if not services.store.has(attempt.call_ref):
                # The node to which the caller was handed has taken it over.
                services.calls.release(live)
                if attempt.holder is not None:
                    services.usage.leases.let_go(attempt.holder, attempt.session_ref)
                services.call_log.ended(attempt.call_ref)
                return
            # It may have been cancelled at another node, or too late for its own to write that down.
            attempt.cancelled_by = attempt.cancelled_by or services.store.cancelled_by(attempt.call_ref)
        alegs, blegs = self._legs(live)
        session = application(attempt.app).session
        if services.calls.leave(live, dialled=attempt.number is not None if session else bool(blegs)):
            if attempt.holder is not None:
                services.usage.leases.let_go(attempt.holder, attempt.session_ref)
            return
        aleg, bleg = telling(alegs), telling(blegs)
        now = node_clock.now()
        if attempt.dialed_at is None:
            attempt.dialed_at = min((leg.created_at for leg in alegs + blegs if leg.created_at), default=None)
        end = end_of(aleg, bleg, now)
        note_legs(attempt, aleg, bleg, application(attempt.app).second_party)
        if bleg is not None and end.both_up:
            self._joined(attempt, bleg)
        if attempt.bridged_at is not None:
            self._find_recording(attempt)
        if aleg is not None and application(attempt.app).holds:
            attempt.hold_time = round(aleg.hold_seconds + talk.seconds(attempt, talk.HOLD, end.at))
        if aleg is not None and application(attempt.app).placed and attempt.answered_at is None:
            attempt.answered_at = aleg.answered_at
        fared = application(attempt.app).fared
        if fared is not None:
            fared(attempt, blegs)
        at = end.at
        if attempt.cancelled_by is not None and attempt.bridged_at is None:
            attempt.end(terms.CANCELLED, causes.NORMAL_CLEARING, attempt.cancelled_by, at)
        elif aleg is None and bleg is None:
            # Nothing is known of its legs: the switch was killed, or keeps no CDR files.
            attempt.end(terms.LOST, causes.NORMAL_UNSPECIFIED, terms.SYSTEM, now)
        elif bleg is None and attempt.bridged_at is None and aleg is not None and not aleg.hung_up_itself:
            self._end_of_a(attempt, aleg, at)
        else:
            party = second_party(attempt)
            conclude(attempt, end, None, party)
        if attempt.app in self._pollers:
            self._pollers[attempt.app].settle(attempt)

    def _end_of_a(self, attempt: Attempt, aleg: Leg, at: float) -> None:
        """End a call of which only A is known, and A didn't hang up itself."""
        code = aleg.q850 or causes.NORMAL_UNSPECIFIED
        if application(attempt.app).placed and aleg.answered_at is None and code != causes.NORMAL_CLEARING:
            attempt.end(f"agent_{causes.failure(code)}", code, terms.AGENT, at)
        else:
            # No node went on with it, and the switch gave it up.
            attempt.end(terms.LOST, causes.NORMAL_UNSPECIFIED, terms.SYSTEM, at)

    def _legs(self, live: Live) -> tuple[list[Leg], list[Leg]]:
        """The call's A-legs and B-legs, from events and from the switch's CDR files."""
        ref = live.attempt.call_ref
        found: dict[str, tuple[bool, Leg]] = {
            uuid: (event.var("esl_bleg") is not None, leg_of(event, live.clock)) for uuid, event in live.ends.items()
        }
        switch_cdr = self._services.switch_cdr
        until = time.monotonic() + WRITTEN
        while True:
            switch_cdr.look()
            for kept in switch_cdr.legs(ref):
                found.setdefault(kept.uuid, (kept.bleg, kept.leg(live.clock)))
            if any(not bleg for bleg, _leg in found.values()) or not switch_cdr.there or time.monotonic() > until:
                break
            gevent.sleep(FRESH)
        return [leg for bleg, leg in found.values() if not bleg], [leg for bleg, leg in found.values() if bleg]

    def _find_recording(self, attempt: Attempt) -> None:
        one = self._services.policy.config.integrator(attempt.integrator or "")
        if one is not None and one.record and application(attempt.app).recorded:
            attempt.recording_url = recording_name(attempt)
