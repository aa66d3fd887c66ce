"""Calls that come over the outbound event socket: which application serves them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import gevent

from esl_apps.apps import APPLICATIONS, application
from esl_apps.apps.application import Application
from esl_apps.apps.context import Arrival, NotServed
from esl_apps.core import node_clock, terms
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.core.versions import CHANNEL
from esl_apps.esl.session import OutboundSession
from esl_apps.node import referring
from esl_apps.node.referring import Referring
from esl_apps.node.services import Services
from esl_apps.node.timed_calls import TimedCallPoller
from esl_apps.node.visit import Visit
from esl_apps.process import background
from esl_apps.store import documents
from esl_apps.store.essence import Essence

log = logging.getLogger(__name__)
#: Seconds for which what Redis couldn't take is tried again after its caller has left, and between two tries.
_TRY_FOR, _AGAIN = 60.0, 0.5

#: States of a call that no application has served. An adopter may have seen that A has answered, before A's socket
#: comes.
_NOT_SERVED = frozenset({terms.QUEUED, terms.AGENT_RINGING, terms.AGENT_ANSWERED})

#: The dialplan's extension for callers whom no node serves.
UNAVAILABLE = "esl_apps_unavailable"


class Incoming:
    def __init__(self, services: Services, pollers: dict[str, TimedCallPoller]) -> None:
        """``pollers``: those of applications that place timed calls, by ``ref``."""
        self._services = services
        self._pollers = pollers
        self._referring = Referring(services)
        self._by_path = {app.path: app for app in APPLICATIONS.values()}

    def handle(self, session: OutboundSession) -> None:
        """Serve one call, from its socket to its end. Runs in the call's own greenlet."""
        visit = Visit(self._services, session)
        try:
            self._serve(visit)
        except Exception:
            # A fault of ours, or a socket that was lost before the flow had it: write the call's record all the same.
            visit.give_up()
            raise
        finally:
            visit.channel.drop_callbacks()

    def _serve(self, visit: Visit) -> None:
        if visit.channel.header("Caller-Destination-Number") == UNAVAILABLE:
            # The dialplan's watchdog was faster than this node: the caller hears that message now.
            log.warning("watchdog_was_faster", extra={"uuid": visit.session.uuid})
            return
        if visit.path == referring.PATH:
            self._referring.serve(visit)
            return
        live = self._services.calls.live.get(visit.carried) if visit.carried else None
        if live is not None and live.placed is not None and not live.attached:
            visit.resume(live)
        elif self._services.readiness.draining:
            visit.refuse("draining")
        elif live is None and self._services.readiness.full:
            visit.refuse("full")
        else:
            self._serve_by_path(visit)

    def _serve_by_path(self, visit: Visit) -> None:
        path = "/".join(visit.path)[:60]
        app = self._by_path.get(visit.path[0])
        try:
            if visit.carried:
                documents.check(CHANNEL, visit.channel.variable("esl_v"))
            if visit.carried and (placed := application(visit.channel.variable("esl_app") or "")).placed:
                self._go_on(visit, placed)
            elif app is None or app.arrive is None or not self._services.policy.serves(app):
                visit.settle()
                visit.refuse(f"no application at {path}")
            else:
                visit.settle()
                self._arrive(visit, app, app.arrive)
        except NotServed as error:
            visit.refuse(str(error), error.cause)
            visit.give_up()
        except StoreUnavailable as error:
            visit.refuse(str(error), "NORMAL_TEMPORARY_FAILURE")
            visit.give_up()

    def _arrive(self, visit: Visit, app: Application, arrive: Callable[..., None]) -> None:
        """Serve a caller whom the dialplan sent. :raises NotServed, StoreUnavailable: before the call has a record."""
        if app.refuses:
            visit.channel.watch_only()
        services = self._services
        host = services.host(visit.begin, app.ref, lambda task: self._afterwards(visit, task))
        arrive(visit.channel, Arrival(tuple(visit.path), visit.session_ref), services.policy, host)
        if not visit.ref:
            # It began nothing: what was taken over from a dead node ends with this visit.
            visit.give_up()

    def _go_on(self, visit: Visit, app: Application) -> None:
        """Go on with a leg that another process rang, and that has answered here. :raises StoreUnavailable: Redis is
        down."""
        services = self._services
        live = services.calls.live.get(visit.carried)
        found = visit.find_call() if live is None else None
        if live is not None and live.adopted:
            known: Essence | None = live.essence
        else:
            known = found.call if found is not None else None
        if known is None:
            visit.refuse("its call has ended", "NORMAL_CLEARING")
            return
        attempt = visit.restored(known)
        placed = app.restore(attempt, visit.channel, services.policy) if app.restore else None
        if placed is None or known.state not in _NOT_SERVED:
            # Not taken over: its own process, or the one that adopts it, sees how its legs end and records that.
            visit.refuse("what its call needs is gone", "NORMAL_CLEARING")
            return
        if live is not None:
            services.calls.release(live)
        elif found is not None and not visit.take_over(found):
            visit.refuse("its call has ended", "NORMAL_CLEARING")
            return
        if app.ref in self._pollers:
            attempt.answered_at = node_clock.now()
            self._pollers[app.ref].settle(attempt)
        # One that was adopted here has been paid for until now.
        services.charging.resume(attempt, () if live is not None else known.had_by)
        # Its process may have died before Redis had this.
        attempt.dialled(visit.channel.created_at)
        visit.begin(attempt)
        placed.answered(visit.channel, services.policy, services.host(visit.begin, app.ref))

    def _afterwards(self, visit: Visit, task: Callable[[], None]) -> None:
        """``host.afterwards``. The caller will not ring again, so what Redis can't take now is remembered."""
        visit.session.leave()
        if not _done(task):
            log.warning("task_postponed", extra={"reason": "Redis is down", "uuid": visit.channel.uuid})
            background.once("postponed_task", self._try_again, task, time.monotonic() + _TRY_FOR)

    def _try_again(self, task: Callable[[], None], until: float) -> None:
        while time.monotonic() < until and not self._services.readiness.stopped.is_set():
            gevent.sleep(_AGAIN)
            if _done(task):
                return
        log.error("task_lost", extra={"reason": f"Redis was down for {_TRY_FOR:g} s"})


def _done(task: Callable[[], None]) -> bool:
    try:
        task()
    except StoreUnavailable:
        return False
    return True
