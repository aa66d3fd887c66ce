"""Place the calls that clients ask for over HTTP: click-to-dial and autodial."""

from __future__ import annotations

import logging
import time

import gevent
import msgspec

from esl_apps.apps import autodial, click2dial
from esl_apps.apps.autodial import AutodialOrder
from esl_apps.apps.ringing import Line, ring_aleg
from esl_apps.core import causes, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Call
from esl_apps.core.cards import Account
from esl_apps.core.charges import Charge
from esl_apps.core.limits import Refusal
from esl_apps.core.numbers import NotDialable
from esl_apps.core.order import Client, Order
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.esl.switch import Switch
from esl_apps.node.live import Begin, Full
from esl_apps.node.services import Services
from esl_apps.prompts import is_media

log = logging.getLogger(__name__)

#: Other nodes that an answered leg is offered to: each name makes the originate longer.
_NEXT = 2
#: Seconds for which a number is rung back.
RING = 45.0


class Spent(Exception):
    """A limit is reached, or a breaker has tripped: nothing is dialled."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class _Autodial(msgspec.Struct):
    """What an answered autodial needs, in whatever process its leg arrives."""

    a: str
    b: str | None
    conference: str | None
    retain_cid: bool
    media_id: str | None


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
        policy = self._services.policy
        switch = self.switch()
        settings = policy.settings
        attempt = click2dial.new_attempt(client, order, settings, ref)
        charges = click2dial.charges(attempt, order, client)
        refusal = self._services.usage.begin(*charges)
        if refusal is not None:
            raise Spent(refusal)
        attempt.pay(*charges)

        def ring(line: Line) -> bool:
            return click2dial.ring_agent(line, attempt, order, client, settings, self.application("click2dial"))

        def run(call: Call, _begin: Begin) -> None:
            click2dial.run(call, attempt, order, client, settings)

        self._services.calls.place(attempt, switch, ring, run)
        return attempt

    # Autodial -----------------------------------------------------------------------------------------

    def autodial(self, account: Account, order: AutodialOrder) -> Attempt:
        """Ring A after the order's delay, and return at once.

        :raises Full, Spent, StoreUnavailable: nothing is dialled.
        """
        services, policy = self._services, self._services.policy
        switch = self.switch()
        attempt = autodial.new_attempt(order, account)
        attempt.order = msgspec.to_builtins(
            _Autodial(
                order.a.dialled,
                order.b.dialled if order.b else None,
                order.conference,
                order.retain_cid,
                order.media_id,
            )
        )
        charges = autodial.charges(attempt, order, policy.rules, account)
        refusal = services.usage.check(*charges)
        if refusal is not None:
            raise Spent(refusal)
        leg = autodial.aleg(policy.settings, policy.rules, attempt, account)
        endpoints = policy.settings.endpoints.of(order.a, as_asked=False)

        def ring(line: Line) -> bool:
            gevent.sleep(order.delay)
            if attempt.cancelled_by is not None:
                attempt.end(terms.CANCELLED, causes.NORMAL_CLEARING, attempt.cancelled_by, time.time())
                return False
            # What may be spent is asked again: the delay may have been an hour.
            if not self.pay(attempt, charges):
                return False
            return ring_aleg(line, attempt, leg, endpoints, RING, self.application("autodial"))

        def run(call: Call, begin: Begin) -> None:
            autodial.run(
                call,
                attempt,
                order,
                account,
                policy.settings,
                policy.rules,
                services.usage,
                begin=begin,
            )

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
        account = policy.cards.account(attempt.account_id or "")
        if attempt.order is None or account is None:
            return False
        kept = msgspec.convert(attempt.order, _Autodial)
        try:
            a, b = policy.settings.plan.read(kept.a), policy.settings.plan.read(kept.b) if kept.b else None
        except NotDialable:
            return False
        # From Redis, which anybody may have written to: what is no room and no prompt is nothing to execute.
        if b is None and not autodial.CONFERENCE.fullmatch(kept.conference or ""):
            return False
        prompts = policy.config.prompts
        if kept.media_id is not None and not is_media(kept.media_id, prompts.dir, prompts.language, prompts.urls):
            return False
        order = AutodialOrder(a, b, kept.conference, 0.0, kept.retain_cid, kept.media_id)
        services.charging.resume(attempt)
        begin(attempt)
        autodial.run(call, attempt, order, account, policy.settings, policy.rules, services.usage, begin=begin)
        return True
