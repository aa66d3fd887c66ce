"""The call of a party that stays: whom it is connected with, and what its record says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from esl_apps.apps import second_party, transfer
from esl_apps.apps.legs import LONGEST
from esl_apps.apps.transfer import TransferCall
from esl_apps.core import causes, node_clock, talk, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import CallEnded, Leg
from esl_apps.core.charges import Charge
from esl_apps.core.limits import BREAKER, Level, Limits, Refusal
from esl_apps.core.order import IntegratorRules
from esl_apps.core.record import Record
from esl_apps.testing import PLAN, SETTINGS, Purse, ScriptedCall, ScriptedPolicy, ended, fails, host, talks

CLIENT = IntegratorRules("acme", PLAN, record=True)
POLICY = ScriptedPolicy(clients={"acme": CLIENT})


def before(**fields: Any) -> Attempt:
    """The call that a party leaves."""
    return Attempt(
        app="click-dial",
        call_dir="outbound",
        integrator="acme",
        extension="1000",
        number="0820001234",
        number_e164="+27820001234",
        dial_number="27115550000",
        contact_ref="lead-7",
        metadata={"a": "b"},
        **fields,
    )


def bleg(**fields: Any) -> Leg:
    return Leg("B", **{"answered_at": 1005.0, "ended_at": 1010.0, "q850": 16, **fields})


def new(leaves: str, to: str, **fields: Any) -> TransferCall:
    return transfer.new_call(before(**fields), PLAN.read(to), leaves, CLIENT, PLAN)


def run(call: ScriptedCall, transferred: TransferCall) -> Record:
    transferred.answered(call, POLICY, host([], Purse()))
    record = transferred.attempt.record
    assert record is not None
    return record


def test_transfer_of_an_accounts_call_is_billed_to_it() -> None:
    made = new("agent", "1001", account_id="a1", card_id="c1", user_id="u1")
    call = ScriptedCall([talks(bleg())], ended(b=bleg(), at=1010.0))
    record = run(call, made)
    assert (record.account_id, record.card_id, record.user_id) == ("a1", "c1", "u1")
    # Both legs are the client's, who finds them by that.
    owners = [variables["esl_account_id"] for (variables, *_more) in (*call.did("set"), *call.did("bridge"))]
    assert set(owners) == {"acme"}


def test_transfer_to_an_agent_is_that_agents_call() -> None:
    made = new("agent", "1001")
    attempt = made.attempt
    assert (attempt.extension, attempt.number, attempt.number_e164) == ("1001", "0820001234", "+27820001234")
    assert (attempt.session_ref, attempt.contact_ref, attempt.metadata) != (attempt.call_ref, "", None)
    assert attempt.contact_ref == "lead-7"
    assert attempt.transferred_from is not None
    # The agent's phone shows the customer.
    assert made.kept.shown == "0820001234"
    assert second_party(attempt) == terms.AGENT


def test_transfer_to_a_number_outside_shows_the_integrators() -> None:
    assert new("agent", "0820005678").kept.shown == "27115550000"


def test_transfer_by_the_callee_is_the_agents_next_call() -> None:
    made = new("callee", "0820005678")
    assert (made.attempt.extension, made.attempt.number) == ("1000", "0820005678")
    assert second_party(made.attempt) == terms.CALLEE


@pytest.mark.parametrize("claimed", [True, False])
def test_transfer_by_the_callee_gives_keys_to_agents_only(claimed: bool) -> None:
    """Not to the caller of a session, who may show an agent's number."""
    call = ScriptedCall([talks()], ended(b=bleg()))
    made = new("callee", "0820005678", claimed=claimed)
    run(call, made)
    ((stays,),), ((comes, *_more),) = call.did("set"), call.did("bridge")
    assert ("confirm_blind_transfer" in stays) is not claimed
    assert (comes["force_transfer_context"] == "esl_apps_refer") is not claimed
    # Nor do they get any by the next transfer, but another agent does.
    for leaves, kept in (("callee", claimed), ("agent", False)):
        assert transfer.new_call(made.attempt, PLAN.read("1001"), leaves, CLIENT, PLAN).attempt.claimed is kept


def test_transfer_talks_and_is_recorded_if_the_call_was() -> None:
    call = ScriptedCall([talks()], ended(b=bleg()))
    made = new("agent", "1001", recording_url="a.wav", recording=talk.ON)
    record = run(call, made)
    ((leg, endpoints, _timeout, _longest),) = call.did("bridge")
    assert endpoints == [("user/1001@127.0.0.1", None)]
    assert leg["esl_call_ref"] == made.attempt.call_ref
    assert leg["execute_on_answer"].startswith("record_session:")
    assert (record.end_reason, record.bridged_at is not None) == ("answered", True)


@pytest.mark.parametrize(("leaves", "to", "swap"), [("agent", "1001", "false"), ("callee", "0820005678", "true")])
def test_transfer_is_recorded_with_the_agent_left(leaves: str, to: str, swap: str) -> None:
    """A leg's own voice is left unless it is swapped."""
    call = ScriptedCall([talks()], ended(b=bleg()))
    made = new(leaves, to, recording_url="a.wav", recording=talk.ON)
    made.attempt.second_party = made.kept.second_party
    run(call, made)
    assert call.did("bridge")[0][0]["RECORD_STEREO_SWAP"] == swap


@pytest.mark.parametrize("recording", [{}, {"recording_url": "a.wav", "recording": talk.PAUSED}])
def test_transfer_of_a_call_without_a_recording_has_none(recording: dict[str, str]) -> None:
    call = ScriptedCall([talks()], ended(b=bleg()))
    run(call, new("agent", "1001", **recording))
    assert "execute_on_answer" not in call.did("bridge")[0][0]


def test_transfer_has_what_is_left_of_the_longest_duration() -> None:
    call = ScriptedCall([talks()], ended(b=bleg()))
    first = {"max_duration": 60}
    made = new("agent", "1001", order=first, bridged_at=node_clock.now() - 20.0)
    run(call, made)
    longest = call.did("bridge")[0][3]
    assert 39.0 < longest <= 40.0
    # Another process takes it over, and it is transferred again.
    restored = transfer.restore(made.attempt, call, POLICY)
    assert restored is not None
    assert restored.kept.max_duration == longest
    made.attempt.bridged_at = node_clock.now() - 15.0
    assert 24.0 < (transfer.seconds_left(made.attempt) or 0.0) <= 25.0


def test_consultation_is_not_bound_by_the_longest_duration() -> None:
    call = ScriptedCall([talks()], ended(b=bleg()))
    made = asking(order={"max_duration": 60}, bridged_at=node_clock.now() - 20.0)
    run(call, made)
    assert call.did("bridge")[0][3] == CLIENT.longest


def test_transfer_to_a_busy_agent_says_so() -> None:
    call = ScriptedCall([fails("USER_BUSY")], ended(b=bleg(answered_at=None, q850=17)))
    record = run(call, new("agent", "1001"))
    assert call.did("play") == [("callee_busy",)] or "callee_busy" in str(call.did("play"))
    assert record.end_reason == "agent_busy"


@pytest.mark.parametrize("client", [None, IntegratorRules("acme", PLAN, outside=False)])
def test_transfer_that_the_rules_refuse_meanwhile_dials_nothing(client: IntegratorRules | None) -> None:
    call = ScriptedCall([], ended())
    made = new("callee", "0820005678")
    made.answered(call, ScriptedPolicy(clients={"acme": client} if client else {}), host([], Purse()))
    assert call.did("bridge") == []
    assert "transfer_refused" in str(call.did("play"))
    record = made.attempt.record
    assert record is not None
    assert (record.end_reason, record.end_code) == (terms.REJECTED, causes.BEARER_NOT_AUTHORIZED)


@pytest.mark.parametrize(("leg", "reason"), [("stays", "answered"), ("new", "rejected")])
def test_transfer_asks_the_breakers_of_the_new_leg(leg: str, reason: str) -> None:
    """One that has tripped for the leg that stays lets that talk: otherwise it would have ended the call."""

    class Tripped(Purse):
        def tripped(self, *charges: Charge) -> Refusal | None:
            return Refusal(BREAKER, "system") if charges else None

    made = new("agent", "1001")
    charge = Charge("before" if leg == "stays" else made.attempt.call_ref, [Level("system")], PLAN.read("0820001234"))
    made.attempt.pay(charge)
    call = ScriptedCall([talks(bleg())], ended(b=bleg(), at=1010.0))
    made.answered(call, POLICY, host([], Tripped()))
    assert made.attempt.record is not None
    assert made.attempt.record.end_reason == reason


def test_restore_goes_on_with_the_same_call() -> None:
    made = new("agent", "1001", recording_url="a.wav", recording=talk.ON)
    found = transfer.restore(made.attempt, ScriptedCall([], ended()), POLICY)
    assert found is not None
    assert (found.to, found.kept) == (made.to, made.kept)


@pytest.mark.parametrize(
    "order",
    [None, {}, {"to": "x", "shown": "1", "second_party": "agent", "record": True}, {"to": "1001", "x": 1}],
)
def test_restore_of_a_wrong_order_is_none(order: dict[str, Any] | None) -> None:
    attempt = before(order=order)
    assert transfer.restore(attempt, ScriptedCall([], ended()), POLICY) is None


def test_restore_without_its_integrator_is_none() -> None:
    made = new("agent", "1001")
    assert transfer.restore(made.attempt, ScriptedCall([], ended()), ScriptedPolicy()) is None


# Consultations --------------------------------------------------------------------------------------------


def test_transfer_talks_as_long_as_the_leg_that_stays_may() -> None:
    """Its ``longest_call`` is of the whole leg, however often it is transferred."""
    clock, purse = 0.0, Purse()
    made = new("agent", "1001")
    charge = Charge("before", [Level("system", Limits(longest_call=900))], PLAN.read("0820001234"))
    charge.open(lambda: clock, lambda _charge: None)
    charge.talk()
    clock = 800.0
    made.attempt.pay(charge)
    call = ScriptedCall([talks(bleg())], ended(b=bleg(), at=1010.0))
    made.answered(call, POLICY, host([], purse))
    ((_leg, _endpoints, _timeout, longest),) = call.did("bridge")
    assert longest == 100.0


def test_transfer_to_an_emergency_number_has_no_limits() -> None:
    client = IntegratorRules("acme", PLAN, emergency=True)
    made = transfer.new_call(before(), PLAN.read("112"), "agent", client, PLAN)
    charge = Charge("before", [Level("system", Limits(longest_call=900))], PLAN.read("0820001234"))
    made.attempt.pay(charge)
    endpoints = replace(SETTINGS.endpoints, emergency="sofia/gateway/pstn/{number}")
    policy = ScriptedPolicy(replace(SETTINGS, endpoints=endpoints), clients={"acme": client})
    call = ScriptedCall([talks(bleg())], ended(b=bleg(), at=1010.0))
    made.answered(call, policy, host([], Purse()))
    ((_leg, _endpoints, _timeout, longest),) = call.did("bridge")
    assert (longest, charge.spared) == (LONGEST, True)


@pytest.mark.parametrize(("leaves", "seconds"), [("agent", LONGEST), ("callee", 60.0)])
def test_transfer_of_a_long_emergency_call_has_time(leaves: str, seconds: float) -> None:
    """Any if its emergency number stays, and otherwise as if the talk began now."""
    old = before(order={"max_duration": 60.0}, number_class="emergency", bridged_at=node_clock.now() - 300)
    old.number = "112"
    client = IntegratorRules("acme", PLAN, emergency=True)
    made = transfer.new_call(old, PLAN.read("1001"), leaves, client, PLAN)
    call = ScriptedCall([talks(bleg())], ended(b=bleg(), at=1010.0))
    made.answered(call, ScriptedPolicy(clients={"acme": client}), host([], Purse()))
    assert call.did("bridge")[0][3] == seconds


def asking(to: str = "1001", consults: str = "agent", **fields: Any) -> TransferCall:
    return transfer.new_consultation(before(**fields), PLAN.read(to), consults, "H", CLIENT, PLAN)


def test_consultation_is_of_the_party_that_asks_and_the_new_one() -> None:
    made = asking()
    assert (made.attempt.extension, made.attempt.number) == ("1000", "1001")
    asked = transfer.consultation(made.attempt)
    assert asked is not None
    assert (asked.consults, asked.held, asked.to) == ("agent", "H", "1001")
    # Its charge ends the new leg alone.
    made = replace(made, client=replace(CLIENT, levels=[Level("system")]))
    assert [charge.whole for charge in made.charges()] == [False]


def test_consultation_takes_a_back_when_the_new_party_leaves() -> None:
    call = ScriptedCall([talks(bleg())], ended())
    made = asking()
    record = run(call, made)
    assert call.did("set")[0][0]["hangup_after_bridge"] == "false"
    assert call.did("parts") == [()]
    assert call.did("go_on") == [()]
    assert call.did("hangup") == []
    assert (record.end_reason, record.transferred_to) == ("answered", None)
    asked = transfer.consultation(made.attempt)
    assert asked is not None
    assert asked.back


def test_consultation_with_a_busy_party_says_so_and_takes_a_back() -> None:
    call = ScriptedCall([fails("USER_BUSY")], ended())
    record = run(call, asking())
    assert call.did("play") == [("callee_busy",)]
    assert call.did("go_on") == [()]
    assert record.end_reason == "callee_busy"


def test_consultation_that_is_cancelled_plays_no_prompt() -> None:
    made = asking()

    def cancel(progress: Any) -> Any:
        made.attempt.cancelled_by = terms.API
        return fails("NORMAL_CLEARING")(progress)

    call = ScriptedCall([cancel], ended())
    record = run(call, made)
    assert call.did("play") == []
    assert (record.end_reason, record.hung_up_by) == ("cancelled", "api")


def test_consultation_leaves_the_other_two_to_each_other() -> None:
    call = ScriptedCall([caller_leaves_a_talk], ended(a_by="recv_bye", b=bleg(ended_at=None)))
    made = asking()
    record = run(call, made)
    asked = transfer.consultation(made.attempt)
    assert asked is not None
    assert (record.end_reason, record.hung_up_by, record.transferred_to) == ("answered", "agent", asked.next)
    assert record.b_seconds == 5.0
    assert all(charge.outlives and not charge.ended for charge in made.attempt.charges)


def test_consultation_without_a_party_on_hold_just_ends() -> None:
    call = ScriptedCall([caller_leaves_a_talk], ended(a_by="recv_bye", b=bleg(ended_at=None)))
    made = asking()
    transfer.note(made.attempt, held="")
    assert run(call, made).transferred_to is None


def test_consultation_with_a_wrong_order_is_none() -> None:
    made = asking()
    transfer.note(made.attempt, colour="red")
    assert transfer.consultation(made.attempt) is None


def caller_leaves_a_talk(progress: Any) -> Any:
    talks(bleg(ended_at=None))(progress)
    raise CallEnded("the channel hung up")
