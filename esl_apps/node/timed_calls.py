"""Place the calls that applications have scheduled, when they are due."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import suppress

import gevent
import msgspec

from esl_apps.apps import application
from esl_apps.apps.application import Application, Timed
from esl_apps.apps.context import Placed
from esl_apps.core import causes, node_clock
from esl_apps.core.attempt import Attempt
from esl_apps.core.terms import AGENT, API, CALLEE, CANCELLED, REJECTED, SYSTEM
from esl_apps.core.timed_call import TimedCall
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.node.dial_claim import DialClaim
from esl_apps.node.live import Crowded, Full
from esl_apps.node.outgoing import Outgoing
from esl_apps.node.services import Services
from esl_apps.process import background
from esl_apps.store.essence import Essence
from esl_apps.store.timed_calls import RELEASE_FOR, TimedCalls

log = logging.getLogger(__name__)

#: Seconds between two looks for calls that are due.
POLL = 0.25
#: Seconds for which a claimed call belongs to its node, unless it renews that; those of a dead node then become due
#: again.
LEASE = 120.0
#: Seconds between two renewals: an application may have A rung for longer than a lease.
_RENEW = LEASE / 3
#: Seconds from a claim until Redis is asked whether it still holds, before A is rung.
_SURE = LEASE / 2
#: Seconds until a call is due again that its account has no room for: it may have hundreds.
CROWDED = 10.0
#: Seconds between two tries to tell Redis how a call ended.
_AGAIN = 0.5
#: The key of an attempt's order that holds the timed call, for the node that goes on with the attempt.
_KEPT = "pending"


class TimedCallPoller:
    """Polls for one application."""

    def __init__(self, application: Application, timed: Timed, services: Services, outgoing: Outgoing) -> None:
        self._application = application
        self._timed = timed
        self._services = services
        self._outgoing = outgoing
        self._store: TimedCalls = services.timed_calls[application.ref]
        self._greenlet: gevent.Greenlet[[], None] | None = None

    def start(self) -> None:
        self._greenlet = background.keep("timed_calls", self._poll, app=self._application.ref)

    def stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill()

    def _poll(self) -> None:
        while True:
            gevent.sleep(POLL)
            readiness = self._services.readiness
            if readiness.reasons() or readiness.full or not self._services.policy.serves(self._application):
                continue
            try:
                while (call := self._store.claim_due(self._now(), LEASE)) is not None:
                    background.once("timed_call", self._place_or_release, call, time.monotonic() + _SURE)
            except StoreUnavailable:
                continue
            except Exception:
                log.exception("timed_calls_not_polled", extra={"app": self._application.ref})

    def _now(self) -> float:
        """Redis's time: nodes whose clocks differ would place one call twice, or none of them would."""
        return self._services.membership.redis_clock.now()

    def _place_or_release(self, call: TimedCall, sure_until: float = 0.0) -> None:
        """Place a call that is due, or give it back if this node can't. ``sure_until`` (``time.monotonic``): no other
        process takes the call before."""
        try:
            self._place(call, DialClaim(lambda: time.monotonic() < sure_until, lambda: self._store.holds(call)))
        except (Full, StoreUnavailable) as error:
            # Any node that can place it takes it.
            self._log("timed_call_released", str(error))
            with suppress(StoreUnavailable):
                # If Redis can't be told, the lease ends by itself.
                self._store.release(call, self._now(), CROWDED if isinstance(error, Crowded) else RELEASE_FOR)

    def _place(self, call: TimedCall, claim: DialClaim) -> None:
        """:raises Full, StoreUnavailable: it isn't placed."""
        placed = "it was dropped" if call.dropped else self._timed.due(call, self._services.policy)
        if not isinstance(placed, str) and self._timed.exclusive and self._is_up(placed):
            placed = "a call with this number is up"
        if isinstance(placed, str):
            self._drop(call, placed)
            return
        attempt = placed.attempt
        if call.attempt > 1 and self._services.store.call(attempt.call_ref) is not None:
            # The node that placed it couldn't tell Redis how it ended. Its client knows it by one reference, and so it
            # has one record.
            self._log("timed_call_dropped", "it was placed before")
            self._store.done(call, self._now())
            return
        attempt.order = {**(attempt.order or {}), _KEPT: msgspec.to_builtins(call)}
        ringing = self._outgoing.place(placed, claim=claim)
        ringing.join(_RENEW)
        while not ringing.ready():
            with suppress(StoreUnavailable):
                if not self._store.renew(call, self._now(), LEASE):
                    break
            ringing.join(_RENEW)
        ringing.get()
        self._settle(attempt, call)

    def _drop(self, call: TimedCall, reason: str) -> None:
        """:raises StoreUnavailable: it isn't dropped yet."""
        self._log("timed_call_dropped", reason)
        if self._timed.unplaced is not None:
            # The record first: it is taken once, if another node comes to this call again.
            attempt = self._timed.unplaced(call, self._services.policy)
            self._services.calls.begin(attempt, self._services.switches[0])
            attempt.note("dropped", reason)
            if call.dropped:
                attempt.end(CANCELLED, causes.NORMAL_CLEARING, API, node_clock.now())
            else:
                attempt.end(REJECTED, causes.BEARER_NOT_AUTHORIZED, SYSTEM, node_clock.now())
        self._store.done(call, self._now())

    def settle(self, attempt: Attempt) -> None:
        """Settle a timed call of a process that died: it has ended, or was answered here."""
        if attempt.order is None or _KEPT not in attempt.order:
            return
        try:
            call = msgspec.convert(attempt.order[_KEPT], TimedCall)
        except msgspec.ValidationError as error:
            log.error("timed_call_unsettled", extra={"call_ref": attempt.call_ref, "reason": str(error)})
            return
        background.once("timed_call_settling", self._settle, attempt, call, call_ref=attempt.call_ref)

    def _settle(self, attempt: Attempt, call: TimedCall) -> None:
        """Tell Redis how it ended, until Redis hears it: otherwise the number would be called once more."""
        until = time.monotonic() + LEASE
        while True:
            try:
                self._tell(attempt, call)
                return
            except StoreUnavailable as error:
                if time.monotonic() > until:
                    log.error("timed_call_unsettled", extra={"call_ref": attempt.call_ref, "reason": str(error)})
                    return
            gevent.sleep(_AGAIN)

    def _tell(self, attempt: Attempt, call: TimedCall) -> None:
        """:raises StoreUnavailable: Redis is down."""
        wait = self._timed.retry_in(attempt, call, self._services.policy)
        if wait is None:
            self._store.done(call, self._now())
        else:
            self._store.retry(call, self._now() + wait)

    def _is_up(self, placed: Placed) -> bool:
        """Whether any node has a call with this number: a second phone of the same person would ring."""
        services, plan = self._services, self._services.policy.settings.plan
        number = plan.read(placed.attempt.extension or "").subscriber
        live = services.store.live(services.membership.peers)
        for party in {party for calls in live.values() for call in calls for party in _rung(call)}:
            rung = plan.find(party)
            if rung is not None and rung.subscriber == number:
                return True
        return False

    def _log(self, event: str, reason: str) -> None:
        log.warning(event, extra={"app": self._application.ref, "reason": reason})


def _rung(call: Essence) -> Iterator[str | None]:
    """Yield the parties that a call rings. Not a caller: their number is what they say it is, and a stranger on the
    line must not keep the person with that number from being called."""
    app = application(call.app)
    if (app.placed or app.second_party == AGENT) and not call.claimed:
        yield call.extension
    # An inbound caller is A of the transfer in which they stay.
    if app.second_party == CALLEE and (call.placed or call.second_party == CALLEE):
        yield call.number
