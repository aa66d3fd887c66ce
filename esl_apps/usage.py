"""Limits that hold across nodes: concurrent calls, calls an hour, minutes a day.

Each limit is counted by one script on keys of one hash tag (what is counted), so that a cluster keeps each
step on one slot and any number of nodes counts as one. Time is Redis's own, the same for all nodes: a node
with a wrong clock ends nobody's lease.

================================================  =========================================================
``esl_apps:concurrent:{HOLDER}``                  sorted set: call_ref → when its lease ends
``esl_apps:usage:{KEY}:calls``                    sorted set: call_ref → when it was dialled, of the last hour
``esl_apps:usage:{KEY}:seconds``                  hash: day (since 1970, UTC) → seconds talked
================================================  =========================================================
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import gevent

from esl_apps.cards import Script, asking_redis
from esl_apps.core.cards import Limits, Unavailable
from esl_apps.redisclient import Client

log = logging.getLogger(__name__)

#: Seconds after which the calls of a node that died are given back.
LEASE = 30.0
HOUR, DAY = 3600, 86400
CALLS_PER_HOUR, MINUTES_PER_DAY = "calls_per_hour", "minutes_per_day"

_CONCURRENT = "esl_apps:concurrent:"
_USAGE = "esl_apps:usage:"
#: Commands in one pipeline: a node with 5,000 calls renews them without holding Redis up.
_BATCH = 500

# The time: ARGV[1] in tests, else Redis's own.
_NOW = """
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] + time[2] / 1000000
end
"""
# Count a call until its lease ends; the key goes with the last of them.
_LEASE = """
redis.call('ZADD', KEYS[1], string.format('%.3f', now + ARGV[3]), ARGV[2])
local ms = math.ceil(ARGV[3] * 1000)
if redis.call('PTTL', KEYS[1]) < ms then redis.call('PEXPIRE', KEYS[1], ms) end
return 1
"""
# KEYS: the holder's calls. ARGV: time, call_ref, lease, limit. 1: counted (once, however often it is asked).
_ENTER = (
    _NOW
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if not redis.call('ZSCORE', KEYS[1], ARGV[2]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[4]) then
  return 0
end
"""
    + _LEASE
)
# KEYS: a holder's calls. ARGV: time, call_ref, lease. A call that is up counts, though its lease had ended.
_RENEW = _NOW + _LEASE
# KEYS: calls and seconds of what is limited. ARGV: time, call_ref, calls an hour, seconds a day ('': no bound).
_BEGIN = (
    _NOW
    + """
if ARGV[4] ~= '' then
  local talked = redis.call('HGET', KEYS[2], string.format('%d', math.floor(now / 86400)))
  if tonumber(talked or 0) >= tonumber(ARGV[4]) then return 'minutes_per_day' end
end
if ARGV[3] ~= '' then
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.3f', now - 3600))
  if not redis.call('ZSCORE', KEYS[1], ARGV[2]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then
    return 'calls_per_hour'
  end
  redis.call('ZADD', KEYS[1], string.format('%.3f', now), ARGV[2])
  redis.call('EXPIRE', KEYS[1], 3601)
end
return false
"""
)
# KEYS: seconds of what is limited. ARGV: time. What was talked today.
_TALKED = (
    _NOW
    + """
return redis.call('HGET', KEYS[1], string.format('%d', math.floor(now / 86400)))
"""
)
# KEYS: seconds of what is limited. ARGV: time, seconds. Earlier days go.
_TALK = (
    _NOW
    + """
local day = string.format('%d', math.floor(now / 86400))
for _, other in ipairs(redis.call('HKEYS', KEYS[1])) do
  if other ~= day then redis.call('HDEL', KEYS[1], other) end
end
redis.call('HINCRBYFLOAT', KEYS[1], day, ARGV[2])
redis.call('EXPIRE', KEYS[1], 86400)
"""
)


class UsageStore:
    """:class:`esl_apps.core.cards.Usage` in Redis.

    - Concurrent calls are leases, renewed by :meth:`start`'s greenlet while this node lives.
    - Calls an hour: a sliding window; in any 3,600 seconds no more than the limit.
    - Minutes a day: a fixed one, from midnight to midnight UTC; a call counts in the day in which it ends, and
      calls that are up at once each may talk what was left when they began.
    """

    def __init__(
        self, client: Client, node: str, *, lease: float = LEASE, clock: Callable[[], float] | None = None
    ) -> None:
        """``clock``: Unix seconds, for tests; None: Redis's own."""
        self._client = client
        self._node = node
        self._lease = lease
        self._clock = clock
        self._held: set[tuple[str, str]] = set()
        """(holder, call_ref) of this node's calls."""
        self._owed: list[tuple[str, float]] = []
        """(key, seconds) that Redis was away for."""
        self._away = False
        self._heartbeat: gevent.Greenlet[[], None] | None = None
        self._enter = Script(client, _ENTER)
        self._begin = Script(client, _BEGIN)
        self._talked = Script(client, _TALKED)
        self._talk = Script(client, _TALK)

    def start(self) -> None:
        """Renew this node's leases until :meth:`stop`."""
        self._heartbeat = gevent.spawn(self._beat)

    def stop(self) -> None:
        """Renew no more. The calls that are up keep their leases for as long as those last."""
        if self._heartbeat is not None:
            self._heartbeat.kill()

    # Concurrent calls ---------------------------------------------------------------------------------

    def enter(self, holder: str, limit: int, call_ref: str) -> bool:
        counted = bool(self._enter([_concurrent(holder)], [self._now(), call_ref, self._lease, limit]))
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

    # Calls an hour, minutes a day ---------------------------------------------------------------------

    def begin_call(self, keys: Mapping[str, Limits], call_ref: str) -> str | None:
        counted: list[str] = []
        for key, limits in keys.items():
            if limits.calls_per_hour is None and limits.minutes_per_day is None:
                continue
            reached = self._begin(
                [_calls(key), _seconds(key)],
                [self._now(), call_ref, _or_empty(limits.calls_per_hour), _or_empty(_day_seconds(limits))],
            )
            if reached is not None:
                # It is not dialled, so it counts nowhere. Each key stands on a slot of its own: no one script
                # could have asked all.
                self._take_back(counted, call_ref)
                return str(reached.decode())
            if limits.calls_per_hour is not None:
                counted.append(key)
        return None

    def _take_back(self, keys: list[str], call_ref: str) -> None:
        with asking_redis():
            for key in keys:
                self._client.zrem(_calls(key), call_ref)

    def seconds_left(self, keys: Mapping[str, Limits]) -> float | None:
        left = [limits.longest_call for limits in keys.values() if limits.longest_call is not None]
        for key, limits in keys.items():
            day = _day_seconds(limits)
            if day is not None:
                talked = self._talked([_seconds(key)], [self._now()])
                left.append(max(0.0, day - float(talked or 0)))
        return min(left, default=None)

    def end_call(self, keys: Mapping[str, Limits], seconds: float) -> None:
        self._owed += [(key, seconds) for key, limits in keys.items() if limits.minutes_per_day is not None]
        try:
            self._settle()
        except Unavailable as error:
            log.warning("minutes not counted yet", extra={"reason": str(error)})

    def _settle(self) -> None:
        """Count what is owed. A call whose count Redis took, but did not acknowledge, counts twice: the error
        is on the side of talking less."""
        while self._owed:
            key, seconds = owed = self._owed.pop()
            try:
                self._talk([_seconds(key)], [self._now(), seconds])
            except BaseException:
                self._owed.append(owed)
                raise

    # Leases -------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        while True:
            gevent.sleep(self._lease / 3)
            try:
                self.renew()
                self._settle()
            except Unavailable as error:
                if not self._away:
                    log.warning("leases not renewed", extra={"node": self._node, "reason": str(error)})
                self._away = True
            except Exception:
                # Whatever it was, the next beat renews: a node without one would lose its calls' count.
                log.exception("leases not renewed")
            else:
                self._away = False

    def renew(self) -> None:
        """Renew the leases of all of this node's calls. :raises Unavailable: Redis is away."""
        held = list(self._held)
        for i in range(0, len(held), _BATCH):
            batch = held[i : i + _BATCH]
            with asking_redis():
                renewals = self._client.pipeline(transaction=False)
                for holder, call_ref in batch:
                    # redis-py has neither eval() nor evalsha() in a cluster's pipeline, though each is of one slot.
                    renewals.execute_command(
                        "EVAL", _RENEW, 1, _concurrent(holder), self._now(), call_ref, self._lease
                    )
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


def _seconds(key: str) -> str:
    return f"{_USAGE}{{{key}}}:seconds"


def _day_seconds(limits: Limits) -> int | None:
    return None if limits.minutes_per_day is None else limits.minutes_per_day * 60


def _or_empty(value: int | None) -> int | str:
    return "" if value is None else value
