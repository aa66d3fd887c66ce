"""Calls that come over the outbound event socket: which application a path is, and what it needs to run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import gevent

from esl_apps.calls import Essence, Live, essence, restored
from esl_apps.core import causes
from esl_apps.core.apps import autodial, callback, click2dial, dialthrough, disa, inbound
from esl_apps.core.apps.common import conclude, end_of
from esl_apps.core.call import CallEnded, Leg
from esl_apps.core.cards import Unavailable
from esl_apps.core.cdr import AGENT, CALLEE, ENDED, LOST, REJECTED, SYSTEM, Attempt
from esl_apps.core.numbers import NotDialable
from esl_apps.esl.channel import Channel, leg_of
from esl_apps.esl.server import FULL
from esl_apps.esl.session import Gone, OutboundSession
from esl_apps.esl.switch import Switch
from esl_apps.esl.wire import Event
from esl_apps.redisclient import ERRORS
from esl_apps.spool import FRESH

if TYPE_CHECKING:
    from esl_apps.service import Node

log = logging.getLogger(__name__)

#: Seconds for what the switch keeps of a B-leg whose caller is here already.
_KEPT = 1.0
#: Seconds for an attempt to end once its end is known.
_SETTLE = 2.0
#: Seconds for which a missed call that Redis was not there for is remembered, and between two tries to write it down.
_REMEMBER, _MISSED_AGAIN = 60.0, 0.5

#: Applications in which one caller dials one number after another.
_SESSIONS = frozenset({disa.REF, dialthrough.REF})
#: Applications whose A-leg a node rings, and whose path no dialplan names.
_RUNG = frozenset({autodial.REF, callback.REF})

#: The dialplan's extension for callers whom no node serves (contract §3).
UNAVAILABLE = "esl_apps_unavailable"


class _Visit:
    """One socket: its channel, and the call that it turns out to be."""

    def __init__(self, node: Node, session: OutboundSession) -> None:
        self.node = node
        self.session = session
        self.ref = ""
        self._core_uuids = tuple(switch.core_uuid for switch in node.switches)
        self.channel = Channel(session, node.prompt, self._find_end)
        self.path = (self.channel.variable("socket_path") or "").split("/")
        # Whatever carries it was placed by a node, or handed back by the dialplan when a node had died.
        self.carried = self.channel.variable("esl_call_ref") or ""
        self.session_ref = ""
        """Of the session that this channel was in before, where the dialplan handed it back."""
        self.follows = False
        """The session has its record: an attempt that dials nothing is none of its own."""
        self.goes_on: Attempt | None = None
        """The attempt that it was in, where that had dialled nothing yet."""
        self._before: Live | None = None
        """The same, where it is of this process: its flow waits for its channel's end."""
        core = self.channel.header("Core-UUID")
        self.switch: Switch = next(
            (switch for switch in node.switches if switch.core_uuid == core), node.switches[0]
        )

    def begin(self, attempt: Attempt) -> None:
        """``begin`` of the flows: the call is known from here on."""
        first = not self.ref
        if self.goes_on is not None and first:
            # One session that dials none has one record, however many nodes served it.
            attempt.call_ref, attempt.contact_ref = self.goes_on.call_ref, self.goes_on.contact_ref
            attempt.dialed_at = self.goes_on.dialed_at
        if first and attempt.app in _SESSIONS:
            attempt.follows = self.follows
        self.ref = attempt.call_ref
        live = self.node.calls.begin(attempt, self.switch)
        live.attached = True
        if self._before is not None and first:
            self._before.attempt.follows = True
            # This process may be gone before that one has ended.
            self._before.attempt.save()
            self._before.ends[self.channel.uuid] = self.channel.data
            self._before.poke()
        if first:
            self.channel.begin(attempt.session_ref, watched=True)

    def resume(self, live: Live) -> None:
        """A leg that this process placed has answered."""
        self.ref = live.attempt.call_ref
        live.attached = True
        live.poke()
        self.channel.begin(live.attempt.session_ref, watched=False)
        assert live.run is not None
        live.run(self.channel, self.begin)

    def settle(self) -> None:
        """A channel that the dialplan handed back, its socket or its node having died: end the attempt that it was
        in, by what it carries of it. What it does from now on is another one of the same session; or the same one,
        where that had dialled nothing yet."""
        calls = self.node.calls
        data = self.channel.data
        live = calls.live.get(self.carried)
        if live is not None and live.adopted:
            calls.release(live)
            self._settle(essence(live.attempt, live.core_uuid), live.ends)
            return
        if live is not None:
            # Of this process: its flow waits for the channel's end, and this is all the end that there will be.
            attempt = live.attempt
            self.session_ref, self.follows = attempt.session_ref, attempt.follows
            if attempt.app in _SESSIONS and attempt.number is None:
                # It dialled nothing, and the caller goes on: once that has begun, and not before.
                self._before = live
                return
            self.follows = True
            live.ends[self.channel.uuid] = data
            live.poke()
            live.wait(lambda: live.attempt.ended, time.monotonic() + _SETTLE)
            return
        known = self.take_over()
        if known is not None:
            self._settle(known, {})

    def take_over(self) -> Essence | None:
        """The call that this channel carries, from the process that had it; None where it has ended, or Redis is
        away: then it is followed to its end by whoever adopts it."""
        node = self.node
        # Where nobody knows the call, the channel does; and who ended it, or will, gave the session its record.
        self.session_ref, self.follows = self.channel.variable("esl_session_ref") or "", True
        try:
            found = node.store.essence(self.carried, node.roster.peers)
            if found is None:
                # A process that is younger than our last look at the roster may have had it, and have died since.
                node.roster.say(draining=node.draining)
                found = node.store.essence(self.carried, node.roster.peers)
            if found is None:
                return None
            boot, known = found
            node.store.take_over(known, boot)
        except (Unavailable, *ERRORS) as error:
            log.error("a call that was handed back is not known", extra={"reason": str(error)})
            return None
        return known

    def _settle(self, known: Essence, ends: dict[str, Event]) -> None:
        """``ends``: of its legs, those that were heard of."""
        self.session_ref, self.follows = known.session_ref, known.follows
        if known.holder is not None:
            # Who goes on takes a place again.
            self.node.usage.leave(known.holder, known.session_ref)
        data = self.channel.data
        now = time.time()
        bleg = next((leg_of(end) for end in ends.values() if end.var("esl_bleg") is not None), None)
        if bleg is None and (known.number is not None or known.bridged_at is not None):
            bleg = self._bleg_of(known, now)
        if bleg is None and (known.app not in _SESSIONS or known.number is None):
            # It had dialled nothing, and goes on.
            self.goes_on = restored(known)
            return
        attempt = restored(known)
        self.follows = True
        self.node.calls.begin(attempt, self.switch)
        if bleg is None:
            # A number that the switch was about to be told.
            attempt.end(LOST, causes.NORMAL_UNSPECIFIED, SYSTEM, now)
            return
        if bleg.answered_at is not None and attempt.app == inbound.REF and attempt.bridged_at is None:
            inbound.answered(attempt, bleg.answered_at, bleg, self.node.announce)
        party = AGENT if attempt.app == inbound.REF else CALLEE
        conclude(attempt, end_of(leg_of(data), bleg, now), None, party)

    def _bleg_of(self, known: Essence, now: float) -> Leg | None:
        """How B ended, which nobody heard: by what the switch kept of it, else by what A carries of it."""
        spool = self.node.spool
        until = time.monotonic() + _KEPT
        while True:
            spool.look()
            kept = [one.leg for one in spool.legs(known.call_ref) if one.bleg]
            if kept:
                return max(kept, key=lambda leg: (leg.answered_at is not None, leg.ended_at or 0.0))
            if not spool.there or time.monotonic() > until:
                break
            gevent.sleep(FRESH)
        data = self.channel.data
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
        # The dialling's own end before the bridge's, which may be that of the number before.
        failed = next((one for one in (data.var("originate_disposition"), cause) if one not in (None, "SUCCESS")), None)
        return Leg("", ended_at=now, cause=failed, q850=causes.q850(failed)) if failed else None

    def refuse(self, reason: str, cause: str = FULL) -> None:
        """Hang up with a cause: never just close (hazard 10)."""
        log.warning("call refused", extra={"reason": reason, "uuid": self.session.uuid})
        with suppress(Gone, CallEnded, TimeoutError):
            self.session.post(
                f"api sched_del {self.session.uuid}",
                f"filter Unique-ID {self.session.uuid}",
                "event plain CHANNEL_HANGUP",
            )
            self.channel.hangup(cause)

    def give_up(self) -> None:
        live = self.node.calls.live.get(self.ref)
        if live is not None:
            live.attempt.end(LOST, causes.NORMAL_UNSPECIFIED, SYSTEM, time.time())

    def _find_end(self, uuid: str) -> Event | None:
        live = self.node.calls.live.get(self.ref)
        if live is None:
            return None
        core_uuids = dict(zip(self.node.switches, self._core_uuids, strict=True))
        end = self.node.calls.find_end(self.ref, uuid, core_uuids.get(live.switch))
        if end is None and not live.switch.connected:
            return None
        if end is None:
            # It ended while nobody listened.
            end = self.node.spool.wait_for(self.ref, uuid)
            for kept in self.node.spool.legs(self.ref):
                if kept.bleg:
                    live.ends.setdefault(kept.leg.uuid, kept.event)
        if end is not None:
            for bleg in self.node.calls.blegs_of(live, uuid):
                self._tell(bleg)
        return end

    def _tell(self, bleg: Event) -> None:
        """What the socket did not live to hear: that B answered, and how it ended."""
        answered = bleg.int("Caller-Channel-Answered-Time") > 0
        if answered:
            self.channel.tell(bleg, b"CHANNEL_ANSWER")
        self.channel.tell(bleg, b"CHANNEL_HANGUP_COMPLETE")


class Incoming:
    def __init__(self, node: Node) -> None:
        self._node = node
        self._applications: dict[str, Callable[[_Visit], None]] = {
            "click2dial": self._click2dial,
            "inbound": self._inbound,
            "dialthrough": self._dialthrough,
            "callback": self._callback,
            "disa": self._disa,
        }

    def handle(self, session: OutboundSession) -> None:
        """One call, from its socket to its end; runs in the call's own greenlet."""
        visit = _Visit(self._node, session)
        try:
            self._serve(visit)
        except Exception:
            # A fault of ours, or a socket that was lost before the flow had it: the call has its record all the same.
            visit.give_up()
            raise
        finally:
            visit.channel.let_go()

    def _serve(self, visit: _Visit) -> None:
        if visit.channel.header("Caller-Destination-Number") == UNAVAILABLE:
            # The watchdog was faster than we were: the caller hears that message now, and is not ours.
            log.warning("taken over too late", extra={"uuid": visit.session.uuid})
            return
        live = self._node.calls.live.get(visit.carried) if visit.carried else None
        if live is not None and live.run is not None and not live.attached:
            visit.resume(live)
            return
        if self._node.draining:
            visit.refuse("draining")
            return
        if live is None and self._node.full:
            visit.refuse("full")
            return
        application = self._applications.get(visit.path[0])
        if visit.carried and visit.channel.variable("esl_app") in _RUNG and self._go_on(visit):
            return
        if visit.carried and visit.path[0] != "click2dial":
            visit.settle()
        if application is None:
            visit.refuse(f"no application at {'/'.join(visit.path)[:60]}")
        else:
            try:
                application(visit)
            except Unavailable as error:
                visit.refuse(str(error), "NORMAL_TEMPORARY_FAILURE")

    def _go_on(self, visit: _Visit) -> bool:
        """An A-leg of an autodial or a callback that another process rang. False: it has been served before."""
        node = self._node
        live = node.calls.live.get(visit.carried)
        if live is not None and live.adopted:
            node.calls.release(live)
            known: Essence | None = essence(live.attempt, live.core_uuid)
        else:
            known = visit.take_over() if live is None else None
        if known is None or known.answered_at is not None:
            return False
        if not node.outgoing.go_on(visit.channel, restored(known), visit.begin):
            visit.refuse("what its call needs is there no more", "NORMAL_CLEARING")
        return True

    def _click2dial(self, visit: _Visit) -> None:
        node, channel = self._node, visit.channel
        if visit.carried:
            self._adopt(visit)
            return
        client = node.clients.get(visit.path[1]) if len(visit.path) > 1 else next(iter(node.clients.values()), None)
        if client is None:
            visit.refuse("no such integrator")
            return
        click2dial.run_from_phone(
            channel, client, node.settings, trusted=node.trusted, begin=visit.begin, usage=node.usage
        )

    def _adopt(self, visit: _Visit) -> None:
        """An answered A-leg that another process placed: go on with it, unless its call has ended meanwhile."""
        node, channel, ref = self._node, visit.channel, visit.carried
        try:
            known = node.store.call(ref)
        except ERRORS as error:
            visit.refuse(f"Redis: {error}", "NORMAL_TEMPORARY_FAILURE")
            return
        if known is None or known["state"] == ENDED:
            visit.refuse("its call has ended", "NORMAL_CLEARING")
            return
        client = node.clients.get(channel.variable("esl_account_id") or "")
        try:
            if client is None:
                raise NotDialable("its integrator is not configured")
            order = click2dial.order_of(channel, node.settings.plan)
        except NotDialable as error:
            visit.refuse(f"an A-leg that carries no call: {error}", "INVALID_MSG_UNSPECIFIED")
            return
        attempt = click2dial.new_attempt(client, order, node.settings, ref)
        attempt.dialed_at = known["dialed_at"]
        visit.begin(attempt)
        refusal = node.usage.begin(*click2dial.charges(attempt, order, client))
        if refusal is not None:
            attempt.note("refused", str(refusal))
            visit.refuse(str(refusal), "NORMAL_CLEARING")
            attempt.end(REJECTED, refusal.code, SYSTEM, time.time())
            return
        click2dial.run(channel, attempt, order, client, node.settings)

    def _inbound(self, visit: _Visit) -> None:
        node, channel = self._node, visit.channel
        try:
            did = node.settings.plan.read(channel.header("Caller-Destination-Number") or "")
            queue = node.queues.get(did.e164)
        except NotDialable:
            queue = None
        inbound.run(
            channel,
            queue,
            node.caller(channel),
            node.settings,
            begin=visit.begin,
            announce=node.announce,
            session_ref=visit.session_ref,
        )

    def _disa(self, visit: _Visit) -> None:
        node = self._node
        entrance = node.entrance(visit.path[1], visit.path[2]) if len(visit.path) == 3 else None
        if entrance is None:
            visit.refuse("no such DISA", "UNALLOCATED_NUMBER")
            return
        caller = node.caller(visit.channel)
        disa.run(
            visit.channel,
            entrance,
            node.settings,
            node.rules,
            node.usage,
            node.guard,
            caller=caller,
            source=node.source(visit.channel, "/".join(visit.path), caller),
            begin=visit.begin,
            hash_pin=node.hash_pin,
            session_ref=visit.session_ref,
        )

    def _dialthrough(self, visit: _Visit) -> None:
        node = self._node
        caller = node.caller(visit.channel)
        dialthrough.run(
            visit.channel,
            node.settings,
            node.rules,
            node.cards,
            node.usage,
            node.guard,
            caller=caller,
            attested=node.attested(visit.channel),
            source=node.source(visit.channel, dialthrough.REF, caller),
            begin=visit.begin,
            session_ref=visit.session_ref,
        )

    def _callback(self, visit: _Visit) -> None:
        node, channel = self._node, visit.channel
        caller = node.caller(channel)
        dnis = channel.header("Caller-Destination-Number") or ""
        channel.watch_only()
        if callback.refuse(channel, node.config.callback.answer_after):
            visit.session.leave()
            if not self._missed(caller, dnis):
                log.warning("callback not written yet", extra={"reason": "Redis is away", "uuid": channel.uuid})
                gevent.spawn(self._missed_again, caller, dnis, time.monotonic() + _REMEMBER)
        else:
            self._dialthrough(visit)

    def _missed(self, caller: str | None, dnis: str) -> bool:
        """A call that was missed is to be returned, if its caller may be. False: Redis is away."""
        node = self._node
        try:
            target = callback.whom_to_call(caller, node.settings, node.rules, node.cards)
            if isinstance(target, str):
                log.info("no callback", extra={"reason": target})
            else:
                number, card = target
                node.outgoing.schedule_callback(number, card, dnis)
        except Unavailable:
            return False
        return True

    def _missed_again(self, caller: str | None, dnis: str, until: float) -> None:
        """The caller was refused and will not ring again: what could not be written down is remembered for a while."""
        while time.monotonic() < until and not self._node.stopped.is_set():
            gevent.sleep(_MISSED_AGAIN)
            if self._missed(caller, dnis):
                return
        log.error("callback lost: Redis is away", extra={"reason": f"for {_REMEMBER:g} s"})
