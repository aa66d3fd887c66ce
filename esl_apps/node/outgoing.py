"""Place calls: ring A, pay for it, and run the application once A answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import gevent

from esl_apps.apps import application, autodial, click2dial
from esl_apps.apps.autodial import AutodialCall, AutodialOrder
from esl_apps.apps.context import Placed
from esl_apps.apps.ringing import Originator, ring_aleg
from esl_apps.core import causes, node_clock, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.cards import Account
from esl_apps.core.charges import Charge
from esl_apps.core.limits import Refusal
from esl_apps.core.order import IntegratorRules, Order
from esl_apps.core.timed_call import LATE, PENDING, Scheduled
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.esl.switch import Switch
from esl_apps.node.dial_claim import DialClaim
from esl_apps.node.live import Crowded, Full
from esl_apps.node.services import Services
from esl_apps.process import background
from esl_apps.store.errors import NoAnswer, Unsent

log = logging.getLogger(__name__)

#: Seconds for which Redis is asked to keep a call that waits, and between two tries.
_ASKED, _AGAIN = 5.0, 0.25
#: Seconds by which Redis's clock may differ from what is known of it here.
_APART = 1.0
#: Other nodes that an answered leg is offered to: each name makes the originate longer.
_NEXT = 2


class Spent(Exception):
    """A limit is reached, or a breaker has tripped: nothing is dialled."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class Unsure(Exception):
    """Redis doesn't say whether it keeps a call that waits: it may be dialled."""

    def __init__(self, call_ref: str) -> None:
        super().__init__("redis: no answer; the call is dropped once Redis answers, unless it is due before")
        self.call_ref = call_ref


def targets(services: Services, path: str) -> str:
    """Return the argument of ``socket`` for a leg that goes to this node, else to another."""
    nodes = [services.policy.config.advertise, *services.membership.others()[:_NEXT]]
    return f"{'|'.join(f'{node}/{path}' for node in nodes)} async full"


class Outgoing:
    def __init__(self, services: Services) -> None:
        self._services = services

    def place(
        self,
        placed: Placed,
        switch: Switch | None = None,
        *,
        charges: Sequence[Charge] | None = None,
        claim: DialClaim | None = None,
    ) -> gevent.Greenlet[..., bool | None]:
        """Ring A and run its call once it answers. Returns at once a greenlet whose value says whether A answered.

        ``switch``: the best one by default. ``charges``: what has been paid already; by default it is paid just before
        A is rung. ``claim``: a further one that the call depends on, looked at before each originate, so that
        two processes never ring A.

        :raises Full: nothing is dialled. :raises StoreUnavailable: neither; Redis is down.
        """
        services, policy, attempt = self._services, self._services.policy, placed.attempt
        switch = switch or self._switch()
        self._check_room(attempt)
        path = application(attempt.app).path
        to_pay = placed.charges(policy) if charges is None else ()
        later = placed.later_charges(policy) if isinstance(placed, AutodialCall) else ()
        attempt.pay(*(charges or ()))

        def ring(line: Originator) -> bool:
            if charges is None and not line.is_lost() and not self._pay(attempt, to_pay, later):
                return False
            return ring_aleg(line, attempt, placed.aleg(policy, self._application(path)))

        claims = [self._own(attempt.call_ref), *filter(None, [claim])]
        return services.calls.place(attempt, placed, switch, ring, claims)

    def _own(self, ref: str) -> DialClaim:
        """Return the claim on a call that this node places from now on: others adopt it if the node is silent."""
        membership, began = self._services.membership, time.monotonic()
        return DialClaim(lambda: membership.held_since(began), lambda: not self._services.store.was_taken(ref))

    def click2dial(self, order: Order, client: IntegratorRules, ref: str, claim: DialClaim | None = None) -> Attempt:
        """Ring the agent of a call that will be called ``ref``; returns at once.

        :raises Full, Spent, StoreUnavailable: nothing is dialled.
        """
        policy, switch = self._services.policy, self._switch()
        click = click2dial.new_call(order, client, policy.settings, ref)
        self._check_room(click.attempt)
        charges = click.charges(policy)
        refusal = self._services.usage.begin(*charges)
        if refusal is not None:
            raise Spent(refusal)
        try:
            self.place(click, switch, charges=charges, claim=claim)
        except Full:
            # Others have come while Redis was asked.
            for charge in charges:
                charge.undo()
            raise
        return click.attempt

    def autodial(self, account: Account, order: AutodialOrder) -> Attempt:
        """Ring A after the order's delay, and return at once. The attempt of a call that waits isn't live.

        :raises Full, Spent, StoreUnavailable: nothing is dialled. :raises Unsure: it may be.
        """
        services = self._services
        switch = self._switch()
        autodial_call = autodial.new_call(order, account)
        # Checked now for the client's answer, and paid when A is rung: the delay may be an hour.
        policy = services.policy
        refusal = services.usage.check(*autodial_call.charges(policy), *autodial_call.later_charges(policy))
        if refusal is not None:
            raise Spent(refusal)
        if order.delay:
            self._put_off(autodial_call)
        else:
            self.place(autodial_call, switch)
        return autodial_call.attempt

    def _put_off(self, call: AutodialCall) -> None:
        """Leave a call to the node that finds it due: in Redis it takes up no slot, and outlives this process.

        :raises Crowded: the account has as many waiting as it may. :raises Unsure, StoreUnavailable: as ``autodial``.
        """
        ref, account, clock = call.attempt.call_ref, call.account.id, self._services.membership.redis_clock
        asked = clock.now()
        due_at = asked + call.order.delay
        # After it is due it may be over, and must not be scheduled again.
        until = min(due_at, asked + _ASKED)
        given_up = max(until, asked + _APART)

        def schedule() -> Scheduled:
            return self._services.timed_calls[autodial.REF].schedule(
                ref,
                autodial.kept(call),
                due_at,
                now=asked,
                owner=account,
                most=self._services.policy.max_waiting_of(account),
                until=given_up,
            )

        try:
            scheduled = schedule()
            if scheduled.refused == LATE:
                # In a cluster another master has the calls, whose clock may be ahead of the one that all nodes use.
                given_up += scheduled.at - clock.now()
                scheduled = schedule()
        except Unsent:
            raise
        except NoAnswer:
            # Redis may have run it, or may do so later.
            if not _asked_again(schedule, lambda: clock.now() < until):
                background.once("autodial_dropping", self._drop, ref, account, given_up, call_ref=ref)
                raise Unsure(ref) from None
            return
        if scheduled.refused == LATE:
            raise NoAnswer("redis: no answer in time")
        if not scheduled:
            raise Crowded("as many calls of this account wait as may (max_waiting)")

    def _drop(self, ref: str, account: str, until: float) -> None:
        """Drop a call whose client was told that it may be dialled. ``until``: when it can't be scheduled any more."""
        clock = self._services.membership.redis_clock
        while True:
            asked = clock.now()
            with suppress(StoreUnavailable):
                if self._services.timed_calls[autodial.REF].drop(ref, account) is None or asked > until + _APART:
                    return
            gevent.sleep(_AGAIN)

    def _check_room(self, attempt: Attempt) -> None:
        """:raises Crowded: the payer has as many live calls as it may."""
        if not self._services.takes_another(attempt):
            raise Crowded("as many calls are up as may (max_calls)")

    def check_ready(self) -> None:
        """Refuse at once, without asking Redis, what can't be placed now.

        :raises Full: no switch, no Redis, no room, or this node is about to stop.
        """
        reasons = self._services.readiness.reasons()
        if reasons:
            raise Full("; ".join(reasons))
        if self._services.readiness.has_most_calls:
            raise Full("this node is full")

    def _switch(self) -> Switch:
        """:raises Full: as :meth:`check_ready`."""
        self.check_ready()
        switch = self._services.switch_pool.best()
        if switch is None:
            raise Full("no switch is connected")
        return switch

    def _application(self, path: str) -> str:
        """Where an answered leg goes: to this node or, if it died meanwhile, to another (hazard 9)."""
        return f"socket({targets(self._services, path)})"

    def _pay(self, attempt: Attempt, charges: Sequence[Charge], later: Sequence[Charge]) -> bool:
        """Begin to pay for a first leg. False: it may not be rung, and the attempt is ended. ``later``: the charges of
        legs that it is rung for, which are only checked."""
        try:
            refusal = self._services.usage.check(*later) or self._services.usage.begin(*charges)
        except StoreUnavailable as error:
            attempt.note("unavailable", str(error))
            attempt.end(terms.REJECTED, causes.CALL_REJECTED, terms.SYSTEM, node_clock.now())
            return False
        if refusal is not None:
            attempt.note("refused", str(refusal))
            attempt.end(terms.REJECTED, refusal.code, terms.SYSTEM, node_clock.now())
            return False
        attempt.pay(*charges)
        attempt.save()
        return True


def _asked_again(schedule: Callable[[], Scheduled], in_time: Callable[[], bool]) -> bool:
    """Whether a call waits whose first request wasn't answered."""
    while in_time():
        with suppress(StoreUnavailable):
            scheduled = schedule()
            return bool(scheduled) or scheduled.refused == PENDING
        gevent.sleep(_AGAIN)
    return False
