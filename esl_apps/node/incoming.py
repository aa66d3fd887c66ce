"""Calls that come over the outbound event socket: which application a path is, and what it needs to run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import gevent

from esl_apps.apps import autodial, callback, click2dial, dialthrough, disa, inbound
from esl_apps.apps.context import AppPolicy, Arrival, Host, NotServed
from esl_apps.core.call import Call
from esl_apps.core.numbers import NotDialable
from esl_apps.core.terms import ENDED, REJECTED, SYSTEM
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.esl.session import OutboundSession
from esl_apps.node.callback_poller import CallbackPoller
from esl_apps.node.outgoing import Outgoing
from esl_apps.node.policy import Policy
from esl_apps.node.services import Services
from esl_apps.node.visit import Visit
from esl_apps.store.essence import Essence, essence, restored
from esl_apps.store.redis_client import ERRORS

log = logging.getLogger(__name__)
#: Seconds for which a missed call that Redis was not there for is remembered, and between two tries to write it down.
_REMEMBER, _MISSED_AGAIN = 60.0, 0.5

#: The dialplan's extension for callers whom no node serves (contract §3).
UNAVAILABLE = "esl_apps_unavailable"


class Incoming:
    def __init__(self, services: Services, outgoing: Outgoing, callbacks: CallbackPoller) -> None:
        self._services = services
        self._callbacks = callbacks
        self._go_on_by_app = {autodial.REF: outgoing.go_on, callback.REF: callbacks.go_on}
        self._applications: dict[str, Callable[[Visit], None]] = {
            "click2dial": self._click2dial,
            "inbound": self._arrive(inbound.arrive),
            "dialthrough": self._arrive(dialthrough.arrive),
            "callback": self._callback,
            "disa": self._arrive(disa.arrive),
        }

    def handle(self, session: OutboundSession) -> None:
        """One call, from its socket to its end; runs in the call's own greenlet."""
        visit = Visit(self._services, session)
        try:
            self._serve(visit)
        except Exception:
            # A fault of ours, or a socket that was lost before the flow had it: the call has its record all the same.
            visit.give_up()
            raise
        finally:
            visit.channel.let_go()

    def _serve(self, visit: Visit) -> None:
        if visit.channel.header("Caller-Destination-Number") == UNAVAILABLE:
            # The watchdog was faster than we were: the caller hears that message now, and is not ours.
            log.warning("taken over too late", extra={"uuid": visit.session.uuid})
            return
        live = self._services.calls.live.get(visit.carried) if visit.carried else None
        if live is not None and live.run is not None and not live.attached:
            visit.resume(live)
            return
        if self._services.readiness.draining:
            visit.refuse("draining")
            return
        if live is None and self._services.readiness.full:
            visit.refuse("full")
            return
        application = self._applications.get(visit.path[0])
        if visit.carried and visit.channel.variable("esl_app") in self._go_on_by_app and self._go_on(visit):
            return
        if visit.carried and visit.path[0] != "click2dial":
            visit.settle()
        if application is None:
            visit.refuse(f"no application at {'/'.join(visit.path)[:60]}")
        else:
            try:
                application(visit)
            except NotServed as error:
                visit.refuse(str(error), error.cause)
            except StoreUnavailable as error:
                visit.refuse(str(error), "NORMAL_TEMPORARY_FAILURE")

    def _arrive(self, handler: Callable[[Call, Arrival, AppPolicy, Host], None]) -> Callable[[Visit], None]:
        return lambda visit: handler(visit.channel, *self._context(visit))

    def _context(self, visit: Visit) -> tuple[Arrival, Policy, Host]:
        services = self._services
        arrival = Arrival(tuple(visit.path), visit.session_ref)
        return arrival, services.policy, Host(visit.begin, services.usage, services.records.announce)

    def _go_on(self, visit: Visit) -> bool:
        """An A-leg of an autodial or a callback that another process rang. False: it has been served before."""
        services = self._services
        live = services.calls.live.get(visit.carried)
        if live is not None and live.adopted:
            services.calls.release(live)
            known: Essence | None = essence(live.attempt, live.core_uuid)
        else:
            known = visit.take_over() if live is None else None
        if known is None or known.answered_at is not None:
            return False
        go_on = self._go_on_by_app.get(known.app)
        if go_on is None or not go_on(visit.channel, restored(known), visit.begin):
            visit.refuse("what its call needs is there no more", "NORMAL_CLEARING")
        return True

    def _click2dial(self, visit: Visit) -> None:
        if visit.carried:
            self._adopt(visit)
            return
        click2dial.arrive(visit.channel, *self._context(visit))

    def _adopt(self, visit: Visit) -> None:
        """An answered A-leg that another process placed: go on with it, unless its call has ended meanwhile."""
        services, policy = self._services, self._services.policy
        channel, ref = visit.channel, visit.carried
        try:
            known = services.store.call(ref)
        except ERRORS as error:
            visit.refuse(f"Redis: {error}", "NORMAL_TEMPORARY_FAILURE")
            return
        if known is None or known["state"] == ENDED:
            visit.refuse("its call has ended", "NORMAL_CLEARING")
            return
        client = policy.clients.get(channel.variable("esl_account_id") or "")
        try:
            if client is None:
                raise NotDialable("its integrator is not configured")
            order = click2dial.order_of(channel, policy.settings.plan)
        except NotDialable as error:
            visit.refuse(f"an A-leg that carries no call: {error}", "INVALID_MSG_UNSPECIFIED")
            return
        click = click2dial.new_call(order, client, policy.settings, ref)
        attempt = click.attempt
        attempt.dialed_at = known["dialed_at"]
        visit.begin(attempt)
        charges = click2dial.charges(click, policy)
        refusal = services.usage.begin(*charges)
        if refusal is not None:
            attempt.note("refused", str(refusal))
            visit.refuse(str(refusal), "NORMAL_CLEARING")
            attempt.end(REJECTED, refusal.code, SYSTEM, time.time())
            return
        attempt.pay(*charges)
        click2dial.answered(channel, click, policy, self._context(visit)[2])

    def _callback(self, visit: Visit) -> None:
        visit.channel.watch_only()

        def missed(caller: str | None, dnis: str) -> None:
            visit.session.leave()
            if not self._missed(caller, dnis):
                log.warning("callback not written yet", extra={"reason": "Redis is away", "uuid": visit.channel.uuid})
                gevent.spawn(self._missed_again, caller, dnis, time.monotonic() + _REMEMBER)

        arrival, policy, host = self._context(visit)
        callback.arrive(visit.channel, arrival, policy, replace(host, missed=missed))

    def _missed(self, caller: str | None, dnis: str) -> bool:
        """A call that was missed is to be returned, if its caller may be. False: Redis is away."""
        policy = self._services.policy
        try:
            target = callback.whom_to_call(caller, policy)
            if isinstance(target, str):
                log.info("no callback", extra={"reason": target})
            else:
                number, card = target
                self._callbacks.schedule(number, card, dnis)
        except StoreUnavailable:
            return False
        return True

    def _missed_again(self, caller: str | None, dnis: str, until: float) -> None:
        """The caller was refused and will not ring again: what could not be written down is remembered for a while."""
        while time.monotonic() < until and not self._services.readiness.stopped.is_set():
            gevent.sleep(_MISSED_AGAIN)
            if self._missed(caller, dnis):
                return
        log.error("callback lost: Redis is away", extra={"reason": f"for {_REMEMBER:g} s"})
