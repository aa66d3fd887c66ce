"""Inbound calls by script: which agents ring, what the caller hears, and the record."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from esl_apps.apps import inbound, rung_agents
from esl_apps.apps.context import Arrival
from esl_apps.apps.settings import Queue
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Bridged, Ended, Leg, Progress
from esl_apps.core.charges import Charge
from esl_apps.core.limits import BREAKER, CALLS_PER_HOUR, MINUTES_PER_DAY, Level, Limits, Refusal
from esl_apps.core.numbers import Number
from esl_apps.core.order import IntegratorRules
from esl_apps.core.record import Record
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.testing import (
    PLAN,
    Purse,
    ScriptedCall,
    ScriptedPolicy,
    caller_leaves,
    ended,
    fails,
    host,
    socket_lost,
    talks,
)

DID, CALLER = "27115550000", "0825556666"
QUEUE = Queue(
    did=PLAN.read(DID),
    integrator="acme",
    agents=(PLAN.read("1000"), PLAN.read("1001")),
    ring_timeout=20,
    longest=3600,
    record=True,
)


class Run:
    """One run of the flow, with its record and its announcements."""

    def __init__(self, call: ScriptedCall, *, queue: Queue | None = QUEUE, caller: str | None = CALLER) -> None:
        self.call = call
        self.begun: list[Attempt] = []
        self.announced: list[tuple[str, int]] = []
        call.headers.setdefault("Caller-Destination-Number", DID)
        policy = ScriptedPolicy(queues={} if queue is None else {DID: queue}, number=caller)
        announce = lambda _attempt, agent, hold_time: self.announced.append((agent, hold_time))  # noqa: E731
        inbound.arrive(call, Arrival(("inbound",)), policy, host(self.begun, announce=announce))
        (self.attempt,) = self.begun

    @property
    def record(self) -> Record:
        assert self.attempt.record is not None
        return self.attempt.record

    @property
    def told(self) -> tuple[str, int, str]:
        return self.record.end_reason, self.record.end_code, self.record.hung_up_by


def agent(user: str = "1001", disposition: str | None = None) -> Leg:
    return Leg("B", answered_at=1004.4, ended_at=1010.0, q850=16, disposition=disposition, user=user)


def joined(a_by: str | None = "recv_bye", b_by: str | None = "send_bye", user: str = "1001") -> ScriptedCall:
    return ScriptedCall([talks(agent(user))], ended(a_by=a_by, b=agent(user, b_by)))


def test_all_agents_ring_at_once_each_under_its_own_name() -> None:
    call = joined()
    Run(call)
    ((leg, endpoints, timeout, longest),) = call.did("bridge")
    assert endpoints == [("user/1000@127.0.0.1", "1000"), ("user/1001@127.0.0.1", "1001")]
    assert (timeout, longest) == (20, 3600)
    assert leg["origination_caller_id_number"] == CALLER
    assert leg["ignore_early_media"] == "true"
    assert leg["esl_app"] == "inbound"


def test_caller_hears_ringing_and_is_answered_with_an_agent() -> None:
    call = joined()
    Run(call)
    assert [entry[0] for entry in call.log] == ["set", "ring", "bridge", "hangup"]


def test_record_of_an_answered_call() -> None:
    run = Run(joined())
    assert run.told == ("answered", 16, "callee")
    made = run.record
    assert (made.extension, made.number, made.dial_number) == ("1001", CALLER, DID)
    assert (made.app, made.integrator, made.call_dir) == ("inbound", "acme", "inbound")
    assert made.recording_url == f"{made.call_ref}.wav"


def test_hold_time_is_from_arrival_to_answer() -> None:
    run = Run(joined())
    assert (run.record.dialed_at, run.record.answered_at, run.record.hold_time) == (1000.0, 1004.4, 4)


def test_answer_is_announced_once_with_agent_and_wait() -> None:
    assert Run(joined()).announced == [("1001", 4)]


def test_unanswered_call_is_not_announced() -> None:
    assert Run(ScriptedCall([fails("USER_BUSY")], ended(a_by="send_refuse"))).announced == []


@pytest.mark.parametrize(
    ("a_by", "b_by", "who"),
    [("recv_bye", "send_bye", "callee"), ("send_bye", "recv_bye", "agent"), (None, None, "system")],
)
def test_hung_up_by_is_the_party_that_sent_the_bye(a_by: str | None, b_by: str | None, who: str) -> None:
    assert Run(joined(a_by, b_by)).told == ("answered", 16, who)


def test_agents_own_voice_is_left() -> None:
    call = joined()
    Run(call)
    # On the caller's leg: two agents who answer at once would write one file twice.
    aleg = call.did("set")[0][0]
    assert aleg["execute_on_answer"].startswith("record_session:/recordings/acme/")
    assert (aleg["RECORD_STEREO"], aleg["RECORD_STEREO_SWAP"]) == ("true", "true")
    assert "execute_on_answer" not in call.did("bridge")[0][0]


# Not answered --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "told", "cause", "message"),
    [
        (fails("USER_NOT_REGISTERED"), ("agent_failed", 20, "agent"), "USER_NOT_REGISTERED", False),
        (fails("SUBSCRIBER_ABSENT"), ("agent_failed", 20, "agent"), "USER_NOT_REGISTERED", False),
        (fails("USER_BUSY"), ("agent_busy", 17, "agent"), "USER_BUSY", False),
        (fails("NO_ANSWER", timed_out=True), ("agent_no_answer", 19, "system"), "NO_ANSWER", True),
        (fails("NO_USER_RESPONSE"), ("agent_no_answer", 18, "agent"), "NO_ANSWER", True),
        (fails("CALL_REJECTED"), ("agent_failed", 21, "agent"), "NO_ANSWER", False),
    ],
)
def test_what_the_caller_gets(step: Any, told: tuple[str, int, str], cause: str, message: bool) -> None:
    call = ScriptedCall([step], ended(a_by="send_refuse"))
    assert Run(call).told == told
    assert call.did("hangup") == [(cause,)]
    assert bool(call.did("play_early")) is message


def test_caller_who_leaves_while_agents_ring() -> None:
    run = Run(ScriptedCall([caller_leaves()], ended(a_by="recv_cancel")))
    assert run.told == ("abandoned", 16, "callee")
    assert run.record.recording_url is None


def test_caller_who_leaves_in_the_message_was_not_answered() -> None:
    call = ScriptedCall([fails("NO_ANSWER", timed_out=True)], ended(a_by="recv_cancel"), gone_at="play_early")
    assert Run(call).told == ("agent_no_answer", 19, "system")


@pytest.mark.parametrize("gone_at", ["set", "ring", "bridge"])
def test_caller_who_has_gone_already_has_one_record(gone_at: str) -> None:
    run = Run(ScriptedCall([], ended(a_by="recv_cancel"), gone_at=gone_at))
    assert run.told == ("abandoned", 16, "callee")


def test_lost_switch_is_a_lost_call() -> None:
    assert Run(ScriptedCall([socket_lost], ended(lost=True))).told == ("lost", 31, "system")


# Callers -------------------------------------------------------------------------------------------------


def test_withheld_number_is_not_passed_on() -> None:
    call = joined()
    run = Run(call, caller=None)
    assert run.record.number is None
    assert run.record.call_dir == "inbound"
    leg = call.did("bridge")[0][0]
    assert leg["origination_caller_id_number"] == leg["origination_caller_id_name"] == "anonymous"
    # It has the privacy of the caller's.
    assert leg["origination_privacy"] == ""


def test_caller_inside_is_an_internal_call() -> None:
    assert Run(joined(), caller="1005").record.call_dir == "internal"


@pytest.mark.parametrize("dnis", ["27115550000\n\napi hupall", "27115550000%0A", "", "+"])
def test_hostile_dialled_number_stands_in_no_record(dnis: str) -> None:
    call = joined()
    call.headers["Caller-Destination-Number"] = dnis
    run = Run(call)
    assert run.record.dial_number is None
    assert run.told == ("rejected", 21, "system")
    assert call.did("bridge") == []


def test_number_that_is_not_configured_is_refused() -> None:
    call = ScriptedCall([], ended(a_by="send_refuse"), headers={"Caller-Destination-Number": "27115559999"})
    run = Run(call, queue=None)
    assert call.did("hangup") == [("UNALLOCATED_NUMBER",)]
    assert run.told == ("rejected", 21, "system")
    assert (run.record.number, run.record.dial_number) == (CALLER, "27115559999")


def test_answer_known_only_from_the_end_is_announced_alike() -> None:
    end = Ended(1010.0, Leg("A", answered_at=1004.4, ended_at=1010.0), agent("1001", "recv_bye"))
    run = Run(ScriptedCall([caller_leaves(ringing=False)], end))
    assert run.told == ("answered", 16, "agent")
    assert (run.record.extension, run.record.answered_at, run.record.hold_time) == ("1001", 1004.4, 4)
    assert run.announced == [("1001", 4)]


def test_switch_without_a_session_for_the_agents_is_a_503() -> None:
    """The trunk may have another switch."""
    full = Bridged(False, 42, "SWITCH_CONGESTION", by_switch=True)
    run = Run(ScriptedCall([lambda _progress: full], ended(a_by="send_refuse")))
    assert run.call.did("hangup") == [("SWITCH_CONGESTION",)]
    assert run.told == ("rejected", 42, "system")


@pytest.mark.parametrize(
    ("aleg", "told"),
    [
        # The caller gave up as the agent answered.
        (Leg("A", ended_at=1005.0, q850=16, disposition="recv_cancel"), ("abandoned", 16, "callee")),
        # The switch could not answer the caller: no codec in common, or keys that don't fit.
        (Leg("A", ended_at=1005.0, q850=88, disposition="send_refuse"), ("rejected", 88, "system")),
    ],
)
def test_agent_who_answers_no_caller_is_not_announced(aleg: Leg, told: tuple[str, int, str]) -> None:
    run = Run(ScriptedCall([caller_leaves()], Ended(1005.0, aleg, agent("1001", None))))
    assert run.told == told
    assert (run.record.answered_at, run.record.bridged_at, run.announced) == (None, None, [])


def test_caller_who_shows_an_emergency_number_has_no_class() -> None:
    """Anyone can show one, and what its call costs would be spared."""
    run = Run(joined(), caller="112")
    assert (run.record.number, run.attempt.is_emergency) == ("112", False)


def test_caller_whose_number_cannot_be_read_is_an_outside_call() -> None:
    run = Run(joined(), caller="not a number")
    assert run.record.call_dir == "inbound"
    assert run.told == ("answered", 16, "callee")


# Agents outside: legs that this installation pays for ------------------------------------------------------

OUTSIDE = PLAN.read("0831112222")
LEVELS = (Level("system"), Level("integrator:acme", Limits(calls_per_hour=1, minutes_per_day=10, longest_call=90)))
OVER, TRIPPED = Refusal(CALLS_PER_HOUR, "integrator:acme"), Refusal(BREAKER, "system")


def rung(usage: Purse, call: ScriptedCall, *agents: Number) -> Attempt:
    """Run a call to these agents."""
    begun: list[Attempt] = []
    call.headers["Caller-Destination-Number"] = DID
    client = IntegratorRules("acme", PLAN, levels=LEVELS)
    queue = replace(QUEUE, agents=agents, record=False)
    policy = ScriptedPolicy(queues={DID: queue}, clients={"acme": client}, number=CALLER)
    announce = lambda _attempt, _agent, _hold_time: None  # noqa: E731
    inbound.arrive(call, Arrival(("inbound",)), policy, host(begun, usage, announce=announce))
    return begun[0]


def end_of(attempt: Attempt) -> tuple[str, int, str]:
    assert attempt.record is not None
    return attempt.record.end_reason, attempt.record.end_code, attempt.record.hung_up_by


@pytest.mark.parametrize(("refusal", "cause", "code"), [(OVER, "USER_BUSY", 17), (TRIPPED, "CALL_REJECTED", 21)])
def test_agent_outside_over_a_limit_is_not_rung(refusal: Refusal, cause: str, code: int) -> None:
    call = ScriptedCall([], ended(a_by="send_refuse"))
    attempt = rung(Purse(refusal), call, OUTSIDE)
    assert [entry[0] for entry in call.log] == ["play_early", "hangup"]
    assert call.did("hangup") == [(cause,)]
    assert end_of(attempt) == ("rejected", code, "system")


def test_agent_outside_over_a_limit_leaves_the_phones() -> None:
    call = joined(user="1000")
    rung(Purse(OVER), call, OUTSIDE, PLAN.read("1000"))
    ((_leg, endpoints, _timeout, longest),) = call.did("bridge")
    assert endpoints == [("user/1000@127.0.0.1", "1000")]
    assert longest == 3600


def test_agent_outside_is_not_rung_while_nothing_can_count() -> None:
    class Away(Purse):
        def begin(self, *charges: Charge) -> Refusal | None:
            raise StoreUnavailable("redis: away")

    call = ScriptedCall([], ended(a_by="send_refuse"))
    assert end_of(rung(Away(), call, OUTSIDE)) == ("rejected", 21, "system")
    assert call.did("bridge") == []


def test_agent_outside_who_answers_is_paid_for() -> None:
    usage = Purse()
    call = joined(user="0831112222")
    attempt = rung(usage, call, PLAN.read("1000"), OUTSIDE)
    assert end_of(attempt) == ("answered", 16, "callee")
    (charge,) = usage.charges
    assert charge.levels == ("system", "integrator:acme")
    assert (charge.number, charge.began_as_aleg, charge.whole) == (OUTSIDE, False, True)
    assert charge.since is not None
    assert charge.spent(0.0) == pytest.approx(5.6)
    assert call.did("bridge")[0][3] == 90
    assert [paid["number"] for paid in attempt.paid_for] == ["0831112222"]


@pytest.mark.parametrize("answers", [True, False])
def test_agent_outside_counts_as_a_call_once_they_answer(*, answers: bool) -> None:
    """Any stranger can have them rung."""
    usage, other = Purse(), PLAN.read("0832223333")
    call = joined(user="0832223333") if answers else ScriptedCall([NO_ANSWER], ended(a_by="send_refuse"))
    rung(usage, call, OUTSIDE, other)
    assert [charge.provisional for charge in usage.charges] == [not answers] * 2


def test_cost_of_agents_outside_is_saved_before_they_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the node dies, the one that takes the call over returns it."""
    call, saved = ScriptedCall([NO_ANSWER], ended(a_by="send_refuse")), []
    monkeypatch.setattr(Attempt, "save", lambda self: saved.append((len(self.paid_for), bool(call.did("bridge")))))
    rung(Purse(), call, OUTSIDE, PLAN.read("0832223333"))
    assert saved[:1] == [(2, False)]


def test_agents_outside_who_do_not_answer_are_not_paid_for() -> None:
    usage = Purse()
    other = PLAN.read("0832223333")
    attempt = rung(usage, joined(user="0832223333"), OUTSIDE, other)
    assert {charge.number: charge.since is not None for charge in usage.charges} == {OUTSIDE: False, other: True}
    assert [charge.spent(0.0) for charge in usage.charges if charge.number == OUTSIDE] == [0.0]
    assert [paid["number"] for paid in attempt.paid_for] == ["0832223333"]


def test_agent_outside_is_cut_as_any_call() -> None:
    usage = Purse()

    def cut(progress: Progress) -> Bridged:
        talks(agent("0831112222"))(progress)
        usage.charges[0].cut = Refusal(MINUTES_PER_DAY, "integrator:acme")
        return Bridged(True, 16, bleg=agent("0831112222"))

    call = ScriptedCall([cut], ended(a_by="send_bye", b=agent("0831112222", "send_bye")))
    assert end_of(rung(usage, call, OUTSIDE)) == ("answered", 16, "system")


# Which agents ring, and how they fare ---------------------------------------------------------------------

ONE_BY_ONE = replace(QUEUE, strategy="in_order")
NO_ANSWER = fails("NO_ANSWER", timed_out=True, users=["1000"])


def agents_of(run: Run) -> list[tuple[str, int, str | None, int | None]]:
    return [(one["agent"], one["seconds"], one["end_reason"], one["end_code"]) for one in run.record.agents or ()]


def rang(user: str, seconds: float, **more: Any) -> Leg:
    """A phone's leg that rang from 1003 on."""
    fields = {"ended_at": 1003.0 + seconds, "q850": 16, "cause": "LOSE_RACE", **more}
    return Leg(f"B{user}", ringing_at=1003.0, user=user, **fields)


def test_ringing_names_the_agents_once_a_phone_rings() -> None:
    run = Run(joined())
    rings = [(moment.at, moment.detail) for moment in run.attempt.timeline if moment.what == "ringing"]
    assert rings == [(1003.5, "1000, 1001")]


def test_agents_in_order_ring_one_after_the_other() -> None:
    call = ScriptedCall([NO_ANSWER, talks(agent())], ended(a_by="recv_bye", b=agent(), legs=[agent()]))
    run = Run(call, queue=ONE_BY_ONE)
    assert [(endpoints, timeout) for _leg, endpoints, timeout, _longest in call.did("bridge")] == [
        ([("user/1000@127.0.0.1", "1000")], 20),
        ([("user/1001@127.0.0.1", "1001")], 20),
    ]
    assert [moment.detail for moment in run.attempt.timeline if moment.what == "ringing"] == ["1000", "1001"]
    assert run.told[0] == "answered"
    assert agents_of(run) == [("1000", 2, "no_answer", 19), ("1001", 0, "answered", 16)]


@pytest.mark.parametrize(
    ("failures", "told", "hangup"),
    [
        (("USER_BUSY", "NO_USER_RESPONSE"), ("agent_no_answer", 18, "agent"), "NO_ANSWER"),
        (("USER_NOT_REGISTERED", "USER_BUSY"), ("agent_busy", 17, "agent"), "USER_BUSY"),
        (("USER_NOT_REGISTERED", "USER_NOT_REGISTERED"), ("agent_failed", 20, "agent"), "USER_NOT_REGISTERED"),
    ],
)
def test_agents_in_order_that_fail_tell_most(
    failures: tuple[str, str], told: tuple[str, int, str], hangup: str
) -> None:
    call = ScriptedCall([fails(cause) for cause in failures], ended(a_by="send_refuse"))
    assert Run(call, queue=ONE_BY_ONE).told == told
    assert call.did("hangup") == [(hangup,)]


def test_agents_in_order_end_with_a_switch_without_sessions() -> None:
    full = Bridged(False, 42, "SWITCH_CONGESTION", by_switch=True)
    run = Run(ScriptedCall([lambda _progress: full], ended(a_by="send_refuse")), queue=ONE_BY_ONE)
    assert run.told == ("rejected", 42, "system")
    assert agents_of(run) == [("1000", 0, "failed", 42)]


def test_agents_in_random_order_all_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.shuffle", lambda groups: groups.reverse())
    call = ScriptedCall([fails("USER_BUSY"), fails("USER_BUSY")], ended(a_by="send_refuse"))
    Run(call, queue=replace(QUEUE, strategy="random"))
    assert [endpoints[0][1] for _leg, endpoints, _timeout, _longest in call.did("bridge")] == ["1001", "1000"]


@pytest.mark.parametrize("strategy", ["all", "in_order", "random"])
def test_caller_who_is_an_agent_is_not_rung(strategy: str) -> None:
    call = joined()
    run = Run(call, caller="1000", queue=replace(QUEUE, strategy=strategy))
    assert [endpoints for _leg, endpoints, _timeout, _longest in call.did("bridge")] == [
        [("user/1001@127.0.0.1", "1001")]
    ]
    assert [one["agent"] for one in run.record.agents or ()] == ["1001"]


def test_caller_who_is_the_only_agent_hears_that_it_is_busy() -> None:
    call = ScriptedCall([], ended(a_by="send_refuse"))
    run = Run(call, caller="+27831112222", queue=replace(QUEUE, agents=(OUTSIDE,)))
    assert run.told == ("rejected", 17, "system")
    assert call.did("hangup") == [("USER_BUSY",)]
    assert call.did("bridge") == []


def test_agents_who_do_not_answer_first_are_in_the_record() -> None:
    legs = [rang("1000", 4.0), rang("1001", 4.4, answered_at=1007.4, ended_at=1010.0, cause="NORMAL_CLEARING")]
    run = Run(ScriptedCall([talks(agent())], ended(a_by="recv_bye", b=agent(), legs=legs)))
    assert agents_of(run) == [("1000", 4, "elsewhere", 16), ("1001", 4, "answered", 16)]


def test_agents_ring_until_the_last_of_them_stops() -> None:
    """The caller hears a message after that, and an agent who was busy is told last."""
    legs = [rang("1000", 20.0), rang("1001", 0.5, cause="USER_BUSY", q850=17)]
    attempt = Attempt(app="inbound", call_dir="inbound", agents=None)
    rung_agents.ask(attempt, [PLAN.read("1000"), PLAN.read("1001")])
    rung_agents.fared(attempt, legs, Bridged(False, 19, timed_out=True, legs=legs))
    assert attempt.rang_until == max(leg.ended_at or 0.0 for leg in legs)


def test_agent_with_two_phones_has_the_outcome_that_says_most() -> None:
    busy, dead = rang("1000", 0, q850=17, cause="USER_BUSY"), rang("1000", 6.0, q850=38, cause="GATEWAY_DOWN")
    call = ScriptedCall([lambda _progress: Bridged(False, 17, "USER_BUSY", legs=[dead, busy])], ended())
    assert agents_of(Run(call))[0] == ("1000", 6, "busy", 17)


def test_agents_of_a_caller_who_leaves_are_abandoned() -> None:
    legs = [rang("1000", 2.0, cause="ORIGINATOR_CANCEL"), rang("1001", 2.0, cause="ORIGINATOR_CANCEL")]
    run = Run(ScriptedCall([caller_leaves()], ended(a_by="recv_cancel", legs=legs)))
    assert agents_of(run) == [("1000", 2, "abandoned", 16), ("1001", 2, "abandoned", 16)]


def test_agents_of_a_lost_call_have_no_end() -> None:
    run = Run(ScriptedCall([socket_lost], ended(lost=True)))
    assert agents_of(run) == [("1000", 0, None, None), ("1001", 0, None, None)]
