"""How a call is ended once its money is spent, and how an adopted call's charges go on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import gevent
import msgspec
import pytest

from esl_apps.core import node_clock, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.charges import Charge
from esl_apps.core.limits import Level, Limits, Refusal
from esl_apps.node import charging
from esl_apps.node.charging import cut_on
from esl_apps.node.live import Live
from esl_apps.process import background
from esl_apps.store import keys
from esl_apps.store.membership import BEAT
from tests.support.bench import DID, Bench, Build
from tests.support.call_switch import B
from tests.support.peer import UUID, api_response, eventually

CUT = Refusal("minutes_per_day", "account:acme")


def charge_of(ref: str, **more: Any) -> Charge:
    charge = Charge(ref, [Level("account:acme", Limits(minutes_per_day=1))], None, **more)
    charge.cut = CUT
    return charge


def call_of(bench: Bench, **fields: Any) -> Live:
    attempt = Attempt(app="disa", call_dir="external", aleg_uuid=UUID, **fields)
    return bench.services.calls.begin(attempt, bench.services.switches[0])


def cut(bench: Bench, charge: Charge) -> None:
    cut_on(bench.services.switches, bench.live)(charge)


def ordered(bench: Bench, count: int) -> list[str]:
    """The hang-ups that the switch was given."""

    def hangups() -> list[str]:
        return [text[4:] for text in bench.switch.heard if text.startswith(("api hupall", "api uuid_kill"))]

    eventually(lambda: len(hangups()) >= count)
    return hangups()


# Cut ----------------------------------------------------------------------------------------------------


def test_charging_cut_ends_the_whole_call(bench: Bench) -> None:
    live = call_of(bench)
    ref = live.attempt.call_ref
    cut(bench, charge_of(ref))
    assert ordered(bench, 2) == [f"hupall ALLOTTED_TIMEOUT esl_call_ref {ref}", f"uuid_kill {UUID} ALLOTTED_TIMEOUT"]


def test_charging_cut_of_b_alone_leaves_the_caller(bench: Bench) -> None:
    """In a session the caller hears why, and may go on."""
    live = call_of(bench, session_ref="s-1")
    cut(bench, charge_of(live.attempt.call_ref, whole=False))
    assert ordered(bench, 1) == ["hupall ALLOTTED_TIMEOUT esl_bleg s-1"]


def test_charging_cut_ends_a_b_leg_on_hold_alone(bench: Bench) -> None:
    """The consultation has taken it from the session's."""
    live = call_of(bench, session_ref="s-1", bleg_uuid=B, followed=True)
    cut(bench, charge_of(live.attempt.call_ref, whole=False))
    assert ordered(bench, 1) == [f"uuid_kill {B} ALLOTTED_TIMEOUT"]


def test_charging_cut_is_noted_once_however_often_it_is_told(bench: Bench) -> None:
    live = call_of(bench)
    for _ in range(3):
        cut(bench, charge_of(live.attempt.call_ref))
    assert [moment.what for moment in live.attempt.timeline].count("cut") == 1
    assert len(ordered(bench, 6)) == 6


def test_charging_cut_between_two_numbers_ends_the_first_leg(bench: Bench) -> None:
    """No attempt is live then; the charge knows its leg."""
    charge = charge_of("ended")
    charge.outlive("fs1", UUID)
    cut(bench, charge)
    assert f"uuid_kill {UUID} ALLOTTED_TIMEOUT" in ordered(bench, 2)


@pytest.mark.parametrize("whole", [True, False])
def test_charging_cut_of_a_call_that_has_gone_orders_nothing(bench: Bench, whole: bool) -> None:
    charge = charge_of("ended", whole=whole)
    charge.switch = None if whole else "fs1"
    cut(bench, charge)
    live = call_of(bench)
    cut(bench, charge_of(live.attempt.call_ref))
    assert all("ended" not in text for text in ordered(bench, 2))


def test_charging_cut_on_a_switch_that_refuses_costs_nothing(bench: Bench) -> None:
    """The next beat repeats it."""
    bench.switch.answers["api hupall"] = api_response("-ERR no such channel\n")
    live = call_of(bench)
    cut(bench, charge_of(live.attempt.call_ref))
    assert len(ordered(bench, 2)) == 2


# Adopted ------------------------------------------------------------------------------------------------


def paid(*levels: str, number: str | None = "0820001234", aleg: bool = False) -> dict[str, Any]:
    return {"levels": list(levels), "number": number, "aleg": aleg, "owner": True, "whole": True}


def resumed(bench: Bench, *paid_for: dict[str, Any], **fields: Any) -> Attempt:
    attempt = Attempt(app="disa", call_dir="external", paid_for=list(paid_for), **fields)
    bench.services.charging.resume(attempt)
    return attempt


def levels_of(attempt: Attempt) -> list[Sequence[str]]:
    return [charge.levels for charge in attempt.charges]


@pytest.fixture
def charged(build: Build) -> Bench:
    """A node with a limit at each level, whose clock stands still."""
    acme = {"name": "acme", "listen": "127.0.0.1:8300", "token": "acme-token-for-tests", "caller_ids": [DID]}
    limits = {"limits": {"minutes_per_day": 10, "longest_call": 60}}
    bench = build(
        spending=limits,
        integrators=[{**acme, **limits}],
        accounts={
            "acme": {"token": "acme-cards-token", **limits, "card_limits": {"longest_call": 30}},
            "front": {"token": "front-cards-token", "limits": {"calls_per_hour": 9, "calls_per_day": 9}},
        },
    )
    bench.services.usage._seconds = lambda: 1000.0
    return bench


def test_charging_resumes_at_todays_levels(charged: Bench) -> None:
    names = ("system", "integrator:acme", "account:acme", "card:c1")
    attempt = resumed(charged, paid(*names), account_id="acme")
    (charge,) = attempt.charges
    assert charge.levels == names
    assert (charge.adopted, charge.longest) == (True, 30)
    assert sorted({ticket.bound.scope for ticket in charge.tickets}) == ["account:acme", "integrator:acme", "system"]


@pytest.mark.parametrize("gone", ["integrator:gone", "account:gone", "wakeup:x", "", ":"])
def test_charging_of_a_level_that_is_gone_has_no_limit(charged: Bench, gone: str) -> None:
    (charge,) = resumed(charged, paid(gone)).charges
    assert (charge.tickets, charge.longest) == ([], None)


def test_charging_without_redis_goes_on_unpaid(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Whether an imported account is limited can't be known: the call goes on, and what else is paid is."""
    bench.redis.break_after(0)
    attempt = resumed(bench, paid("account:imported"), paid("system"))
    assert levels_of(attempt) == [("system",)]
    assert "charge_not_resumed" in caplog.messages


@pytest.mark.parametrize(
    "odd", [{}, {"levels": 7}, {"levels": [7]}, {**paid("system"), "number": 7}, {**paid("system"), "number": "?"}]
)
def test_charging_of_another_version_costs_no_other(bench: Bench, odd: dict[str, Any]) -> None:
    assert levels_of(resumed(bench, odd, paid("system"))) == [("system",)]


def written(charge: Charge) -> dict[str, Any]:
    """A charge's essence as another process reads it."""
    essence: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(charge.essence))
    return essence


def test_charging_talk_goes_on_if_the_parties_talk(charged: Bench) -> None:
    now = time.time()
    talking = resumed(charged, paid("system"), state=terms.BRIDGED, bridged_at=now)
    ringing = resumed(charged, paid("system"), state=terms.CALLEE_RINGING)
    answered = resumed(charged, paid("system", aleg=True), paid("system"), answered_at=now)
    since = [charge.since for attempt in (talking, ringing, answered) for charge in attempt.charges]
    assert [one is not None for one in since] == [True, False, True, False]


def test_charging_resumed_goes_on_to_count_the_length(charged: Bench) -> None:
    """Also if no minutes are paid for."""
    now = time.time()
    attempt = resumed(charged, paid("card:c1", aleg=True), account_id="acme", answered_at=now - 20)
    assert [charge.left for charge in attempt.charges] == [pytest.approx(10, abs=0.01)]


@pytest.mark.parametrize(
    ("fields", "spared"),
    [
        ({"number": "112", "number_class": "emergency"}, True),
        ({"extension": "112", "extension_class": "emergency"}, True),
        ({"number": "+27820001234", "number_class": "mobile", "asks_emergency": True}, True),
        ({"number": "112"}, False),
        ({"number": "+27820001234", "number_class": "mobile"}, False),
    ],
)
def test_charging_resumed_spares_an_emergency_call(charged: Bench, fields: dict[str, Any], spared: bool) -> None:
    """A caller who shows such a number has no class."""
    attempt = resumed(charged, paid("system", aleg=True), **fields)
    assert [charge.spared for charge in attempt.charges] == [spared]


def test_charging_resumed_charge_of_a_later_version_stays_one(bench: Bench) -> None:
    """Otherwise the next node to adopt the call would pay for its leg twice."""
    paid = {**written(charge_of("ref")), "later": {"x": 1}}
    attempt = Attempt(app="disa", call_dir="external", paid_for=[paid])
    bench.services.charging.resume(attempt)
    assert attempt.paid_for == [paid]
    (charge,) = attempt.charges
    attempt.drop(charge)
    assert attempt.paid_for == []


# What the process that died had paid ---------------------------------------------------------------------


LIMITED = "account:acme"


def lost_charge(bench: Bench, talked: float = 0.0, *, noted: bool = True) -> Charge:
    """A charge as a process has paid for it that died. ``noted``: it came to its next payment."""
    level = Level(LIMITED, bench.services.policy.cards.account("acme").limits)  # type: ignore[union-attr]
    charge = Charge("lost", [level], bench.services.policy.settings.plan.read("0820001234"))
    assert bench.services.usage.begin(charge) is None
    if noted:
        charge.talk(talked)
        bench.services.usage.accrue()
        client = bench.redis_server.client
        client.hset(keys.payments("dead"), mapping=client.hgetall(keys.payments(bench.services.membership.boot)))
    # This process has nothing to do with it.
    bench.services.usage._charges.clear()
    return charge


def settle_lost(bench: Bench, attempt: Attempt) -> None:
    """Settle what a dead process has paid for a call, and wait until that is over."""
    begun: list[gevent.Greenlet[..., Any]] = []
    once = background.once
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(background, "once", lambda *work, **details: begun.append(once(*work, **details)))
        bench.services.charging.settle_later(attempt, ["dead"])
    gevent.joinall(begun)
    bench.services.usage.settle()


def counted(bench: Bench) -> float:
    """The seconds in Redis."""
    sums = bench.redis_server.client.hgetall(keys.usage_sums(LIMITED))
    return sum(float(value) for name, value in sums.items() if name.startswith("d"))


def test_charging_returns_what_a_dead_process_had_paid_ahead(charged: Bench) -> None:
    began = time.time()
    charge = lost_charge(charged, 4.0)
    assert counted(charged) == pytest.approx(14, abs=0.01)
    attempt = Attempt(app="disa", call_dir="external", paid_for=[written(charge)], dialed_at=began, bridged_at=began)
    charged.services.charging.resume(attempt, ["dead"])
    attempt.end(terms.ANSWERED, 16, terms.CALLEE, began + 6)
    charged.services.usage.settle()
    assert counted(charged) == pytest.approx(6, abs=0.01)


def test_charging_returns_what_was_paid_before_the_first_payment(charged: Bench) -> None:
    charge = lost_charge(charged, noted=False)
    assert counted(charged) == 10
    attempt = Attempt(app="disa", call_dir="external", paid_for=[written(charge)])
    charged.services.charging.resume(attempt, ["dead"])
    attempt.end("callee_no_answer", 16, terms.CALLEE, time.time())
    charged.services.usage.settle()
    assert counted(charged) == 0


def test_charging_of_an_unknown_process_pays_from_now_on(charged: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of an earlier release, or one whose payments this process has settled."""
    began = time.time() - 30
    monkeypatch.setattr(node_clock, "now", lambda: began + 30)
    charge = lost_charge(charged, 30.0)
    before = counted(charged)
    attempt = Attempt(app="disa", call_dir="external", paid_for=[written(charge)], dialed_at=began, bridged_at=began)
    charged.services.charging.resume(attempt)
    attempt.end(terms.ANSWERED, 16, terms.CALLEE, began + 36)
    charged.services.usage.settle()
    assert counted(charged) == pytest.approx(before + 6, abs=0.01)


@pytest.mark.parametrize("dead", [True, False])
def test_charging_settles_a_call_that_is_not_adopted(
    charged: Bench, monkeypatch: pytest.MonkeyPatch, dead: bool
) -> None:
    monkeypatch.setattr(charging, "DEAD", -2 * BEAT)
    monkeypatch.setattr(charged.services.membership, "is_dead", lambda _boot: dead)
    began = time.time()
    charge = lost_charge(charged)
    attempt = Attempt(app="disa", call_dir="external", paid_for=[written(charge)], dialed_at=began, bridged_at=began)
    attempt.end(terms.ANSWERED, 16, terms.CALLEE, began + 6)
    settle_lost(charged, attempt)
    assert counted(charged) == pytest.approx(6 if dead else 10, abs=0.01)
    assert attempt.timeline[-1].what == terms.ENDED


def test_charging_settled_under_a_tripped_breaker_ends_no_call(charged: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its caller goes on here, and dials an emergency number by now. They have ended before the next beat."""
    monkeypatch.setattr(charging, "DEAD", -2 * BEAT)
    monkeypatch.setattr(charged.services.membership, "is_dead", lambda _boot: True)
    attempt = Attempt(app="disa", call_dir="external", paid_for=[written(lost_charge(charged))])
    charged.services.breakers.trip("account:acme", "by hand", end_calls=True)
    charged.services.breakers.refresh()
    cuts: list[Charge] = []
    charged.services.usage._on_cut = cuts.append
    settle_lost(charged, attempt)
    charged.services.usage.accrue()
    assert (counted(charged), cuts) == (0, [])


def test_charging_of_this_process_is_resumed_like_anothers(bench: Bench) -> None:
    """Its own call, which the dialplan handed back before anything had come of it."""
    charge = Charge("a", [Level("account:acme", Limits(minutes_per_day=1))], None)
    assert bench.services.usage.begin(charge) is None
    first = Attempt(app="disa", call_dir="external", call_ref="a")
    first.pay(charge)
    again = Attempt(app="disa", call_dir="external", call_ref="a", paid_for=list(first.paid_for))
    bench.services.charging.resume(again)
    assert [one.payments_id for one in again.charges] == [charge.payments_id]


@pytest.mark.parametrize("answers", [True, False])
def test_charging_of_a_leg_from_another_call_counts_its_talk(
    charged: Bench, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    """A transferred customer's, or that of a caller who was rung back: its talk in both calls, and not what was paid
    ahead for it."""
    began = time.time()
    monkeypatch.setattr(node_clock, "now", lambda: began)
    charge, usage = lost_charge(charged, 20.0), charged.services.usage
    first = Attempt(app="click-dial", call_dir="external", call_ref="lost")
    first.pay(charge)
    first.drop(charge)
    # Its socket may have come before this is told.
    new = Attempt(app="transfer", call_dir="external", dialed_at=began, answered_at=began - 2 if answers else None)
    new.pay(charge)
    assert counted(charged) == pytest.approx(30, abs=0.01)
    known = msgspec.json.decode(msgspec.json.encode(new.paid_for))
    attempt = Attempt(app="transfer", call_dir="external", paid_for=known, dialed_at=began, answered_at=new.answered_at)
    charged.services.charging.resume(attempt, ["dead"])
    if not answers:
        # Its socket comes to this node.
        attempt.enter(terms.AGENT_ANSWERED, began)
    usage.accrue()
    attempt.end("callee_no_answer", 18, terms.CALLEE, began + 6)
    usage.settle()
    assert counted(charged) == pytest.approx(26, abs=0.01)


# Calls that strangers can cause ---------------------------------------------------------------------------


def rung_by_a_stranger(bench: Bench) -> tuple[Charge, Attempt]:
    level = Level("account:front", bench.services.policy.cards.account("front").limits)  # type: ignore[union-attr]
    charge = Charge("lost", [level], bench.services.policy.settings.plan.read("0820001234"), aleg=True)
    charge.provisional = True
    assert bench.services.usage.begin(charge) is None
    attempt = Attempt(app="callback", call_dir="external", call_ref="lost")
    attempt.pay(charge)
    # Its node dies.
    bench.services.usage._charges.clear()
    return charge, attempt


def taken_over(bench: Bench, lost: Attempt) -> Attempt:
    known = msgspec.json.decode(msgspec.json.encode(lost.paid_for))
    attempt = Attempt(app="callback", call_dir="external", call_ref="lost", paid_for=known)
    bench.services.charging.resume(attempt, ["dead"])
    return attempt


def calls_counted(bench: Bench) -> tuple[int, int]:
    """Those of the hour and those of the day."""
    client = bench.redis_server.client
    sums = client.hgetall(keys.usage_sums("account:front"))
    of_day = sum(int(value) for name, value in sums.items() if name.startswith("n"))
    return int(client.zcard(keys.usage_calls("account:front"))), of_day


def test_charging_call_that_only_rang_counts_no_longer(charged: Bench) -> None:
    charge, lost = rung_by_a_stranger(charged)
    adopted = taken_over(charged, lost)
    assert calls_counted(charged) == (1, 1)
    adopted.end("agent_no_answer", 18, terms.AGENT, time.time())
    charged.services.usage.settle()
    assert calls_counted(charged) == (0, 0)
    # Its process lives after all, and a further call is up.
    other = Charge("other", [Level("account:front", Limits(calls_per_hour=9, calls_per_day=9))], None)
    assert charged.services.usage.begin(other) is None
    charge.end()
    charged.services.usage.settle()
    assert calls_counted(charged) == (1, 1)


@pytest.mark.parametrize("how", ["confirmed before", "confirmed here", "released", "given back"])
def test_charging_call_that_goes_on_counts(charged: Bench, how: str) -> None:
    charge, lost = rung_by_a_stranger(charged)
    if how == "confirmed before":
        lost.confirm(charge)
    adopted = taken_over(charged, lost)
    (again,) = adopted.charges
    live = charged.services.calls.begin(adopted, charged.services.switches[0])
    if how == "released":
        charged.services.calls.release(live)
    elif how == "given back":
        charged.services.calls.give_back(live)
    else:
        adopted.confirm(again)
        assert adopted.paid_for == [again.essence] != [{**again.essence, "provisional": True}]
        adopted.end("agent_no_answer", 18, terms.AGENT, time.time())
    charged.services.usage.settle()
    assert calls_counted(charged) == (1, 1)


@pytest.mark.parametrize("ended", [True, False])
def test_charging_settles_the_call_of_a_stranger_handed_over(
    charged: Bench, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    monkeypatch.setattr(charging, "DEAD", -2 * BEAT)
    monkeypatch.setattr(charged.services.membership, "is_dead", lambda _boot: True)
    _charge, lost = rung_by_a_stranger(charged)
    lost.charges.clear()
    if ended:
        lost.end("agent_no_answer", 18, terms.AGENT, time.time())
    settle_lost(charged, lost)
    # If the caller is rung for here, that flow has it counted.
    assert calls_counted(charged) == ((0, 0) if ended else (1, 1))
