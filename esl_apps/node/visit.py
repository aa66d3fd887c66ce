"""One channel that came to the event socket, from connect to hang-up."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import Any

import gevent

from esl_apps.apps import application, second_party
from esl_apps.apps.ending import conclude, end_of
from esl_apps.core import causes, node_clock
from esl_apps.core.attempt import Attempt
from esl_apps.core.billing import carried_on
from esl_apps.core.call import CallEnded, Leg
from esl_apps.core.terms import ENDED, QUEUED
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.esl.channel import Channel
from esl_apps.esl.legs import leg_of, refused_by, telling
from esl_apps.esl.round_trips import RoundTrips
from esl_apps.esl.server import FULL
from esl_apps.esl.session import Gone, OutboundSession
from esl_apps.esl.switch import Switch
from esl_apps.esl.switch_cdr import FRESH
from esl_apps.esl.switch_clock import SwitchClock
from esl_apps.esl.wire import Event
from esl_apps.net.address import plain
from esl_apps.node import lost_socket
from esl_apps.node.live import Live
from esl_apps.node.services import Services
from esl_apps.store.essence import Essence, FoundCall, restored

log = logging.getLogger(__name__)

#: Seconds to wait for the CDR file of a B-leg whose caller is already here.
_CDR_WRITTEN = 1.0
#: Seconds that a flow has to end its attempt once it was told of the end.
_SETTLE = 2.0


class Visit:
    """One socket: its channel, and the call that it turns out to be."""

    def __init__(self, services: Services, session: OutboundSession) -> None:
        self.services = services
        self.session = session
        self.ref = ""
        self._policy = services.policy
        self._attempt: Attempt | None = None
        """The current one, or the last one."""
        self.channel = Channel(session, self._prompt_path, self._find_end, self._clock_of)
        if services.policy.settings.rtcp_interval is not None:
            self.channel.round_trips = RoundTrips()
        self.path = (self.channel.variable("socket_path") or "").split("/")
        # A channel that carries a reference was placed by a node, or handed back by the dialplan after a node died.
        self.carried = self.channel.variable("esl_call_ref") or ""
        self.session_ref = ""
        """The session that this channel was in before the dialplan handed it back."""
        self.has_record = False
        """The session already has a record: an attempt that dials nothing needs none of its own."""
        self.undialled: Attempt | None = None
        """The attempt that this channel was in, if that had dialled nothing yet."""
        self._before: Live | None = None
        """The same attempt if it is this process's, whose flow waits for its channel's end."""
        self._carried_on: dict[str, Any] = {}
        """The fields that its session's next attempt takes over."""
        self._apart: list[str] = []
        """The call that its caller was in, if it isn't known here what that took."""
        self._continues = ""
        """The call that its caller was in, if Redis can't say what became of that."""
        self._takes_on = False
        """Its caller was in a call that no other process will go on with, and that isn't settled."""
        self.core_uuid = self.channel.header("Core-UUID")
        self.switch = self._find_switch()

    def _find_switch(self) -> Switch:
        """The switch that the channel is on. A FreeSWITCH that has started again isn't known by its UUID before the
        connection to it is up: then it is one of the switches that are away, until it has been found."""
        switches = self.services.switches
        known = next((switch for switch in switches if switch.core_uuid == self.core_uuid), None)
        if known is not None:
            return known
        away = [switch for switch in switches if not switch.connected]
        for switch in away:
            switch.hurry()
        host = plain(self.session.client_address[0])
        return next((switch for switch in away if host in switch.addresses), (away or switches)[0])

    def _prompt_path(self, name: str, rate: int) -> str:
        language = self._attempt.language if self._attempt is not None else None
        return self._policy.prompt(name, rate, language, self.services.sounds.of(self.switch))

    def _clock_of(self, data: Event) -> SwitchClock:
        core = data.get("Core-UUID")
        clocks = (switch.clock for switch in self.services.switches if switch.core_uuid == core)
        # A process that this node isn't connected to has its own.
        return next(clocks, SwitchClock())

    def begin(self, attempt: Attempt) -> None:
        """Make an attempt known. The flows call this as ``host.begin``."""
        first = not self.ref
        if first:
            self._carry_on(attempt)
        self.ref, self._attempt = attempt.call_ref, attempt
        live = self.services.calls.begin(attempt, self.switch, self.core_uuid, self.channel.clock)
        live.attached = True
        if first:
            if self._before is not None:
                self._end_before(self._before)
            self.channel.begin(attempt.session_ref, watched=True)

    def _carry_on(self, attempt: Attempt) -> None:
        """Have the first attempt go on with what this channel was in before."""
        undialled = self.undialled
        if undialled is not None or self._takes_on or self._before is not None:
            self.services.store.note_gone_on(self.carried, (undialled or attempt).call_ref)
        attempt.continues = self._continues
        attempt.set(self._carried_on)
        if not self.carried and attempt.language is None:
            # An application that says no language: that of the number dialled.
            attempt.language = self._policy.language(self.channel.header("Caller-Destination-Number") or "", None)
        if undialled is not None:
            # A session that dials nothing has one record, however many nodes served it.
            attempt.call_ref, attempt.contact_ref = undialled.call_ref, undialled.contact_ref
            attempt.rest = undialled.rest
            attempt.dialed_at = undialled.dialed_at or attempt.dialed_at
            # Until the caller says who they are again.
            attempt.account_id = attempt.account_id or undialled.account_id
            attempt.integrator = attempt.integrator or undialled.integrator
            self.services.learn_owner(attempt, self.channel.variable("esl_account_id"))
        if application(attempt.app).session:
            attempt.follows = self.has_record
            attempt.apart = [*attempt.apart, *self._apart]

    def _end_before(self, live: Live) -> None:
        """Have the flow end that waits for this channel's end."""
        live.attempt.follows = True
        # This process may die before that attempt has ended.
        live.attempt.save()
        live.ends[self.channel.uuid] = self.channel.data
        live.poke()
        # It holds the caller's place, which this one is about to take.
        live.wait(lambda: live.attempt.ended, time.monotonic() + _SETTLE)

    def resume(self, live: Live) -> None:
        """Go on with a leg that this process placed and that has answered."""
        self.ref, self._attempt = live.attempt.call_ref, live.attempt
        live.attached = True
        live.poke()
        # A leg that is transferred has the dialplan's watchdog; one that was rung has none.
        self.channel.begin(live.attempt.session_ref, watched=live.attempt.transferred_from is not None)
        assert live.placed is not None
        services = self.services
        # By the rules in force when A answers: a reload may have come since.
        live.placed.answered(self.channel, services.policy, services.host(self.begin, live.attempt.app))

    def settle(self) -> None:
        """Settle a channel that the dialplan handed back because its socket or its node died: end the attempt that it
        was in by what the channel knows of it. From now on it is in another attempt of the same session, or in the same
        one if that had dialled nothing yet."""
        if not self.carried:
            return
        calls = self.services.calls
        data = self.channel.data
        live = calls.live.get(self.carried)
        if live is not None and live.adopted:
            calls.release(live)
            self._settle(live.essence, live.ends)
            return
        if live is not None:
            # This process's own: its flow waits for the channel's end, and no other end will come.
            attempt = live.attempt
            self.session_ref, self.has_record = attempt.session_ref, attempt.follows
            self._carried_on = carried_on(attempt)
            if application(attempt.app).session and attempt.number is None:
                # It dialled nothing and the caller goes on. End it once that has begun, not before.
                self._before = live
                return
            if attempt.state == QUEUED and not application(attempt.app).session and not live.bleg_ends:
                # It rang no phone: go on in the same call, and let that flow end without one.
                calls.release(live)
                live.ends[self.channel.uuid] = data
                live.poke()
                self.undialled = self.restored(live.essence)
                return
            self.has_record = True
            live.ends[self.channel.uuid] = data
            live.poke()
            live.wait(lambda: attempt.ended, time.monotonic() + _SETTLE)
            self._carried_on = carried_on(attempt, attempt.record)
            return
        found = self.find_call()
        if found is not None and self._is_stale(found.call):
            # Redis has it as it was before the number was dialled. The process that dialled, or its next run, records
            # it; here the session goes on.
            self.session_ref, self.has_record, self._carried_on = found.call.session_ref, True, carried_on(found.call)
            return
        if found is not None:
            # Settle it even if it can't be taken over: two processes record the same end, and Redis takes it once.
            taken = self.take_over(found)
            attempt = self._settle(found.call, {})
            if taken and found.call.had_by[-1:] == [found.boot]:
                self.services.charging.settle_later(attempt, found.call.had_by)

    def _is_stale(self, known: Essence) -> bool:
        """Whether a session's call has a leg that Redis, which refused to write, knows nothing of."""
        if not application(known.app).session or known.number is not None:
            return False
        if known.call_ref == known.session_ref and self._has_dialled():
            # It was the channel's first number.
            return True
        self.services.switch_cdr.look()
        return any(leg.bleg for leg in self.services.switch_cdr.legs(known.call_ref))

    def _has_dialled(self) -> bool:
        """Whether a number was dialled from this channel, and has come to its end."""
        return any(self.channel.data.var(name) for name in ("last_bridge_to", "last_bridge_hangup_cause"))

    def find_call(self) -> FoundCall | None:
        """The call that this channel carries, and the process that has it. None: it has ended, or Redis is down; then
        the node that adopts it follows it to its end."""
        services = self.services
        # If no process knows the call, the channel still does; and the process that ended or will end it writes the
        # session's record.
        self.session_ref, self.has_record = self.channel.variable("esl_session_ref") or "", True
        self._apart = [self.carried]
        try:
            found = services.store.essence(self.carried, services.membership.peers)
            if found is None:
                # A process that started after our last beat may have had it and died since. Redis may be read-only now.
                with suppress(StoreUnavailable):
                    services.membership.say(draining=services.readiness.draining)
                found = services.store.essence(self.carried, services.membership.peers)
            if found is None:
                self._learn_of_unknown()
            else:
                self._apart = []
            return found
        except StoreUnavailable as error:
            self._continues = self.carried
            log.error("handed_back_call_unknown", extra={"reason": str(error)})
            return None

    def _learn_of_unknown(self) -> None:
        """Find out why no process has the call. :raises StoreUnavailable: Redis is down."""
        call = self.services.store.call(self.carried)
        if call is None:
            # Its process died before Redis had it. Its next run finds it in its call log, and sees that this process
            # goes on with the session and has its record, unless a number was dialled before.
            first = self.services.store.call(self.session_ref) if self.session_ref != self.carried else None
            self.has_record = self._has_dialled() or (first is not None and first["callee"] is not None)
            self._takes_on = True
        elif call["state"] != ENDED:
            # It has ended, or its process died before Redis had all of it.
            self._continues = self.carried

    def take_over(self, found: FoundCall) -> bool:
        """Make a call this process's. False: it has ended meanwhile, or Redis is down."""
        store, current = self.services.store, found
        try:
            while not store.take_over(current.call, current.boot):
                # Another process took it first, to adopt it: take it from that one.
                again = store.essence(self.carried, self.services.membership.peers)
                if again is None or again.boot == current.boot:
                    return False
                current = again
        except StoreUnavailable as error:
            log.error("handed_back_call_unknown", extra={"reason": str(error)})
            return False
        return True

    def _settle(self, known: Essence, ends: dict[str, Event]) -> Attempt:
        """Return the attempt, which may go on. ``ends``: the ends of its legs that have been heard."""
        self.session_ref, self.has_record, self._carried_on = known.session_ref, known.follows, carried_on(known)
        if known.holder is not None:
            # The caller takes a place again when they go on.
            self.services.usage.leave(known.holder, known.session_ref)
        data, clock = self.channel.data, self.channel.clock
        now = node_clock.now()
        bleg = telling(leg_of(end, clock) for end in ends.values() if end.var("esl_bleg") is not None)
        if bleg is None and (known.number is not None or known.bridged_at is not None):
            bleg = self._bleg_of(known, now)
        if bleg is None and (not application(known.app).session or known.number is None):
            # It had dialled nothing and goes on.
            self.undialled = self.restored(known)
            return self.undialled
        attempt = self.restored(known)
        attempt.closes, self.has_record = False, True
        self.services.calls.begin(attempt, self.switch, self.core_uuid, clock)
        if bleg is None:
            # The switch was about to be told to dial this number.
            attempt.lose(now)
            self._carried_on = carried_on(attempt, attempt.record)
            return attempt
        joined = application(attempt.app).joined
        end = end_of(leg_of(data, clock), bleg, now)
        if bleg.answered_at is not None and end.both_up and joined is not None and attempt.bridged_at is None:
            joined(attempt, bleg.answered_at, bleg, self.services.records.announce)
        conclude(attempt, end, None, second_party(attempt))
        self._carried_on = carried_on(attempt, attempt.record)
        return attempt

    def restored(self, known: Essence) -> Attempt:
        """The attempt, with its times by this node's clock."""
        return restored(known, self.channel.header("Core-UUID"), self.channel.clock.ahead)

    def _bleg_of(self, known: Essence, now: float) -> Leg | None:
        """How B ended, if no process heard it: from the switch's CDR file, otherwise from A's variables."""
        switch_cdr, data = self.services.switch_cdr, self.channel.data
        until = time.monotonic() + _CDR_WRITTEN
        last = data.var("last_bridge_to")
        while True:
            switch_cdr.look()
            legs = {cdr.uuid: cdr.leg(self.channel.clock) for cdr in switch_cdr.legs(known.call_ref) if cdr.bleg}
            # Another gateway may have failed before: its file doesn't tell how the leg ended that came after it.
            if (legs and (not last or last in legs)) or not switch_cdr.there or time.monotonic() > until:
                break
            gevent.sleep(FRESH)
        bleg = telling(legs.values())
        if bleg is not None and (known.bridged_at is None or bleg.answered_at is not None):
            return bleg
        cause = data.var("last_bridge_hangup_cause")
        if known.bridged_at is not None:
            return Leg(
                data.var("last_bridge_to") or "",
                answered_at=known.bridged_at,
                ended_at=now,
                cause=cause,
                q850=causes.q850(cause) if cause else causes.NORMAL_CLEARING,
                disposition="recv_bye",
            )
        failed = refused_by(data)
        return Leg("", ended_at=now, cause=failed.cause, q850=failed.code) if failed is not None else None

    def refuse(self, reason: str, cause: str = FULL) -> None:
        """Hang up with a cause; never just close, which strands the caller (hazard 10). A call that was taken over to
        go on here ends."""
        undialled = None if self.ref else self.undialled
        if undialled is not None:
            self.begin(undialled)
        log.warning("call_refused", extra={"reason": reason, "uuid": self.session.uuid})
        with suppress(Gone, CallEnded, TimeoutError):
            self.session.post(
                f"api sched_del {self.session.uuid}",
                f"filter Unique-ID {self.session.uuid}",
                "event plain CHANNEL_HANGUP",
            )
            self.channel.hangup(cause)
        if undialled is not None:
            undialled.lose(node_clock.now())

    def give_up(self) -> None:
        """End the call as lost, if it has begun or was to go on here: its flow has failed."""
        if self.undialled is not None and not self.ref:
            self.begin(self.undialled)
        live = self.services.calls.live.get(self.ref)
        if live is not None:
            live.attempt.closes = True
            live.attempt.lose(node_clock.now())

    def _find_end(self, _uuid: str) -> Event | None:
        live = self.services.calls.live.get(self.ref)
        return None if live is None else lost_socket.find_end(self.services, live, self.channel, self.core_uuid)
