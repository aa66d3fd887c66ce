"""Place the calls that clients ask for over HTTP: click-to-dial and autodial."""

from __future__ import annotations

import logging
import time

import gevent

from esl_apps.apps import autodial, click2dial
from esl_apps.apps.autodial import AutodialOrder
from esl_apps.apps.context import Host
from esl_apps.apps.ringing import Line, ring_aleg
from esl_apps.core import causes, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Call
from esl_apps.core.cards import Account
from esl_apps.core.charges import Charge
from esl_apps.core.limits import Refusal
from esl_apps.core.order import Client, Order
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.esl.switch import Switch
from esl_apps.node.live import Begin, Full
from esl_apps.node.services import Services

log = logging.getLogger(__name__)

#: Other nodes that an answered leg is offered to: each name makes the originate longer.
_NEXT = 2


class Spent(Exception):
    """A limit is reached, or a breaker has tripped: nothing is dialled."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class Outgoing:
    def __init__(self, services: Services) -> None:
        self._services = services

    def switch(self) -> Switch:
        """:raises Full: no switch, no Redis, no room, or this node is about to stop."""
        services = self._services
        reasons = services.readiness.reasons()
        if reasons:
            raise Full("; ".join(reasons))
        if services.readiness.full:
            raise Full("this node is full")
        switch = services.switch_pool.best()
        if switch is None:
            raise Full("no switch is connected")
        return switch

    def application(self, path: str) -> str:
        """Where an answered leg goes: to this node or, where it died meanwhile, to another (hazard 9)."""
        nodes = [self._services.policy.config.advertise, *self._services.membership.others()[:_NEXT]]
        return f"socket({'|'.join(f'{node}/{path}' for node in nodes)} async full)"

    # Click-to-dial ------------------------------------------------------------------------------------

    def click2dial(self, order: Order, client: Client, ref: str) -> Attempt:
        """Ring the agent of a call that will be called ``ref``; returns at once.

        :raises Full: nothing is dialled. :raises Spent: neither. :raises StoreUnavailable: neither: Redis is away.
        """
        services, policy = self._services, self._services.policy
        switch = self.switch()
        click = click2dial.new_call(order, client, policy.settings, ref)
        attempt = click.attempt
        charges = click2dial.charges(click, policy)
        refusal = services.usage.begin(*charges)
        if refusal is not None:
            raise Spent(refusal)
        attempt.pay(*charges)

        def ring(line: Line) -> bool:
            return ring_aleg(line, attempt, click2dial.aleg(click, policy, self.application("click2dial")))

        def run(call: Call, begin: Begin) -> None:
            click2dial.answered(call, click, policy, Host(begin, services.usage))

        services.calls.place(attempt, switch, ring, run)
        return attempt

    # Autodial -----------------------------------------------------------------------------------------

    def autodial(self, account: Account, order: AutodialOrder) -> Attempt:
        """Ring A after the order's delay, and return at once.

        :raises Full, Spent, StoreUnavailable: nothing is dialled.
        """
        services, policy = self._services, self._services.policy
        switch = self.switch()
        autodial_call = autodial.new_call(order, account)
        attempt = autodial_call.attempt
        charges = autodial.charges(autodial_call, policy)
        refusal = services.usage.check(*charges)
        if refusal is not None:
            raise Spent(refusal)

        def ring(line: Line) -> bool:
            gevent.sleep(order.delay)
            if attempt.cancelled_by is not None:
                attempt.end(terms.CANCELLED, causes.NORMAL_CLEARING, attempt.cancelled_by, time.time())
                return False
            # What may be spent is asked again: the delay may have been an hour.
            if not self.pay(attempt, charges):
                return False
            return ring_aleg(line, attempt, autodial.aleg(autodial_call, policy, self.application("autodial")))

        def run(call: Call, begin: Begin) -> None:
            autodial.answered(call, autodial_call, policy, Host(begin, services.usage))

        services.calls.place(attempt, switch, ring, run)
        return attempt

    def pay(self, attempt: Attempt, charges: list[Charge]) -> bool:
        """Begin to pay for a first leg; False: it may not be rung, and the attempt is ended."""
        try:
            refusal = self._services.usage.begin(*charges)
        except StoreUnavailable as error:
            attempt.note("unavailable", str(error))
            attempt.end(terms.REJECTED, causes.CALL_REJECTED, terms.SYSTEM, time.time())
            return False
        if refusal is not None:
            attempt.note("refused", str(refusal))
            attempt.end(terms.REJECTED, refusal.code, terms.SYSTEM, time.time())
        else:
            attempt.pay(*charges)
            attempt.save()
        return refusal is None

    def go_on(self, call: Call, attempt: Attempt, begin: Begin) -> bool:
        """Go on with an autodial that another process rang and that has answered here.

        False: it carries no order, or what it needs is gone. :raises StoreUnavailable: Redis is down.
        """
        services, policy = self._services, self._services.policy
        call_again = autodial.restore(attempt, policy)
        if call_again is None:
            return False
        services.charging.resume(attempt)
        begin(attempt)
        autodial.answered(call, call_again, policy, Host(begin, services.usage))
        return True
