"""Limits and breakers that hold across nodes: calls and minutes per hour and per day.

One script counts a call against one bound. Its keys share a hash tag, so a cluster runs each step on one slot and any
number of nodes counts as one. All bounds of a call are counted in one round trip. All timing uses Redis's clock.

A bound's key is a level (``account:acme``), a level and a destination (``account:acme/country:CU``), or one of these
behind ``breaker:`` for a breaker's own count, which a reset deletes. ``high_risk_calls_per_hour`` has one more:
``breaker:account:acme/high_risk_calls``.

Seconds of a limit are taken before they are talked, :data:`AHEAD` at a time, and the unused ones are returned when the
call ends. So concurrent calls share what is left, and a node that dies has paid for what it let callers talk. At each
beat it notes what it has paid for each leg: the node that takes the call over goes on from there, and returns what
wasn't used. While Redis is down, calls that are up may use what was left when it last answered, and are counted when it
is back.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import gevent
from gevent.event import Event as Flag
from gevent.lock import Semaphore

from esl_apps.core.charges import Charge, Return
from esl_apps.core.limits import BREAKER, Refusal, covers
from esl_apps.core.tickets import Payments, Slice, Ticket
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.core.versions import PAYMENTS
from esl_apps.net.turns import in_turns
from esl_apps.process import background
from esl_apps.store import documents, keys
from esl_apps.store.breakers import Breakers
from esl_apps.store.connection import Command
from esl_apps.store.errors import Fault, RedisRefused, Unreadable, Unsent, raise_first
from esl_apps.store.leases import LEASE, Leases
from esl_apps.store.redis_client import Client
from esl_apps.store.script import Run, Script, by_redis, run_all

log = logging.getLogger(__name__)

#: Seconds between two rounds of payment, and the seconds that a call has paid ahead after one.
BEAT = 5.0
AHEAD = 2 * BEAT
_AHEAD = str(AHEAD)

#: Scripts run in one round trip: a node with 5,000 calls pays for them without holding Redis up.
_BATCH = 500
#: Seconds for which the payments of a process that has died are known: a node of its name may be down for long.
_NOTED = 90_000
#: Ended calls whose unused seconds are returned when Redis is back.
_UNSETTLED = 10_000


class UsageStore:
    """:class:`esl_apps.core.cards.Usage` in Redis.

    - Concurrent calls are ``leases``, renewed by :meth:`start`'s greenlet while this node lives.
    - Calls and minutes per hour: a sliding window (minutes by whole minutes). No 3,600 seconds hold more than the
      limit.
    - Calls and minutes per day: from midnight to midnight UTC.
    """

    def __init__(
        self,
        client: Client,
        node: str,
        *,
        breakers: Breakers | None = None,
        on_cut: Callable[[Charge], None] = lambda _charge: None,
        alone: Callable[[], bool] = lambda: False,
        lease: float = LEASE,
        clock: Callable[[], Any] = by_redis,
        boot: str = "",
    ) -> None:
        """``alone``: whether this is the only node, which may then rely on its own count while Redis is down.
        ``on_cut``: ends a call on its switch; called again at each beat until the call has ended. ``boot``: this
        process's."""
        self._client = client
        self._node = node
        self._payments = keys.payments(boot or node)
        self._breakers = breakers
        self._ending: Callable[..., Refusal | None] = (lambda *_charges: None) if breakers is None else breakers.ending
        self._on_cut = on_cut
        self.leases = Leases(client, alone=alone, seconds=lease, clock=clock)
        self._clock = clock
        self._seconds = time.monotonic if clock is by_redis else clock
        self._charges: set[Charge] = set()
        """Charges of calls that have not ended."""
        self._ended: list[Charge] = []
        """Charges of ended calls that are not settled yet."""
        self._unsettled = False
        """The last try to settle some has failed."""
        self._noted: dict[str, Charge] = {}
        """Charges whose payments are in Redis, by id."""
        self._timers: dict[Charge, gevent.Greenlet[..., None]] = {}
        self._wake = Flag()
        # Two greenlets that pay for one call at once would pay twice.
        self._paying = Semaphore()
        self._away = False
        self._greenlets: list[gevent.Greenlet[..., None]] = []
        self._begin = Script(client, "usage_begin")
        self._take = Script(client, "usage_take")
        self._give_back = Script(client, "usage_give_back")

    def start(self) -> None:
        """Renew this node's leases and pay for its calls until :meth:`stop`."""
        self._greenlets = [
            background.keep("leases", self._every, self.leases.seconds / 3, self.leases.renew, "leases_not_renewed"),
            background.keep("minutes", self._every, BEAT, self.accrue, "minutes_not_counted"),
            background.keep("minutes_settling", self._settle),
        ]

    def stop(self) -> None:
        """Stop renewing. Calls that are up keep their leases until these expire."""
        gevent.killall(self._greenlets)
        with suppress(StoreUnavailable):
            self.settle()

    # Concurrent calls ---------------------------------------------------------------------------------

    def enter(self, holder: str, limit: int, call_ref: str) -> bool:
        return self.leases.enter(holder, limit, call_ref)

    def leave(self, holder: str, call_ref: str) -> None:
        self.leases.leave(holder, call_ref)

    # Calls and minutes --------------------------------------------------------------------------------

    def begin(self, *charges: Charge) -> Refusal | None:
        refusal = self.tripped(*charges) or self._count(charges)
        if refusal is None:
            for charge in charges:
                charge.open(self._seconds, self._on_change)
                self._charges.add(charge)
        return refusal

    def adopt(self, *charges: Charge) -> None:
        """Take over calls of a dead node: they were counted there, and are paid for here from now on."""
        for charge in charges:
            charge.adopt()
            charge.open(self._seconds, self._on_change)
            self._charges.add(charge)

    def payments(self, ids: Iterable[str], boots: Sequence[str]) -> dict[str, Payments]:
        """Return what processes have noted of legs: of each, the latest. :raises StoreUnavailable: Redis is down."""
        listed = list(ids)
        if not listed or not boots:
            return {}
        found: dict[str, Payments] = {}
        for answer in self._client.send_all([("HMGET", keys.payments(boot), *listed) for boot in boots]):
            for id, raw in zip(listed, answer, strict=True):
                with suppress(Unreadable):
                    paid = None if raw is None else documents.decode(PAYMENTS, raw, Payments)
                    if paid is not None and (id not in found or paid.talked >= found[id].talked):
                        found[id] = paid
        return found

    def check(self, *charges: Charge) -> Refusal | None:
        refusal = self.tripped(*charges)
        if refusal is not None:
            return refusal
        tickets = [ticket for charge in charges for ticket in charge.tickets]
        answers = run_all(self._client, [self._asking(ticket, look=True) for ticket in tickets])
        asked = zip(tickets, answers, strict=True)
        return next((_refusal(ticket, answer) for ticket, answer in asked if isinstance(answer, bytes)), None)

    def tripped(self, *charges: Charge) -> Refusal | None:
        if self._breakers is None or not charges or not self._breakers.tripped:
            return None
        scopes = (self._breakers.covering(charge.levels, charge.number) for charge in charges)
        return next((Refusal(BREAKER, scope) for scope in scopes if scope is not None), None)

    def _count(self, charges: Sequence[Charge]) -> Refusal | None:
        tickets = [ticket for charge in charges for ticket in charge.tickets]
        answers = run_all(self._client, [self._asking(ticket) for ticket in tickets], strict=False)
        refused: list[tuple[Ticket, bytes]] = []
        counted: list[tuple[Ticket, float, float, str, str, str, bool]] = []
        failed: Exception | None = None
        for ticket, answer in zip(tickets, answers, strict=True):
            if isinstance(answer, Exception):
                failed = answer
            elif isinstance(answer, bytes):
                refused.append((ticket, answer))
            else:
                # The day, the minute and the limit are those of many calls.
                day, minute, why = [sys.intern(value.decode()) for value in answer[2:5]]
                counted.append((ticket, float(answer[0]), float(answer[1]), day, minute, why, bool(answer[5])))
        # Meanwhile a breaker may have tripped that ended the calls which this node had then.
        ended = self._ending(*charges)
        if failed is None and not refused and ended is None:
            for ticket, seconds, left, day, minute, why, _new in counted:
                ticket.take(seconds, left, day, minute, why)
            return None
        # The call is not dialled, so it must count nowhere. One script could not check all bounds first: their keys are
        # on different slots.
        undo = [
            self._returning(ticket, [(seconds, day, minute)] if seconds else [], uncount=new)
            for ticket, seconds, _left, day, minute, _why, new in counted
        ]
        with suppress(StoreUnavailable):
            run_all(self._client, undo)
        if failed is not None:
            raise failed
        tripped = [(ticket, answer) for ticket, answer in refused if ticket.bound.trips]
        for ticket, answer in tripped:
            self._trip(ticket, answer.decode())
        return _refusal(*(tripped or refused)[0]) if refused else ended

    def _asking(self, ticket: Ticket, *, look: bool = False) -> Run:
        bound = ticket.bound
        return self._begin.on(
            (keys.usage_calls(bound.key), keys.usage_sums(bound.key)),
            (
                self._clock(),
                bound.member,
                *bound.limits.texts,
                _AHEAD if ticket.ahead and ticket.timed else "0",
                "1" if look else "",
            ),
        )

    def _trip(self, ticket: Ticket, what: str) -> None:
        bound = ticket.bound
        if self._breakers is None:
            return
        why = f"{what} {getattr(bound.limits, what, '')} of {bound.key.removeprefix(BREAKER + ':')}"
        try:
            if bound.trips not in self._breakers.tripped:
                self._breakers.trip(bound.trips, why, end_calls=bound.end_calls)
        except StoreUnavailable as error:
            # It is tripped on this node; Redis is told once it is back.
            log.warning("breaker_write_postponed", extra={"scope": bound.trips, "reason": str(error)})

    # While they talk ----------------------------------------------------------------------------------

    def _on_change(self, charge: Charge) -> None:
        if not charge.ended:
            if charge.stale:
                self._timers[charge] = background.once("charge_running_out", self._run_out, charge)
            else:
                self._arm(charge)
            return
        self._charges.discard(charge)
        self._disarm(charge)
        if charge.provisional or any(ticket.timed for ticket in charge.tickets):
            self._ended.append(charge)
            self._wake.set()

    def accrue(self) -> None:
        """Pay for what this node's calls have talked and, with limits, for what comes next; end those that can't pay.

        :raises StoreUnavailable: Redis is down. They may use what was left.
        """
        for charge in list(self._charges):
            if charge.cut is not None and not charge.spared:
                self._on_cut(charge)
        if self._breakers is not None and self._breakers.ending_scopes:
            # It ended the calls of the moment when it tripped. Others were adopted since, or spared until now.
            for charge in in_turns("minutes", list(self._charges), 200):
                refusal = None if charge.cut is not None or charge.spared else self._ending(charge)
                if refusal is not None:
                    self._cut(charge, refusal)
        timed = [charge for charge in self._charges if charge.timed]
        talking = [charge for charge in timed if charge.since is not None and charge.cut is None]
        try:
            self._pay(talking)
        except StoreUnavailable as error:
            # Calls whose key can't be read end when the time that they have paid for is over.
            for charge in talking:
                self._arm(charge, away=not isinstance(error, Fault))
            if isinstance(error, Fault):
                self._note(talking)
            raise
        self._note(talking)
        for charge in in_turns("minutes", talking, 200):
            self._arm(charge)

    def _note(self, talking: Sequence[Charge]) -> None:
        """Note what was paid, for the process that takes a call over if this one dies, and forget the calls that have
        ended. :raises StoreUnavailable: Redis is down."""
        commands: list[Command] = []
        over = [id for id, charge in self._noted.items() if charge.ended]
        for i in range(0, len(over), _BATCH):
            commands.append(("HDEL", self._payments, *over[i : i + _BATCH]))
        fields: list[str | bytes] = []
        for charge in in_turns("minutes", talking, 200):
            if not charge.ended:
                fields += [charge.payments_id, documents.encode(PAYMENTS, charge.payments(self._seconds()))]
                self._noted[charge.payments_id] = charge
        for i in range(0, len(fields), 2 * _BATCH):
            commands.append(("HSET", self._payments, *fields[i : i + 2 * _BATCH]))
        if not commands:
            return
        self._client.send_all([*commands, ("EXPIRE", self._payments, _NOTED)])
        for id in over:
            del self._noted[id]

    def settle(self) -> None:
        """Return the seconds that ended calls did not use.

        :raises StoreUnavailable: Redis is down; it is tried again later.
        """
        ended, self._ended = self._ended, []
        try:
            if self._unsettled:
                # A payment without an answer isn't sent again, so ask first whether Redis answers.
                self._client.set(keys.PING, "", ex=10)
            self._pay(ended)
            self._unsettled = False
        except Fault:
            # Asking again changes nothing; the other keys are paid.
            raise
        except BaseException as error:
            # A master that can't be reached has taken none, and mustn't hold up those of the others.
            self._unsettled = not isinstance(error, Unsent)
            self._ended = [*ended, *self._ended][-_UNSETTLED:]
            raise

    def _pay(self, charges: Sequence[Charge]) -> None:
        """Pay for calls. If the answer to a payment is lost it is paid again, and if that to a return is lost, its
        seconds are not sent again: the error is on the side of talking less."""
        with self._paying:
            # One script per key: calls of one account pay together.
            asked: dict[str, list[tuple[Ticket, float, float]]] = {}
            back: list[Return] = []
            for charge in in_turns("minutes", charges, 200):
                spent = charge.spent(self._seconds())
                if charge.ended or charge.stale:
                    back += charge.returns(spent)
                ahead = 0.0 if charge.ended else AHEAD
                for ticket in charge.tickets:
                    if ticket.timed:
                        owed, wanted = ticket.asks(spent, ahead)
                        if owed or wanted:
                            asked.setdefault(ticket.bound.key, []).append((ticket, owed, wanted))
            failed = self._return(back)
            found = list(asked.values())
            taking = [self._taking(shares) for shares in found]
            for i in range(0, len(taking), _BATCH):
                answers = run_all(self._client, taking[i : i + _BATCH], strict=False)
                for shares, answer in zip(found[i : i + _BATCH], answers, strict=True):
                    if isinstance(answer, StoreUnavailable):
                        failed.append(answer)
                    else:
                        self._share(shares, *(value.decode() for value in answer))
            # One key must not keep the others from being paid. Errors that may pass come first, and before Unsent those
            # after which ``settle`` has to ask.
            raise_first(sorted(failed, key=lambda error: (isinstance(error, Fault), isinstance(error, Unsent))))

    def _return(self, back: Sequence[Return]) -> list[StoreUnavailable]:
        """Return seconds and calls, and keep what Redis hasn't taken. :raises StoreUnavailable: Redis is down."""
        failed = []
        for i in range(0, len(back), _BATCH):
            batch = back[i : i + _BATCH]
            runs = [self._returning(given.ticket, given.parts, uncount=given.uncount) for given in batch]
            try:
                answers = run_all(self._client, runs, strict=False)
            except StoreUnavailable as error:
                for n, given in enumerate(back[i:]):
                    given.keep(sure=n >= len(batch) or isinstance(error, (Unsent, RedisRefused)))
                raise
            for given, answer in zip(batch, answers, strict=True):
                if isinstance(answer, StoreUnavailable):
                    failed.append(answer)
                    if not isinstance(answer, Fault):
                        given.keep(sure=isinstance(answer, (Unsent, RedisRefused)))
        return failed

    def _taking(self, asked: list[tuple[Ticket, float, float]]) -> Run:
        # After a reload some calls may have an older limit. The lowest applies.
        texts = [ticket.bound.limits.texts for ticket, _owed, _wanted in asked]
        _calls_an_hour, _calls_a_day, an_hour, a_day = zip(*texts, strict=True)
        owed, wanted = sum(owed for _ticket, owed, _wanted in asked), sum(wanted for _ticket, _owed, wanted in asked)
        key = asked[0][0].bound.key
        args = self._clock(), _lowest(an_hour), _lowest(a_day), f"{owed:.3f}", f"{wanted:.3f}"
        return self._take.on((keys.usage_sums(key),), args)

    def _returning(self, ticket: Ticket, parts: Sequence[Slice], *, uncount: bool) -> Run:
        """``uncount``: count the call no longer, whichever process has counted it."""
        flat = [value for seconds, day, minute in parts for value in (f"{seconds:.3f}", day, minute)]
        bound = ticket.bound
        return self._give_back.on(
            (keys.usage_calls(bound.key), keys.usage_sums(bound.key)), (bound.member if uncount else "", *flat)
        )

    def _share(
        self, asked: list[tuple[Ticket, float, float]], seconds: str, left: str, day: str, minute: str, why: str
    ) -> None:
        """Divide the seconds that a key had left among the calls that asked for them."""
        had = float(seconds)
        for ticket, owed, wanted in asked:
            part = min(wanted, had)
            had -= part
            ticket.take(owed + part, float(left), day, minute, why)
        first = asked[0][0]
        if first.bound.trips and float(left) <= 0:
            self._trip(first, why)

    # Cutting calls ------------------------------------------------------------------------------------

    def _arm(self, charge: Charge, *, away: bool = False) -> None:
        """Cut the call between two beats if what it has paid ends before the next one."""
        self._disarm(charge)
        paid = charge.paid(away=away)
        if paid is None or charge.since is None or charge.ended or charge.cut is not None:
            return
        rest = paid - charge.spent(self._seconds())
        if rest < BEAT + 1:
            self._timers[charge] = background.later(max(0.0, rest), "charge_running_out", self._run_out, charge)

    def _disarm(self, charge: Charge) -> None:
        timer = self._timers.pop(charge, None)
        if timer is not None:
            timer.kill(block=False)

    def _run_out(self, charge: Charge) -> None:
        self._timers.pop(charge, None)
        away = False
        try:
            # Other calls may have returned seconds meanwhile.
            self._pay([charge])
        except Fault:
            pass
        except StoreUnavailable:
            away = True
        short = charge.short(self._seconds(), away=away)
        if short is not None:
            self._cut(charge, Refusal(short.why, short.bound.scope))
        else:
            self._arm(charge, away=away)

    def end_calls(self, scope: str) -> None:
        """End the calls that a tripped breaker covers."""
        for charge in list(self._charges):
            if covers(scope, charge.levels, charge.number):
                self._cut(charge, Refusal(BREAKER, scope))

    def _cut(self, charge: Charge, refusal: Refusal) -> None:
        if charge.ended or charge.spared or charge.cut is not None:
            return
        charge.cut = refusal
        self._disarm(charge)
        log.warning("call_cut", extra={"call_ref": charge.call_ref, "reason": str(refusal)})
        self._on_cut(charge)

    # Greenlets ----------------------------------------------------------------------------------------

    def _every(self, seconds: float, do: Callable[[], None], failure: str) -> None:
        away = False
        while True:
            gevent.sleep(seconds)
            try:
                do()
            except StoreUnavailable as error:
                if not away:
                    log.warning(failure, extra={"node": self._node, "reason": str(error)})
                away = True
            except Exception:
                # Keep going, whatever was raised: otherwise this node's calls would no longer be counted.
                log.exception(failure)
            else:
                away = False

    def _settle(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            try:
                self.settle()
            except StoreUnavailable as error:
                log.warning("minutes_not_counted", extra={"node": self._node, "reason": str(error)})
                gevent.sleep(1.0)
                self._wake.set()
            except Exception:
                log.exception("minutes_not_counted")


def _lowest(texts: Iterable[str]) -> str:
    """Return the lowest of several limits, of which some may be empty; empty if all are."""
    return min(filter(None, texts), key=int, default="")


def _refusal(ticket: Ticket, answer: bytes) -> Refusal:
    bound = ticket.bound
    return Refusal(BREAKER, bound.trips) if bound.trips else Refusal(answer.decode(), bound.key)
