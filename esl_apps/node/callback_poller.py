"""Ring back the callers whose missed calls are due."""

from __future__ import annotations

import logging
import time
from contextlib import suppress

import gevent
import msgspec

from esl_apps.apps import callback
from esl_apps.apps.context import Host
from esl_apps.apps.ringing import Line, ring_aleg
from esl_apps.core import causes, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Call
from esl_apps.core.cards import Card
from esl_apps.core.numbers import NotDialable, Number
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.node.live import Begin, Full
from esl_apps.node.outgoing import Outgoing
from esl_apps.node.services import Services
from esl_apps.store.redis_client import ERRORS
from esl_apps.store.timed_calls import Limits, TimedCall

log = logging.getLogger(__name__)

#: Seconds between two looks for callbacks that are due.
POLL = 0.25
#: Seconds for which a claimed callback belongs to its node; those of a dead node then become due again.
LEASE = 120.0
#: Seconds between two tries to tell Redis how a callback ended.
_AGAIN = 0.5


class _Order(msgspec.Struct):
    """What an answered callback needs, in whatever process its leg arrives."""

    card: str
    pending: TimedCall


class CallbackPoller:
    def __init__(self, services: Services, outgoing: Outgoing) -> None:
        self._services = services
        self._outgoing = outgoing
        self._greenlet: gevent.Greenlet[[], None] | None = None

    def start(self) -> None:
        self._greenlet = gevent.spawn(self._poll)

    def stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill()

    def schedule(self, number: Number, card: Card, dnis: str) -> None:
        """Ring a number back in ``callback_delay`` seconds, unless one is pending, or it had its share.

        :raises StoreUnavailable: Redis is away.
        """
        services = self._services
        rules = services.policy.config.callback
        now = time.time()
        taken = services.callbacks.schedule(
            number.e164,
            [card.id, dnis],
            now + services.policy.rules.callback_delay,
            now=now,
            limits=Limits(rules.cool_down, rules.per_day),
        )
        log.info("callback" if taken else "no callback", extra={"card": card.id, "scheduled": bool(taken)})

    def _poll(self) -> None:
        while True:
            gevent.sleep(POLL)
            if self._services.readiness.reasons():
                continue
            try:
                while (pending := self._services.callbacks.claim_due(time.time(), LEASE)) is not None:
                    gevent.spawn(self._call_back, pending)
            except StoreUnavailable:
                continue
            except Exception:
                log.exception("callbacks not polled")

    def _call_back(self, pending: TimedCall) -> None:
        try:
            self._place_callback(pending)
        except (Full, StoreUnavailable, *ERRORS) as error:
            # Not this node, not now: it goes back, and whoever can takes it.
            log.warning("callback put back", extra={"reason": str(error)})
            with suppress(StoreUnavailable):
                # Where Redis can't be told, the lease ends by itself.
                self._services.callbacks.release(pending, time.time())

    def _place_callback(self, pending: TimedCall) -> None:
        services, policy = self._services, self._services.policy
        target = callback.whom_to_call("+" + pending.number, policy)
        if isinstance(target, str):
            log.warning("callback dropped", extra={"reason": target})
            services.callbacks.done(pending, time.time())
            return
        number, card = target
        account = policy.cards.account(card.account_id)
        if account is None or self._is_up(number):
            log.info("callback dropped", extra={"reason": "a leg to this number is up"})
            services.callbacks.done(pending, time.time())
            return
        switch = self._outgoing.switch()
        ring_back = callback.new_call(number, card, account, policy)
        attempt = ring_back.attempt
        attempt.order = msgspec.to_builtins(_Order(card.id, pending))
        charges = callback.charges(ring_back, policy)

        def ring(line: Line) -> bool:
            if not self._outgoing.pay(attempt, charges):
                return False
            return ring_aleg(line, attempt, callback.aleg(ring_back, policy, self._outgoing.application("callback")))

        def run(call: Call, begin: Begin) -> None:
            callback.answered(call, ring_back, policy, Host(begin, services.usage))

        services.calls.place(attempt, switch, ring, run).get()
        self._settle(attempt, pending)

    def settle(self, attempt: Attempt) -> None:
        """A callback of a node that died has ended, or was answered here."""
        if attempt.order is not None:
            gevent.spawn(self._settle, attempt, msgspec.convert(attempt.order, _Order).pending)

    def _settle(self, attempt: Attempt, pending: TimedCall) -> None:
        """Done, or to be tried again; told to Redis until it hears, or the number would be rung once more."""
        until = time.monotonic() + LEASE
        while True:
            try:
                self._tell(attempt, pending)
                return
            except StoreUnavailable as error:
                if time.monotonic() > until:
                    log.error("callback not settled", extra={"call_ref": attempt.call_ref, "reason": str(error)})
                    return
            gevent.sleep(_AGAIN)

    def _tell(self, attempt: Attempt, pending: TimedCall) -> None:
        """:raises StoreUnavailable: Redis is away."""
        services, record = self._services, attempt.record
        again = (
            attempt.answered_at is None
            and record is not None
            and (
                record.end_reason in ("agent_no_answer", "agent_busy", terms.LOST)
                or record.end_code in causes.GATEWAY_FAILED
            )
        )
        if again and pending.attempt <= services.policy.config.callback.retries:
            services.callbacks.retry(pending, time.time() + services.policy.config.callback.retry_after)
        else:
            services.callbacks.done(pending, time.time())

    def go_on(self, call: Call, attempt: Attempt, begin: Begin) -> bool:
        """Go on with a callback that another process rang and that has answered here.

        False: it carries no order, or its account or card is gone. :raises StoreUnavailable: Redis is down.
        """
        services, policy = self._services, self._services.policy
        ring_back = callback.restore(attempt, policy)
        if ring_back is None:
            return False
        attempt.answered_at = time.time()
        self.settle(attempt)
        services.charging.resume(attempt)
        begin(attempt)
        callback.answered(call, ring_back, policy, Host(begin, services.usage))
        return True

    def _is_up(self, number: Number) -> bool:
        """Whether a call with this number is up already, on any node: two phones would ring for one caller."""
        services = self._services
        for call in (call for calls in services.store.live(services.membership.peers).values() for call in calls):
            for party in (call.extension, call.number):
                try:
                    if party and services.policy.settings.plan.read(party).e164 == number.e164:
                        return True
                except NotDialable:
                    continue
        return False
