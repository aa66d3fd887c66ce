"""Limits over nodes: never exceeded, and returned however a call or a node ends."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gevent
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esl_apps.core.attempt import Attempt
from esl_apps.core.charges import Charge
from esl_apps.core.limits import (
    CALLS_PER_DAY,
    CALLS_PER_HOUR,
    MINUTES_PER_DAY,
    MINUTES_PER_HOUR,
    Breaker,
    Level,
    Limits,
    read_destination,
)
from esl_apps.core.numbers import Number, NumberPlan
from esl_apps.core.tickets import Payments
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.operations.breakers import clear_counters
from esl_apps.process import background
from esl_apps.store import keys, redis_client, script
from esl_apps.store.breakers import Breakers, Trip
from esl_apps.store.errors import Fault, NoAnswer, Unsent
from esl_apps.store.usage import AHEAD, BEAT, UsageStore
from tests.support.node import RedisServer
from tests.unit.store.conftest import everything

HOLDER, KEY = "user:acme:u1", "card:1"
TRIALS = 1000
#: A Monday, 23:00 UTC.
EVENING = 1_700_002_800.0


class Clock:
    def __init__(self, at: float = EVENING) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def timers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End the timers of a test's calls with it: the next test has the same keys, for which they would pay. Where time
    is passed in, none goes off: it could while Redis is waited for."""
    begun, later = [], background.later
    passes_time_in = "clock" in request.fixturenames

    def begin(seconds: float, *args: Any, **fields: Any) -> Any:
        begun.append(later(3600.0 if passes_time_in else seconds, *args, **fields))
        return begun[-1]

    monkeypatch.setattr(background, "later", begin)
    yield
    gevent.killall(begun)


@pytest.fixture
def usage(client: Any, clock: Clock) -> UsageStore:
    return UsageStore(client, "one", clock=clock)


@pytest.fixture
def other(connect: Callable[[], Any], clock: Clock) -> UsageStore:
    """Another node."""
    return UsageStore(connect(), "two", clock=clock)


# Concurrent calls ------------------------------------------------------------------------------------


def _enter_at_each_trial(url: str, name: str, barrier: Any, passed: Any) -> None:
    usage = UsageStore(redis_client.connect(url), name)
    usage.enter("warm-up", 2, name)
    for trial in range(TRIALS):
        barrier.wait(60)
        passed[trial] += usage.enter(f"card:{trial}", 1, f"{name}-{trial}")


@pytest.mark.parametrize("server", ["alone"], indirect=True)
def test_enter_at_the_same_instant_lets_one_in(server: RedisServer) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(2)
    passed = [spawn.Array("i", TRIALS, lock=False) for _ in range(2)]
    nodes = [
        spawn.Process(target=_enter_at_each_trial, args=(server.url, f"node{i}", barrier, passed[i])) for i in range(2)
    ]
    for node in nodes:
        node.start()
    for node in nodes:
        node.join(60)
        assert node.exitcode == 0
    assert [one + two for one, two in zip(*passed, strict=True)] == [1] * TRIALS
    # There was a race: neither node won all of them.
    assert 0 < sum(passed[0]) < TRIALS


def test_enter_with_a_limit_of_0_refuses(usage: UsageStore, server: RedisServer) -> None:
    assert not usage.enter(HOLDER, 0, "a")
    assert everything(server) == "[]"


def test_call_counts_once_until_it_leaves(usage: UsageStore, other: UsageStore) -> None:
    assert usage.enter(HOLDER, 2, "a")
    assert usage.enter(HOLDER, 2, "a")
    assert other.enter(HOLDER, 2, "b")
    assert not other.enter(HOLDER, 2, "c")
    assert other.enter("user:acme:u2", 1, "c")
    usage.leave(HOLDER, "a")
    usage.leave(HOLDER, "a")
    assert other.enter(HOLDER, 2, "c")
    assert not usage.enter(HOLDER, 2, "a")


def test_calls_of_a_dead_node_stop_counting(usage: UsageStore, other: UsageStore, clock: Clock) -> None:
    assert usage.enter(HOLDER, 1, "a")
    clock.at += 29
    assert not other.enter(HOLDER, 1, "b")
    clock.at += 2
    assert other.enter(HOLDER, 1, "b")


def test_calls_of_a_live_node_keep_counting(usage: UsageStore, other: UsageStore, clock: Clock) -> None:
    assert usage.enter(HOLDER, 1, "a")
    for _ in range(5):
        clock.at += 10
        usage.leases.renew()
        assert not other.enter(HOLDER, 1, "b")


def test_call_counts_again_after_redis_lost_its_data(usage: UsageStore, other: UsageStore, server: RedisServer) -> None:
    assert usage.enter(HOLDER, 1, "a")
    server.client.flushall()
    usage.leases.renew()
    assert not other.enter(HOLDER, 1, "b")


def test_call_that_ends_during_a_renewal_stops_counting(
    usage: UsageStore, other: UsageStore, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert usage.enter(HOLDER, 1, "a")
    send_all = client.send_all

    def slow(commands: Any, **options: Any) -> Any:
        # The call ends after renew has looked and before Redis is asked.
        usage.leave(HOLDER, "a")
        return send_all(commands, **options)

    monkeypatch.setattr(client, "send_all", slow)
    usage.leases.renew()
    assert other.enter(HOLDER, 1, "b")


def lease_end(server: RedisServer, call_ref: str) -> float:
    """Unix seconds on Redis's clock; 0 if the call has no lease."""
    return float(server.client.zscore(keys.concurrent(HOLDER), call_ref) or 0)


def redis_time(server: RedisServer) -> float:
    seconds, microseconds = server.client.time()
    return float(seconds + microseconds / 1e6)


def wait_until(condition: Callable[[], object]) -> None:
    with gevent.Timeout(30):
        while not condition():
            gevent.sleep(0.02)


def test_heartbeat_renews_until_it_stops(server: RedisServer, client: Any, connect: Callable[[], Any]) -> None:
    usage, other = UsageStore(client, "one", lease=1.0), UsageStore(connect(), "two", lease=1.0)
    usage.start()
    assert usage.enter(HOLDER, 1, "a")
    entered = lease_end(server, "a")
    wait_until(lambda: lease_end(server, "a") > entered)
    usage.stop()
    last = lease_end(server, "a")
    wait_until(lambda: other.enter(HOLDER, 1, "b"))
    assert redis_time(server) > last - 0.001  # stored in milliseconds


@pytest.mark.parametrize("server", ["alone"], indirect=True)
def test_killed_process_loses_its_calls_and_no_others(server: RedisServer, client: Any) -> None:
    program = f"""
import gevent.monkey; gevent.monkey.patch_all()
import gevent
from esl_apps.store.redis_client import connect
from esl_apps.store.errors import Fault, NoAnswer, Unsent
from esl_apps.store.usage import UsageStore
usage = UsageStore(connect({server.url!r}), "doomed", lease=1.0)
usage.start()
print(usage.enter({HOLDER!r}, 2, "theirs"), flush=True)
gevent.sleep(60)
"""
    mine = UsageStore(client, "mine", lease=30)
    assert mine.enter(HOLDER, 2, "mine")
    node = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert node.stdout is not None
    assert node.stdout.readline() == b"True\n"
    entered = lease_end(server, "theirs")
    wait_until(lambda: lease_end(server, "theirs") > entered)
    node.kill()
    node.wait()
    last = lease_end(server, "theirs")
    wait_until(lambda: mine.enter(HOLDER, 2, "next"))
    assert redis_time(server) > last - 0.001  # stored in milliseconds
    assert not mine.enter(HOLDER, 2, "one too many")


def test_leases_go_by_the_clock_of_redis(client: Any, server: RedisServer) -> None:
    before = redis_time(server)
    UsageStore(client, "one", lease=30).enter(HOLDER, 1, "a")
    after = redis_time(server)
    [(_call, ends)] = server.client.zrange(keys.concurrent(HOLDER), 0, -1, withscores=True)
    assert before + 29.999 < ends < after + 30.001  # stored in milliseconds
    left = server.client.pttl(keys.concurrent(HOLDER)) / 1000
    assert after + left - 0.002 < ends < redis_time(server) + left + 0.002


# Calls -----------------------------------------------------------------------------------------------

PLAN = NumberPlan("ZA", r"^\d{3,4}$", high_risk=["+53", "+252"])
HOME, CUBA, LONDON = PLAN.read("0820001234"), PLAN.read("+5371234567"), PLAN.read("+442079460000")


def charge(ref: str, limits: Limits, number: Number = HOME, level: str = KEY) -> Charge:
    return of(ref, Level(level, limits), number=number)


def of(ref: str, *levels: Level, number: Number = HOME, **more: Any) -> Charge:
    return Charge(ref, levels, number, **more)


def attempt_of(charge: Charge) -> Attempt:
    """The attempt that pays this charge."""
    attempt = Attempt(app="disa", call_dir="external", call_ref=charge.call_ref)
    attempt.pay(charge)
    return attempt


def begins(usage: UsageStore, *charges: Charge) -> str | None:
    """None if the call may be dialled, otherwise the limit that is used up."""
    refusal = usage.begin(*charges)
    return None if refusal is None else refusal.what


def talks(usage: UsageStore, one: Charge, clock: Clock, seconds: float) -> None:
    """Let a call talk for some seconds, with the heartbeats in that time."""
    one.talk()
    while seconds > 0:
        step = min(seconds, BEAT)
        clock.at += step
        seconds -= step
        usage.accrue()
    one.end()
    usage.settle()


def taken(server: RedisServer, field: str, key: str = KEY) -> float:
    """The count in Redis; ``field`` begins with n (calls of a day), d (seconds of a day) or m (of a minute)."""
    sums = server.client.hgetall(keys.usage_sums(key))
    return sum(float(value) for name, value in sums.items() if name.startswith(field))


def test_calls_in_any_hour_stay_within_the_limit(usage: UsageStore, other: UsageStore, clock: Clock) -> None:
    two = Limits(calls_per_hour=2)
    assert begins(usage, charge("a", two)) is None
    clock.at += 1800
    assert begins(other, charge("b", two)) is None
    assert begins(usage, charge("c", two)) == CALLS_PER_HOUR
    clock.at += 1799
    assert begins(usage, charge("c", two)) == CALLS_PER_HOUR
    clock.at += 2
    assert begins(usage, charge("c", two)) is None
    assert begins(usage, charge("d", two)) == CALLS_PER_HOUR


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("limits", [Limits(calls_per_hour=1), Limits(calls_per_day=1, minutes_per_day=9)])
def test_call_that_a_stranger_caused_does_not_count(
    usage: UsageStore, other: UsageStore, clock: Clock, server: RedisServer, limits: Limits, *, answered: bool
) -> None:
    for ref in ("a", "b", "c"):
        one = charge(ref, limits)
        one.provisional = True
        assert begins(usage, one) is None
        # While it rings it is one.
        assert begins(other, charge("x", limits)) is not None
        if answered:
            talks(usage, one, clock, 8)
        else:
            one.end()
            usage.settle()
    assert taken(server, "n") == 0
    # Seconds that were talked were paid for all the same, if any are.
    assert taken(server, "d") == (24 if answered and limits.timed else 0)
    used, second = charge("d", limits), of("d", Level(KEY, limits), owner=False)
    used.provisional = True
    assert begins(usage, used) is None
    assert begins(usage, second) is None
    used.provisional = False
    second.end()
    used.end()
    usage.settle()
    assert begins(usage, charge("e", limits)) is not None


@pytest.mark.parametrize("answered", [True, False])
def test_answered_call_of_a_stranger_counts_for_the_installation(
    usage: UsageStore, clock: Clock, server: RedisServer, *, answered: bool
) -> None:
    """It costs money: made-up missed calls to a thousand mailboxes must trip a breaker."""
    two = Limits(calls_per_day=2)
    levels = [Level("system", two, Breaker(two)), Level("account:a", two, Breaker(two)), Level("card:1", two)]
    one = of("a", *levels)
    one.provisional = True
    assert begins(usage, one) is None
    if answered:
        talks(usage, one, clock, 8)
    else:
        one.end()
        usage.settle()
    counted = {key: taken(server, "n", key) for key in ("system", "breaker:system", "account:a", "breaker:account:a")}
    assert counted == dict.fromkeys(("system", "breaker:system", "breaker:account:a"), float(answered)) | {
        "account:a": 0
    }
    assert taken(server, "n", "card:1") == 0


def test_calls_of_a_day_end_at_midnight(usage: UsageStore, other: UsageStore, clock: Clock) -> None:
    one = Limits(calls_per_day=1)
    assert begins(usage, charge("a", one)) is None
    clock.at += 3599
    assert begins(other, charge("b", one)) == CALLS_PER_DAY
    clock.at += 2
    assert begins(other, charge("b", one)) is None
    assert begins(usage, charge("c", one)) == CALLS_PER_DAY


def test_begin_of_the_same_call_counts_once(usage: UsageStore) -> None:
    one = Limits(calls_per_hour=1, calls_per_day=1)
    assert begins(usage, charge("a", one)) is None
    assert begins(usage, charge("a", one)) is None
    assert begins(usage, charge("b", one)) == CALLS_PER_HOUR


def test_two_legs_are_one_call_of_their_account(usage: UsageStore, server: RedisServer) -> None:
    cuba = read_destination("country:CU")
    level = Level("account:acme", Limits(calls_per_day=9, destinations={cuba: Limits(calls_per_day=9)}))
    legs = Charge("a", [level], CUBA, aleg=True), Charge("a", [level], CUBA, owner=False)
    assert begins(usage, *legs) is None
    assert taken(server, "n", "account:acme") == 1
    assert taken(server, "n", "account:acme/country:CU") == 2


def test_call_refused_by_one_limit_counts_against_none(usage: UsageStore, server: RedisServer) -> None:
    levels = Level(KEY, Limits(calls_per_hour=2, minutes_per_day=5)), Level("account:acme", Limits(calls_per_hour=1))
    assert begins(usage, of("a", *levels)) is None
    for i in range(5):
        assert begins(usage, of(f"b{i}", *levels)) == CALLS_PER_HOUR
    # Only "a" was dialled: the card has one call and its minutes left.
    assert taken(server, "d") == AHEAD
    assert begins(usage, of("c", levels[0])) is None
    assert begins(usage, of("d", levels[0])) == CALLS_PER_HOUR


def test_call_without_bounds_asks_no_redis(away: Any) -> None:
    usage = UsageStore(away, "one")
    free = of("a", Level(KEY, Limits()), Level("account:acme", Limits(longest_call=60)))
    assert begins(usage, free) is None
    assert free.longest == 60
    free.talk()
    usage.accrue()
    free.end()
    usage.settle()


def test_begin_takes_one_round_trip_for_all_bounds(usage: UsageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    every = Limits(calls_per_hour=9, calls_per_day=9, minutes_per_hour=9, minutes_per_day=9)
    levels = [Level(name, every) for name in ("system", "account:acme", KEY)]
    assert begins(usage, of("warm", *levels)) is None
    trips = []
    send_all = usage._client.send_all

    def counted(commands: Any, **options: Any) -> Any:
        trips.append(len(commands))
        return send_all(commands, **options)

    monkeypatch.setattr(usage._client, "send_all", counted)
    assert begins(usage, of("a", *levels)) is None
    assert trips == [3]


# Destinations ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["country:CU", "class:international", "prefix:+537", "high_risk"])
def test_limit_of_a_destination_is_its_own(usage: UsageStore, named: str) -> None:
    one = Limits(calls_per_day=2, destinations={read_destination(named): Limits(calls_per_day=1)})
    assert begins(usage, charge("a", one, CUBA)) is None
    assert begins(usage, charge("b", one, CUBA)) == CALLS_PER_DAY
    assert begins(usage, charge("b", one, HOME)) is None
    # The account's own limit counts these calls, too.
    assert begins(usage, charge("c", one, HOME)) == CALLS_PER_DAY


def test_limit_of_a_destination_binds_no_other(usage: UsageStore) -> None:
    none = Limits(destinations={read_destination("country:CU"): Limits(calls_per_day=0)})
    assert begins(usage, charge("a", none, LONDON)) is None
    assert begins(usage, charge("b", none, CUBA)) == CALLS_PER_DAY


# Minutes ---------------------------------------------------------------------------------------------


def test_minutes_of_a_day_are_counted_over_nodes(
    usage: UsageStore, other: UsageStore, clock: Clock, server: RedisServer
) -> None:
    two = Limits(minutes_per_day=2)
    first = charge("a", two)
    assert begins(usage, first) is None
    talks(usage, first, clock, 50.5)
    assert taken(server, "d") == pytest.approx(50.5)
    second = charge("b", two)
    assert begins(other, second) is None
    talks(other, second, clock, 69.5)
    assert taken(server, "d") == pytest.approx(120)
    assert begins(usage, charge("c", two)) == MINUTES_PER_DAY
    clock.at = EVENING + 3599
    assert begins(usage, charge("c", two)) == MINUTES_PER_DAY
    clock.at += 2
    assert begins(usage, charge("c", two)) is None


def test_minutes_of_an_hour_are_free_after_an_hour(usage: UsageStore, clock: Clock) -> None:
    one = Limits(minutes_per_hour=1)
    first = charge("a", one)
    assert begins(usage, first) is None
    talks(usage, first, clock, 60)
    assert begins(usage, charge("b", one)) == MINUTES_PER_HOUR
    clock.at += 3595
    assert begins(usage, charge("b", one)) == MINUTES_PER_HOUR
    clock.at += 125
    assert begins(usage, charge("b", one)) is None


def test_payment_long_before_the_answer_is_renewed(usage: UsageStore, clock: Clock, server: RedisServer) -> None:
    one = charge("a", Limits(minutes_per_hour=2))
    assert begins(usage, one) is None
    clock.at += 400
    one.talk()
    usage._run_out(one)
    assert taken(server, "m") == AHEAD
    minute = int(clock.at // 60)
    assert float(server.client.hget(keys.usage_sums(KEY), f"m{minute}")) == AHEAD
    assert one.cut is None


def test_unanswered_call_returns_its_seconds(usage: UsageStore, server: RedisServer) -> None:
    one = charge("a", Limits(minutes_per_day=5, minutes_per_hour=5))
    assert begins(usage, one) is None
    assert (taken(server, "d"), taken(server, "m")) == (AHEAD, AHEAD)
    attempt_of(one).end("callee_no_answer", 19, "system", time.time())
    usage.settle()
    assert (taken(server, "d"), taken(server, "m")) == (0, 0)
    assert usage._charges == set()


def test_talk_is_counted_as_the_record_has_it(usage: UsageStore, server: RedisServer) -> None:
    one = charge("a", Limits(minutes_per_day=5))
    assert begins(usage, one) is None
    # The answer became known at the end, because the socket was lost.
    attempt = attempt_of(one)
    attempt.dialled(1000.0)
    attempt.enter("bridged", 1010.0)
    attempt.end("answered", 16, "callee", 1052.5)
    usage.settle()
    assert taken(server, "d") == pytest.approx(42.5)


def test_fifty_calls_share_the_last_minute(usage: UsageStore, other: UsageStore, clock: Clock) -> None:
    one = Limits(minutes_per_day=1)
    calls = [charge(f"c{i}", one) for i in range(50)]
    up = [call for i, call in enumerate(calls) if (usage, other)[i % 2].begin(call) is None]
    # A minute is six payments of a call.
    assert len(up) == 60 / AHEAD
    for call in up:
        call.talk()
    clock.at += AHEAD - 0.01
    usage.accrue()
    other.accrue()
    clock.at += 0.01
    for node in (usage, other):
        for call in list(node._charges):
            node._run_out(call)
    assert all(call.cut is not None and call.cut.what == MINUTES_PER_DAY for call in up)
    assert sum(call.spent(clock.at) for call in up) == pytest.approx(60)


def test_call_that_is_paid_for_is_not_cut(usage: UsageStore, clock: Clock) -> None:
    one = charge("a", Limits(minutes_per_day=5, minutes_per_hour=3))
    assert begins(usage, one) is None
    one.talk()
    for _ in range(30):
        clock.at += BEAT
        assert one.short(clock.at) is None
        usage.accrue()
    assert usage._timers == {}
    clock.at += 25
    usage.accrue()
    assert list(usage._timers) == [one]
    clock.at += 5
    usage._run_out(one)
    assert one.cut is not None
    assert one.cut.what == MINUTES_PER_HOUR


def test_call_to_an_emergency_number_is_cut_after_it(usage: UsageStore, clock: Clock) -> None:
    """What it talks meanwhile counts."""
    one = charge("a", Limits(minutes_per_day=1))
    cuts: list[Charge] = []
    usage._on_cut = cuts.append
    assert begins(usage, one) is None
    one.talk()
    one.spared = True
    usage.end_calls(KEY)
    for _ in range(20):
        clock.at += BEAT
        usage.accrue()
        usage._run_out(one)
    assert one.cut is None
    assert one.tickets[0].taken == pytest.approx(100)
    one.spared = False
    usage.accrue()
    assert list(usage._timers) == [one]
    usage._run_out(one)
    assert one.cut is not None
    # Its leg may still be up, and be joined with an emergency number.
    one.spared = True
    usage.accrue()
    one.spared = False
    usage.accrue()
    assert cuts == [one, one]


def test_call_is_cut_the_moment_its_limit_ends(client: Any) -> None:
    cut: list[Charge] = []
    usage = UsageStore(client, "one", on_cut=cut.append)
    long = charge("b", Limits(minutes_per_day=1))
    for i in range(5):
        assert begins(usage, charge(f"a{i}", Limits(minutes_per_day=1))) is None
    # Nine of the last ten seconds are talked as well; one second is left.
    script.run_all(usage._client, [usage._taking([(long.tickets[0], 8.5, 0.0)])])
    assert begins(usage, long) is None
    began = time.monotonic()
    long.talk()
    end = time.monotonic() + 10
    while not cut:
        assert time.monotonic() < end
        gevent.sleep(0.02)
    assert 1.3 < time.monotonic() - began < 10
    assert cut == [long]
    assert "minutes_per_day" in str(long.cut)


def test_longest_call_is_the_least_of_all_limits() -> None:
    cuba = {read_destination("country:CU"): Limits(longest_call=30)}
    levels = Level(KEY, Limits(longest_call=90)), Level("account:acme", Limits(longest_call=300, destinations=cuba))
    assert of("a", *levels).longest == 90
    assert of("a", *levels, number=CUBA).longest == 30


def test_talk_of_a_killed_node_is_counted(usage: UsageStore, other: UsageStore, clock: Clock) -> None:
    """The dead node's last payment was for more than was talked by then."""
    two = Limits(minutes_per_day=2)
    lost = charge("a", two)
    assert begins(usage, lost) is None
    lost.talk()
    for _ in range(20):
        clock.at += BEAT
        usage.accrue()
    # 100 s and the payment ahead: less than another payment is left.
    rest = charge("b", two)
    assert begins(other, rest) is None
    assert rest.paid() == pytest.approx(120 - 100 - AHEAD)


def heir_of(lost: Charge, limits: Limits, other: UsageStore, clock: Clock, ago: float, *boots: str) -> Charge:
    """The charge of a call that another node adopts, ``ago`` seconds after its leg has answered."""
    heir = Charge(lost.call_ref, [Level(KEY, limits)], HOME, payments_id=lost.payments_id)
    heir.stored = msgspec.json.decode(msgspec.json.encode(lost.essence))
    prepaid = msgspec.convert(heir.stored.get("paid"), Payments | None)
    other.adopt(heir)
    heir.inherit(other.payments([lost.payments_id], boots or ("one",)).get(lost.payments_id, prepaid), ago)
    if ago:
        heir.talk(min(ago, heir.covered))
    return heir


def ends(heir: Charge, began: float, clock: Clock, reason: str) -> None:
    """End the call of a charge, which was connected at ``began``."""
    attempt = attempt_of(heir)
    attempt.dialed_at = attempt.bridged_at = began
    attempt.end(reason, 16, "callee", clock.at)


@pytest.mark.parametrize("silent", [1.0, 10.0, 100.0])
def test_adopted_call_is_paid_for_and_counted_once(
    usage: UsageStore, other: UsageStore, clock: Clock, server: RedisServer, silent: float
) -> None:
    """What it talked is counted, however long no node had it."""
    limits = Limits(minutes_per_day=9, minutes_per_hour=9, calls_per_day=1)
    lost = charge("a", limits)
    assert begins(usage, lost) is None
    began = clock.at
    lost.talk()
    clock.at += BEAT
    usage.accrue()
    # The node dies with 15 s paid.
    clock.at += silent
    heir = heir_of(lost, limits, other, clock, clock.at - began)
    other.accrue()
    assert heir.cut is None
    for _ in range(4):
        clock.at += BEAT
        assert heir.short(clock.at) is None
        other.accrue()
    ends(heir, began, clock, "answered")
    other.settle()
    assert taken(server, "n") == 1
    assert taken(server, "d") == pytest.approx(clock.at - began)
    assert taken(server, "m") == pytest.approx(clock.at - began)


def test_call_of_a_killed_node_never_answered_costs_nothing(
    usage: UsageStore, other: UsageStore, clock: Clock, server: RedisServer
) -> None:
    limits = Limits(minutes_per_day=2)
    lost = charge("a", limits)
    assert begins(usage, lost) is None
    clock.at += BEAT
    usage.accrue()
    heir = heir_of(lost, limits, other, clock, 0.0)
    attempt_of(heir).end("callee_no_answer", 19, "system", clock.at)
    other.settle()
    assert taken(server, "d") == 0


def test_call_that_several_nodes_die_with_is_counted_once(
    usage: UsageStore, other: UsageStore, connect: Callable[[], Any], clock: Clock, server: RedisServer
) -> None:
    """22 s of talk, and three nodes that have paid ahead for it."""
    limits = Limits(minutes_per_day=9)
    first = charge("a", limits)
    assert begins(usage, first) is None
    began = clock.at
    first.talk()
    clock.at += BEAT + 1
    usage.accrue()
    clock.at += 1
    second = heir_of(first, limits, other, clock, clock.at - began)
    clock.at += BEAT
    other.accrue()
    clock.at += 1
    last = UsageStore(connect(), "three", clock=clock)
    third = heir_of(second, limits, last, clock, clock.at - began, "one", "two")
    clock.at += BEAT
    last.accrue()
    clock.at = began + 22
    ends(third, began, clock, "answered")
    last.settle()
    assert taken(server, "d") == pytest.approx(22)


def test_lost_call_is_counted_up_to_its_last_sign_of_life(
    usage: UsageStore, other: UsageStore, clock: Clock, server: RedisServer
) -> None:
    """All nodes and the switch were down for an hour: its record ends when that was noticed."""
    limits = Limits(minutes_per_day=120)
    lost = charge("a", limits)
    assert begins(usage, lost) is None
    began = clock.at
    lost.talk()
    clock.at += BEAT
    usage.accrue()
    clock.at += 3600
    heir = heir_of(lost, limits, other, clock, clock.at - began)
    clock.at += BEAT
    other.accrue()
    ends(heir, began, clock, "lost")
    other.settle()
    assert taken(server, "d") == pytest.approx(BEAT)


def test_lost_call_seen_after_its_adoption_is_counted_until_then(
    usage: UsageStore, other: UsageStore, clock: Clock, server: RedisServer
) -> None:
    limits = Limits(minutes_per_day=120)
    lost = charge("a", limits)
    assert begins(usage, lost) is None
    began = clock.at
    lost.talk()
    clock.at += BEAT
    usage.accrue()
    heir = heir_of(lost, limits, other, clock, clock.at - began)
    clock.at += 20
    heir.prove()
    clock.at += 20
    ends(heir, began, clock, "lost")
    other.settle()
    assert taken(server, "d") == pytest.approx(BEAT + 20)


def test_payments_of_ended_calls_are_forgotten(usage: UsageStore, clock: Clock, server: RedisServer) -> None:
    first, second = (charge(ref, Limits(minutes_per_day=9)) for ref in "ab")
    assert begins(usage, first, second) is None
    for one in (first, second):
        one.talk()
    usage.accrue()
    noted = server.client.hgetall(keys.payments("one"))
    assert sorted(noted) == sorted(one.payments_id for one in (first, second))
    first.end()
    clock.at += BEAT
    usage.accrue()
    assert list(server.client.hgetall(keys.payments("one"))) == [second.payments_id]
    second.end()
    usage.accrue()
    assert not server.client.exists(keys.payments("one"))


def test_payments_that_cannot_be_read_count_as_unknown(usage: UsageStore, server: RedisServer) -> None:
    server.client.hset(keys.payments("one"), "x", "[1")
    assert usage.payments(["x", "y"], ["one", "two"]) == {}


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("minutes", [0.1, 1, 30])
def test_adopted_call_that_goes_back_cost_nothing_here(
    usage: UsageStore, other: UsageStore, clock: Clock, server: RedisServer, minutes: float, ended: bool
) -> None:
    """Its own process was only slow, and pays for all of it. It may have ended at both meanwhile."""
    limits = Limits(minutes_per_day=60, minutes_per_hour=60)
    slow = charge("a", limits)
    assert begins(usage, slow) is None
    slow.talk()
    clock.at += BEAT
    usage.accrue()
    heir = heir_of(slow, limits, other, clock, BEAT)
    for _ in range(int(minutes * 60 / BEAT)):
        other.accrue()
        clock.at += BEAT
    talked = BEAT + int(minutes * 60 / BEAT) * BEAT
    if ended:
        slow.end()
        heir.end()
        other.settle()
    heir.waive()
    other.settle()
    usage.accrue()
    clock.at += BEAT
    slow.end()
    usage.settle()
    talked += 0 if ended else BEAT
    assert taken(server, "d") == pytest.approx(talked)
    assert taken(server, "m") == pytest.approx(talked)


def test_call_adopted_while_redis_is_down_talks_on(away: Any, clock: Clock) -> None:
    usage = UsageStore(away, "one", clock=clock)
    heir = charge("a", Limits(minutes_per_day=1))
    usage.adopt(heir)
    heir.talk()
    clock.at += 600
    usage._run_out(heir)
    assert heir.cut is None


def test_stored_charge_makes_the_same_charge() -> None:
    cuba = {read_destination("country:CU"): Limits(calls_per_day=1)}
    levels = [Level("system"), Level("account:acme", Limits(minutes_per_day=1, destinations=cuba))]
    usage = UsageStore(None, "one")
    first = of("a", *levels, number=CUBA, aleg=True, owner=False, whole=False)
    usage.adopt(first)
    kept = msgspec.json.decode(msgspec.json.encode(first.essence))
    again = Charge("a", levels, PLAN.read(kept["number"]), aleg=kept["aleg"], owner=kept["owner"], whole=kept["whole"])
    assert kept["levels"] == ["system", "account:acme"]
    assert [ticket.bound for ticket in again.tickets] == [ticket.bound for ticket in first.tickets]
    assert (again.began_as_aleg, again.whole) == (first.began_as_aleg, first.whole)


# Any sequence on two nodes ---------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ring"), st.integers(0, 1)),
        st.tuples(st.just("call"), st.integers(0, 1)),
        st.tuples(st.just("answer"), st.integers(0, 20)),
        st.tuples(st.just("end"), st.integers(0, 20)),
        st.tuples(st.just("pass"), st.sampled_from([0.4, 3.0, 17.0, 60.0, 400.0, 3420.0, 3590.0])),
    ),
    min_size=8,
    max_size=40,
)


@pytest.mark.parametrize("server", ["alone"], indirect=True)
@given(steps=STEPS)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sequence_of_calls_stays_within_its_limit(
    server: RedisServer, client: Any, steps: list[tuple[str, Any]]
) -> None:
    server.client.flushall()
    clock = Clock(EVENING - 20 * 3600)
    nodes = [UsageStore(client, name, clock=clock) for name in ("one", "two")]
    limits = Limits(minutes_per_day=10, minutes_per_hour=2)
    calls: list[tuple[int, Charge]] = []
    talked: list[tuple[float, float]] = []

    def advance(seconds: float) -> None:
        """Let time pass, with heartbeats and with cuts of calls whose limits end."""
        until = clock.at + seconds
        while clock.at < until:
            up = [(node, one) for node, one in calls if one.since is not None and not one.ended]
            if not up:
                clock.at = until
                break
            ends = [one.since + (one.paid() or 0.0) for _node, one in up if one.since is not None]
            at = min([until, clock.at + BEAT, *(end for end in ends if end > clock.at)])
            for _node, _one in up:
                talked.append((clock.at, at))
            clock.at = at
            for node, one in up:
                if one.short(clock.at) is not None:
                    nodes[node]._run_out(one)
                if one.cut is not None:
                    one.end()
            for store in nodes:
                store.accrue()
                store.settle()

    def answer(node: UsageStore, one: Charge) -> None:
        one.talk()
        if one in node._timers:
            node._run_out(one)

    for what, value in steps:
        open_calls = [(node, one) for node, one in calls if not one.ended]
        if what in ("ring", "call"):
            one = charge(f"c{len(calls)}", limits)
            if nodes[value].begin(one) is None:
                calls.append((value, one))
                if what == "call":
                    answer(nodes[value], one)
        elif what == "pass":
            advance(value)
        elif open_calls:
            node, one = open_calls[value % len(open_calls)]
            if what == "answer":
                answer(nodes[node], one)
            else:
                one.end()
                nodes[node].settle()

    def within(start: float, end: float) -> float:
        return sum(max(0.0, min(b, end) - max(a, start)) for a, b in talked)

    days = {int(a // 86400) for a, _b in talked}
    # Seconds paid ahead over midnight count for the day before.
    assert all(within(day * 86400 + 60, (day + 1) * 86400) <= 600 + 0.1 for day in days)
    assert all(within(b - 3600, b) <= 120 + 0.1 for _a, b in talked)


# Breakers --------------------------------------------------------------------------------------------


class Told:
    """Two nodes with breakers on one Redis, and the alerts that were sent."""

    def __init__(self, connect: Callable[[], Any], clock: Clock) -> None:
        self.alerts: list[dict[str, Any]] = []
        self.cut: list[Charge] = []
        self.nodes: list[UsageStore] = []
        self.breakers: list[Breakers] = []
        for i, name in enumerate(("one", "two")):
            client = connect()
            breakers = Breakers(client, name, tell=self.tell, on_trip=partial(self.tripped, i))
            self.breakers.append(breakers)
            self.nodes.append(UsageStore(client, name, breakers=breakers, on_cut=self.cut.append, clock=clock))

    def tripped(self, node: int, scope: str, trip: Trip) -> None:
        if trip.end_calls:
            self.nodes[node].end_calls(scope)

    def tell(self, kind: str, **details: Any) -> None:
        self.alerts.append({"kind": kind, **details})


@pytest.fixture
def told(connect: Callable[[], Any], clock: Clock) -> Told:
    return Told(connect, clock)


def level(name: str = "account:acme", **thresholds: Any) -> Level:
    end_calls, high_risk = thresholds.pop("end_calls", False), thresholds.pop("high_risk", None)
    return Level(name, None, Breaker(Limits(**thresholds), high_risk, end_calls))


def test_breaker_trips_once_over_all_nodes_and_stays_so(told: Told, clock: Clock) -> None:
    one, two = told.nodes
    acme = level(calls_per_hour=2)
    assert begins(one, of("a", acme)) is None
    assert begins(two, of("b", acme)) is None
    assert begins(one, of("c", acme)) == "breaker"
    # The other node sees the count at once, and the trip within a second.
    assert begins(two, of("c", acme)) == "breaker"
    assert [alert["scope"] for alert in told.alerts] == ["account:acme"]
    assert told.alerts[0]["kind"] == "breaker"
    for breakers in told.breakers:
        breakers.refresh()
    clock.at += 7200
    assert begins(one, of("d", acme)) == "breaker"
    assert begins(two, of("d", acme)) == "breaker"
    # Another account, and one without a threshold of its own, may still dial.
    assert begins(two, of("e", Level("account:other"))) is None
    assert begins(two, of("f", Level("account:acme"))) == "breaker"
    assert len(told.alerts) == 1


def test_reset_counts_from_zero_and_logs_who(told: Told, client: Any) -> None:
    one, two = told.nodes
    acme = level(calls_per_hour=1, high_risk=1)
    assert begins(one, of("a", acme)) is None
    assert begins(one, of("b", acme)) == "breaker"
    clear_counters(client, "account:acme")
    assert told.breakers[1].reset("account:acme", by="jo@desk")
    assert not told.breakers[1].reset("account:acme", by="jo@desk")
    for breakers in told.breakers:
        breakers.refresh()
    assert begins(two, of("c", acme)) is None
    assert begins(one, of("d", acme)) == "breaker"
    assert len(told.alerts) == 2
    log = told.breakers[0].log()
    assert [(line.what, line.by) for line in log] == [
        ("tripped", "node one"),
        ("reset", "jo@desk"),
        ("tripped", "node one"),
    ]


def test_high_risk_calls_alone_trip_their_breaker(told: Told) -> None:
    acme = level(high_risk=1)
    one = told.nodes[0]
    for i in range(3):
        assert begins(one, of(f"a{i}", acme, number=LONDON)) is None
    assert begins(one, of("b", acme, number=CUBA)) is None
    assert begins(one, of("c", acme, number=CUBA)) == "breaker"
    assert begins(one, of("d", acme, number=HOME)) == "breaker"


@pytest.mark.parametrize(
    ("of_level", "of_destination", "trips"),
    [
        (4, Limits(calls_per_hour=2), "account:acme/high_risk"),
        (4, Limits(calls_per_day=2), "account:acme/high_risk"),
        (2, Limits(calls_per_hour=4), "account:acme"),
    ],
)
def test_both_breakers_of_high_risk_calls_count(
    told: Told, client: Any, of_level: int, of_destination: Limits, trips: str
) -> None:
    acme = level(high_risk=of_level, destinations={read_destination("high_risk"): of_destination})
    one = told.nodes[0]
    assert [begins(one, of(f"{n}", acme, number=CUBA)) for n in range(3)] == [None, None, "breaker"]
    assert [alert["scope"] for alert in told.alerts] == [trips]
    # A reset lets this one count from zero, and the other go on.
    clear_counters(client, trips)
    told.breakers[1].reset(trips, by="jo@desk")
    told.breakers[0].refresh()
    assert [begins(one, of(f"{n}", acme, number=CUBA)) for n in range(3, 6)] == [None, None, "breaker"]
    assert sorted(alert["scope"] for alert in told.alerts[1:]) == ["account:acme", "account:acme/high_risk"]


def test_breaker_of_a_destination_refuses_no_other(told: Told) -> None:
    system = level("system", destinations={read_destination("country:CU"): Limits(calls_per_hour=0)})
    one = told.nodes[0]
    assert begins(one, of("a", system, number=CUBA)) == "breaker"
    assert told.alerts[0]["scope"] == "system/country:CU"
    assert begins(one, of("b", system, number=HOME)) is None
    told.breakers[1].refresh()
    assert begins(told.nodes[1], of("c", Level("system"), number=CUBA)) == "breaker"


@pytest.mark.parametrize("end_calls", [False, True])
def test_breaker_trips_by_minutes_while_calls_are_up(told: Told, clock: Clock, end_calls: bool) -> None:
    acme = level(minutes_per_hour=1, end_calls=end_calls)
    one, two = told.nodes
    calls = [of("a", acme), of("b", acme)]
    assert begins(one, calls[0]) is None
    assert begins(two, calls[1]) is None
    for call in calls:
        call.talk()
    for _ in range(5):
        clock.at += BEAT
        one.accrue()
        two.accrue()
    assert told.alerts == []
    clock.at += BEAT
    one.accrue()
    two.accrue()
    assert len(told.alerts) == 1
    for breakers in told.breakers:
        breakers.refresh()
    assert set(told.cut) == (set(calls) if end_calls else set())
    assert begins(one, of("c", acme)) == "breaker"


def test_breaker_that_tripped_before_ends_calls_by_hand(told: Told) -> None:
    calls = [of("a", level()), of("b", level())]
    for node, call in zip(told.nodes, calls, strict=True):
        assert begins(node, call) is None
    assert told.breakers[0].trip("account:acme", "calls_per_hour")
    for breakers in told.breakers:
        breakers.refresh()
    assert told.cut == []
    # A command has a store of its own.
    by_hand = Breakers(told.breakers[0]._client, "cli")
    assert by_hand.trip("account:acme", "by hand", by="jo@desk", end_calls=True)
    for breakers in told.breakers:
        breakers.refresh()
    assert told.cut == calls
    assert len(told.alerts) == 1


@pytest.mark.parametrize("end_calls", [False, True])
def test_adopted_call_is_cut_by_a_breaker_that_ends_calls(told: Told, end_calls: bool) -> None:
    """It tripped while no node had the call."""
    told.breakers[0].trip("account:acme", "by hand", end_calls=end_calls)
    told.breakers[1].refresh()
    call, others = of("a", level()), of("c", Level("account:other"))
    told.nodes[1].adopt(call, others)
    told.nodes[1].accrue()
    assert told.cut == ([call] if end_calls else [])
    told.nodes[1].accrue()
    assert told.cut == ([call, call] if end_calls else [])


def test_breaker_that_tripped_in_an_emergency_call_cuts_after_it(told: Told) -> None:
    call = of("a", level())
    assert begins(told.nodes[0], call) is None
    call.spared = True
    told.breakers[0].refresh()
    told.breakers[0].trip("account:acme", "by hand", end_calls=True)
    told.nodes[0].accrue()
    assert told.cut == []
    call.spared = False
    told.nodes[0].accrue()
    assert told.cut == [call]


def test_call_adopted_before_breakers_are_read_is_cut_then(told: Told) -> None:
    told.breakers[0].trip("account:acme", "by hand", end_calls=True)
    call = of("a", level())
    told.nodes[1].adopt(call)
    assert told.cut == []
    told.breakers[1].refresh()
    assert told.cut == [call]


@pytest.mark.parametrize("end_calls", [False, True])
def test_begin_that_waits_while_a_breaker_trips_is_refused(
    told: Told, server: RedisServer, monkeypatch: pytest.MonkeyPatch, end_calls: bool
) -> None:
    """Unless the breaker lets calls end by themselves. The leg before is counted, and stays so."""
    limits = Limits(calls_per_day=9, minutes_per_day=9)
    node, levels = told.nodes[0], (Level("system", limits), Level("account:acme", limits))
    assert begins(node, of("a", levels[0])) is None

    def slow(*arguments: Any, **options: Any) -> Any:
        answers = script.run_all(*arguments, **options)
        if not told.breakers[0].count:
            told.breakers[0].trip("account:acme", "by hand", end_calls=end_calls)
        return answers

    told.breakers[0].refresh()
    monkeypatch.setattr("esl_apps.store.usage.run_all", slow)
    assert begins(node, of("a", *levels)) == ("breaker" if end_calls else None)
    assert (taken(server, "n", "system"), taken(server, "n", "account:acme")) == (1, 0 if end_calls else 1)
    assert (taken(server, "d", "system"), taken(server, "d", "account:acme")) == ((10, 0) if end_calls else (20, 10))
    assert told.cut == []


def test_trip_that_redis_lost_is_written_again(told: Told, server: RedisServer) -> None:
    one, two = told.breakers
    assert one.trip("system", "by hand", by="jo@desk")
    two.refresh()
    server.client.flushall()
    two.refresh()
    one.refresh()
    assert begins(told.nodes[0], of("a", Level("system"))) == "breaker"
    assert one.tripped["system"].by == "jo@desk"
    assert len(told.alerts) == 1


@pytest.mark.parametrize("server", ["alone"], indirect=True)
def test_trip_survives_a_restart_of_redis_and_all_nodes(server: RedisServer) -> None:
    persistent = RedisServer(persistent=True)
    Breakers(redis_client.connect(persistent.url), "one").trip("account:acme", "by hand")
    persistent.kill()
    persistent.start()
    again = Breakers(redis_client.connect(persistent.url), "two")
    usage = UsageStore(redis_client.connect(persistent.url), "two", breakers=again)
    assert begins(usage, of("a", Level("account:acme"))) == "breaker"
    persistent.close()


def test_check_counts_nothing_and_trips_nothing(told: Told, server: RedisServer) -> None:
    one = told.nodes[0]
    acme = level(calls_per_hour=0)
    assert one.check(of("a", acme)) is not None
    assert one.check(charge("a", Limits(calls_per_day=1, minutes_per_day=1))) is None
    assert (told.alerts, everything(server)) == ([], "[]")


def test_breakers_never_read_refuse_all_calls(away: Any) -> None:
    usage = UsageStore(away, "one", breakers=Breakers(away, "one"))
    with pytest.raises(StoreUnavailable):
        usage.begin(of("a", Level("account:acme")))


def test_breakers_once_read_hold_while_redis_is_down() -> None:
    server = RedisServer()
    client = redis_client.connect(server.url)
    usage = UsageStore(client, "one", breakers=(breakers := Breakers(client, "one")))
    breakers.trip("account:other", "by hand")
    breakers.refresh()
    server.kill()
    assert begins(usage, of("a", Level("account:acme"))) is None
    assert begins(usage, of("b", Level("account:other"))) == "breaker"
    server.close()


@pytest.mark.parametrize("raw", [b"", b"{}", b"[1]", b"nonsense"])
def test_unreadable_trip_counts_as_tripped(told: Told, server: RedisServer, raw: bytes) -> None:
    server.client.hset(keys.TRIPPED, "account:acme", raw)
    assert begins(told.nodes[0], of("a", Level("account:acme"))) == "breaker"


# Redis down ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "limits",
    [Limits(calls_per_hour=5), Limits(calls_per_day=5), Limits(minutes_per_hour=5), Limits(minutes_per_day=5)],
)
def test_limits_fail_closed(away: Any, limits: Limits) -> None:
    usage = UsageStore(away, "one")
    for ask in (
        lambda: usage.enter(HOLDER, 5, "a"),
        lambda: usage.begin(charge("a", limits)),
        lambda: usage.check(charge("a", limits)),
        lambda: usage.begin(of("a", Level(KEY, None, Breaker(limits)))),
    ):
        with pytest.raises(StoreUnavailable):
            ask()


def test_call_talks_on_for_what_was_left_without_redis(clock: Clock) -> None:
    server = RedisServer(persistent=True)
    usage = UsageStore(redis_client.connect(server.url), "one", clock=clock)
    assert usage.enter(HOLDER, 1, "a")
    calls = [charge("a", Limits(minutes_per_day=2)), charge("b", Limits(minutes_per_day=10), level="card:2")]
    for call in calls:
        assert begins(usage, call) is None
        call.talk()
    server.kill()
    usage.leave(HOLDER, "a")
    clock.at += 119
    with pytest.raises(StoreUnavailable):
        usage.accrue()
    clock.at += 1
    for call in calls:
        usage._run_out(call)
    assert [call.cut is not None for call in calls] == [True, False]
    for call in calls:
        call.end()
    with pytest.raises(StoreUnavailable):
        usage.settle()
    server.start()
    usage.settle()
    assert (taken(server, "d"), taken(server, "d", "card:2")) == (120, 120)
    usage.settle()
    assert taken(server, "d") == 120
    assert usage.enter(HOLDER, 1, "b")
    server.close()


def test_settlement_missed_while_redis_was_down_is_made_up() -> None:
    server = RedisServer(persistent=True)
    usage = UsageStore(redis_client.connect(server.url), "one")
    one = charge("a", Limits(minutes_per_day=10))
    assert begins(usage, one) is None
    usage.start()
    server.kill()
    one.end(90.0)
    gevent.sleep(0.1)
    server.start()
    end = time.monotonic() + 10
    while taken(server, "d") != 90:
        assert time.monotonic() < end
        gevent.sleep(0.05)
    usage.stop()
    server.close()


@pytest.mark.parametrize("how", ["down", "full", "silent", "part silent"])
def test_return_missed_while_redis_took_nothing_is_made_up(
    usage: UsageStore, clock: Clock, server: RedisServer, client: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Unused seconds, and a call that a stranger caused. What got no answer may have been taken: only the call, which
    Redis takes once, is sent again."""
    limits = Limits(calls_per_day=9, minutes_per_day=9)
    first, second = charge("a", limits), charge("b", limits)
    # Some servers run a script to its end though they are full, if its first command frees memory.
    first.provisional = second.provisional = how != "full"
    assert begins(usage, first, second) is None
    assert (taken(server, "d"), taken(server, "n")) == (20, 2)

    def settle_in_vain() -> None:
        with pytest.raises(StoreUnavailable):
            usage.settle()

    if how == "full":
        server.client.config_set("maxmemory", 1)
    else:
        failure = Unsent("redis: down") if how == "down" else NoAnswer("redis: no answer in time")
        monkeypatch.setattr(client, "send_all", partial(raises, failure))
        if how == "part silent":
            # A part of a cluster answers nothing.
            monkeypatch.setattr(client, "send_all", lambda commands, **_: [failure for _ in commands])
        monkeypatch.setattr(client, "set", partial(raises, failure))
    first.end()
    settle_in_vain()
    second.end()
    settle_in_vain()
    assert (taken(server, "d"), taken(server, "n")) == (20, 2)
    server.client.config_set("maxmemory", 0)
    monkeypatch.undo()
    usage.settle()
    usage.settle()
    assert (taken(server, "d"), taken(server, "n")) == (10 if "silent" in how else 0, 2 if how == "full" else 0)


def test_settlement_that_one_master_left_open_asks_first(
    usage: UsageStore, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another master couldn't be reached, before it."""
    ended = [charge(level, Limits(minutes_per_day=9), level=level) for level in (KEY, "card:2")]
    assert begins(usage, *ended) is None

    def answer(commands: list[Any], **_: object) -> list[Exception]:
        lost = keys.usage_calls(KEY)
        return [Unsent("redis: down") if lost in command else NoAnswer("redis: no answer") for command in commands]

    asked: list[str] = []
    monkeypatch.setattr(client, "send_all", answer)
    monkeypatch.setattr(client, "set", lambda key, *_, **__: asked.append(key))
    for one in ended:
        one.end()
    with pytest.raises(NoAnswer) as raised:
        usage.settle()
    assert type(raised.value) is NoAnswer
    assert asked == []
    with pytest.raises(Unsent):
        usage.settle()
    assert asked == [keys.PING]


def test_return_of_a_call_that_rang_for_long_is_made_up(usage: UsageStore, clock: Clock, server: RedisServer) -> None:
    one = charge("a", Limits(minutes_per_day=9))
    assert begins(usage, one) is None
    clock.at += 60
    server.client.config_set("maxmemory", 1)
    one.talk()
    with pytest.raises(StoreUnavailable):
        usage.accrue()
    server.client.config_set("maxmemory", 0)
    assert one.stale
    usage.accrue()
    assert (taken(server, "d"), one.paid()) == (10, 10)
    one.end(3.0)
    usage.settle()
    assert taken(server, "d") == 3


def raises(error: Exception, *_arguments: Any, **_options: Any) -> None:
    raise error


def test_greenlets_go_on_whatever_is_raised(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a node's heartbeat ended, its calls would no longer be counted."""
    monkeypatch.setattr("esl_apps.store.usage.BEAT", 0.01)
    usage = UsageStore(client, "one", lease=0.03)
    runs: dict[str, int] = {}

    def faulty(name: str) -> Callable[[], None]:
        def run() -> None:
            runs[name] = runs.get(name, 0) + 1
            if runs[name] < 4:
                raise RuntimeError("unforeseen") if runs[name] == 1 else StoreUnavailable("redis: down")

        return run

    for owner, name in ((usage.leases, "renew"), (usage, "accrue"), (usage, "settle")):
        monkeypatch.setattr(owner, name, faulty(name))
    usage.start()
    with gevent.Timeout(10):
        while not all(runs.get(name, 0) > 4 for name in ("renew", "accrue", "settle")):
            usage._wake.set()
            gevent.sleep(0.01)
    assert not any(greenlet.dead for greenlet in usage._greenlets)
    usage.stop()


def test_breaker_trips_here_even_if_redis_cannot_be_told(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_arguments: object, **_named: object) -> None:
        raise StoreUnavailable("redis: down")

    node, breakers = told.nodes[0], told.breakers[0]
    breakers.refresh()
    monkeypatch.setattr(breakers, "_write", away)
    assert begins(node, of("a", level(calls_per_hour=0))) == "breaker"
    assert "account:acme" in breakers.tripped


def test_begin_that_one_key_fails_counts_nowhere(usage: UsageStore, server: RedisServer) -> None:
    server.client.set(keys.usage_sums("account:acme"), "not a hash")
    every = Limits(calls_per_hour=9, calls_per_day=9, minutes_per_day=9)
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        usage.begin(of("a", Level("system", every), Level("account:acme", every)))
    assert taken(server, "n", "system") == 0
    assert taken(server, "d", "system") == 0


# Keys of another type --------------------------------------------------------------------------------------


def test_key_of_another_type_keeps_no_other_from_paying(
    usage: UsageStore, clock: Clock, client: Any, server: RedisServer
) -> None:
    good, bad = charge("a", Limits(minutes_per_day=10)), charge("b", Limits(minutes_per_day=10), level="card:2")
    for one in (good, bad):
        assert begins(usage, one) is None
        one.talk()
    client.delete(keys.usage_sums("card:2"))
    client.set(keys.usage_sums("card:2"), "text")
    for _ in range(6):
        clock.at += 5
        with pytest.raises(Fault):
            usage.accrue()
    # 30 seconds, and 10 ahead: paid once, although the other one failed each time.
    assert taken(server, "d") == 40
    # A call that can't be counted ends when the time that it has paid for is over.
    usage._run_out(bad)
    assert bad.cut is not None
    assert good.cut is None
    for one in (good, bad):
        one.end()
    with pytest.raises(Fault):
        usage.settle()
    assert taken(server, "d") == 30
    # It isn't asked again for ever.
    usage.settle()


def test_lease_of_another_type_keeps_no_other_from_renewal(
    usage: UsageStore, clock: Clock, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esl_apps.store.leases._BATCH", 1)
    holders = [f"card:{number}" for number in range(6)]
    for holder in holders:
        assert usage.enter(holder, 1, "a")
    client.delete(keys.concurrent(holders[0]))
    client.set(keys.concurrent(holders[0]), "text")
    clock.at += 20
    with pytest.raises(Fault):
        usage.leases.renew()
    clock.at += 20
    assert [usage.enter(holder, 1, "b") for holder in holders[1:]] == [False] * 5
    with pytest.raises(Fault):
        usage.enter(holders[0], 1, "b")


# Unreadable values ---------------------------------------------------------------------------------------

UNREADABLE = ("garbage", "nan", "inf", "-600", "")


@pytest.mark.parametrize("value", UNREADABLE)
@pytest.mark.parametrize(
    ("field", "limits"),
    [("d", Limits(minutes_per_day=9)), ("m", Limits(minutes_per_hour=9)), ("n", Limits(calls_per_day=9))],
)
def test_counter_that_is_unreadable_allows_nothing(
    usage: UsageStore, server: RedisServer, field: str, limits: Limits, value: str
) -> None:
    assert begins(usage, charge("a", limits)) is None
    sums = keys.usage_sums(KEY)
    (name,) = [name for name in server.client.hkeys(sums) if name[0] == field]
    server.client.hset(sums, name, value)
    with pytest.raises(StoreUnavailable):
        begins(usage, charge("b", limits))


def test_counter_that_becomes_unreadable_ends_its_calls_alone(
    usage: UsageStore, clock: Clock, server: RedisServer
) -> None:
    """Calls of other accounts are paid for as before."""
    limits = Limits(minutes_per_day=60)
    bad = charge("a", limits)
    good = of("b", Level("account:other", limits))
    for each in (bad, good):
        assert begins(usage, each) is None
        each.talk()
    sums = keys.usage_sums(KEY)
    for name in server.client.hkeys(sums):
        server.client.hset(sums, name, "garbage")
    for _ in range(3):
        clock.at += BEAT
        with pytest.raises(Fault):
            usage.accrue()
    usage._run_out(bad)
    usage._run_out(good)
    assert bad.cut is not None
    assert good.cut is None


def test_sums_with_fields_of_another_version_are_kept(usage: UsageStore, server: RedisServer) -> None:
    """Old fields are removed from a hash of a hundred; those of other names are not ours to judge."""
    sums = keys.usage_sums(KEY)
    server.client.hset(sums, mapping={f"m{number}": 1 for number in range(120)} | {"v": 2, "x7": 1, "dx": 1})
    assert begins(usage, charge("a", Limits(minutes_per_day=5))) is None
    left = server.client.hgetall(sums)
    assert {"v", "x7", "dx"} <= left.keys()
    assert "m7" not in left
