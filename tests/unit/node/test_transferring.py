"""Transfers on a node: what the switch is told, what is refused, and both calls' records."""

from __future__ import annotations

import json
from typing import Any

import gevent
import pytest

from esl_apps.apps.transfer import consultation
from esl_apps.core import node_clock, talk, terms
from esl_apps.core.actions import Action, Undone
from esl_apps.core.attempt import Attempt
from esl_apps.core.charges import Charge
from esl_apps.core.limits import Level, Limits, Refusal
from esl_apps.core.reference import new_ref
from esl_apps.core.status import snapshot
from esl_apps.node import transferring
from esl_apps.node.live import Live
from esl_apps.prompts import PROMPTS
from esl_apps.store import keys
from tests.support.bench import DID, Bench, Build, click_talk, show_legs
from tests.support.call_switch import B, C
from tests.support.peer import UUID, Peer, api_response, eventually

D = "dddddddd-2222-4333-8444-555555555555"
WITH_EMERGENCY = {
    "region": "ZA",
    "extension": "user/{number}@127.0.0.1",
    "external": ["sofia/gateway/pstn/{number}"],
    "emergency": "sofia/gateway/pstn/{number}",
}
CHAINS = [("agent", "agent"), ("agent", "callee"), ("callee", "agent"), ("callee", "callee")]
LIMITED = {"spending": {"limits": {"minutes_per_day": 600}}}
ACCOUNT = Level("account:acme", Limits(minutes_per_day=600, longest_call=900))


def transfer(bench: Bench, live: Live, to: str = "1001", by: str = "agent") -> str:
    state = bench.services.acting.perform(live, Action("transfer", to=to, by=by))
    assert isinstance(state.transfer_ref, str)
    return state.transfer_ref


def refusal(bench: Bench, live: Live, to: str = "1001") -> tuple[int, str, str]:
    with pytest.raises(Undone) as error:
        transfer(bench, live, to)
    return error.value.status, error.value.code, error.value.field


def commands(bench: Bench) -> list[str]:
    names = ("api uuid_setvar", "api uuid_record", "api uuid_audio", "api uuid_transfer")
    return [text.removeprefix("api ") for text in bench.switch.heard if text.startswith(names)]


@pytest.mark.parametrize("by", ["agent", "callee"])
def test_transferring_again_names_the_same_call(bench: Bench, by: str) -> None:
    """A client whose connection broke repeats its request."""
    live = click_talk(bench)
    new = transfer(bench, live, by=by)
    call = snapshot(live.attempt)
    assert bench.services.acting.act(call, Action("transfer", to="1001", by=by)).transfer_ref == new
    other = "callee" if by == "agent" else "agent"
    for action in (
        Action("transfer", to="1002", by=by),
        Action("transfer", to="1001", by=other),
        Action("transfer", to="1001", by=by, mode="consult"),
        Action("hold"),
    ):
        with pytest.raises(Undone, match="the call has ended"):
            bench.services.acting.act(call, action)


def test_transferring_moves_the_leg_that_stays(bench: Bench) -> None:
    live = click_talk(bench)
    new = transfer(bench, live)
    settings, *unset, move = commands(bench)
    assert settings.startswith(f"uuid_setvar_multi {B} esl_app=transfer;esl_call_ref={new};")
    assert "esl_apps_nodes=127.0.0.1:8085/transfer\\sasync\\sfull" in settings
    assert unset == [f"uuid_setvar {leg} esl_bleg" for leg in (UUID, B)]
    assert move.startswith(f"uuid_transfer {B} m:^:blind_transfer_ack:true^")
    assert f"api uuid_kill {UUID}" in bench.switch.heard
    record = bench.record()
    assert (record["call_ref"], record["end_reason"], record["hung_up_by"]) == (
        live.attempt.call_ref,
        "answered",
        "agent",
    )
    assert bench.services.calls.live[new].attempt.transferred_from == live.attempt.call_ref


def test_transferring_keeps_the_calls_language(bench: Bench) -> None:
    """Also for the message that the switch plays if no node serves the party."""
    new = transfer(bench, click_talk(bench, language="fr"))
    assert bench.services.calls.live[new].attempt.language == "fr"
    assert f"playback:{PROMPTS}/fr/8000/unavailable.wav" in commands(bench)[0]


def test_transferring_by_the_callee_moves_the_agents_leg(bench: Bench) -> None:
    live = click_talk(bench, muted=["agent"])
    transfer(bench, live, "0820005678", "callee")
    assert f"uuid_audio {UUID} stop" in commands(bench)
    assert commands(bench)[-1].startswith(f"uuid_transfer {UUID} ")


def test_transferring_ends_the_recording_before_the_move(bench: Bench) -> None:
    live = click_talk(bench, recording_url="01900000-0000-7000-8000-000000000000.wav")
    transfer(bench, live)
    assert commands(bench)[-2].startswith(f"uuid_record {B} stop /")


def test_transferring_a_recorded_call_without_a_file_is_done(bench: Bench) -> None:
    """The switch couldn't open the file, so it has no recording to end."""
    bench.switch.answers["api uuid_record"] = api_response("-ERR Cannot stop record session!\n")
    live = click_talk(bench, recording_url=f"{new_ref()}.wav")
    transfer(bench, live)
    assert live.attempt.ended


def test_transferring_saves_the_new_call_before_the_move(bench: Bench) -> None:
    seen: list[bool] = []
    live = click_talk(bench)

    def moved(_connection: Any, _command: str) -> bytes:
        seen.append(any('"app":"transfer"' in raw for raw in bench.redis_server.live()))
        return api_response("+OK\n")

    bench.switch.answers["api uuid_transfer"] = moved
    new = transfer(bench, live)
    assert seen == [True]
    assert bench.services.store.call(new) is not None


def test_transferring_with_the_event_socket_full_is_429(bench: Bench) -> None:
    """The leg would be refused there, and its party would have no call any more."""
    live = click_talk(bench)
    bench.services.readiness.sockets = 6000
    assert refusal(bench, live) == (429, "limit_reached", "limits")
    assert (commands(bench), live.attempt.transferred_to) == ([], None)
    bench.services.readiness.sockets = 5000
    transfer(bench, live)


@pytest.mark.parametrize("mode", ["", "consult"])
def test_transferring_in_vain_is_taken_back_in_redis(bench: Bench, mode: str) -> None:
    """It was saved before the move. A node that adopts the call would never close its session."""
    live = click_talk(bench)
    old, seen = live.attempt, []

    def refuses(_connection: Any, _command: str) -> bytes:
        seen.extend(saved(bench, old))
        return api_response("-ERR No such channel!\n")

    show_legs(bench.switch, {"Unique-ID": UUID})
    bench.switch.answers |= dict.fromkeys(["api uuid_transfer", "api uuid_dual_transfer"], refuses)
    with pytest.raises(Undone):
        bench.services.acting.perform(live, Action("transfer", to="1001", by="agent", mode=mode))
    assert len(seen) == (2 if mode else 1)
    bench.flush()
    assert saved(bench, old) == []


def saved(bench: Bench, attempt: Attempt) -> list[Any]:
    """Return the calls that this one goes on in or waits for, as Redis has it."""
    calls = [json.loads(raw) for raw in bench.redis_server.live()]
    call = next(call for call in calls if call["call_ref"] == attempt.call_ref)
    return [*filter(None, [call.get("transferred_to"), call.get("consultation")]), *call.get("apart", [])]


@pytest.mark.parametrize("to", ["0900123456", "x", "", "0820001234;ext=1", "1001,1002", "112"])
def test_transferring_to_what_may_not_be_dialled_is_422(bench: Bench, to: str) -> None:
    live = click_talk(bench)
    status, _code, field = refusal(bench, live, to)
    assert (status, field) == (422, "to")
    assert commands(bench) == []
    assert live.attempt.transferred_to is None


@pytest.mark.parametrize(("app", "seconds"), [("inbound", 7), ("click-dial", 30), ("dialthrough", 30)])
def test_transferring_keeps_an_inbound_callers_wait(app: str, seconds: int) -> None:
    """Its ``hold_time`` is the wait for an agent, also if the caller was on hold later."""
    old = Attempt(app=app, call_dir="inbound", bridged_at=1000.0, hold_time=7)
    talk.hold(old, 1010.0, on=True)
    transferring.end(old, "agent", 1040.0)
    assert old.record is not None
    assert old.record.hold_time == seconds


def test_transferring_past_a_limit_is_429(build: Build) -> None:
    bench = build(spending={"limits": {"calls_per_day": 1}}).connect()
    transfer(bench, click_talk(bench))
    bench.switch.heard.clear()
    live = click_talk(bench)
    assert refusal(bench, live)[:2] == (429, "limit_reached")
    assert commands(bench) == []
    assert live.attempt.transferred_to is None


def test_transferring_a_leg_that_is_gone_changes_nothing(bench: Bench) -> None:
    bench.switch.answers["api uuid_transfer"] = api_response("-ERR No such channel!\n")
    live = click_talk(bench)
    assert refusal(bench, live)[:2] == (409, "state")
    assert not live.attempt.ended
    assert live.attempt.transferred_to is None
    # The attempt that was begun for it has no record.
    eventually(lambda: len(bench.services.calls.live) == 1)
    assert bench.records() == []


def test_transferring_fault_refuses_and_frees_the_turn(bench: Bench) -> None:
    """An adopted call's recording may be of any name."""
    live = click_talk(bench, recording_url="not-one-of-ours.wav")
    with gevent.Timeout(5):
        assert refusal(bench, live)[:2] == (409, "state")
    eventually(lambda: len(bench.services.calls.live) == 1)
    # The switch may take its legs for the new call's.
    assert not any(text.startswith("api hupall") for text in bench.switch.heard)
    live.attempt.recording = talk.OFF
    with gevent.Timeout(5):
        transfer(bench, live)


def moves_and_breaks(bench: Bench, leg: str) -> Any:
    """Answer a move: the leg comes to the node, and the connection breaks before the reply."""

    def moved(peer: Peer, _command: str) -> bytes:
        ref = next(live.attempt.call_ref for live in bench.live.values() if live.placed is not None)
        bench.visit("transfer", **{"Unique-ID": leg, "variable_esl_call_ref": ref})
        peer.close()
        return b""

    return moved


def test_transferring_move_whose_reply_is_lost_is_done(bench: Bench) -> None:
    bench.switch.answers["api uuid_transfer"] = moves_and_breaks(bench, B)
    live = click_talk(bench)
    new = transfer(bench, live)
    assert live.attempt.ended
    assert bench.live[new].attached


def test_transferring_consultation_whose_reply_is_lost_is_begun(bench: Bench) -> None:
    live = click_talk(bench)
    show_legs(bench.switch, {"Unique-ID": UUID}, {"Unique-ID": B})
    bench.switch.answers["api uuid_dual_transfer"] = moves_and_breaks(bench, UUID)
    state = bench.services.acting.perform(live, Action("transfer", to="1001", by="agent", mode="consult"))
    assert state.held
    asked = consultation(bench.live[str(state.transfer_ref)].attempt)
    assert asked is not None
    assert asked.held == B


def test_transferring_that_fails_leaves_the_leg_in_its_call(bench: Bench) -> None:
    """Or the call, if it is followed, would be taken for one with a single leg, and hung up."""
    bench.switch.answers["api uuid_transfer"] = api_response("-ERR No such channel!\n")
    live = click_talk(bench)
    refusal(bench, live)
    named, bleg = commands(bench)[-2:]
    assert named.startswith(f"uuid_setvar_multi {B} esl_app=click-dial;esl_call_ref={live.attempt.call_ref};")
    assert bleg == f"uuid_setvar {B} esl_bleg {live.attempt.session_ref}"


def test_transferring_a_leg_that_is_gone_counts_as_no_call(build: Build) -> None:
    bench = build(spending={"limits": {"calls_per_day": 1}}).connect()
    bench.switch.answers["api uuid_transfer"] = api_response("-ERR No such channel!\n")
    assert refusal(bench, click_talk(bench))[:2] == (409, "state")
    bench.services.usage.settle()
    del bench.switch.answers["api uuid_transfer"]
    transfer(bench, click_talk(bench))


def test_transferring_without_the_integrator_is_409(bench: Bench) -> None:
    live = click_talk(bench)
    live.attempt.integrator = "another"
    assert refusal(bench, live)[:2] == (409, "state")


# Charges ------------------------------------------------------------------------------------------------


def paid_talk(
    bench: Bench, app: str, *charges: dict[str, Any], number: str = "+27820001234"
) -> tuple[Live, list[Charge]]:
    """A talk of the account with the legs' charges, in an application that calls a number by its E.164 form."""
    live = click_talk(bench, app=app, number=number, account_id="acme")
    plan = bench.services.policy.settings.plan
    made = []
    for fields in charges:
        keyed = plan.read(fields.pop("number", "0820001234"))
        made.append(Charge(live.attempt.call_ref, [bench.services.policy.system, ACCOUNT], keyed, **fields))
    assert bench.services.usage.begin(*made) is None
    live.attempt.pay(*made)
    live.attempt.answered_at = live.attempt.bridged_at = node_clock.now() - 2
    for charge in made:
        charge.talk(2)
    return live, made


def goes_on(bench: Bench, ref: str, aleg: str, bleg: str) -> Live:
    """The leg that stays has come, and the new party has answered."""
    live = bench.services.calls.live[ref]
    live.attached = True
    live.attempt.aleg_uuid, live.attempt.bleg_uuid = aleg, bleg
    live.attempt.enter(terms.AGENT_ANSWERED, node_clock.now())
    live.attempt.enter(terms.BRIDGED, node_clock.now())
    return live


def timed(attempt: Attempt) -> list[str]:
    """The levels for which the seconds of an attempt count: each once for each leg that pays."""
    return sorted(ticket.bound.key for charge in attempt.charges for ticket in charge.tickets if ticket.timed)


def test_transferring_to_112_in_vain_leaves_the_call_timed(build: Build) -> None:
    bench = build(dial=WITH_EMERGENCY, **LIMITED).connect()
    live, _charges = paid_talk(bench, "callback", {"aleg": True, "number": "0825556666"}, {"owner": False})
    bench.switch.answers["api uuid_transfer"] = api_response("-ERR No such channel!\n")
    assert refusal(bench, live, "112")[:2] == (409, "state")
    timers = [text.removeprefix("api ") for text in bench.switch.heard if text.startswith("api sched")]
    # By longest_call, of the leg that was to stay.
    assert timers == [f"sched_del {B}", f"sched_hangup +898 {B} ALLOTTED_TIMEOUT"]


@pytest.mark.parametrize("by", ["agent", "callee"])
def test_transferring_spares_a_leg_while_it_talks_to_112(build: Build, by: str) -> None:
    """The switch's timer of the leg is of the call before."""
    bench = build(dial=WITH_EMERGENCY, **LIMITED).connect()
    live, charges = paid_talk(bench, "callback", {"aleg": True, "number": "0825556666"}, {"owner": False})
    leg, charge = (B, charges[1]) if by == "agent" else (UUID, charges[0])
    ref = transfer(bench, live, "112", by=by)
    assert f"api sched_del {leg}" in bench.switch.heard
    emergency = goes_on(bench, ref, leg, C)
    bench.services.breakers.refresh()
    bench.services.breakers.trip("account:acme", "by hand", end_calls=True)
    bench.services.usage.accrue()
    assert (emergency.attempt.charges, emergency.attempt.cut) == ([charge], None)
    # The emergency number has that party's place, and leaves.
    new = bench.live[transfer(bench, emergency, "1001", by=by)].attempt
    assert bench.switch.heard.count(f"api sched_del {leg}") == 1
    assert new.cut is None
    bench.services.usage.accrue()
    assert new.cut == charge.cut == Refusal("breaker", "account:acme")


@pytest.mark.parametrize("app", ["click-dial", "dialthrough", "disa"])
def test_transferring_keeps_paying_for_the_leg_that_stays(build: Build, app: str) -> None:
    """Whatever the number was called: a session has it in its E.164 form, and its charge as it was keyed."""
    bench = build(**LIMITED).connect()
    live, (charge,) = paid_talk(bench, app, {"whole": False})
    new = bench.services.calls.live[transfer(bench, live)].attempt
    assert live.attempt.ended
    assert not charge.ended
    assert charge in new.charges
    # A reached limit, or a breaker that ends calls, reaches its leg.
    bench.services.usage._cut(charge, Refusal("breaker", "system"))
    eventually(lambda: f"api hupall ALLOTTED_TIMEOUT esl_call_ref {new.call_ref}" in bench.switch.heard)
    new.end(terms.ANSWERED, 16, terms.SYSTEM, node_clock.now())
    assert charge.ended


@pytest.mark.parametrize(("by", "stays"), [("agent", 1), ("callee", 0)])
def test_transferring_has_the_leg_that_stays_pay_alone(build: Build, by: str, stays: int) -> None:
    """One of the two legs counts for the levels: after the transfer, the one that stays."""
    bench = build(**LIMITED).connect()
    live, charges = paid_talk(bench, "callback", {"aleg": True, "number": "0825556666"}, {"owner": False})
    assert timed(live.attempt) == ["account:acme", "system"]
    new = bench.services.calls.live[transfer(bench, live, "0820005678", by)].attempt
    assert [charge.ended for charge in charges] == [stays != 0, stays != 1]
    assert charges[stays] in new.charges
    assert timed(new) == ["account:acme", "system"]
    # Another process that takes the call over counts so, too.
    essence = charges[stays].essence
    assert essence in new.paid_for
    assert essence["owner"]


def test_transferring_that_fails_leaves_the_charges_as_they_were(build: Build) -> None:
    bench = build(**LIMITED).connect()
    live, charges = paid_talk(
        bench, "callback", {"aleg": True, "number": "0825556666"}, {"owner": False, "whole": False}
    )
    before = list(live.attempt.paid_for)
    bench.switch.answers["api uuid_transfer"] = api_response("-ERR No such channel!\n")
    assert refusal(bench, live)[:2] == (409, "state")
    assert sorted(map(str, live.attempt.paid_for)) == sorted(map(str, before))
    assert timed(live.attempt) == ["account:acme", "system"]
    live.attempt.end(terms.ANSWERED, 16, terms.AGENT, node_clock.now())
    assert all(charge.ended for charge in charges)


def test_transferring_hands_charges_over_before_the_move(build: Build) -> None:
    """The flow that the leg leaves ends its charges, and the one that it comes to asks for their ``longest_call``."""
    bench = build(**LIMITED).connect()
    live, (charge,) = paid_talk(bench, "dialthrough", {})
    seen: list[bool] = []

    def moved(_connection: Any, _command: str) -> bytes:
        seen.append(charge in live.attempt.charges)
        return api_response("+OK\n")

    bench.switch.answers["api uuid_transfer"] = moved
    transfer(bench, live)
    assert seen == [False]


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("app", ["click-dial", "dialthrough", "callback"])
def test_transferring_counts_each_second_once(
    build: Build, monkeypatch: pytest.MonkeyPatch, app: str, chain: tuple[str, str]
) -> None:
    """Over a chain of three talks, for each payer that has a leg in them."""
    by_account = {"click-dial": [2, 1, 0, 0], "dialthrough": [2, 1, 0, 0], "callback": [2, 1, 1, 2]}
    limits = {"minutes_per_day": 600}
    acme = {"name": "acme", "listen": "127.0.0.1:8300", "token": "acme-token-for-tests", "limits": limits}
    bench = build(spending={"limits": limits}, integrators=[{**acme, "caller_ids": [DID]}]).connect()
    clock = node_clock.now()
    monkeypatch.setattr(node_clock, "now", lambda: clock)
    monkeypatch.setattr(bench.services.usage, "_seconds", lambda: clock)
    legs: dict[str, list[dict[str, Any]]] = {"callback": [{"aleg": True, "number": "0825556666"}, {"owner": False}]}
    live, _charges = paid_talk(bench, app, *legs.get(app, [{}]))
    agent, customer = UUID, B
    for leg, by in zip((C, D), chain, strict=True):
        clock += 20
        ref = transfer(bench, live, "0820005678", by)
        # The new party is B, and takes the place of the one that leaves.
        stays = customer if by == "agent" else agent
        agent, customer = (leg, customer) if by == "agent" else (agent, leg)
        live = goes_on(bench, ref, stays, leg)
        assert len(set(timed(live.attempt))) == len(timed(live.attempt))
    clock += 20
    live.attempt.end(terms.ANSWERED, 16, terms.AGENT, clock)
    bench.services.usage.settle()
    sums = [
        float(bench.redis_server.client.hvals(keys.usage_sums(key))[0])
        for key in ("system", "integrator:acme", "account:acme")
    ]
    # The talk of the first call has lasted two seconds before.
    assert sums == [62, 40, 22 + 20 * by_account[app][CHAINS.index(chain)]]
