"""Limits and breakers that hold across nodes: concurrent calls, calls and minutes an hour and a day.

Each is counted by one script on keys of one hash tag (what is counted), so that a cluster keeps each step on one slot
and any number of nodes counts as one; all that a call is counted against is one pipeline. Time is Redis's own, the
same for all nodes: a node with a wrong clock ends nobody's lease.

================================================  =========================================================
``esl_apps:concurrent:{HOLDER}``                  sorted set: call_ref → when its lease ends
``esl_apps:usage:{KEY}:calls``                    sorted set: call → when it was dialled, of the last hour
``esl_apps:usage:{KEY}:sums``                     hash: ``n`` + day (since 1970, UTC) → calls, ``d`` + day and
                                                  ``m`` + minute → seconds that were taken
================================================  =========================================================

KEY is a level (``account:acme``), a level and a destination (``account:acme/country:CU``), or one of these behind
``breaker:``: a breaker's own count, which its reset forgets.

Seconds of a limit are taken before they are talked, :data:`AHEAD` at a time, and what was not used goes back at the
call's end: calls that are up at once share what is left, and a node that dies has paid for what it let talk. While
Redis is away, calls that are up talk on for what was left when it was last asked, and are counted when it is back.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import gevent
from gevent.event import Event as Flag
from gevent.lock import Semaphore

from esl_apps.core.cards import Unavailable
from esl_apps.core.charges import Charge, Ticket
from esl_apps.core.limits import BREAKER, Limits, Refusal, covers
from esl_apps.store.breakers import Breakers
from esl_apps.store.redis_client import NO_SCRIPT, Client
from esl_apps.store.script import NOW, Script, asking_redis, sha_of

log = logging.getLogger(__name__)

#: Seconds after which the calls of a node that died are given back.
LEASE = 30.0
#: Seconds between two looks at the calls that talk, and for how many they have paid after one.
BEAT = 5.0
AHEAD = 2 * BEAT

_CONCURRENT = "esl_apps:concurrent:"
_USAGE = "esl_apps:usage:"
#: Commands in one pipeline: a node with 5,000 calls renews them without holding Redis up.
_BATCH = 500

# Count a call until its lease ends; the key goes with the last of them.
_LEASE = """
redis.call('ZADD', KEYS[1], string.format('%.3f', now + ARGV[3]), ARGV[2])
local ms = math.ceil(ARGV[3] * 1000)
if redis.call('PTTL', KEYS[1]) < ms then redis.call('PEXPIRE', KEYS[1], ms) end
return 1
"""
# KEYS: the holder's calls. ARGV: time, call_ref, lease, limit. 1: counted (once, however often it is asked).
_ENTER = (
    NOW
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if not redis.call('ZSCORE', KEYS[1], ARGV[2]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[4]) then
  return 0
end
"""
    + _LEASE
)
# KEYS: a holder's calls. ARGV: time, call_ref, lease. A call that is up counts, though its lease had ended.
_RENEW = NOW + _LEASE
# The last of KEYS: what was talked. What is left of it, taking of it, and what is kept of it.
_SUMS = (
    NOW
    + """
local day = string.format('%d', math.floor(now / 86400))
local minute = string.format('%d', math.floor(now / 60))
local sums = KEYS[#KEYS]
local function left(an_hour, a_day)
  local rest, why = math.huge, nil
  if a_day ~= '' then
    rest = tonumber(a_day) - tonumber(redis.call('HGET', sums, 'd' .. day) or 0)
    why = 'minutes_per_day'
  end
  if an_hour ~= '' then
    -- An hour, the minute that has begun, and one for what was paid ahead of its talk (FRESH + AHEAD).
    local fields = {}
    for i = 0, 61 do fields[i + 1] = 'm' .. string.format('%d', minute - i) end
    local talked = 0
    for _, seconds in ipairs(redis.call('HMGET', sums, unpack(fields))) do
      talked = talked + tonumber(seconds or 0)
    end
    if tonumber(an_hour) - talked < rest then
      rest = tonumber(an_hour) - talked
      why = 'minutes_per_hour'
    end
  end
  return rest, why
end
local function take(seconds, an_hour)
  if seconds <= 0 then return end
  redis.call('HINCRBYFLOAT', sums, 'd' .. day, string.format('%.3f', seconds))
  if an_hour ~= '' then redis.call('HINCRBYFLOAT', sums, 'm' .. minute, string.format('%.3f', seconds)) end
end
local function keep()
  if redis.call('EXISTS', sums) == 0 then return end
  redis.call('EXPIRE', sums, 90000)
  if redis.call('HLEN', sums) < 100 then return end
  for _, field in ipairs(redis.call('HKEYS', sums)) do
    local from = string.sub(field, 1, 1) == 'm' and minute - 61 or tonumber(day)
    if tonumber(string.sub(field, 2)) < from then redis.call('HDEL', sums, field) end
  end
end
local function answer(seconds, rest, why)
  return {string.format('%.3f', seconds), string.format('%.3f', math.min(rest, 1e9)), day, minute, why or ''}
end
"""
)
# KEYS: calls and sums of what is limited. ARGV: time, call, calls an hour, calls a day, seconds an hour, seconds a day
# ('': no bound), seconds to take, whether to look only ('1'). The name of what is used up; else what was taken, what
# is left then, day, minute, what will be used up first, whether the call is a new one here.
_BEGIN = (
    _SUMS
    + """
local rest, why = left(ARGV[5], ARGV[6])
if rest < 1 then return why end
local new = false
if ARGV[3] ~= '' or ARGV[4] ~= '' then
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.3f', now - 3600))
  new = not redis.call('ZSCORE', KEYS[1], ARGV[2])
end
if new then
  if ARGV[3] ~= '' and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then return 'calls_per_hour' end
  if ARGV[4] ~= '' and tonumber(redis.call('HGET', sums, 'n' .. day) or 0) >= tonumber(ARGV[4]) then
    return 'calls_per_day'
  end
end
local seconds = math.min(tonumber(ARGV[7]), rest)
if ARGV[8] ~= '1' then
  if new then
    redis.call('ZADD', KEYS[1], string.format('%.3f', now), ARGV[2])
    redis.call('EXPIRE', KEYS[1], 3601)
    redis.call('HINCRBY', sums, 'n' .. day, 1)
  end
  take(seconds, ARGV[5])
  keep()
end
local result = answer(seconds, rest - seconds, why)
result[6] = new and 1 or 0
return result
"""
)
# KEYS: sums. ARGV: time, seconds an hour, seconds a day, seconds that were talked already, seconds to take of what
# is left. What was taken, what is left then, day, minute, what will be used up first.
_TAKE = (
    _SUMS
    + """
take(tonumber(ARGV[4]), ARGV[2])
local rest, why = left(ARGV[2], ARGV[3])
local seconds = math.max(0, math.min(tonumber(ARGV[5]), rest))
take(seconds, ARGV[2])
keep()
return answer(seconds, rest - seconds, why)
"""
)
# KEYS: calls, sums. ARGV: the call that does not count after all ('': it does), day, then seconds, day and minute
# of each part that goes back. Never below nothing: a Redis that came back empty has none of it.
_GIVE_BACK = """
local function less(field, by)
  local value = redis.call('HGET', KEYS[2], field)
  if value then redis.call('HSET', KEYS[2], field, string.format('%.3f', math.max(0, value - by))) end
end
if ARGV[1] ~= '' and redis.call('ZREM', KEYS[1], ARGV[1]) == 1 then
  if tonumber(redis.call('HGET', KEYS[2], 'n' .. ARGV[2]) or 0) > 0 then
    redis.call('HINCRBY', KEYS[2], 'n' .. ARGV[2], -1)
  end
end
for i = 3, #ARGV, 3 do
  less('d' .. ARGV[i + 1], ARGV[i])
  less('m' .. ARGV[i + 2], ARGV[i])
end
"""


_SHA = {text: sha_of(text) for text in (_BEGIN, _TAKE, _GIVE_BACK)}


class _Command(NamedTuple):
    """One script on its keys, all of one slot."""

    script: str
    keys: tuple[str, ...]
    args: tuple[Any, ...]


class UsageStore:
    """:class:`esl_apps.core.cards.Usage` in Redis.

    - Concurrent calls are leases, renewed by :meth:`start`'s greenlet while this node lives.
    - Calls and minutes an hour: a sliding window (minutes by the whole minute); in any 3,600 seconds no more than
      the limit.
    - Calls and minutes a day: a fixed one, from midnight to midnight UTC.
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
        clock: Callable[[], float] | None = None,
    ) -> None:
        """``alone``: whether this is the only node, and may go by what it knows itself while Redis is away.
        ``on_cut``: ends a call on its switch; asked again at each beat until it has ended. ``clock``: Unix seconds,
        for tests; None: Redis's own."""
        self._client = client
        self._node = node
        self._breakers = breakers
        self._on_cut = on_cut
        self._alone = alone
        self._lease = lease
        self._clock = clock
        self._seconds = clock or time.monotonic
        self._held: set[tuple[str, str]] = set()
        """(holder, call_ref) of this node's calls."""
        self._charges: set[Charge] = set()
        """Of calls that have not ended."""
        self._ended: list[Charge] = []
        """What is not settled yet."""
        self._timers: dict[Charge, gevent.Greenlet[..., None]] = {}
        self._wake = Flag()
        # Two that pay for one call at once would pay twice.
        self._paying = Semaphore()
        self._away = False
        self._greenlets: list[gevent.Greenlet[..., None]] = []
        self._enter = Script(client, _ENTER)

    def start(self) -> None:
        """Renew this node's leases and pay for its calls until :meth:`stop`."""
        self._greenlets = [
            gevent.spawn(self._every, self._lease / 3, self.renew, "leases not renewed"),
            gevent.spawn(self._every, BEAT, self.accrue, "minutes not counted yet"),
            gevent.spawn(self._settle),
        ]

    def stop(self) -> None:
        """Renew no more. The calls that are up keep their leases for as long as those last."""
        gevent.killall(self._greenlets)
        with suppress(Unavailable):
            self.settle()

    # Concurrent calls ---------------------------------------------------------------------------------

    def enter(self, holder: str, limit: int, call_ref: str) -> bool:
        try:
            counted = bool(self._enter([_concurrent(holder)], [self._now(), call_ref, self._lease, limit]))
        except Unavailable:
            if not self._alone():
                raise
            # Nobody else gives places away, and this node knows those that it gave.
            taken = [ref for name, ref in self._held if name == holder]
            counted = call_ref in taken or len(taken) < limit
        if counted:
            self._held.add((holder, call_ref))
        return counted

    def hold(self, holder: str, call_ref: str) -> None:
        """Go on with a place that a node which died had."""
        self._held.add((holder, call_ref))

    def let_go(self, holder: str, call_ref: str) -> None:
        """Another node has the place now: renew it no more."""
        self._held.discard((holder, call_ref))

    def leave(self, holder: str, call_ref: str) -> None:
        self._held.discard((holder, call_ref))
        try:
            with asking_redis():
                self._client.zrem(_concurrent(holder), call_ref)
        except Unavailable as error:
            log.warning("limit not given back", extra={"call_ref": call_ref, "reason": str(error)})

    # Calls and minutes --------------------------------------------------------------------------------

    def begin(self, *charges: Charge) -> Refusal | None:
        refusal = self._tripped(charges) or self._count([ticket for charge in charges for ticket in charge.tickets])
        if refusal is None:
            for charge in charges:
                charge.open(self._seconds, self._on_change)
                self._charges.add(charge)
        return refusal

    def adopt(self, *charges: Charge) -> None:
        """Calls that are up already, of a node that died: counted there, and paid for here from now on."""
        for charge in charges:
            charge.adopted = True
            for ticket in charge.tickets:
                # Until Redis has been asked, nobody knows of an end to it.
                ticket.left = math.inf
            charge.open(self._seconds, self._on_change)
            self._charges.add(charge)

    def check(self, *charges: Charge) -> Refusal | None:
        refusal = self._tripped(charges)
        if refusal is not None:
            return refusal
        tickets = [ticket for charge in charges for ticket in charge.tickets]
        answers = self._many([self._asking(ticket, look=True) for ticket in tickets])
        return next(
            (_refusal(one, answer) for one, answer in zip(tickets, answers, strict=True) if isinstance(answer, bytes)),
            None,
        )

    def _tripped(self, charges: Iterable[Charge]) -> Refusal | None:
        if self._breakers is None:
            return None
        scopes = (self._breakers.covering(charge.levels, charge.number) for charge in charges)
        return next((Refusal(BREAKER, scope) for scope in scopes if scope is not None), None)

    def _count(self, tickets: list[Ticket]) -> Refusal | None:
        answers = self._many([self._asking(ticket) for ticket in tickets], strict=False)
        refused: list[tuple[Ticket, bytes]] = []
        counted: list[tuple[Ticket, float, float, str, str, str, bool]] = []
        failed: Exception | None = None
        for ticket, answer in zip(tickets, answers, strict=True):
            if isinstance(answer, Exception):
                failed = answer
            elif isinstance(answer, bytes):
                refused.append((ticket, answer))
            else:
                seconds, left, day, minute, why = [value.decode() for value in answer[:5]]
                counted.append((ticket, float(seconds), float(left), day, minute, why, bool(answer[5])))
        if failed is None and not refused:
            for ticket, seconds, left, day, minute, why, _new in counted:
                ticket.take(seconds, left, day, minute, why)
            return None
        # It is not dialled, so it counts nowhere. Each key stands on a slot of its own: no one script could have
        # asked all.
        undo = [
            _give_back(ticket, day, [(seconds, day, minute)] if seconds else [], new=new)
            for ticket, seconds, _left, day, minute, _why, new in counted
        ]
        with suppress(Unavailable):
            self._many(undo)
        if failed is not None:
            raise Unavailable(f"redis: {failed}")
        tripped = [one for one in refused if one[0].bound.trips]
        for ticket, answer in tripped:
            self._trip(ticket, answer.decode())
        return _refusal(*(tripped or refused)[0])

    def _asking(self, ticket: Ticket, *, look: bool = False) -> _Command:
        bound, limits = ticket.bound, ticket.bound.limits
        return _Command(
            _BEGIN,
            (_calls(bound.key), _sums(bound.key)),
            (
                self._now(),
                bound.member,
                _or_empty(limits.calls_per_hour),
                _or_empty(limits.calls_per_day),
                _an_hour(limits),
                _a_day(limits),
                AHEAD if ticket.ahead and ticket.timed else 0,
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
        except Unavailable as error:
            # It is tripped here, and Redis hears of it when it is back.
            log.warning("breaker not written yet", extra={"scope": bound.trips, "reason": str(error)})

    # While they talk ----------------------------------------------------------------------------------

    def _on_change(self, charge: Charge) -> None:
        if not charge.ended:
            if charge.stale:
                self._timers[charge] = gevent.spawn(self._run_out, charge)
            else:
                self._arm(charge)
            return
        self._charges.discard(charge)
        self._disarm(charge)
        if any(ticket.timed for ticket in charge.tickets):
            self._ended.append(charge)
            self._wake.set()

    def accrue(self) -> None:
        """Pay for what this node's calls have talked and, of limits, for what they are about to; end those that can't.

        :raises Unavailable: Redis is away: they talk on for what was left.
        """
        for charge in list(self._charges):
            if charge.cut is not None:
                self._on_cut(charge)
        talking = [charge for charge in self._charges if charge.since is not None and charge.cut is None]
        try:
            self._pay(talking)
        except Unavailable:
            for charge in talking:
                self._arm(charge, away=True)
            raise
        for charge in talking:
            self._arm(charge)

    def settle(self) -> None:
        """Give back what calls that have ended did not use. :raises Unavailable: Redis is away: once it is back."""
        ended, self._ended = self._ended, []
        try:
            self._pay(ended)
        except BaseException:
            self._ended += ended
            raise

    def _pay(self, charges: Sequence[Charge]) -> None:
        """A payment that Redis took, but did not acknowledge, is paid twice, and what was to go back then is not sent
        again: the error is on the side of talking less."""
        with self._paying:
            # One question a key: the calls of one account ask together.
            asked: dict[str, list[tuple[Ticket, float, float]]] = {}
            back: list[_Command] = []
            for charge in charges:
                spent = charge.spent(self._seconds())
                for ticket in charge.tickets:
                    if not ticket.timed:
                        continue
                    unused = ticket.unused(spent) if charge.ended or charge.stale else []
                    if unused:
                        back.append(_give_back(ticket, "0", unused, new=False))
                    wanted = 0.0 if charge.ended else ticket.wanted(spent, AHEAD)
                    if (owed := ticket.owed(spent)) or wanted:
                        asked.setdefault(ticket.bound.key, []).append((ticket, owed, wanted))
                charge.stale = False
            for i in range(0, len(back), _BATCH):
                self._many(back[i : i + _BATCH])
            found = list(asked.values())
            taking = [self._taking(one) for one in found]
            for i in range(0, len(taking), _BATCH):
                answers = self._many(taking[i : i + _BATCH])
                for one, answer in zip(found[i : i + _BATCH], answers, strict=True):
                    self._share(one, *(value.decode() for value in answer))

    def _taking(self, asked: list[tuple[Ticket, float, float]]) -> _Command:
        # After a reload some may have an older limit: the least of them is what holds.
        limits = [ticket.bound.limits for ticket, _owed, _wanted in asked]
        owed, wanted = sum(one[1] for one in asked), sum(one[2] for one in asked)
        key = asked[0][0].bound.key
        an_hour = min((value for one in limits if (value := _an_hour(one)) != ""), default="")
        a_day = min((value for one in limits if (value := _a_day(one)) != ""), default="")
        return _Command(_TAKE, (_sums(key),), (self._now(), an_hour, a_day, f"{owed:.3f}", f"{wanted:.3f}"))

    def _share(
        self, asked: list[tuple[Ticket, float, float]], seconds: str, left: str, day: str, minute: str, why: str
    ) -> None:
        """What a key had, between those who asked for it."""
        had = float(seconds)
        for ticket, owed, wanted in asked:
            part = min(wanted, had)
            had -= part
            ticket.taken += owed
            ticket.take(part, float(left), day, minute, why)
        first = asked[0][0]
        if first.bound.trips and float(left) <= 0:
            self._trip(first, why)

    # Where it ends ------------------------------------------------------------------------------------

    def _arm(self, charge: Charge, *, away: bool = False) -> None:
        """Where what is paid ends before the next beat, end the call there, not then."""
        self._disarm(charge)
        paid = charge.paid(away=away)
        if paid is None or charge.since is None or charge.ended or charge.cut is not None:
            return
        rest = paid - charge.spent(self._seconds())
        if rest < BEAT + 1:
            self._timers[charge] = gevent.spawn_later(max(0.0, rest), self._run_out, charge)

    def _disarm(self, charge: Charge) -> None:
        timer = self._timers.pop(charge, None)
        if timer is not None:
            timer.kill(block=False)

    def _run_out(self, charge: Charge) -> None:
        self._timers.pop(charge, None)
        away = False
        try:
            # Others may have given back meanwhile.
            self._pay([charge])
        except Unavailable:
            away = True
        short = charge.short(self._seconds(), away=away)
        if short is not None:
            self._cut(charge, Refusal(short.why, short.bound.scope))
        else:
            self._arm(charge, away=away)

    def end_calls(self, scope: str) -> None:
        """End the calls that a tripped breaker is for."""
        for charge in list(self._charges):
            if covers(scope, charge.levels, charge.number):
                self._cut(charge, Refusal(BREAKER, scope))

    def _cut(self, charge: Charge, refusal: Refusal) -> None:
        if charge.ended or charge.cut is not None:
            return
        charge.cut = refusal
        self._disarm(charge)
        charge.attempt.note("cut", str(refusal))
        log.warning("call cut", extra={"call_ref": charge.attempt.call_ref, "reason": str(refusal)})
        self._on_cut(charge)

    # Asking -------------------------------------------------------------------------------------------

    def _many(self, commands: Sequence[_Command], *, strict: bool = True) -> list[Any]:
        """What each script answers: one round trip. :raises Unavailable: Redis is away or, where ``strict``, one of
        them failed; else that one's answer is the exception."""
        if not commands:
            return []
        with asking_redis():
            answers = self._send(commands, "EVALSHA")
            lost = [i for i, answer in enumerate(answers) if isinstance(answer, NO_SCRIPT)]
            if lost:
                # Redis was restarted, or has never seen them.
                again = self._send([commands[i] for i in lost], "EVAL")
                for i, answer in zip(lost, again, strict=True):
                    answers[i] = answer
        failed = next((answer for answer in answers if isinstance(answer, Exception)), None)
        if strict and failed is not None:
            raise Unavailable(f"redis: {failed}")
        return answers

    def _send(self, commands: Sequence[_Command], how: str) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for script, keys, args in commands:
            # redis-py has neither eval() nor evalsha() in a cluster's pipeline, though each is of one slot.
            pipeline.execute_command(how, script if how == "EVAL" else _SHA[script], len(keys), *keys, *args)
        return list(pipeline.execute(raise_on_error=False))

    # Leases -------------------------------------------------------------------------------------------

    def _every(self, seconds: float, do: Callable[[], None], failure: str) -> None:
        away = False
        while True:
            gevent.sleep(seconds)
            try:
                do()
            except Unavailable as error:
                if not away:
                    log.warning(failure, extra={"node": self._node, "reason": str(error)})
                away = True
            except Exception:
                # Whatever it was, the next time it is done: a node that never does would lose its calls' count.
                log.exception(failure)
            else:
                away = False

    def _settle(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            try:
                self.settle()
            except Unavailable as error:
                log.warning("minutes not counted yet", extra={"node": self._node, "reason": str(error)})
                gevent.sleep(1.0)
                self._wake.set()
            except Exception:
                log.exception("minutes not counted yet")

    def renew(self) -> None:
        """Renew the leases of all of this node's calls. :raises Unavailable: Redis is away."""
        held = list(self._held)
        for i in range(0, len(held), _BATCH):
            batch = held[i : i + _BATCH]
            with asking_redis():
                renewals = self._client.pipeline(transaction=False)
                for holder, call_ref in batch:
                    # redis-py has neither eval() nor evalsha() in a cluster's pipeline, though each is of one slot.
                    renewals.execute_command("EVAL", _RENEW, 1, _concurrent(holder), self._now(), call_ref, self._lease)
                renewals.execute()
            # A call that ended meanwhile may have been renewed after it was given back.
            for holder, call_ref in batch:
                if (holder, call_ref) not in self._held:
                    self.leave(holder, call_ref)

    def _now(self) -> Any:
        return "" if self._clock is None else self._clock()


def _concurrent(holder: str) -> str:
    return f"{_CONCURRENT}{{{holder}}}"


def _calls(key: str) -> str:
    return f"{_USAGE}{{{key}}}:calls"


def _sums(key: str) -> str:
    return f"{_USAGE}{{{key}}}:sums"


def counters(key: str) -> tuple[str, str]:
    """The keys in which a key's calls and minutes are counted."""
    return _calls(key), _sums(key)


def _an_hour(limits: Limits) -> int | str:
    return "" if limits.minutes_per_hour is None else limits.minutes_per_hour * 60


def _a_day(limits: Limits) -> int | str:
    return "" if limits.minutes_per_day is None else limits.minutes_per_day * 60


def _or_empty(value: int | None) -> int | str:
    return "" if value is None else value


def _give_back(ticket: Ticket, day: str, parts: Sequence[tuple[float, str, str]], *, new: bool) -> _Command:
    flat = [value for seconds, of_day, minute in parts for value in (f"{seconds:.3f}", of_day, minute)]
    bound = ticket.bound
    return _Command(_GIVE_BACK, counters(bound.key), (bound.member if new else "", day, *flat))


def _refusal(ticket: Ticket, answer: bytes) -> Refusal:
    bound = ticket.bound
    return Refusal(BREAKER, bound.trips) if bound.trips else Refusal(answer.decode(), bound.key)
