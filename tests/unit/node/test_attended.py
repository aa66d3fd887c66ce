"""A phone's REFER with Replaces at the node: which calls are joined, what is refused, and what the switch is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gevent
import pytest

from esl_apps.core import node_clock, talk, terms
from esl_apps.core.actions import Action, Outcome
from esl_apps.core.attempt import Attempt
from esl_apps.core.charges import Charge
from esl_apps.core.limits import Refusal
from esl_apps.core.reference import new_ref
from esl_apps.node import acting, attended
from esl_apps.node.acting import ACTION, OUTCOME, WATCHED
from esl_apps.node.live import Live
from tests.support.bench import Bench, Build, click_talk, pass_on
from tests.support.call_switch import B as CUSTOMER
from tests.support.call_switch import ends
from tests.support.peer import UUID as PHONE
from tests.support.peer import Peer, api_response, event, eventually

MINE, TARGET = "dddddddd-0000-4000-8000-000000000004", "eeeeeeee-0000-4000-8000-000000000005"
"""The legs of the phone's other call: its own, and the other party's."""
DIALOG = "5a1e@desk-phone"
ACME = {"name": "acme", "listen": "127.0.0.1:8300", "token": "acme-token-for-tests"}
_CHANNELS = "api show channels like"
REFER_TO = f"<sip:0820005678@127.0.0.1?Replaces={DIALOG}%3Bto-tag%3D1%3Bfrom-tag%3D2>"


@pytest.fixture(autouse=True)
def impatient_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attended, "_ONCE_MORE", 0.01)


def says(bench: Bench, leg: str, **variables: str) -> None:
    """Have the switch give a leg's variables."""
    bench.switch.answers.pop("api uuid_getvar", None)
    said = {f"api uuid_getvar {leg} {name}": api_response(value) for name, value in variables.items()}
    bench.switch.answers = {**bench.switch.answers, **said, "api uuid_getvar": api_response("_undef_")}


def two_talks(bench: Bench, first: dict[str, Any] | None = None, second: dict[str, Any] | None = None) -> list[Live]:
    """Two calls of one phone: the one that the REFER comes on, and the one that it names."""
    calls = [
        click_talk(bench, **(first or {})),
        click_talk(bench, **{"aleg_uuid": MINE, "bleg_uuid": TARGET, **(second or {})}),
    ]
    rows = [f'{{"uuid":"{leg}","direction":"outbound","name":"sofia/internal/1000@pbx"}}' for leg in (PHONE, MINE)]
    # Before the answer to a list of all channels.
    listed = {_CHANNELS: api_response(f'{{"rows":[{",".join(rows)}]}}')}
    bench.switch.answers = {**listed, **bench.switch.answers}
    says(bench, PHONE, _sofia_replaces_=DIALOG, esl_account_id="acme")
    ref = calls[1].attempt.call_ref
    says(bench, MINE, sip_call_id=DIALOG, esl_account_id="acme", esl_call_ref=ref, bridge_uuid=TARGET)
    return calls


def refer(bench: Bench, live: Live, leg: str = PHONE, header: str = REFER_TO) -> None:
    headers = {"Event-Subclass": WATCHED, "Unique-ID": leg, "Header-Value": header}
    for node in bench.switch.connections:
        node.say(event("CUSTOM", {**headers, "variable_esl_call_ref": live.attempt.call_ref}))


def told(bench: Bench, start: str) -> list[str]:
    return [text.removeprefix("api ") for text in bench.switch.heard if text.startswith(f"api {start}")]


def refusal(live: Live) -> str:
    """Return why a transfer was refused, and check that the call goes on."""
    attempt: Attempt = live.attempt
    eventually(lambda: any(moment.what == "transfer_refused" for moment in attempt.timeline))
    assert not attempt.ended
    assert attempt.transferred_to is None
    return next(moment.detail for moment in attempt.timeline if moment.what == "transfer_refused")


def test_attended_joins_the_other_two_parties(bench: Bench) -> None:
    first, second = two_talks(bench, second={"gateway": "10.0.0.1"})
    refer(bench, first)
    eventually(lambda: first.attempt.ended and second.attempt.ended)
    assert told(bench, "uuid_bridge") == [f"uuid_bridge {CUSTOMER} {TARGET}"]
    assert sorted(told(bench, "uuid_kill")) == sorted([f"uuid_kill {PHONE}", f"uuid_kill {MINE}"])
    assert "hupall" not in " ".join(bench.switch.heard)
    new = first.attempt.transferred_to
    assert new is not None
    assert second.attempt.transferred_to == new
    # One session, which the new call closes.
    assert second.attempt.session_ref == first.attempt.session_ref
    joined = bench.services.calls.live[new].attempt
    assert (joined.extension, joined.number) == ("0820001234", "0820001234")
    assert (joined.aleg_uuid, joined.bleg_uuid, joined.state) == (CUSTOMER, TARGET, terms.BRIDGED)
    assert joined.gateway == "10.0.0.1"
    assert {record["end_reason"] for record in bench.records()} == {terms.ANSWERED}


@pytest.mark.parametrize("url", [f"{new_ref()}.wav", None], ids=["both", "one"])
def test_attended_parties_are_recorded_if_both_calls_were(bench: Bench, url: str | None) -> None:
    first, _second = two_talks(bench, {"recording_url": f"{new_ref()}.wav"}, {"recording_url": url})
    refer(bench, first)
    eventually(lambda: first.attempt.ended and first.turn is not None and not first.turn.locked())
    joined = bench.services.calls.live[first.attempt.transferred_to or ""].attempt
    assert joined.recording == (talk.OFF if url is None else talk.ON)
    assert len(told(bench, f"uuid_record {TARGET} start")) == (url is not None)


def test_attended_call_of_an_earlier_node_counts_as_recorded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It doesn't say whether it was."""
    acting, url = bench.services.acting, f"{new_ref()}.wav"
    ask = acting.ask

    def earlier(call: Mapping[str, Any], action: Action) -> Outcome:
        outcome = ask(call, action)
        return Outcome(outcome.done, ago=outcome.ago)

    monkeypatch.setattr(acting, "ask", earlier)
    first, _second = two_talks(bench, {"recording_url": url}, {"recording_url": url})
    refer(bench, first)
    eventually(lambda: first.attempt.ended and first.turn is not None and not first.turn.locked())
    assert bench.services.calls.live[first.attempt.transferred_to or ""].attempt.recording == talk.ON


#: An inbound call whose caller shows an emergency number.
SHOWS_112 = {"app": "inbound", "number": "112", "aleg_uuid": TARGET, "bleg_uuid": MINE}


def test_attended_party_with_a_caller_showing_112_is_cut(build: Build) -> None:
    """Or anyone could be spared: a caller can show any number."""
    bench = build(spending={"limits": {"minutes_per_day": 100}}).connect()
    first, second = two_talks(bench, second=SHOWS_112)
    plan, system = bench.services.policy.settings.plan, bench.services.policy.system
    charge = Charge(first.attempt.call_ref, [system], plan.read("0820001234"))
    assert bench.services.usage.begin(charge) is None
    first.attempt.pay(charge)
    refer(bench, first)
    eventually(lambda: first.attempt.ended and second.attempt.ended)
    joined = bench.live[first.attempt.transferred_to or ""].attempt
    assert (joined.extension, joined.extension_class, joined.charges) == ("112", None, [charge])
    assert not told(bench, "sched_del")
    bench.services.breakers.refresh()
    bench.services.breakers.trip("system", "by hand", end_calls=True)
    assert joined.cut == Refusal("breaker", "system")


@pytest.mark.parametrize(("app", "claimed"), [("inbound", True), ("click-dial", False)])
def test_attended_caller_with_an_agents_number_is_no_agent(bench: Bench, app: str, claimed: bool) -> None:
    """Or a stranger who shows an agent's number could dial as the integrator: by a REFER."""
    second = {"app": app, "number": "1007", "aleg_uuid": TARGET, "bleg_uuid": MINE}
    first, _second = two_talks(bench, second=second if app == "inbound" else {"number": "1007"})
    refer(bench, first)
    eventually(lambda: first.attempt.ended and first.turn is not None and not first.turn.locked())
    joined = bench.live[first.attempt.transferred_to or ""].attempt
    assert (joined.extension, joined.claimed) == ("1007", claimed)
    assert bool(told(bench, f"uuid_setvar {TARGET} confirm_blind_transfer")) is not claimed


@pytest.mark.parametrize("when", ["before", "after"])
def test_attended_party_that_leaves_at_once_was_in_the_new_call(bench: Bench, when: str) -> None:
    """Its end still names the call before: the switch couldn't be told any more."""
    first, _second = two_talks(bench)
    headers: dict[str, Any] = {"variable_esl_call_ref": first.attempt.call_ref, "variable_esl_bleg": "s-1"}
    headers["variable_sip_hangup_disposition"] = "recv_bye"
    left = ends("NORMAL_CLEARING", 16, uuid=CUSTOMER, **headers)
    gone = api_response("-ERR No such channel!\n")

    def bridge(peer: Peer, command: str) -> bytes:
        if when == "before":
            peer.say(left)
        return bench.switch.obey(command)

    def rename(peer: Peer, _command: str) -> bytes:
        if when == "after":
            gevent.spawn_later(0.01, peer.say, left)
        return gone

    bench.switch.answers |= {"api uuid_bridge": bridge, f"api uuid_setvar_multi {CUSTOMER}": rename}
    refer(bench, first)
    eventually(lambda: first.attempt.transferred_to and not bench.live)
    (new,) = [record for record in bench.records() if record["call_ref"] == first.attempt.transferred_to]
    # The party that stays is the callee of the new call, as of the one before.
    assert (new["end_reason"], new["hung_up_by"]) == (terms.ANSWERED, terms.CALLEE)


def test_attended_other_call_that_ends_meanwhile_is_refused(bench: Bench) -> None:
    first, second = two_talks(bench)

    def end(_peer: Peer, _command: str) -> bytes:
        second.attempt.end(terms.ANSWERED, 16, terms.CALLEE, node_clock.now())
        return api_response("+OK")

    bench.switch.answers = {f"api uuid_setvar {MINE} hold_hangup": end, **bench.switch.answers}
    refer(bench, first)
    assert refusal(first) == "the call has ended"


def test_attended_without_replaces_is_no_matter_of_the_node(bench: Bench) -> None:
    first, _second = two_talks(bench)
    refer(bench, first, header="<sip:0820005678@127.0.0.1>")
    refer(bench, first, leg="not a leg")
    bench.services.calls.on_event(first.switch, event_after(bench, first))
    assert not told(bench, "uuid_getvar")


def event_after(bench: Bench, live: Live) -> Any:
    """Return the end of a leg that the switch has told after all that it was to say before."""
    headers = {"variable_esl_call_ref": live.attempt.call_ref, "Unique-ID": "99999999-0000-4000-8000-000000000009"}
    bench.switch.say(event("CHANNEL_HANGUP_COMPLETE", headers))
    eventually(lambda: live.ends)
    return next(iter(live.ends.values()))


def test_attended_to_an_unknown_dialog_ends_the_call(bench: Bench) -> None:
    """The switch dials what such a REFER names, past all checks."""
    first, second = two_talks(bench)
    says(bench, PHONE, _sofia_replaces_="_undef_")
    refer(bench, first)
    eventually(lambda: told(bench, "hupall CALL_REJECTED"))
    assert told(bench, "hupall CALL_REJECTED") == [f"hupall CALL_REJECTED sip_h_X-FS-Refer-From {PHONE}"]
    assert first.attempt.cancelled_by == terms.SYSTEM
    assert not second.attempt.ended


@pytest.mark.parametrize(
    ("leg", "variable", "value", "reason"),
    [
        (MINE, "sip_call_id", "another@phone", "no such call"),
        (MINE, "esl_account_id", "globex", "not of the same client"),
        (MINE, "esl_call_ref", "_undef_", "no node has"),
        (MINE, "esl_call_ref", "01a22b1a-0000-7000-8000-000000000000", "no node has"),
    ],
)
def test_attended_of_what_isnt_the_phones_is_refused(
    bench: Bench, leg: str, variable: str, value: str, reason: str
) -> None:
    first, second = two_talks(bench)
    says(bench, leg, **{variable: value})
    refer(bench, first)
    assert reason in refusal(first)
    assert not second.attempt.ended
    assert not told(bench, "uuid_bridge")


def test_attended_on_another_leg_than_the_phones_is_refused(bench: Bench) -> None:
    first, second = two_talks(bench)
    says(bench, CUSTOMER, _sofia_replaces_=DIALOG)
    refer(bench, first, leg=CUSTOMER)
    assert refusal(first) == "only the agent's registered phone transfers"
    assert not second.attempt.ended


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ({"extension": "0820009999"}, {}, "only the agent's registered phone transfers"),
        ({"claimed": True}, {}, "only the agent's registered phone transfers"),
        ({"integrator": "globex"}, {}, "not configured any more"),
        ({}, {"extension": "1001"}, "the other call is not that phone's"),
        ({}, {"number": ""}, "has no number"),
        ({}, {"session_ref": "01a22b1a-0000-7000-8000-000000000001"}, "a transfer, or a consultation"),
    ],
)
def test_attended_of_calls_that_dont_fit_is_refused(
    bench: Bench, first: dict[str, Any], second: dict[str, Any], reason: str
) -> None:
    one, other = two_talks(bench)
    for live, fields in ((one, first), (other, second)):
        for name, value in fields.items():
            setattr(live.attempt, name, value)
    refer(bench, one)
    assert reason in refusal(one)
    assert not other.attempt.ended
    assert not told(bench, "uuid_bridge")


def test_attended_that_the_switch_refuses_leaves_both_calls(bench: Bench) -> None:
    first, second = two_talks(bench, {"held": True})
    bench.switch.answers["api uuid_bridge"] = api_response("-ERR no such channel\n")
    refer(bench, first)
    eventually(lambda: told(bench, "uuid_bridge"))
    eventually(lambda: second.attempt.transferred_to is None and first.attempt.transferred_to is None)
    assert not first.attempt.ended
    assert not second.attempt.ended
    assert not told(bench, "uuid_kill")


@pytest.mark.parametrize("ends_now", [0, 1], ids=["first", "second"])
def test_attended_session_closes_if_a_call_ends_as_it_is_refused(build: Build, ends_now: int) -> None:
    """Its record names the next call, which then has a record, too."""
    bench = build(integrators=[{**ACME, "session_records": True}]).connect()
    calls = two_talks(bench)
    over = calls[ends_now].attempt

    def gone(_peer: Peer, _command: str) -> bytes:
        over.end(terms.ANSWERED, 16, terms.CALLEE, node_clock.now())
        return api_response("-ERR no such channel\n")

    bench.switch.answers["api uuid_bridge"] = gone
    refer(bench, calls[0])
    eventually(lambda: over.ended and all(call.attempt.transferred_to is None for call in calls))
    assert over.record is not None
    pushed = [one for one in bench.records() if one["session_ref"] == over.session_ref]
    assert [one["call_ref"] for one in pushed if "calls" not in one] == [over.call_ref, over.record.transferred_to]
    assert [one["calls"] for one in pushed if "calls" in one] == [2]
    assert not calls[1 - ends_now].attempt.ended


def test_attended_undone_record_of_a_caller_showing_112(build: Build) -> None:
    """It isn't an emergency call's."""
    bench = build(integrators=[{**ACME, "payload": "v4"}]).connect()
    first, second = two_talks(bench, second=SHOWS_112)

    def gone(_peer: Peer, _command: str) -> bytes:
        second.attempt.end(terms.ANSWERED, 16, terms.CALLEE, node_clock.now())
        return api_response("-ERR no such channel\n")

    bench.switch.answers["api uuid_bridge"] = gone
    refer(bench, first)
    eventually(lambda: second.attempt.ended and second.attempt.transferred_to is None)
    assert second.attempt.record is not None
    ref = second.attempt.record.transferred_to
    (record,) = [record for record in bench.records() if record["call_ref"] == ref]
    assert (record["extension"], record["extension_class"]) == ("112", None)


def test_attended_twice_joins_once(bench: Bench) -> None:
    first, second = two_talks(bench)
    resumed = bench.switch.stop_at(_CHANNELS)
    refer(bench, first)
    refer(bench, first)
    refer(bench, first)
    eventually(lambda: any(moment.what == "transfer_refused" for moment in first.attempt.timeline))
    del bench.switch.answers[_CHANNELS]
    resumed.set()
    assert not second.attempt.ended


def two_nodes(build: Build) -> tuple[Bench, Bench, Live, Live]:
    """Two nodes, each with one of the phone's calls."""
    here = build().connect()
    there = build(name="app2", known=here.switches).connect()
    first, mine = two_talks(here)
    here.services.calls.release(mine)
    second = click_talk(there, aleg_uuid=MINE, bleg_uuid=TARGET)
    there.flush()
    says(here, MINE, esl_call_ref=second.attempt.call_ref)
    return here, there, first, second


def test_attended_asks_the_node_of_the_other_call(build: Build) -> None:
    here, there, first, second = two_nodes(build)
    refer(here, first)
    pass_on(here.switch, ACTION)
    pass_on(here.switch, OUTCOME)
    eventually(lambda: first.attempt.ended and second.attempt.ended)
    new = first.attempt.transferred_to
    assert second.attempt.transferred_to == new
    assert new in here.live
    assert new not in there.live


def test_attended_calls_end_when_the_two_are_joined(build: Build) -> None:
    """Not when the other call's node has told so."""
    here, _there, first, second = two_nodes(build)
    second.attempt.muted = [terms.CALLEE]
    resumed = here.switch.stop_at("api uuid_audio")
    refer(here, first)
    pass_on(here.switch, ACTION)
    eventually(lambda: told(here, "uuid_audio"))
    joined = node_clock.now()
    gevent.sleep(0.1)
    answers = node_clock.now()
    resumed.set()
    pass_on(here.switch, OUTCOME)
    eventually(lambda: first.attempt.ended and second.attempt.ended)
    assert second.attempt.record is not None
    assert second.attempt.record.ended_at <= joined
    assert first.attempt.record is not None
    # How long the answer was on its way, no node knows.
    assert first.attempt.record.ended_at <= second.attempt.record.ended_at + node_clock.now() - answers


def test_attended_late_answer_still_joins(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting, "_TOLD", 0.1)
    here, there, first, second = two_nodes(build)
    resumed = here.switch.stop_at("api uuid_bridge")
    refer(here, first)
    pass_on(here.switch, ACTION)
    eventually(lambda: told(here, "uuid_bridge"))
    gevent.sleep(0.2)
    assert not first.attempt.ended
    resumed.set()
    eventually(lambda: second.attempt.ended)
    there.flush()
    eventually(lambda: first.attempt.ended)
    new = first.attempt.transferred_to or ""
    assert second.attempt.transferred_to == new
    joined = here.live[new].attempt
    assert (joined.aleg_uuid, joined.bleg_uuid, joined.state) == (CUSTOMER, TARGET, terms.BRIDGED)
    here.flush()
    known = here.services.store.call(new)
    assert known is not None
    assert known["state"] == terms.BRIDGED
    # Talked until the switch joined the two, not until that was known.
    assert first.attempt.record is not None
    assert second.attempt.record is not None
    assert first.attempt.record.ended_at == pytest.approx(second.attempt.record.ended_at, abs=0.01)
    assert joined.dialed_at == joined.answered_at == pytest.approx(second.attempt.record.ended_at, abs=0.01)


@pytest.mark.parametrize("redis_lives", [True, False])
def test_attended_node_that_dies_after_the_bridge_has_joined(
    build: Build, monkeypatch: pytest.MonkeyPatch, redis_lives: bool
) -> None:
    """No record says so; the switch does."""
    monkeypatch.setattr(acting, "_TOLD", 0.1)
    here, there, first, _second = two_nodes(build)
    monkeypatch.setattr(attended, "_RECORDED", 0.2)
    here.switch.stop_at("api uuid_bridge")
    refer(here, first)
    pass_on(here.switch, ACTION)
    eventually(lambda: told(here, "uuid_bridge"))
    there.die()
    if not redis_lives:
        here.redis.break_after()
    says(here, CUSTOMER, bridge_uuid=TARGET)
    eventually(lambda: first.attempt.ended)
    assert first.attempt.transferred_to in here.live


def test_attended_without_an_answer_is_withdrawn(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting, "_TOLD", 0.1)
    here, _there, first, second = two_nodes(build)
    refer(here, first)
    assert refusal(first) == "the call's node doesn't answer"
    # It has stood still, and is back.
    pass_on(here.switch, ACTION)
    gevent.sleep(0.1)
    assert not second.attempt.ended
    assert not told(here, "uuid_bridge")


def test_attended_begun_too_late_changes_nothing(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting, "_TOLD", 0.1)
    monkeypatch.setattr(attended, "_PATIENCE", 0.1)
    monkeypatch.setattr(attended, "_LATE", 0.2)
    here, _there, first, second = two_nodes(build)
    resumed = here.switch.stop_at(f"api uuid_setvar {TARGET} esl_bleg")
    refer(here, first)
    pass_on(here.switch, ACTION)
    assert refusal(first) == "the call's node doesn't answer"
    resumed.set()
    eventually(lambda: any(f"Event-Subclass: {OUTCOME}" in text for text in here.switch.heard))
    assert not second.attempt.ended
    assert second.attempt.transferred_to is None
    assert not told(here, "uuid_bridge")


@pytest.mark.parametrize("done", [True, False])
def test_attended_bridge_whose_reply_is_lost(bench: Bench, monkeypatch: pytest.MonkeyPatch, done: bool) -> None:
    monkeypatch.setattr(attended, "AWAY", 2.0)
    first, second = two_talks(bench)

    def breaks(peer: Peer, _command: str) -> bytes:
        if done:
            says(bench, CUSTOMER, bridge_uuid=TARGET)
        peer.close()
        return b""

    bench.switch.answers["api uuid_bridge"] = breaks
    refer(bench, first)
    if done:
        eventually(lambda: first.attempt.ended and second.attempt.ended)
        assert first.attempt.transferred_to == second.attempt.transferred_to
        assert first.attempt.transferred_to in bench.live
    else:
        assert refusal(first)
        assert not second.attempt.ended


@pytest.mark.parametrize("header", ["<sip:x@127.0.0.1?", "<sip:", "<sip:x@127.0.0.1?\x01>", "sip:x@127.0.0.1", ""])
@pytest.mark.parametrize("blind", [True, False])
def test_attended_header_that_is_cut_may_have_replaces(bench: Bench, header: str, blind: bool) -> None:
    """FreeSWITCH reports 511 bytes of it."""
    (live, _other) = two_talks(bench)
    says(bench, PHONE, **({"transfer_to": f"blind:{CUSTOMER}"} if blind else {}), _sofia_replaces_="_undef_")
    refer(bench, live, header=header)
    if blind:
        eventually(lambda: told(bench, f"uuid_getvar {PHONE} transfer_to"))
        gevent.sleep(0.05)
        assert live.attempt.cancelled_by is None
    else:
        eventually(lambda: live.attempt.cancelled_by == terms.SYSTEM)


def test_attended_leg_that_has_left_needs_no_look_at_its_refer(bench: Bench) -> None:
    (live, _other) = two_talks(bench)
    bench.switch.answers["api uuid_getvar"] = api_response("-ERR No such channel!\n")
    refer(bench, live, header="<sip:x@127.0.0.1?")
    eventually(lambda: told(bench, f"uuid_getvar {PHONE} transfer_to"))
    gevent.sleep(0.15)
    assert live.attempt.cancelled_by is None
