"""Calls that a node places: whether it takes them, what they cost, and what is dialled."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

from esl_apps.apps.autodial import AutodialOrder
from esl_apps.core import terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.cards import Account
from esl_apps.core.order import Order
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.node.live import Full
from esl_apps.node.outgoing import Spent
from esl_apps.store.membership import Membership
from tests.support.bench import CALLEE, DID, Bench, Build, placed
from tests.support.peer import UUID, eventually

ONE_A_DAY = {"limits": {"calls_per_day": 1}}


def order_of(bench: Bench, agent: str = "1000") -> Order:
    return bench.services.policy.clients["acme"].read({"agent": agent, "callee": CALLEE, "outbound_id": DID})


def click(bench: Bench, ref: str = "", agent: str = "1000") -> Attempt:
    return bench.outgoing.click2dial(order_of(bench, agent), bench.services.policy.clients["acme"], ref)


def autodial_order(bench: Bench, delay: float = 0.0, a: str = CALLEE) -> AutodialOrder:
    plan = bench.services.policy.settings.plan
    return AutodialOrder(plan.read(a), plan.read("1000"), None, delay, False, None)


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
    bench.services.store.check()
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


def test_outgoing_delayed_call_that_became_too_many_is_rejected(build: Build) -> None:
    """Both passed the check; the second is refused when it would be rung."""
    bench = build(accounts={"acme": {"token": "acme-cards-token", **ONE_A_DAY}}).connect()
    delayed = autodial(bench, delay=0.02)
    first = autodial(bench)
    eventually(lambda: delayed.ended)
    assert (len(bench.originates()), first.ended) == (1, False)
    assert bench.record()["end_reason"] == terms.REJECTED
    assert "refused" in [moment.what for moment in delayed.timeline]


def test_outgoing_delayed_call_without_redis_is_rejected(build: Build) -> None:
    bench = build(accounts={"acme": {"token": "acme-cards-token", **ONE_A_DAY}}).connect()
    delayed = autodial(bench, delay=0.01)
    bench.redis.break_after(0)
    eventually(lambda: delayed.ended)
    bench.redis.mend()
    assert bench.originates() == []
    assert bench.reason() == (terms.REJECTED, 21, terms.SYSTEM)
    assert "unavailable" in [moment.what for moment in delayed.timeline]


def test_outgoing_cancel_during_the_delay_dials_nothing(bench: Bench) -> None:
    delayed = autodial(bench, delay=0.02)
    assert bench.services.calls.cancel(delayed.call_ref, "api")
    eventually(lambda: delayed.ended)
    assert bench.originates() == []
    assert bench.reason() == (terms.CANCELLED, 16, "api")


def test_outgoing_place_says_whether_it_answered(bench: Bench) -> None:
    busy, answered = bench.outgoing.place(placed()), bench.outgoing.place(order := placed())
    bench.answer_originate("-ERR USER_BUSY\n", count=1)
    bench.answer_originate(f"+OK {UUID}\n", count=2)
    bench.visit("click2dial", variable_esl_call_ref=order.attempt.call_ref).served()
    assert (busy.get(timeout=5), answered.get(timeout=5)) == (False, True)
