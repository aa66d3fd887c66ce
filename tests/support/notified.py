"""Run each application against a script, and collect its records and announcements.

``CASES`` names one call per application and outcome. Each runs the real flow, with a fixed clock and fixed references
(see ``tests/golden``), and gives the records and the inbound notifications in the order in which they were made.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from esl_apps.apps import autodial, callback, click2dial, dialthrough, disa, inbound, second_party, transfer
from esl_apps.apps.autodial import AutodialOrder
from esl_apps.apps.click2dial import ClickCall
from esl_apps.apps.context import Arrival, Host
from esl_apps.apps.ringing import Rang, ring_aleg
from esl_apps.apps.settings import Entrance, Queue
from esl_apps.core import node_clock, talk, terms
from esl_apps.core.attempt import Attempt, Moment
from esl_apps.core.call import Leg
from esl_apps.core.cards import Account, Card
from esl_apps.core.limits import CALLS_PER_HOUR, Refusal
from esl_apps.core.order import IntegratorRules
from esl_apps.core.pins import Source
from esl_apps.core.record import Record
from esl_apps.testing import (
    PLAN,
    SETTINGS,
    Purse,
    ScriptedCall,
    ScriptedPolicy,
    Step,
    caller_leaves,
    ended,
    fails,
    host,
    socket_lost,
    talks,
)
from tests.support.card_table import CardTable

CLIENT = IntegratorRules("acme", PLAN, record=True)
ACCOUNT = Account("acme", caller_id="+27115550000")
CARD = Card("0" * 31 + "1", "acme", "u1", None, active=True)
SOURCE = Source("27825556666", "192.0.2.1", "dialthrough", "27115551000")
BOTH = ("1000", "1001")
CALLER, PIN = "0825556666", "482190735"
QUEUE = Queue(PLAN.read("27115550000"), "acme", (PLAN.read("1000"), PLAN.read("1001")), 20, 3600, record=True)


@dataclass
class Told:
    """One run: its attempts, and for inbound calls the agent that answered and the seconds waited."""

    attempts: list[Attempt] = field(default_factory=list)
    answers: list[tuple[Attempt, str, int]] = field(default_factory=list)

    def announce(self, attempt: Attempt, agent: str, hold_time: int) -> None:
        self.answers.append((attempt, agent, hold_time))

    def host(self, usage: Purse | None = None) -> Host:
        return host(self.attempts, usage, announce=self.announce)

    @property
    def records(self) -> list[Record]:
        records = [attempt.record for attempt in self.attempts]
        assert None not in records
        return [record for record in records if record is not None]


POLICY = ScriptedPolicy(
    clients={"acme": CLIENT},
    queues={"27115550000": QUEUE},
    cards=CardTable({PIN: CARD}, known=ACCOUNT),
    number=CALLER,
    pin_source=SOURCE,
)


class Roomless(Purse):
    def enter(self, holder: str, limit: int, call_ref: str) -> bool:
        return False


class Phone:
    """``ringing.Originator``: the same outcome for every number."""

    def __init__(self, outcome: str, code: int = 31, before: Callable[[], None] = lambda: None) -> None:
        self.rang = Rang(outcome, code)
        self._before = before

    def originate(self, command: str, deadline: float, *, phone: bool) -> Rang:
        self._before()
        return self.rang

    def is_lost(self) -> bool:
        return False

    def elsewhere(self) -> bool:
        return False


def leg_b(by: str | None, *, user: str | None = None) -> Leg:
    return Leg("B", answered_at=1005.0, ended_at=1047.5, q850=16, disposition=by, user=user)


def ends(a_by: str | None = None, b_by: str | None = None, **more: Any) -> Any:
    return ended(a_by=a_by, b=leg_b(b_by), at=1047.5, **more)


def left(a_by: str | None = "recv_bye", **more: Any) -> Any:
    return ended(a_by=a_by, at=1010.0, **more)


def rung(talked: str, a_by: str, b_by: str) -> Any:
    """The end of an inbound call: one of two agents talked."""
    legs = [replace(leg_b(b_by, user=user), ringing_at=1003.0) for user in BOTH]
    for leg in legs:
        if leg.user != talked:
            leg.answered_at, leg.ended_at, leg.cause = None, 1005.0, "LOSE_RACE"
    return ended(a_by=a_by, b=leg_b(b_by, user=talked), at=1047.5, legs=legs)


# Click-to-dial -----------------------------------------------------------------------------------------


def _clicked(**fields: str) -> ClickCall:
    order = CLIENT.read(
        {"agent": "1000", "callee": "0820001234", "outbound_id": "27115550000", "contact_ref": "lead-7", **fields}
    )
    click = click2dial.new_call(order, CLIENT, SETTINGS)
    click.attempt.switch = "fs1"
    return click


def click(
    *steps: Step,
    end: Any = None,
    cancelled: bool = False,
    before: Callable[[Attempt], None] = lambda _: None,
    keyed: str = "",
    **fields: str,
) -> Told:
    """A call over HTTP whose agent has answered, and presses ``keyed`` if they are asked for a key."""
    made = _clicked(**fields)
    made.attempt.dialled(1000.0)
    if cancelled:
        made.attempt.cancelled_by = terms.API
    before(made.attempt)
    told = Told([made.attempt])
    made.answered(ScriptedCall(list(steps), end or ends("recv_bye"), keyed=[keyed]), POLICY, told.host())
    return told


def unanswered(outcome: str, code: int = 31, *, cancelled: bool = False) -> Told:
    """A call over HTTP whose agent does not answer."""
    made = _clicked()

    def cancel() -> None:
        if cancelled:
            made.attempt.cancelled_by = terms.API

    assert not ring_aleg(Phone(outcome, code, cancel), made.attempt, made.aleg(POLICY, "socket(x)"))
    return Told([made.attempt])


def dialled_by_phone(*steps: Step, usage: Purse | None = None, callee: str = "0820001234", known: bool = True) -> Told:
    told = Told()
    call = ScriptedCall(
        list(steps),
        left(),
        variables={"sip_authorized": "true", "sip_auth_username": "1000"} if known else {},
        headers={"Caller-Destination-Number": callee},
        sip={"X-Teleforge-Outbound-ID": "27115550000", "X-Teleforge-Contact-Ref": "lead-8"},
    )
    click2dial.arrive(call, Arrival(("click2dial",)), POLICY, told.host(usage))
    return told


def cancelled_while_talking() -> Told:
    told = Told()

    def talk(progress: Any) -> Any:
        bridged = talks(leg_b(None))(progress)
        told.attempts[0].cancelled_by = terms.API
        return bridged

    return click(talk, end=ends(), before=told.attempts.append)


# Transfers ----------------------------------------------------------------------------------------------


def transferred(step: Step, *, leaves: str, to: str, end: Any) -> Told:
    old = _clicked().attempt
    old.recording_url, old.recording = f"{old.call_ref}.wav", talk.ON
    made = transfer.new_call(old, PLAN.read(to), leaves, CLIENT, PLAN)
    made.attempt.second_party = second_party(made.attempt)
    made.attempt.switch = "fs1"
    told = Told([made.attempt])
    made.answered(ScriptedCall([step], end), POLICY, told.host())
    return told


# Inbound -----------------------------------------------------------------------------------------------


def arrived(*steps: Step, end: Any = None, known: bool = True, caller: str | None = CALLER) -> Told:
    told = Told()
    call = ScriptedCall(list(steps), end or left(), headers={"Caller-Destination-Number": "27115550000"})
    policy = replace(POLICY, number=caller, queues=POLICY.queues if known else {})
    inbound.arrive(call, Arrival(("inbound",)), policy, told.host())
    return told


# Sessions ----------------------------------------------------------------------------------------------


def disa_session(*steps: Step, keyed: list[str], pin: str | None = None) -> Told:
    told = Told()
    entrance = Entrance("front", ACCOUNT, pin, 10, 3, 2.0, 15, disa.DIALTONE, 10.0, True, True, 3600.0)
    call = ScriptedCall(list(steps), left(), keyed=keyed)
    policy = replace(POLICY, entrances={("acme", "front"): entrance})
    disa.arrive(call, Arrival(("disa", "acme", "front")), policy, told.host())
    return told


def card_session(*steps: Step, keyed: list[str], usage: Purse | None = None, caller: str | None = CALLER) -> Told:
    told = Told()
    call = ScriptedCall(list(steps), left(), keyed=keyed)
    dialthrough.arrive(call, Arrival(("dialthrough",)), replace(POLICY, number=caller), told.host(usage))
    return told


def rung_back(*steps: Step, keyed: list[str]) -> Told:
    ring_back = callback.new_call(PLAN.read(CALLER), CARD, ACCOUNT, POLICY)
    ring_back.attempt.order = None
    ring_back.attempt.dial_number = "27115550000"
    ring_back.attempt.dialled(1000.0)
    told = Told([ring_back.attempt])
    ring_back.answered(ScriptedCall(list(steps), left(), keyed=keyed), POLICY, told.host())
    return told


def joined(*steps: Step, b: str | None = "0820001234", end: Any = None) -> Told:
    order = AutodialOrder(
        PLAN.read(CALLER), PLAN.read(b) if b else None, None if b else "weekly", 0.0, retain_cid=False, media_id=None
    )
    made = autodial.new_call(order, ACCOUNT)
    made.attempt.dialled(1000.0)
    told = Told([made.attempt])
    made.answered(ScriptedCall(list(steps), end or left()), POLICY, told.host())
    return told


OVER = Refusal(CALLS_PER_HOUR, "integrator:acme")
ANSWERS = talks(leg_b("recv_bye"))


def hangs_up(progress: Any) -> Any:
    """The two talk, and the caller hangs up."""
    talks(leg_b("send_bye"))(progress)
    return caller_leaves(ringing=False)(progress)


CASES: dict[str, Callable[[], Told]] = {
    "click-dial/answered-callee-hung-up": lambda: click(ANSWERS, end=ends("send_bye", "recv_bye")),
    "click-dial/answered-agent-hung-up": lambda: click(ANSWERS, end=ends("recv_bye", "send_bye", hold=3.4)),
    "click-dial/answered-cancelled-over-http": cancelled_while_talking,
    "click-dial/answered-outside-agent": lambda: click(
        ANSWERS, end=ends("send_bye", "recv_bye"), agent="0831112222", keyed="1"
    ),
    "click-dial/agent-unconfirmed": lambda: click(end=left("send_bye"), agent="0831112222"),
    "click-dial/answered-internal": lambda: click(ANSWERS, end=ends("send_bye", "recv_bye"), callee="1001"),
    "click-dial/agent-no-answer": lambda: unanswered("timed_out"),
    "click-dial/agent-busy": lambda: unanswered("failed", 17),
    "click-dial/agent-failed": lambda: unanswered("failed", 20),
    "click-dial/lost-while-ringing": lambda: unanswered("lost"),
    "click-dial/cancelled-while-ringing": lambda: unanswered("failed", 16, cancelled=True),
    "click-dial/callee-no-answer": lambda: click(fails("NO_ANSWER", timed_out=True), end=left("send_bye")),
    "click-dial/callee-busy": lambda: click(fails("USER_BUSY"), end=left("send_bye")),
    "click-dial/callee-failed": lambda: click(fails("UNALLOCATED_NUMBER"), end=left("send_bye")),
    "click-dial/callee-refuses": lambda: click(fails("CALL_REJECTED"), end=left("send_bye")),
    "click-dial/callee-congestion": lambda: click(
        fails("SWITCH_CONGESTION"), fails("SWITCH_CONGESTION"), end=left("send_bye")
    ),
    "click-dial/cancelled-before-callee": lambda: click(end=left("send_bye"), cancelled=True),
    "click-dial/abandoned": lambda: click(caller_leaves(), end=left()),
    "click-dial/lost": lambda: click(socket_lost, end=left(None, lost=True)),
    "click-dial/rejected-over-limit": lambda: dialled_by_phone(usage=Purse(OVER)),
    "click-dial/rejected-restricted": lambda: dialled_by_phone(callee="00882123456789"),
    "click-dial/rejected-stranger": lambda: dialled_by_phone(known=False),
    "click-dial/phone-abandoned": lambda: dialled_by_phone(caller_leaves()),
    "inbound/answered-caller-hung-up": lambda: arrived(
        talks(leg_b("send_bye", user="1001")), end=rung("1001", "recv_bye", "send_bye")
    ),
    "inbound/answered-agent-hung-up": lambda: arrived(
        talks(leg_b("recv_bye", user="1000")), end=rung("1000", "send_bye", "recv_bye")
    ),
    "inbound/answered-withheld-number": lambda: arrived(
        talks(leg_b("recv_bye", user="1000")), end=rung("1000", "send_bye", "recv_bye"), caller=None
    ),
    "inbound/agent-no-answer": lambda: arrived(fails("NO_ANSWER", timed_out=True, users=BOTH), end=left("send_bye")),
    "inbound/agent-busy": lambda: arrived(fails("USER_BUSY", users=BOTH[:1]), end=left("send_bye")),
    "inbound/agent-not-registered": lambda: arrived(fails("USER_NOT_REGISTERED"), end=left("send_bye")),
    "inbound/abandoned": lambda: arrived(caller_leaves()),
    "inbound/unknown-number": lambda: arrived(known=False),
    "disa/answered": lambda: disa_session(ANSWERS, keyed=["0820001234"]),
    "disa/two-numbers": lambda: disa_session(fails("USER_BUSY"), hangs_up, keyed=["0820001234", "1001"]),
    "disa/wrong-pin": lambda: disa_session(keyed=["1", "2", "3"], pin="4821907356"),
    "disa/restricted": lambda: disa_session(keyed=["00882123456789"]),
    "dialthrough/answered": lambda: card_session(ANSWERS, keyed=[PIN, "0820001234"]),
    "dialthrough/withheld-number": lambda: card_session(ANSWERS, keyed=[PIN, "0820001234"], caller=None),
    "dialthrough/no-answer": lambda: card_session(fails("NO_ANSWER", timed_out=True), keyed=[PIN, "0820001234"]),
    "dialthrough/wrong-pin": lambda: card_session(keyed=["1", "2", "3"]),
    "dialthrough/too-many-calls": lambda: card_session(keyed=[PIN], usage=Roomless()),
    "dialthrough/over-limit": lambda: card_session(keyed=[PIN, "0820001234"], usage=Purse(OVER)),
    "callback/answered": lambda: rung_back(ANSWERS, keyed=["0820001234"]),
    "callback/abandoned": lambda: rung_back(caller_leaves(), keyed=["0820001234"]),
    "transfer/answered-by-an-agent": lambda: transferred(
        ANSWERS, leaves=terms.AGENT, to="1001", end=ends("send_bye", "recv_bye")
    ),
    "transfer/answered-outside": lambda: transferred(
        ANSWERS, leaves=terms.CALLEE, to="0820005678", end=ends("recv_bye", "send_bye")
    ),
    "transfer/agent-busy": lambda: transferred(fails("USER_BUSY"), leaves=terms.AGENT, to="1001", end=left("send_bye")),
    "autodial/answered": lambda: joined(ANSWERS),
    "autodial/busy": lambda: joined(fails("USER_BUSY")),
    "autodial/conference": lambda: joined(b=None),
}


def run(case: str) -> Told:
    """:func:`at_fixed_time` comes first."""
    told = CASES[case]()
    for attempt in told.attempts:
        # Set by the field's default, which can't be patched.
        attempt.queued_at = 1000.0
        first = attempt.timeline[0]
        attempt.timeline[0] = Moment(attempt.queued_at, first.what, first.detail)
    return told


def at_fixed_time(monkeypatch: Any) -> None:
    """Stop the clock and count references up, so that each run gives the same bytes."""
    numbers = iter(range(1, 1000))
    monkeypatch.setattr("esl_apps.core.reference.urandom", lambda size: next(numbers).to_bytes(size, "big"))
    monkeypatch.setattr(time, "time", lambda: 1010.25)
    monkeypatch.setattr(node_clock.clock, "monotonic", lambda: 0.0)
    monkeypatch.setattr(node_clock.clock, "origin", 1010.25)
