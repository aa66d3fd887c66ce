"""Adopt calls whose node died: find them, and have them followed to their ends.

A node's calls are in its call log for its next run, and in Redis for the other nodes, which take them over once it
falls silent (``store.membership``). If two processes follow one call, both push the same record and Redis takes it
once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress

import gevent

from esl_apps.apps import application
from esl_apps.core import terms
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.node.following import Following
from esl_apps.node.services import Services
from esl_apps.process import background
from esl_apps.store.documents import WrongVersion
from esl_apps.store.essence import Essence
from esl_apps.store.membership import BEAT, DEAD

log = logging.getLogger(__name__)

#: Seconds within which all live calls are refreshed in Redis, and how many are at the least at each beat.
_REFRESH_EVERY, _REFRESH_LEAST = 60, 100
#: Seconds for a node's next run to take over the calls of its last one, before others do.
_HEAD_START = 5.0


class Adoption(background.Kept):
    TASK = "adoption"

    def __init__(self, services: Services, following: Following) -> None:
        self._services = services
        self._following = following
        self._away = False

        self._refreshed = 0
        self._namesakes: set[str] = set()
        self._left_to: dict[str, float] = {}
        """Dead processes whose nodes run again, and until when (``time.monotonic``) these may take the calls over."""
        self._given_back: set[str] = set()
        """Calls that Redis still has as this process's."""

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
            self._adopt_unanswered()
            if not services.readiness.draining:
                dead = services.membership.dead()
                self._left_to = {boot: until for boot, until in self._left_to.items() if boot in dead}
                for boot in dead:
                    if not self._is_left_to_its_node(boot):
                        self._inherit(boot)
            for ref in services.cancel_requests.new():
                services.calls.cancel(ref, terms.API)
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
        left = services.call_log.left
        going_on = _going_on(left)
        while left:
            call = left[0]
            if self._is_followed(call.call_ref):
                services.call_log.ended(call.call_ref)
            else:
                call = self._newest(call)
                # As ``CallStore.take_over`` does: what that run noted of the call is this one's now.
                call.had_by = [*call.had_by, *filter(None, [services.membership.predecessor])]
                _add_apart(call, going_on)
                self._adopt(call, services.policy.settings.node)
            # Not before: the call log may be rewritten meanwhile.
            left.pop(0)

    def _newest(self, call: Essence) -> Essence:
        """A call of the call log, or what Redis has of it, if that is newer: the disk may have been full."""
        with suppress(StoreUnavailable):
            found = self._services.store.essence(call.call_ref, filter(None, [self._services.membership.predecessor]))
            if found is not None and found.call.changes > call.changes:
                return found.call
        return call

    def _is_followed(self, ref: str) -> bool:
        """Whether another process has had the call since. If that one is dead, it is adopted from there, with what it
        has noted and paid. False if Redis can't say."""
        membership = self._services.membership
        living = membership.living()
        dead = [boot for boot in membership.peers if boot not in (membership.boot, membership.predecessor, *living)]
        try:
            return any(self._has_since(ref, boots, unread) for boots, unread in ((living, True), (dead, False)))
        except StoreUnavailable:
            return False

    def _has_since(self, ref: str, boots: Iterable[str], unread: bool) -> bool:
        """Whether one of these processes has a call; ``unread`` if it is one of a later version, which has changed it.

        :raises StoreUnavailable: Redis is down.
        """
        try:
            return self._services.store.essence(ref, boots) is not None
        except WrongVersion:
            return unread

    def _is_left_to_its_node(self, boot: str) -> bool:
        """Whether a dead process's node has just begun to run again: it has the calls in its call log, perhaps in a
        newer form than Redis, which may have refused to write."""
        membership = self._services.membership
        peer = membership.peers.get(boot)
        if peer is None or not any(membership.peers[other].name == peer.name for other in membership.living()):
            return False
        return time.monotonic() < self._left_to.setdefault(boot, time.monotonic() + _HEAD_START)

    def _inherit(self, boot: str) -> None:
        """:raises StoreUnavailable: Redis is down."""
        services = self._services
        left = services.store.live([boot])[boot]
        if not left:
            # While it is known as dead, nodes that can read its calls look for them.
            if not services.store.leaves_calls(boot):
                services.membership.forget(boot)
            return
        name = self._name_of(boot)
        going_on = _going_on(left)
        for call in left:
            _add_apart(call, going_on)
            if (
                not any(switch.name == call.switch for switch in services.switches)
                and name != services.policy.settings.node
            ):
                # Leave it to a node that has this switch or, if none has, to the dead node's next run.
                continue
            if boot == services.membership.predecessor and self._needs_no_record(call):
                services.store.drop(call.call_ref, boot)
            elif services.store.take_over(call, boot):
                self._adopt(call, name)

    def _name_of(self, boot: str) -> str:
        """The node of a dead process."""
        membership = self._services.membership
        peer = membership.peers.get(boot)
        return peer.name if peer is not None else membership.name

    def _adopt_unanswered(self) -> None:
        """Adopt what this process has taken over without hearing so: no other process would.

        :raises StoreUnavailable: Redis is down.
        """
        services, membership = self._services, self._services.membership
        for ref, call in list(services.store.unanswered.items()):
            others = {*membership.peers, *call.had_by} - {membership.boot}
            dead = {boot for boot in others if membership.is_dead(boot)}
            if self._has_since(ref, others - dead, True):
                # That one was faster.
                services.store.forget(ref)
            elif not self._has_since(ref, dead, True):
                self._adopt(call, self._name_of(call.had_by[-1]))
            # Otherwise it is taken over now.
            del services.store.unanswered[ref]

    def _needs_no_record(self, call: Essence) -> bool:
        """Whether the last run of this node has ended a session's call that had dialled nothing, while Redis was away:
        if its caller went on in another call, only that run knew. Others get the record that they have."""
        dialled = not application(call.app).session or call.number is not None
        return not dialled and call.call_ref in self._services.call_log.struck

    def _adopt(self, call: Essence, name: str) -> None:
        """Adopt one call, whose node's name this is. Never raises: a fault with one call must not cost the others."""
        try:
            self._begin_following(call, name)
        except Exception:
            log.exception("adoption_failed", extra={"call_ref": call.call_ref})

    def _begin_following(self, call: Essence, name: str) -> None:
        services = self._services
        ref = call.call_ref
        live = services.calls.live.get(ref)
        if live is not None:
            if live.adopted:
                # Its process has noted more of it since.
                live.attempt.learn(call)
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
        switch = next((switch for switch in services.switches if switch.name == call.switch), services.switches[0])
        if call.core_uuid is not None:
            # The name may be a guess of a process that didn't know the switch again after its restart.
            switch = next((switch for switch in services.switches if switch.core_uuid == call.core_uuid), switch)
        if switch.name == call.switch:
            switch.also_hear(f"variable_esl_node {name}")
        live = services.calls.adopt(call, switch)
        attempt = live.attempt
        if attempt.holder is not None:
            services.usage.leases.hold(attempt.holder, attempt.session_ref)
        try:
            services.charging.resume(attempt, call.had_by)
        finally:
            # It is this process's now, and has its record whatever goes wrong here.
            self._following.follow(live, reachable=call.switch == switch.name)
        # A node that doesn't reach the switch may have cancelled it while no process had it. If Redis is down, it is
        # looked at again when the call ends.
        with suppress(StoreUnavailable):
            services.calls.obey_cancels([live])

    # Giving them back ---------------------------------------------------------------------------------

    def _reclaim(self) -> None:
        """Make this node's calls known again if its beats were late: others may have adopted them, and give them back
        once they hear that it lives. :raises StoreUnavailable: Redis is down."""
        services = self._services
        gap = services.membership.longest_gap()
        if gap > DEAD - BEAT:
            log.warning("beats_were_late", extra={"seconds": round(gap, 1)})
            lives = list(services.calls.live.values())
            for live in lives:
                live.attempt.is_shared = True
            services.records.save_all()
            services.calls.obey_cancels(lives)

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
        for live in [live for live in services.calls.live.values() if live.adopted]:
            boot = membership.returned(live.had_by)
            attempt = live.attempt
            if boot is None or not self._has(boot, attempt.call_ref):
                continue
            log.warning("call_given_back", extra={"call_ref": attempt.call_ref, "to": membership.peers[boot].name})
            services.calls.give_back(live)
            self._following.let_go(attempt)
            self._given_back.add(attempt.call_ref)
        for ref in list(self._given_back):
            # Redis may refuse it now: until it is gone there, another process would adopt it from this one.
            services.store.forget(ref)
            self._given_back.discard(ref)
        returnable = self._following.returnable
        for ref, (until, had_by, charges) in list(returnable.items()):
            if membership.returned(had_by) is not None:
                for charge in charges:
                    charge.waive()
                del returnable[ref]
            elif time.monotonic() > until:
                del returnable[ref]

    def _has(self, boot: str, ref: str) -> bool:
        """Whether a process has a call, or has ended it. It may have let go of it, because this one had it.

        :raises StoreUnavailable: Redis is down.
        """
        store = self._services.store
        if store.essence(ref, [boot]) is not None:
            return True
        known = store.call(ref)
        return known is not None and known["state"] == terms.ENDED

    def _refresh(self) -> None:
        """Keep what Redis has of the live calls, some at each beat. :raises StoreUnavailable: Redis is down."""
        services = self._services
        live = list(services.calls.live.values())
        count = max(_REFRESH_LEAST, len(live) // _REFRESH_EVERY + 1)
        start = self._refreshed if self._refreshed < len(live) else 0
        part = live[start : start + count]
        self._refreshed = start + len(part)
        services.store.refresh([(call.attempt.call_ref, call.attempt.integrator or "") for call in part])


def _going_on(calls: Iterable[Essence]) -> dict[str, list[str]]:
    """The calls that each call goes on in, as these say. It may not say so itself: its process may have died before it
    noted that. They close its session with it."""
    found: dict[str, list[str]] = {}
    for call in calls:
        # A consultation names none in ``apart``: it never closes the session.
        for ref in {*call.apart, *filter(None, [call.transferred_from])}:
            found.setdefault(ref, []).append(call.call_ref)
    return found


def _add_apart(call: Essence, going_on: Mapping[str, Iterable[str]]) -> None:
    call.apart = [*call.apart, *(ref for ref in going_on.get(call.call_ref, ()) if ref not in call.apart)]
