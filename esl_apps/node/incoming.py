"""Calls that come over the outbound event socket: which application a path is, and what it needs to run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import gevent

from esl_apps.apps import autodial, callback, click2dial, dialthrough, disa, inbound
from esl_apps.core.cards import Unavailable
from esl_apps.core.numbers import NotDialable
from esl_apps.core.terms import ENDED, REJECTED, SYSTEM
from esl_apps.esl.session import OutboundSession
from esl_apps.node.visit import _Visit
from esl_apps.store.essence import Essence, essence, restored
from esl_apps.store.redis_client import ERRORS

if TYPE_CHECKING:
    from esl_apps.node.node import Node

log = logging.getLogger(__name__)
#: Seconds for which a missed call that Redis was not there for is remembered, and between two tries to write it down.
_REMEMBER, _MISSED_AGAIN = 60.0, 0.5
#: Applications whose A-leg a node rings, and whose path no dialplan names.
_RUNG = frozenset({autodial.REF, callback.REF})

#: The dialplan's extension for callers whom no node serves (contract §3).
UNAVAILABLE = "esl_apps_unavailable"


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
