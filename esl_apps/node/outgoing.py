"""Calls that a node places by itself: click-to-dial and autodial over HTTP, and callbacks when they are due."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import gevent
import msgspec

from esl_apps.apps import autodial, callback, click2dial
from esl_apps.apps.autodial import AutodialOrder
from esl_apps.apps.ringing import Line, ring_aleg
from esl_apps.core import causes, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Call
from esl_apps.core.cards import Account, Card, Unavailable
from esl_apps.core.charges import Charge
from esl_apps.core.limits import Refusal
from esl_apps.core.numbers import NotDialable, Number
from esl_apps.core.order import Client, Order
from esl_apps.esl.switch import Switch
from esl_apps.node.live import Begin, Full
from esl_apps.prompts import is_media
from esl_apps.store.callbacks import Pending
from esl_apps.store.redis_client import ERRORS

if TYPE_CHECKING:
    from esl_apps.node.node import Node

log = logging.getLogger(__name__)

#: Seconds between two looks for callbacks that are due: a part of the contract's ``callback_delay``.
POLL = 0.25
#: Seconds for which a node that took a callback has it; a dead node's go back then.
LEASE = 120.0
#: Seconds between two tries to tell Redis how a callback ended.
_AGAIN = 0.5
#: Other nodes that an answered leg is offered to: each name makes the originate longer.
_NEXT = 2
#: Seconds for which a number is rung back.
RING = 45.0


class Spent(Exception):
    """A limit is reached, or a breaker has tripped: nothing is dialled."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class _Callback(msgspec.Struct):
    """What a callback's answered leg needs of it, in whatever process it arrives."""

    card: str
    pending: dict[str, Any]


class _Autodial(msgspec.Struct):
    """The same of an autodial."""

    a: str
    b: str | None
    conference: str | None
    retain_cid: bool
    media_id: str | None


class Outgoing:
    def __init__(self, node: Node) -> None:
        self._node = node
        self._poller: gevent.Greenlet[[], None] | None = None

    def start(self) -> None:
        self._poller = gevent.spawn(self._poll)

    def stop(self) -> None:
        if self._poller is not None:
            self._poller.kill()

    def _switch(self) -> Switch:
        """:raises Full: no switch, no Redis, no room, or this node is about to stop."""
        node = self._node
        reasons = node.not_ready()
        if reasons:
            raise Full("; ".join(reasons))
        if node.full:
            raise Full("this node is full")
        switch = node.fleet.best()
        if switch is None:
            raise Full("no switch is connected")
        return switch

    def _application(self, path: str) -> str:
        """Where an answered leg goes: to this node or, where it died meanwhile, to another (hazard 9)."""
        nodes = [self._node.config.advertise, *self._node.roster.others()[:_NEXT]]
        return f"socket({'|'.join(f'{node}/{path}' for node in nodes)} async full)"

    # Click-to-dial ------------------------------------------------------------------------------------

    def click2dial(self, order: Order, client: Client, ref: str) -> Attempt:
        """Ring the agent of a call that will be called ``ref``; returns at once.

        :raises Full: nothing is dialled. :raises Spent: neither. :raises Unavailable: neither: Redis is away.
        """
        switch = self._switch()
        settings = self._node.settings
        attempt = click2dial.new_attempt(client, order, settings, ref)
        refusal = self._node.usage.begin(*click2dial.charges(attempt, order, client))
        if refusal is not None:
            raise Spent(refusal)

        def ring(line: Line) -> bool:
            return click2dial.ring_agent(line, attempt, order, client, settings, self._application("click2dial"))

        def run(call: Call, _begin: Begin) -> None:
            click2dial.run(call, attempt, order, client, settings)

        self._node.calls.place(attempt, switch, ring, run)
        return attempt

    # Autodial -----------------------------------------------------------------------------------------

    def autodial(self, account: Account, order: AutodialOrder) -> Attempt:
        """Ring A after the order's delay; returns at once. :raises Full, Spent, Unavailable: nothing is dialled."""
        node = self._node
        switch = self._switch()
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
        charges = autodial.charges(attempt, order, node.rules, account)
        refusal = node.usage.check(*charges)
        if refusal is not None:
            raise Spent(refusal)
        leg = autodial.aleg(node.settings, node.rules, attempt, account)
        endpoints = node.settings.endpoints.of(order.a, as_asked=False)

        def ring(line: Line) -> bool:
            gevent.sleep(order.delay)
            if attempt.cancelled_by is not None:
                attempt.end(terms.CANCELLED, causes.NORMAL_CLEARING, attempt.cancelled_by, time.time())
                return False
            # What may be spent is asked again: the delay may have been an hour.
            if not self._pay(attempt, charges):
                return False
            return ring_aleg(line, attempt, leg, endpoints, RING, self._application("autodial"))

        def run(call: Call, begin: Begin) -> None:
            autodial.run(call, attempt, order, account, node.settings, node.rules, node.usage, begin=begin)

        node.calls.place(attempt, switch, ring, run)
        return attempt

    def _pay(self, attempt: Attempt, charges: list[Charge]) -> bool:
        """Begin to pay for a first leg; False: it may not be rung, and the attempt is ended."""
        try:
            refusal = self._node.usage.begin(*charges)
        except Unavailable as error:
            attempt.note("unavailable", str(error))
            attempt.end(terms.REJECTED, causes.CALL_REJECTED, terms.SYSTEM, time.time())
            return False
        if refusal is not None:
            attempt.note("refused", str(refusal))
            attempt.end(terms.REJECTED, refusal.code, terms.SYSTEM, time.time())
        else:
            attempt.save()
        return refusal is None

    # Callbacks ----------------------------------------------------------------------------------------

    def schedule_callback(self, number: Number, card: Card, dnis: str) -> None:
        """Ring a number back in ``callback_delay`` seconds, unless one is pending, or it had its share.

        :raises Unavailable: Redis is away.
        """
        node = self._node
        rules = node.config.callback
        now = time.time()
        taken = node.callbacks.schedule(
            number.e164,
            card.id,
            now + node.rules.callback_delay,
            dnis=dnis,
            cool_down=rules.cool_down,
            per_day=rules.per_day,
            now=now,
        )
        log.info("callback" if taken else "no callback", extra={"card": card.id, "scheduled": bool(taken)})

    def _poll(self) -> None:
        while True:
            gevent.sleep(POLL)
            if self._node.not_ready():
                continue
            try:
                while (pending := self._node.callbacks.claim_due(time.time(), LEASE)) is not None:
                    gevent.spawn(self._call_back, pending)
            except Unavailable:
                continue
            except Exception:
                log.exception("callbacks not polled")

    def _call_back(self, pending: Pending) -> None:
        try:
            self._place_callback(pending)
        except (Full, Unavailable, *ERRORS) as error:
            # Not this node, not now: it goes back, and whoever can takes it.
            log.warning("callback put back", extra={"reason": str(error)})
            with suppress(Unavailable):
                # Where Redis can't be told, the lease ends by itself.
                self._node.callbacks.release(pending, time.time())

    def _place_callback(self, pending: Pending) -> None:
        node = self._node
        target = callback.whom_to_call("+" + pending.number, node.settings, node.rules, node.cards)
        if isinstance(target, str):
            log.warning("callback dropped", extra={"reason": target})
            node.callbacks.done(pending, time.time())
            return
        number, card = target
        account = node.cards.account(card.account_id)
        if account is None or self._is_up(number):
            log.info("callback dropped", extra={"reason": "a leg to this number is up"})
            node.callbacks.done(pending, time.time())
            return
        switch = self._switch()
        shown = node.caller_id_of(account)
        attempt = callback.new_attempt(number, account, shown)
        attempt.order = msgspec.to_builtins(_Callback(card.id, msgspec.to_builtins(pending)))
        leg = callback.aleg(node.settings, attempt, card, shown)
        endpoints = node.settings.endpoints.of(number, as_asked=False)

        charge = callback.charge(attempt, number, node.rules, account, card, node.cards.card_limits(account.id))

        def ring(line: Line) -> bool:
            if not self._pay(attempt, [charge]):
                return False
            return ring_aleg(line, attempt, leg, endpoints, RING, self._application("callback"))

        def run(call: Call, begin: Begin) -> None:
            callback.run(
                call,
                attempt,
                card,
                account,
                node.settings,
                node.rules,
                node.cards,
                node.usage,
                confirm=node.config.callback.confirm,
                begin=begin,
            )

        node.calls.place(attempt, switch, ring, run).get()
        self._settle(attempt, pending)

    def settle_callback(self, attempt: Attempt) -> None:
        """A callback of a node that died has ended, or was answered here."""
        if attempt.order is not None:
            gevent.spawn(self._settle, attempt, Pending(**msgspec.convert(attempt.order, _Callback).pending))

    def _settle(self, attempt: Attempt, pending: Pending) -> None:
        """Done, or to be tried again; told to Redis until it hears, or the number would be rung once more."""
        until = time.monotonic() + LEASE
        while True:
            try:
                self._tell(attempt, pending)
                return
            except Unavailable as error:
                if time.monotonic() > until:
                    log.error("callback not settled", extra={"call_ref": attempt.call_ref, "reason": str(error)})
                    return
            gevent.sleep(_AGAIN)

    def _tell(self, attempt: Attempt, pending: Pending) -> None:
        """:raises Unavailable: Redis is away."""
        node, record = self._node, attempt.record
        again = (
            attempt.answered_at is None
            and record is not None
            and (
                record.end_reason in ("agent_no_answer", "agent_busy", terms.LOST)
                or record.end_code in causes.GATEWAY_FAILED
            )
        )
        if again and pending.attempt <= node.config.callback.retries:
            node.callbacks.retry(pending, time.time() + node.config.callback.retry_after)
        else:
            node.callbacks.done(pending, time.time())

    # Answered, after their node had died ----------------------------------------------------------------

    def go_on(self, call: Call, attempt: Attempt, begin: Begin) -> bool:
        """Go on with an A-leg that another process rang: autodial's or a callback's. False: it carries no order,
        or what it needs is there no more. :raises Unavailable: Redis is away."""
        node = self._node
        account = node.cards.account(attempt.account_id or "")
        if attempt.order is None or account is None:
            return False
        if attempt.app == callback.REF:
            kept = msgspec.convert(attempt.order, _Callback)
            card = node.cards.get(account.id, kept.card)
            if card is None or not card.active:
                return False
            attempt.answered_at = time.time()
            self.settle_callback(attempt)
            node.go_on_paying(attempt)
            begin(attempt)
            callback.run(
                call,
                attempt,
                card,
                account,
                node.settings,
                node.rules,
                node.cards,
                node.usage,
                confirm=node.config.callback.confirm,
                begin=begin,
            )
            return True
        one = msgspec.convert(attempt.order, _Autodial)
        try:
            a, b = node.settings.plan.read(one.a), node.settings.plan.read(one.b) if one.b else None
        except NotDialable:
            return False
        # From Redis, which anybody may have written to: what is no room and no prompt is nothing to execute.
        if b is None and not autodial.CONFERENCE.fullmatch(one.conference or ""):
            return False
        prompts = node.config.prompts
        if one.media_id is not None and not is_media(one.media_id, prompts.dir, prompts.language, prompts.urls):
            return False
        order = AutodialOrder(a, b, one.conference, 0.0, one.retain_cid, one.media_id)
        node.go_on_paying(attempt)
        begin(attempt)
        autodial.run(call, attempt, order, account, node.settings, node.rules, node.usage, begin=begin)
        return True

    def _is_up(self, number: Number) -> bool:
        """Whether a call with this number is up already, on any node: two phones would ring for one caller."""
        node = self._node
        for call in (call for calls in node.store.live(node.roster.peers).values() for call in calls):
            for party in (call.extension, call.number):
                try:
                    if party and self._node.settings.plan.read(party).e164 == number.e164:
                        return True
                except NotDialable:
                    continue
        return False
