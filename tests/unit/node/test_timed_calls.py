"""Calls that are due: placed by one node, tried again, given back, and settled whatever happens to Redis."""

from __future__ import annotations

import time
from typing import Any

import gevent
import pytest

from esl_apps.core import node_clock, terms
from esl_apps.core.timed_call import Frequency, TimedCall
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.node import timed_calls
from esl_apps.node.timed_calls import TimedCallPoller
from esl_apps.store.timed_calls import TimedCalls
from tests.support.bench import Bench, Build, essence_of, leave_behind
from tests.support.peer import UUID, eventually

NUMBER = "27825556666"


def schedule(bench: Bench, due_in: float = 0.0) -> None:
    """A callback to a number with a card."""
    cards = bench.services.policy.cards
    card = cards.by_number(NUMBER) or cards.create("acme", {"cid": f"+{NUMBER}", "active": True})
    now = time.time()
    assert store_of(bench).schedule(NUMBER, [card.id, ""], now + due_in, now=now)


def store_of(bench: Bench) -> TimedCalls:
    return bench.services.timed_calls["callback"]


def poller_of(bench: Bench) -> TimedCallPoller:
    return bench.pollers["callback"]


@pytest.fixture
def polling(bench: Bench) -> Any:
    """A node that looks for due calls."""
    poller_of(bench).start()
    yield bench
    poller_of(bench).stop()


def due_in(bench: Bench) -> float | None:
    """Seconds until the number's call is due; None: it is settled."""
    waiting = store_of(bench).waiting()
    return waiting[0].due_at - time.time() if waiting else None


def settled(bench: Bench) -> bool:
    return not store_of(bench).waiting()


@pytest.mark.parametrize(
    "call",
    [
        {"app": "disa", "extension": "0825556666"},
        {"app": "dialthrough", "extension": "0825556666"},
        {"app": "inbound", "number": "0825556666"},
        # Those callers after a transfer.
        {"app": "transfer", "extension": "0825556666", "claimed": True},
        {"app": "transfer", "number": "0825556666", "second_party": "agent"},
    ],
)
def test_timed_call_to_a_claimed_number_is_placed(bench: Bench, call: dict[str, Any]) -> None:
    """A stranger who stays on the line with a forged number keeps no callback from its owner."""
    leave_behind(bench, essence_of(**call), silent=False)
    bench.services.membership.say()
    schedule(bench)
    poller_of(bench).start()
    eventually(bench.originates)
    poller_of(bench).stop()


# Placed -------------------------------------------------------------------------------------------------


def test_timed_call_that_is_due_is_placed_once(polling: Bench) -> None:
    schedule(polling)
    eventually(polling.originates)
    gevent.sleep(0.02)
    (command,) = polling.originates()
    assert "27825556666" in command
    # While it rings it belongs to this node.
    assert (due_in(polling) or 0.0) > timed_calls.LEASE - 10


def test_timed_call_that_rings_for_long_stays_this_nodes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be placed again, or be taken for one that was placed, and lose its further tries."""
    monkeypatch.setattr(timed_calls, "_RENEW", 0.02)
    monkeypatch.setattr(timed_calls, "POLL", 0.02)
    renewals: list[float] = []
    renew = store_of(bench).renew

    def count(call: TimedCall, now: float, lease: float) -> bool:
        renewals.append(now)
        return renew(call, now, lease)

    monkeypatch.setattr(store_of(bench), "renew", count)
    schedule(bench)
    poller_of(bench).start()
    eventually(bench.originates)
    bench.redis.break_after(0)
    before = len(renewals)
    eventually(lambda: len(renewals) > before + 1)
    bench.redis.mend()
    due: set[float] = set()

    def renewed() -> bool:
        (claimed,) = store_of(bench).waiting()
        due.add(claimed.due_at)
        return len(due) > 2

    eventually(renewed)
    bench.answer_originate("-ERR USER_BUSY\n")
    eventually(lambda: 50.0 < (due_in(bench) or 0.0) <= 60.0)
    poller_of(bench).stop()
    assert len(bench.originates()) == 1


def test_timed_call_is_placed_when_it_is_due(polling: Bench) -> None:
    schedule(polling, due_in=600.0)
    gevent.sleep(0.02)
    assert polling.originates() == []


def test_timed_call_that_was_answered_is_done(polling: Bench) -> None:
    schedule(polling)
    polling.answer_originate(f"+OK {UUID}\n")
    (ref,) = polling.live
    visitor = polling.visit("callback", variable_esl_call_ref=ref)
    eventually(lambda: settled(polling))
    visitor.leaves()
    visitor.served()
    assert polling.record()["call_ref"] == ref


def test_timed_call_that_was_busy_is_tried_again(polling: Bench) -> None:
    schedule(polling)
    polling.answer_originate("-ERR USER_BUSY\n")
    eventually(lambda: 50.0 < (due_in(polling) or 0.0) <= 60.0)


def test_timed_call_is_given_up_after_its_last_try(build: Build) -> None:
    bench = build(callback={"retries": 0}).connect()
    poller_of(bench).start()
    schedule(bench)
    bench.answer_originate("-ERR USER_BUSY\n")
    eventually(lambda: settled(bench))
    poller_of(bench).stop()


def test_timed_call_that_may_not_be_placed_is_dropped(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    schedule(bench)
    cards = bench.services.policy.cards
    card = cards.by_number(NUMBER)
    assert card is not None
    cards.delete("acme", card.id)
    poller_of(bench).start()
    eventually(lambda: settled(bench))
    poller_of(bench).stop()
    assert "timed_call_dropped" in caplog.messages
    assert bench.originates() == []


@pytest.mark.parametrize(
    ("app", "party"),
    [
        ("click-dial", "extension"),
        ("click-dial", "number"),
        ("callback", "extension"),
        ("autodial", "extension"),
        ("disa", "number"),
        ("dialthrough", "number"),
        ("inbound", "extension"),
    ],
)
def test_timed_call_to_a_number_in_a_call_is_dropped(bench: Bench, app: str, party: str) -> None:
    """A second phone of the same person would ring; any node's call counts."""
    unreadable = essence_of(extension="anonymous", number="conference:weekly")
    leave_behind(bench, unreadable, essence_of(app=app, **{party: "0825556666"}), silent=False)
    bench.services.membership.say()
    schedule(bench)
    poller_of(bench).start()
    eventually(lambda: settled(bench))
    poller_of(bench).stop()
    assert bench.originates() == []


# Given back ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hinder", ["draining", "no switch"])
def test_timed_call_is_left_to_a_node_that_takes_calls(polling: Bench, hinder: str) -> None:
    if hinder == "draining":
        polling.services.readiness.draining = True
    else:
        polling.switch.server.stop()
        polling.switch.drop()
        eventually(lambda: not polling.services.switches[0].connected)
    schedule(polling)
    gevent.sleep(0.02)
    assert (due_in(polling) or 0.0) <= 0.0
    assert polling.originates() == []


def test_timed_call_is_left_to_others_by_a_full_node(polling: Bench) -> None:
    polling.services.readiness.sockets = polling.config.node.max_calls + 1
    schedule(polling)
    gevent.sleep(0.02)
    assert (due_in(polling) or 0.0) < 0.0


def test_timed_call_of_a_node_that_became_full_is_given_back(
    polling: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling.services.switch_pool, "best", lambda: None)
    schedule(polling)
    eventually(lambda: "timed_call_released" in caplog.messages)
    # Due again in a second, for any node, and the try doesn't count.
    eventually(lambda: 0.0 < (due_in(polling) or 0.0) <= 1.0)
    again = store_of(polling).claim_due(time.time() + 2.0, 60.0)
    assert again is not None
    assert again.attempt == 1


def test_timed_call_that_another_node_has_taken_is_not_rung(bench: Bench) -> None:
    """This node was stopped between the claim and the originate, for longer than the lease."""
    schedule(bench)
    call = store_of(bench).claim_due(time.time(), 0.0)
    assert call is not None
    assert store_of(bench).claim_due(time.time() + 1.0, 60.0) is not None
    poller_of(bench)._place_or_release(call)
    assert bench.originates() == []
    assert (due_in(bench) or 0.0) > 50.0


def test_timed_call_stays_leased_if_redis_cannot_be_told(bench: Bench) -> None:
    schedule(bench)
    call = store_of(bench).claim_due(time.time(), 60.0)
    assert call is not None
    bench.redis.break_after(0)
    poller_of(bench)._place_or_release(call)
    bench.redis.mend()
    assert 50.0 < (due_in(bench) or 0.0) <= 60.0
    assert bench.originates() == []


def test_timed_calls_poll_outlives_redis_and_faults(
    polling: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[Exception] = [StoreUnavailable("redis: away"), RuntimeError("a fault of ours")]
    claim = store_of(polling).claim_due

    def claim_due(now: float, lease: float) -> TimedCall | None:
        if errors:
            raise errors.pop(0)
        return claim(now, lease)

    monkeypatch.setattr(store_of(polling), "claim_due", claim_due)
    schedule(polling)
    eventually(polling.originates)
    assert caplog.messages.count("timed_calls_not_polled") == 1


def test_timed_call_whose_lease_ended_is_the_other_nodes(build: Build) -> None:
    """Whatever the first node then says of it has no effect."""
    first = build().connect()
    second = build(name="app3", known=first.switches).connect()
    schedule(first)
    now = time.time()
    late = store_of(first).claim_due(now, 0.0)
    taken = store_of(second).claim_due(now + 0.1, 60.0)
    assert late is not None
    assert taken is not None
    poller = poller_of(first)
    placed = poller._timed.due(late, first.services.policy)
    assert not isinstance(placed, str)
    placed.attempt.end("agent_busy", 17, terms.AGENT, now)
    poller._settle(placed.attempt, late)
    placed.attempt.answered_at = now
    poller._settle(placed.attempt, late)
    assert 50.0 < (due_in(second) or 0.0) <= 60.1
    assert store_of(second).done(taken, now + 0.1)


def test_timed_call_is_placed_by_one_of_two_nodes(build: Build) -> None:
    first = build().connect()
    second = build(name="app3", known=first.switches).connect()
    nodes = [first, second]
    for node in nodes:
        poller_of(node).start()
    schedule(first)
    eventually(first.originates)
    gevent.sleep(0.02)
    assert len(first.originates()) == 1
    for node in nodes:
        poller_of(node).stop()


# Settled ------------------------------------------------------------------------------------------------


def busy(bench: Bench) -> None:
    """A call that was due was placed; its number is busy."""
    schedule(bench)
    call = store_of(bench).claim_due(time.time(), 60.0)
    assert call is not None
    gevent.spawn(poller_of(bench)._place_or_release, call)
    eventually(bench.originates)


def test_timed_call_is_settled_when_redis_is_back(bench: Bench) -> None:
    busy(bench)
    bench.redis.break_after(0)
    bench.answer_originate("-ERR NORMAL_CLEARING\n")
    eventually(lambda: not bench.live)
    gevent.sleep(0.01)
    bench.redis.mend()
    eventually(lambda: settled(bench))


def test_timed_call_that_cannot_be_settled_is_given_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(timed_calls, "LEASE", 0.01)
    busy(bench)
    bench.redis.break_after(0)
    bench.answer_originate("-ERR NORMAL_CLEARING\n")
    eventually(lambda: "timed_call_unsettled" in caplog.messages)


def test_timed_calls_stop_before_start_does_nothing(bench: Bench) -> None:
    poller_of(bench).stop()


@pytest.mark.parametrize("wrong", [-3600.0, 3600.0])
def test_timed_call_is_due_by_the_clock_of_redis(bench: Bench, monkeypatch: pytest.MonkeyPatch, wrong: float) -> None:
    """The node that schedules it has another time than the one that places it."""
    clock = bench.services.membership.redis_clock
    monkeypatch.setattr(clock, "_origin", clock._origin + wrong)
    due_at = node_clock.now() + 5.0
    host = bench.services.host(lambda _attempt: None, "callback")
    assert host.schedule("27825550000", ["x", ""], due_at, Frequency())
    store = store_of(bench)
    assert store.claim_due(clock.now() + 4.0, 60.0) is None
    taken = store.claim_due(clock.now() + 6.0, 60.0)
    assert taken is not None
    assert taken.number == "27825550000"
