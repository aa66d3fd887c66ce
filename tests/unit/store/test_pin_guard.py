"""Wrong PINs, counted over calls and nodes: what is locked, for how long, and that one alert is sent."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from esl_apps.config.pin_guard import PinGuard
from esl_apps.core.pins import LOCKED, OPEN, WRONG, Asker, Source
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store import keys, pin_guard, redis_client
from esl_apps.store.cards import CardStore
from esl_apps.store.pin_guard import REMEMBERED, GuardStore, Lock, Locks
from tests.support.node import RedisServer
from tests.unit.store.conftest import everything

LIMITS = PinGuard(
    window=600,
    per_number=3,
    per_address=6,
    per_card=5,
    per_service=8,
    overall=12,
    new_pins=10,
    lock=60,
    longest_lock=500,
    longest_service_lock=100,
)
NOON = 1_700_000_000.0


class Clock:
    def __init__(self) -> None:
        self.at = NOON

    def __call__(self) -> float:
        return self.at


class Alerts:
    """The alerts that were sent."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int, int]] = []

    def __call__(self, kind: str, **details: object) -> None:
        assert kind == "pin_lock"
        self.told.append((str(details["lock"]), int(str(details["seconds"])), int(str(details["wrong_pins"]))))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def alerts() -> Alerts:
    return Alerts()


@pytest.fixture
def guard(client: Any, clock: Clock, alerts: Alerts) -> GuardStore:
    return GuardStore(client, LIMITS, alerts, clock=clock)


@pytest.fixture
def numbers_only(client: Any, clock: Clock, alerts: Alerts) -> GuardStore:
    """A guard that locks nothing but caller numbers."""
    return GuardStore(client, msgspec.structs.replace(LIMITS, per_service=10_000, overall=10_000), alerts, clock=clock)


@pytest.fixture
def other(connect: Callable[[], Any], clock: Clock, alerts: Alerts) -> GuardStore:
    """Another node."""
    return GuardStore(connect(), LIMITS, alerts, clock=clock)


@pytest.fixture
def locks(client: Any, clock: Clock) -> Locks:
    return Locks(client, clock=clock)


def source(
    number: str = "27825556666", address: str = "", entrance: str = "dialthrough", dnis: str = "27115551000"
) -> Source:
    return Source(number, address, entrance, dnis)


def wrong(guard: GuardStore, times: int, where: Source | None = None, card: str = "") -> str:
    """The last verdict."""
    said = ""
    for _ in range(times):
        said = guard.judge(where or source(), False, card, guessed=True)
    return said


def right(guard: GuardStore, where: Source | None = None, card: str = "", pin: str = "mine") -> str:
    return guard.judge(where or source(), True, card, guessed=True, pin_id=pin)


def test_wrong_pins_below_the_threshold_lock_nothing(
    guard: GuardStore, clock: Clock, alerts: Alerts, locks: Locks
) -> None:
    for _ in range(20):
        assert wrong(guard, 2) == WRONG
        assert right(guard) == OPEN
        clock.at += 601
    assert alerts.told == []
    assert locks.list() == []


def test_window_of_wrong_pins_slides(guard: GuardStore, clock: Clock) -> None:
    wrong(guard, 1)
    clock.at += 400
    wrong(guard, 1)
    clock.at += 201  # the first is out, the second is not
    wrong(guard, 1)
    assert right(guard) == OPEN
    wrong(guard, 1)
    assert right(guard) == LOCKED


def test_third_wrong_pin_locks_the_number_on_all_nodes(
    guard: GuardStore, other: GuardStore, clock: Clock, alerts: Alerts, locks: Locks
) -> None:
    assert wrong(guard, 1) == WRONG
    assert wrong(other, 1) == WRONG
    assert wrong(guard, 1) == WRONG
    assert alerts.told == [("number:27825556666", 60, 3)]
    for node in (guard, other):
        assert right(node) == LOCKED
        assert wrong(node, 5) == LOCKED
    assert right(guard, source("27830000000")) == OPEN
    assert locks.list() == [Lock("number:27825556666", 60)]
    assert len(alerts.told) == 1
    clock.at += 60.1
    assert right(other) == OPEN
    assert locks.list() == []


def test_empty_pin_is_not_a_guess(guard: GuardStore, alerts: Alerts, server: RedisServer) -> None:
    for _ in range(50):
        assert guard.judge(source(), False, "", guessed=False) == WRONG
    assert alerts.told == []
    assert everything(server) == "[]"


def test_lock_grows_to_its_longest_and_shrinks_with_time(
    numbers_only: GuardStore, clock: Clock, alerts: Alerts
) -> None:
    def seconds() -> int:
        wrong(numbers_only, 3)
        locked = alerts.told[-1][1]
        clock.at += locked + 1
        return locked

    assert [seconds() for _ in range(6)] == [60, 120, 240, 480, 500, 500]
    # The level drops by one for each window without a lock.
    clock.at += 600
    assert seconds() == 480
    clock.at += 600 * 10
    assert seconds() == 60


@pytest.mark.parametrize(
    ("name", "threshold", "vary"),
    [
        ("address:192.0.2.1", 6, lambda i: source(f"2782000{i:04}", "192.0.2.1", f"disa/a/{i}", f"2711{i:07}")),
        ("entrance:dialthrough", 8, lambda i: source(f"2782000{i:04}", f"198.51.100.{i}", dnis=f"2711{i:07}")),
        ("dnis:27115551000", 8, lambda i: source(f"2782000{i:04}", f"198.51.100.{i}", f"disa/a/{i}")),
        ("all", 12, lambda i: source(f"2782000{i:04}", f"198.51.100.{i}", f"disa/a/{i}", f"2711{i:07}")),
    ],
)
def test_guesser_is_caught_by_any_one_constant_property(
    guard: GuardStore, alerts: Alerts, locks: Locks, name: str, threshold: int, vary: Callable[[int], Source]
) -> None:
    for i in range(threshold - 1):
        assert wrong(guard, 1, vary(i)) == WRONG
    assert right(guard, vary(100)) == OPEN
    wrong(guard, 1, vary(threshold))
    assert alerts.told == [(name, 60, threshold)]
    assert [lock.name for lock in locks.list()] == [name]
    assert right(guard, vary(101)) == LOCKED


def test_locked_card_is_locked_for_all_callers(guard: GuardStore, alerts: Alerts) -> None:
    for i in range(5):
        wrong(guard, 1, source(f"2782000000{i}"), card="c1")
    assert alerts.told == [("card:c1", 60, 5)]
    assert right(guard, source("27830000000"), card="c1") == LOCKED
    assert right(guard, source("27830000000"), card="c2") == OPEN


def test_service_lock_has_its_own_longest(client: Any, clock: Clock, alerts: Alerts) -> None:
    guard = GuardStore(client, msgspec.structs.replace(LIMITS, overall=10_000), alerts, clock=clock)
    for turn in range(4):
        for i in range(8):
            wrong(guard, 1, source(f"2782{turn:03}{i:04}", entrance=f"disa/a/{turn}{i}"))
        clock.at += alerts.told[-1][1] + 1
    services = [(name, seconds) for name, seconds, _ in alerts.told if name.startswith("dnis:")]
    assert services == [("dnis:27115551000", seconds) for seconds in (60, 100, 100, 100)]


def test_right_pin_does_not_reset_the_wrong_ones(guard: GuardStore, alerts: Alerts) -> None:
    for i in range(8):
        wrong(guard, 1, source(f"2782000000{i}"))
        right(guard, source(f"2782000000{i}"))
    assert {name for name, *_ in alerts.told} == {"dnis:27115551000", "entrance:dialthrough"}


def test_pin_typed_during_a_lock_is_not_counted(guard: GuardStore, alerts: Alerts) -> None:
    """Otherwise one caller could lock all callers out by dialling on."""
    wrong(guard, 100)
    assert [name for name, *_ in alerts.told] == ["number:27825556666"]
    assert right(guard, source("27830000000")) == OPEN


def test_flood_of_invented_numbers_is_locked_and_leaves_little(
    guard: GuardStore, alerts: Alerts, server: RedisServer
) -> None:
    for i in range(1000):
        wrong(guard, 1, source(f"2782{i:07}", f"2001:db8:{i:x}::/64", f"disa/a/{i}", f"2711{i:07}"))
    assert [name for name, *_ in alerts.told] == ["all"]
    left = list(server.client.scan_iter(count=10_000))
    assert len(left) <= 12 * 4 + 3
    assert min(server.client.ttl(key) for key in left) > 0
    assert max(server.client.ttl(key) for key in left) <= 1300


def test_keys_of_a_lock_expire_and_are_few(guard: GuardStore, server: RedisServer) -> None:
    wrong(guard, 3, card="c1")
    assert sorted(server.client.scan_iter()) == [
        keys.pin_lock("number:27825556666"),
        keys.PIN_LOCKS,
        keys.pin_tries("all"),
        keys.pin_tries("card:c1"),
        keys.pin_tries("dnis:27115551000"),
        keys.pin_tries("entrance:dialthrough"),
    ]
    assert all(0 < server.client.ttl(key) <= 60 + 2 * 600 for key in server.client.scan_iter())


def test_lift_opens_a_lock_and_deletes_its_tries(
    numbers_only: GuardStore, locks: Locks, clock: Clock, alerts: Alerts
) -> None:
    wrong(numbers_only, 3)
    clock.at += 61
    wrong(numbers_only, 3)
    assert locks.list() == [Lock("number:27825556666", 120)]
    assert locks.lift("number:27825556666")
    assert not locks.lift("number:27825556666")
    assert not locks.lift("nonsense")
    assert locks.list() == []
    assert right(numbers_only) == OPEN
    assert wrong(numbers_only, 2) == WRONG
    assert right(numbers_only) == OPEN
    wrong(numbers_only, 1)
    assert [seconds for _, seconds, _ in alerts.told] == [60, 120, 60]


def test_judge_raises_while_redis_is_down(away: Any, alerts: Alerts) -> None:
    guard, locks = GuardStore(away, LIMITS, alerts), Locks(away)
    for ask in (lambda: right(guard), lambda: wrong(guard, 1), locks.list, lambda: locks.lift("all")):
        with pytest.raises(StoreUnavailable):
            ask()


def test_lock_goes_by_the_clock_of_redis(client: Any, alerts: Alerts) -> None:
    guard = GuardStore(client, LIMITS, alerts)
    wrong(guard, 3)
    assert right(guard) == LOCKED
    assert [(lock.name, 55 < lock.seconds <= 61) for lock in Locks(client).list()] == [("number:27825556666", True)]


@pytest.mark.parametrize("server", ["alone"], indirect=True)
def test_pin_costs_the_same_whether_it_exists_or_not(guard: GuardStore, cards: CardStore, server: RedisServer) -> None:
    """Count commands, not time: differences of microseconds drown in the network's."""
    cards.create("acme", {"pin": "482190735", "active": True})
    cards.create("acme", {"pin": "482190736", "active": False})

    def cost(typed: str) -> dict[str, int]:
        def ask() -> None:
            card = cards.by_pin(typed)
            opens = card is not None and card.active
            guard.judge(source(), opens, card.id if card else "", guessed=True)

        server.client.config_resetstat()
        ask()
        stats = server.client.info("commandstats")
        # cmdstat_hmget is of the script's own looks, for which the caller doesn't wait.
        names = ("cmdstat_hget", "cmdstat_hmget", "cmdstat_evalsha")
        return {name: stats[name]["calls"] for name in names if name in stats}

    right(guard, source("1"))  # the script is there
    held = {typed: cost(typed) for typed in ("482190735", "482190736", "999999999")}
    # One look-up; in the script, one look at each of six locks.
    assert set(map(repr, held.values())) == {repr({"cmdstat_hget": 1, "cmdstat_hmget": 6, "cmdstat_evalsha": 1})}
    wrong(guard, 3)
    locked = {typed: cost(typed) for typed in ("482190735", "482190736", "999999999")}
    assert set(map(repr, locked.values())) == {repr({"cmdstat_hget": 1, "cmdstat_hmget": 1, "cmdstat_evalsha": 1})}


def _guess(url: str, barrier: Any, told: Any) -> None:
    def tell(kind: str, **details: object) -> None:
        told.value += 1

    guard = GuardStore(redis_client.connect(url), PinGuard(per_number=5), tell)
    guard.judge(source("1"), True, "", guessed=True)
    for trial in range(100):
        barrier.wait(60)
        for _ in range(5):
            guard.judge(source(f"27{trial}", dnis=str(trial), entrance=str(trial)), False, "", guessed=True)
        if guard.judge(source(f"27{trial}"), True, "", guessed=True) == LOCKED and trial == 39:
            return  # 40 locks of 5 wrong PINs are 200: `all` is next


@pytest.mark.parametrize("server", ["alone"], indirect=True)
def test_threshold_reached_by_two_nodes_is_told_once(server: RedisServer) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier, told = spawn.Barrier(2), [spawn.Value("i", 0) for _ in range(2)]
    nodes = [spawn.Process(target=_guess, args=(server.url, barrier, one)) for one in told]
    for node in nodes:
        node.start()
    for node in nodes:
        node.join(60)
        assert node.exitcode == 0
    # Forty callers are locked and, at the 200th wrong PIN in all, the whole service.
    assert told[0].value + told[1].value == 41
    assert [lock.name for lock in Locks(redis_client.connect(server.url)).list()].count("all") == 1


# Unreadable values ---------------------------------------------------------------------------------------

UNREADABLE = ("garbage", "nan", "inf", "-5", "0x", "")


@pytest.mark.parametrize("field", ["until", "level"])
@pytest.mark.parametrize("value", UNREADABLE)
def test_lock_that_is_unreadable_holds(
    guard: GuardStore, server: RedisServer, locks: Locks, field: str, value: str
) -> None:
    """The right PIN doesn't open either: a guesser would go on until it does."""
    server.client.hset(keys.pin_lock("all"), field, value)
    with pytest.raises(StoreUnavailable):
        right(guard)
    with pytest.raises(StoreUnavailable):
        wrong(guard, 1)
    locks.lift("all")
    assert right(guard) == OPEN


@pytest.mark.parametrize("key", [keys.pin_lock("all"), keys.pin_tries("all")])
def test_counter_of_another_type_opens_nothing(guard: GuardStore, server: RedisServer, locks: Locks, key: str) -> None:
    server.client.set(key, "text")
    with pytest.raises(StoreUnavailable):
        right(guard)
    server.client.delete(key)
    assert right(guard) == OPEN


# Locks by others --------------------------------------------------------------------------------


def customer(address: str = "", number: str = "27825556666") -> Source:
    """A caller whose identity no stranger can take on."""
    return Source(number, address, "dialthrough", "27115551000", is_own=True)


def flood(guard: GuardStore, clock: Clock, seconds: float, where: Callable[[int], Source], card: str = "") -> None:
    """Guess every ten seconds."""
    end, i = clock.at + seconds, 0
    while clock.at < end:
        wrong(guard, 1, where(i), card)
        clock.at += 10
        i += 1


def invented(i: int) -> Source:
    return source(f"2784{i:07}", f"198.51.100.{i % 250}")


@pytest.mark.parametrize("card", ["", "c1"])
def test_caller_who_opened_before_passes_the_locks_of_others(
    guard: GuardStore, clock: Clock, locks: Locks, card: str
) -> None:
    assert right(guard, customer(), card) == OPEN
    flood(guard, clock, 1800, invented, card)
    names = {lock.name for lock in locks.list()}
    assert names & {"all", "entrance:dialthrough", "dnis:27115551000", "card:c1"}
    assert right(guard, customer(), card) == OPEN
    # A caller who is new, and one who can be anyone, wait.
    assert right(guard, customer(number="27830000000"), card) == LOCKED
    assert right(guard, source(), card) == LOCKED


def test_caller_who_opened_before_is_locked_by_their_own_pins(guard: GuardStore) -> None:
    assert right(guard, customer()) == OPEN
    wrong(guard, 3, customer())
    assert right(guard, customer()) == LOCKED


def test_caller_behind_a_guessers_address_passes(guard: GuardStore, clock: Clock, alerts: Alerts) -> None:
    assert right(guard, customer("192.0.2.1", "27825556666@192.0.2.1")) == OPEN
    for i in range(6):
        wrong(guard, 1, source(f"2784000000{i}@192.0.2.1", "192.0.2.1", f"disa/a/{i}", f"2711000000{i}"))
    assert [name for name, *_ in alerts.told] == ["address:192.0.2.1"]
    assert right(guard, customer("192.0.2.1", "27825556666@192.0.2.1")) == OPEN


def test_caller_of_whom_a_wrong_pin_came_is_not_remembered(guard: GuardStore, server: RedisServer) -> None:
    wrong(guard, 1, customer())
    guard.judge(customer(), False, "", guessed=False)
    right(guard, source())
    assert [key for key in server.client.scan_iter() if ":opened_by:" in key] == []
    right(guard, customer())
    assert 0 < server.client.ttl(keys.pin_opened("mine")) <= REMEMBERED


def test_locked_caller_with_the_right_pin_is_not_remembered(guard: GuardStore, server: RedisServer) -> None:
    wrong(guard, 3, customer())
    assert right(guard, customer()) == LOCKED
    assert not server.client.exists(keys.pin_opened("mine"))


def test_caller_with_a_pin_guesses_no_other_past_a_lock(guard: GuardStore, clock: Clock) -> None:
    """Each number that a card holder claims would have tries of its own, which no lock but its own could end."""
    claimed = [customer("192.0.2.1", f"2784000{i:04}@192.0.2.1") for i in range(100)]
    for caller in claimed:
        assert right(guard, caller) == OPEN
    tried = sum(wrong(guard, 1, caller) == WRONG for caller in claimed)
    assert tried == LIMITS.per_address
    # The right one is among these, and nothing tells.
    assert {right(guard, caller, "c2", pin="another") for caller in claimed} == {LOCKED}
    assert {right(guard, caller) for caller in claimed} == {OPEN}
    clock.at += REMEMBERED
    for i in range(LIMITS.per_address):
        wrong(guard, 1, source(f"2785{i}@192.0.2.1", "192.0.2.1"))
    assert {right(guard, caller) for caller in claimed} == {LOCKED}


def test_pin_remembers_its_latest_callers_only(guard: GuardStore, clock: Clock, server: RedisServer) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pin_guard, "_CALLERS", 5)
        for i in range(10):
            clock.at += 0.01
            right(guard, customer("192.0.2.1", f"2784{i}@192.0.2.1"))
    assert server.client.zcard(keys.pin_opened("mine")) == 5
    assert server.client.zscore(keys.pin_opened("mine"), "27844@192.0.2.1") is None
    assert list(server.client.scan_iter()) == [keys.pin_opened("mine")]


@pytest.mark.parametrize("server", ["alone"], indirect=True)
def test_lock_lasts_an_hour_at_most_whatever_is_configured(client: Any, clock: Clock, alerts: Alerts) -> None:
    """Guessing for hours with a withheld number locks callers out for an hour at a time at most."""
    day = PinGuard(lock=86_400, longest_lock=86_400, longest_service_lock=86_400)
    for limits in (day, PinGuard()):
        guard = GuardStore(client, limits, alerts, clock=clock)
        flood(guard, clock, 7 * 86_400 / 20, lambda _i: source("withheld@10.0.0.1"))
    assert max(seconds for _name, seconds, _wrong in alerts.told) == 3600


# "PIN in use" over HTTP -----------------------------------------------------------------------------------

CRM, PORTAL = Asker("tenant/crm", "tenant"), Asker("+admin/portal", "tenant")


def refused(guard: GuardStore, asker: Asker, *, new_pin: bool = False) -> int:
    return guard.refuses(asker, new_pin=new_pin)


def test_answers_in_use_are_a_few_an_hour(guard: GuardStore, clock: Clock, alerts: Alerts) -> None:
    told = 0
    for _ in range(10 * 60):
        if not refused(guard, CRM):
            guard.told(CRM)
            told += 1
        clock.at += 60
    assert LIMITS.per_token <= told <= 10 * LIMITS.per_token
    assert alerts.told[:2] == [("token:tenant/crm", 3600, 5), ("account:tenant", 3600, 5)]


def test_answers_in_use_lock_for_an_hour_by_default(client: Any, clock: Clock, alerts: Alerts) -> None:
    guard = GuardStore(client, PinGuard(), alerts, clock=clock)
    for _ in range(5):
        assert refused(guard, CRM) == 0
        guard.told(CRM)
    assert refused(guard, CRM) == 3600
    # Another token of the same account is refused too, other accounts aren't.
    assert refused(guard, Asker("tenant", "tenant")) == 3600
    assert refused(guard, Asker("other", "other")) == 0


def test_answers_in_use_by_the_operators_token_lock_one_account(guard: GuardStore) -> None:
    """A portal with the operator's token serves all tenants: one that guesses shuts out itself."""
    for _ in range(5):
        guard.told(PORTAL)
    assert refused(guard, PORTAL) > 0
    assert refused(guard, Asker("+admin/portal", "other")) == 0
    for i in range(3):
        guard.told(Asker("+admin/portal", f"tenant-{i}"))
    assert refused(guard, Asker("+admin/portal", "other")) > 0


def test_answers_in_use_touch_no_callers_lock(guard: GuardStore) -> None:
    for _ in range(20):
        guard.told(CRM)
    assert right(guard) == OPEN
    wrong(guard, 12)
    assert refused(guard, Asker("other", "other")) == 0


def test_new_pins_are_bounded_though_none_is_in_use(guard: GuardStore, alerts: Alerts) -> None:
    """A guesser changes one card's PIN over and over, and needs to be told "in use" only once."""
    assert [refused(guard, CRM, new_pin=True) for _ in range(10)] == [0] * 10
    assert refused(guard, CRM, new_pin=True) == 3600
    assert [name for name, *_ in alerts.told] == ["new_pins_token:tenant/crm", "new_pins_account:tenant"]
    # Numbers can still be set, and the tenant's other tokens set no PINs either.
    assert refused(guard, CRM) == 0
    assert refused(guard, Asker("tenant/other", "tenant"), new_pin=True) == 3600
    assert refused(guard, PORTAL, new_pin=True) == 3600
    assert refused(guard, Asker("+admin/portal", "other"), new_pin=True) == 0


def test_new_pins_of_many_accounts_do_not_stop_the_operator(guard: GuardStore) -> None:
    asked = [refused(guard, Asker("+admin", f"tenant-{i}"), new_pin=True) for i in range(50)]
    assert set(asked) == {0}
