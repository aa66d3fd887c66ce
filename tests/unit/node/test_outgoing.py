"""Calls that a node places: whether it takes them, what they cost, and what is dialled."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import gevent
import msgspec
import pytest

from esl_apps.apps.autodial import AutodialOrder
from esl_apps.core import terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.cards import Account
from esl_apps.core.charges import Charge
from esl_apps.core.order import Order
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.node.dial_claim import DialClaim
from esl_apps.node.live import Crowded, Full
from esl_apps.node.outgoing import Spent, Unsure
from esl_apps.node.timed_calls import CROWDED, LEASE
from esl_apps.process import background
from esl_apps.store import keys
from esl_apps.store.errors import NoAnswer, NotReady, Unsent
from esl_apps.store.membership import Membership
from tests.support.bench import CALLEE, DID, Bench, Build, placed
from tests.support.peer import UUID, eventually

ABROAD = "0012125550123"
ONE_A_DAY = {"limits": {"calls_per_day": 1}}


def order_of(bench: Bench, agent: str = "1000") -> Order:
    return bench.services.policy.clients["acme"].read({"agent": agent, "callee": CALLEE, "outbound_id": DID})


def click(bench: Bench, ref: str = "", agent: str = "1000") -> Attempt:
    return bench.outgoing.click2dial(order_of(bench, agent), bench.services.policy.clients["acme"], ref)


def autodial_order(bench: Bench, delay: float = 0.0, a: str = CALLEE, b: str = "1000") -> AutodialOrder:
    plan = bench.services.policy.settings.plan
    return AutodialOrder(plan.read(a), plan.read(b), None, delay, False, None)


def account_of(bench: Bench) -> Account:
    account = bench.services.policy.cards.account("acme")
    assert account is not None
    return account


def autodial(bench: Bench, delay: float = 0.0) -> Attempt:
    return bench.outgoing.autodial(account_of(bench), autodial_order(bench, delay))


def integrator(**more: Any) -> dict[str, Any]:
    acme = {"name": "acme", "listen": "127.0.0.1:8300", "token": "acme-token-for-tests", "caller_ids": [DID], **more}
    return {"integrators": [acme]}


# Whether it takes them ----------------------------------------------------------------------------------


def draining(bench: Bench) -> str:
    bench.services.readiness.draining = True
    return "draining"


def full(bench: Bench) -> str:
    bench.services.readiness.sockets = bench.config.node.max_calls + 1
    return "this node is full"


def without_redis(bench: Bench) -> str:
    bench.redis.break_after(0)
    bench.services.store.watch.check()
    return "redis: no answer"


def without_switch(bench: Bench) -> str:
    bench.switch.server.stop()
    bench.switch.drop()
    eventually(lambda: not bench.services.switches[0].connected)
    return "switch fs1: "


@pytest.mark.parametrize("hinder", [draining, full, without_redis, without_switch])
def test_outgoing_node_that_takes_no_calls_says_why(bench: Bench, hinder: Any) -> None:
    why = hinder(bench)
    with pytest.raises(Full) as caught:
        click(bench)
    assert str(caught.value).startswith(why)
    with pytest.raises(Full):
        bench.outgoing.place(placed())
    assert (bench.live, bench.originates()) == ({}, [])


def test_outgoing_switch_lost_after_the_check_is_full(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.services.switch_pool, "best", lambda: None)
    with pytest.raises(Full, match="no switch is connected"):
        click(bench)


# Click-to-dial ------------------------------------------------------------------------------------------


def test_outgoing_click_rings_the_agent_and_is_paid(build: Build) -> None:
    bench = build(**integrator(**ONE_A_DAY)).connect()
    attempt = click(bench, "01a20447-2be6-705d-bfcb-64432c6ce89b")
    assert attempt.call_ref == "01a20447-2be6-705d-bfcb-64432c6ce89b"
    eventually(bench.originates)
    (command,) = bench.originates()
    assert "user/1000@127.0.0.1" in command
    assert "&socket(127.0.0.1:8085/click2dial async full)" in command
    assert len(attempt.charges) == 1


def test_outgoing_click_over_its_limit_dials_nothing(build: Build) -> None:
    bench = build(**integrator(**ONE_A_DAY)).connect()
    click(bench)
    eventually(bench.originates)
    with pytest.raises(Spent) as caught:
        click(bench)
    assert caught.value.refusal.what == "calls_per_day"
    assert (len(bench.live), len(bench.originates())) == (1, 1)


def test_outgoing_click_without_redis_dials_nothing(build: Build) -> None:
    """It goes away between the readiness check and the count."""
    bench = build(**integrator(**ONE_A_DAY)).connect()
    bench.redis.break_after(0)
    with pytest.raises(StoreUnavailable):
        click(bench)
    assert (bench.live, bench.originates()) == ({}, [])


def test_outgoing_click_with_redis_away_at_any_step_is_whole(build: Build) -> None:
    """Either the client is told that nothing is dialled, and nothing is; or the call has its record."""
    bench = build(**integrator(limits={"calls_per_day": 100})).connect()
    outcomes = []
    for step in range(6):
        before = len(bench.originates())
        bench.redis.break_after(step)
        try:
            attempt = click(bench)
        except StoreUnavailable:
            outcomes.append("refused")
            gevent.sleep(0.005)
            assert (bench.live, len(bench.originates())) == ({}, before)
            continue
        finally:
            bench.redis.mend()
        outcomes.append("placed")
        bench.answer_originate("-ERR USER_BUSY\n", count=before + 1)
        eventually(lambda attempt=attempt: attempt.ended)  # type: ignore[misc]
        assert bench.record()["call_ref"] == attempt.call_ref
    assert outcomes[0] == "refused"
    assert outcomes[-1] == "placed"


@pytest.mark.parametrize(
    ("sure", "still", "dials"), [(True, False, True), (False, True, True), (False, False, False), (False, None, False)]
)
def test_outgoing_click_whose_claim_is_lost_is_not_rung(
    bench: Bench, sure: bool, still: bool | None, dials: bool
) -> None:
    """The node was stopped between the claim and the originate, and another has dialled for the same key."""

    def ask() -> bool:
        if still is None:
            raise StoreUnavailable("redis: away")
        return still

    claim = DialClaim(lambda: sure, ask)
    attempt = bench.outgoing.click2dial(order_of(bench), bench.services.policy.clients["acme"], "", claim)
    eventually(lambda: attempt.ended or bench.originates())
    assert bool(bench.originates()) is dials
    if not dials:
        assert bench.reason() == (terms.REJECTED, 21, terms.SYSTEM)


@pytest.mark.parametrize("taken", [True, False])
def test_outgoing_call_taken_over_goes_to_no_other_gateway(build: Build, taken: bool) -> None:
    """The node was stopped while the first gateway was tried, and another has adopted the call."""
    bench = build().connect()
    order = placed()
    order.endpoints = ("sofia/gateway/a/1", "sofia/gateway/b/1")
    bench.outgoing.place(order)
    eventually(bench.originates)
    bench.flush()
    if taken:
        other = build(name="app2", known=bench.switches)
        essence = bench.live[order.attempt.call_ref].essence
        assert other.services.store.take_over(essence, bench.services.membership.boot)
        # As it does once it goes on: that must not hide it.
        order.attempt.save()
        bench.flush()
    bench.answer_originate("-ERR NETWORK_OUT_OF_ORDER\n")
    eventually(lambda: order.attempt.ended or len(bench.originates()) > 1)
    assert len(bench.originates()) == (1 if taken else 2)
    if taken:
        assert bench.reason() == ("agent_failed", 38, terms.AGENT)


def test_outgoing_answered_leg_is_offered_to_two_other_nodes(bench: Bench) -> None:
    for name in ("app2", "app3", "app4"):
        Membership(bench.redis, name, f"{name}:8085").say()
    bench.services.membership.say()
    click(bench)
    eventually(bench.originates)
    assert (
        "socket(127.0.0.1:8085/click2dial|app2:8085/click2dial|app3:8085/click2dial async full)"
        in (bench.originates()[0])
    )


# Paid when it is rung -----------------------------------------------------------------------------------


def test_outgoing_autodial_is_paid_when_it_is_rung(build: Build) -> None:
    bench = build(accounts={"acme": {"token": "acme-cards-token", **ONE_A_DAY}}).connect()
    first = autodial(bench)
    eventually(bench.originates)
    assert len(first.charges) == 1
    with pytest.raises(Spent):
        autodial(bench)
    assert len(bench.originates()) == 1


@pytest.mark.parametrize(("a", "scope"), [("1000", "account:acme"), (CALLEE, "account:acme/country:US")])
def test_outgoing_autodial_asks_for_b_before_a_is_rung(build: Build, a: str, scope: str) -> None:
    bench = build(accounts={"acme": {"token": "acme-cards-token"}}).connect()
    breakers = bench.services.breakers
    breakers.refresh()
    order = autodial_order(bench, a=a, b=ABROAD)
    delayed = bench.outgoing.autodial(account_of(bench), replace(order, delay=0.01))
    breakers.trip(scope, "by hand", by="operator")
    with pytest.raises(Spent):
        bench.outgoing.autodial(account_of(bench), order)
    due_now(bench)
    record = bench.record()
    assert (record["call_ref"], record["end_reason"], record["end_code"]) == (delayed.call_ref, "rejected", 21)
    assert bench.originates() == []


def due_now(bench: Bench) -> None:
    """Look for due autodials until none is left, dropped ones included."""
    poller, redis = bench.pollers["autodial"], bench.redis_server.client
    poller.start()
    eventually(lambda: not redis.exists(keys.timed_due("autodials")))
    poller.stop()


def test_outgoing_delayed_autodial_waits_in_redis(bench: Bench) -> None:
    """It holds no slot and keeps no node from draining, and any node places it."""
    attempt = autodial(bench, delay=0.01)
    assert (bench.live, bench.originates(), attempt.state) == ({}, [], terms.QUEUED)
    (waiting,) = bench.services.timed_calls["autodial"].waiting_of("acme")
    assert (waiting.number, waiting.owner, waiting.placing) == (attempt.call_ref, "acme", False)


def test_outgoing_delayed_autodial_is_placed_by_any_node(bench: Bench) -> None:
    delayed = autodial(bench, delay=0.01)
    bench.pollers["autodial"].start()
    bench.answer_originate("-ERR USER_BUSY\n")
    eventually(lambda: not bench.services.timed_calls["autodial"].waiting())
    bench.pollers["autodial"].stop()
    record = bench.record()
    assert (record["call_ref"], record["end_reason"]) == (delayed.call_ref, "agent_busy")
    assert (record["extension"], record["number"]) == (CALLEE, "1000")


def test_outgoing_delayed_autodial_is_dialled_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis was away for longer than the node tries to tell it of the end. Both parties would talk without a record."""
    autodial(bench, delay=0.01)
    poller, store = bench.pollers["autodial"], bench.services.timed_calls["autodial"]
    with monkeypatch.context() as away:
        away.setattr(poller, "_settle", lambda _attempt, _call: None)
        poller.start()
        bench.answer_originate("-ERR USER_BUSY\n")
        eventually(lambda: not bench.live)
        bench.flush()
        poller.stop()
    # The lease has ended.
    again = store.claim_due(time.time() + LEASE + 1, LEASE)
    assert again is not None
    with gevent.Timeout(2, False):  # type: ignore[arg-type]
        poller._place_or_release(again)
    assert len(bench.originates()) == 1
    assert store.waiting() == []


def test_outgoing_delayed_call_that_became_too_many_is_rejected(build: Build) -> None:
    """Both passed the check; the second is refused when it would be rung."""
    bench = build(accounts={"acme": {"token": "acme-cards-token", **ONE_A_DAY}}).connect()
    delayed = autodial(bench, delay=0.02)
    first = autodial(bench)
    due_now(bench)
    assert (len(bench.originates()), first.ended) == (1, False)
    record = bench.record()
    assert (record["call_ref"], record["end_reason"]) == (delayed.call_ref, terms.REJECTED)


@pytest.mark.parametrize(
    "change",
    [
        {"accounts": {}},
        {"accounts": {"acme": {"call_restriction": {"mobile": {"action": "deny"}}}}},
        {"cccp": {"cccp_cc_number": CALLEE}},
        {"dial": {"external": []}},
    ],
)
def test_outgoing_delayed_call_follows_the_rules_in_force(bench: Bench, change: dict[str, Any]) -> None:
    """The client has its reference, so it gets a record as well."""
    delayed = autodial(bench, delay=0.01)
    raw = msgspec.to_builtins(bench.config)
    changed = msgspec.convert({**raw, **change}, type(bench.config))
    bench.services.policies.now = bench.services.read_policy(changed)
    due_now(bench)
    assert bench.originates() == []
    record = bench.record()
    assert (record["call_ref"], record["end_reason"], record["end_code"]) == (delayed.call_ref, terms.REJECTED, 57)


def test_outgoing_dropped_autodial_is_cancelled(bench: Bench) -> None:
    delayed = autodial(bench, delay=600)
    assert bench.services.timed_calls["autodial"].drop(delayed.call_ref, "acme")
    due_now(bench)
    assert bench.originates() == []
    record = bench.record()
    assert (record["call_ref"], record["end_reason"], record["hung_up_by"]) == (delayed.call_ref, "cancelled", "api")


def test_outgoing_autodials_that_wait_are_bounded(build: Build) -> None:
    bench = build(accounts={"acme": {"token": "acme-cards-token", "max_waiting": 2}}).connect()
    for _ in range(2):
        autodial(bench, delay=600)
    with pytest.raises(Crowded, match="max_waiting"):
        autodial(bench, delay=600)
    assert not autodial(bench).ended


class LateAnswers:
    """A script that Redis runs, but whose first ``lost`` answers don't come. Then it isn't reached ``away`` times."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch, lost: int, away: int = 0) -> None:
        self._store = bench.services.timed_calls["autodial"]
        self._run = self._store._schedule
        self._lost, self._away = lost, away
        monkeypatch.setattr(self._store, "_schedule", self)
        self._once = background.once
        self._dropping: list[gevent.Greenlet[..., Any]] = []
        monkeypatch.setattr(background, "once", self._begin)

    def __call__(self, keys: Sequence[str], args: Sequence[Any]) -> Any:
        if not self._lost and self._away:
            self._away -= 1
            raise Unsent("redis: away")
        answer = self._run(keys, args)
        if self._lost:
            self._lost -= 1
            raise NoAnswer("redis: no answer in time")
        return answer

    def _begin(self, *args: Any, **details: Any) -> gevent.Greenlet[..., Any]:
        begun = self._once(*args, **details)
        self._dropping.append(begun)
        return begun

    def is_dropped(self) -> bool:
        gevent.joinall(self._dropping, 5, raise_error=True)
        return bool(self._dropping) and self._store.waiting() == []


@pytest.mark.parametrize("away", [0, 2])
def test_outgoing_autodial_whose_answer_is_lost_waits(bench: Bench, monkeypatch: pytest.MonkeyPatch, away: int) -> None:
    LateAnswers(bench, monkeypatch, 1, away)
    attempt = autodial(bench, delay=600)
    assert [call.number for call in bench.services.timed_calls["autodial"].waiting_of("acme")] == [attempt.call_ref]


def test_outgoing_autodial_that_redis_may_have_is_dropped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client doesn't know that it waits, and would ask for another one."""
    answers = LateAnswers(bench, monkeypatch, 1000)
    with pytest.raises(Unsure) as caught:
        autodial(bench, delay=600)
    assert answers.is_dropped()
    due_now(bench)
    assert bench.originates() == []
    record = bench.record()
    assert (record["call_ref"], record["end_reason"]) == (caught.value.call_ref, "cancelled")


def test_outgoing_autodial_that_redis_gets_late_waits_not(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command was on its way while the network was down."""
    store = bench.services.timed_calls["autodial"]
    sent: list[Any] = []
    run = store._schedule
    monkeypatch.setattr(store, "_schedule", lambda *asked: sent.append(asked))
    autodial(bench, delay=600)
    ((names, args),) = sent
    eventually(lambda: time.time() > args[-1])
    assert run(names, args).startswith(b"late ")
    assert store.waiting() == []


@pytest.mark.parametrize("ahead", [4.0, -4.0])
def test_outgoing_autodial_waits_by_another_masters_clock(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    """A cluster's master with the calls has another clock than the one that has the nodes."""
    now = time.time()
    clock = SimpleNamespace(now=lambda: now - ahead)
    monkeypatch.setattr(bench.services.membership, "redis_clock", clock)
    attempt = autodial(bench, delay=2)
    (waiting,) = bench.services.timed_calls["autodial"].waiting_of("acme")
    assert waiting.number == attempt.call_ref
    assert waiting.due_at == pytest.approx(now - ahead + 2)


def test_outgoing_autodial_after_a_slow_redis_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.time() - 10]
    monkeypatch.setattr(bench.services.membership, "redis_clock", SimpleNamespace(now=lambda: now[0]))
    store = bench.services.timed_calls["autodial"]
    run = store._schedule

    def slowly(*asked: Any) -> Any:
        now[0] = time.time()
        return run(*asked)

    monkeypatch.setattr(store, "_schedule", slowly)
    with pytest.raises(NoAnswer):
        autodial(bench, delay=600)
    assert store.waiting() == []


@pytest.mark.parametrize("error", [Unsent("redis: away"), NotReady("LOADING", "LOADING")])
def test_outgoing_delayed_call_without_redis_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: StoreUnavailable
) -> None:
    def fail(*_asked: Any) -> None:
        raise error

    monkeypatch.setattr(bench.services.timed_calls["autodial"], "_schedule", fail)
    with pytest.raises(StoreUnavailable):
        autodial(bench, delay=600)
    assert (bench.live, bench.originates()) == ({}, [])


# Room for the others ------------------------------------------------------------------------------------


def test_outgoing_click_over_max_calls_dials_nothing(build: Build) -> None:
    bench = build(**integrator(max_calls=1, **ONE_A_DAY)).connect()
    click(bench)
    eventually(bench.originates)
    with pytest.raises(Crowded, match="max_calls"):
        click(bench)
    assert (len(bench.live), len(bench.originates())) == (1, 1)
    # Its account is another payer.
    autodial(bench)


def test_outgoing_click_without_room_once_paid_counts_nowhere(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several requests come at once, and all of them wait for Redis."""
    limits = {"calls_per_day": 2, "calls_per_hour": 2, "minutes_per_day": 9}
    bench = build(**integrator(max_calls=1, limits=limits)).connect()
    usage, begin = bench.services.usage, bench.services.usage.begin

    def late(*charges: Charge) -> Any:
        monkeypatch.setattr(usage, "begin", begin)
        click(bench)
        return begin(*charges)

    monkeypatch.setattr(usage, "begin", late)
    with pytest.raises(Crowded):
        click(bench)
    usage.settle()
    sums = bench.redis_server.client.hgetall(keys.usage_sums("integrator:acme"))
    assert {name[0]: float(value) for name, value in sums.items()} == {"n": 1, "d": 10}
    assert bench.redis_server.client.zcard(keys.usage_calls("integrator:acme")) == 1
    assert len(usage._charges) == 1


def test_outgoing_payer_whose_call_ended_has_room_again(build: Build) -> None:
    bench = build(**integrator(max_calls=1)).connect()
    first = click(bench)
    bench.answer_originate("-ERR USER_BUSY\n")
    eventually(lambda: first.ended)
    assert not click(bench).ended


def test_outgoing_autodials_of_one_account_leave_room(build: Build) -> None:
    """By default a tenth of max_calls is left for the others."""
    accounts = {"acme": {"token": "acme-cards-token"}, "other": {"token": "other-cards-token"}}
    bench = build(accounts=accounts, node={"max_calls": 10}).connect()
    for _ in range(9):
        autodial(bench)
    with pytest.raises(Crowded):
        autodial(bench)
    assert len(bench.live) == 9
    assert not click(bench).ended


def test_outgoing_call_that_is_due_without_room_waits_on(build: Build) -> None:
    bench = build(accounts={"acme": {"token": "acme-cards-token", "max_calls": 1}}).connect()
    delayed = autodial(bench, delay=0.01)
    autodial(bench)
    store = bench.services.timed_calls["autodial"]
    bench.pollers["autodial"].start()
    eventually(lambda: CROWDED - 2 < store.waiting()[0].due_at - time.time() <= CROWDED)
    bench.pollers["autodial"].stop()
    assert [call.number for call in store.waiting_of("acme")] == [delayed.call_ref]
    assert len(bench.originates()) == 1


def test_outgoing_place_says_whether_it_answered(bench: Bench) -> None:
    busy = bench.outgoing.place(placed())
    bench.answer_originate("-ERR USER_BUSY\n", count=1)
    answered = bench.outgoing.place(order := placed())
    bench.answer_originate(f"+OK {UUID}\n", count=2)
    bench.visit("click2dial", variable_esl_call_ref=order.attempt.call_ref).served()
    assert (busy.get(timeout=5), answered.get(timeout=5)) == (False, True)
