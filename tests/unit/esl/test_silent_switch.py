"""In every application, after each of its steps: a switch that stops answering is an outcome, not an exception.

The flows run over a real channel, whose switch stops after N commands: it is silent like a stopped process, or its
socket closes like a killed one's. For every N the flow returns, and its call has a record.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import gevent
import pytest
from msgspec import structs

from esl_apps.apps import autodial, callback, click2dial, dialthrough, disa, inbound
from esl_apps.apps.autodial import AutodialOrder
from esl_apps.apps.context import AppPolicy, Arrival, Host
from esl_apps.apps.settings import Entrance, Queue
from esl_apps.core import terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Call, CallEnded
from esl_apps.core.cards import Account
from esl_apps.core.order import IntegratorRules
from esl_apps.esl import session as session_module
from esl_apps.esl.channel import Channel
from esl_apps.esl.server import OutboundServer
from esl_apps.esl.session import OutboundSession
from esl_apps.testing import PLAN, SETTINGS, Purse, ScriptedPolicy, host
from tests.support.call_switch import B, CallSwitch, answers, bridge_over, ends, new_call, rings
from tests.support.card_table import CARD, PIN, CardTable
from tests.support.commands import application
from tests.support.peer import complete, dial, event, raw_event

CALLEE, DID = "0820001234", "27115550000"
ACCOUNT = Account("acme")
CALLER = "0825556666"
#: Each wait is this much shorter: an application's 10 s are 0.1 s here.
FASTER = 100
#: The longest wait, in seconds, since a talk may last hours.
LONGEST = 0.25


CLIENT = IntegratorRules("acme", PLAN)
POLICY = ScriptedPolicy(
    settings=replace(SETTINGS, callback_confirm=True),
    clients={"acme": CLIENT},
    queues={DID: Queue(PLAN.read(DID), "acme", (PLAN.read("1000"), PLAN.read("1001")), 20, 3600, True)},
    cards=CardTable(known=ACCOUNT),
    entrances={
        ("acme", "front"): Entrance("front", ACCOUNT, f"#{PIN}", 9, 3, 2, 17, disa.DIALTONE, 10, True, False, 3600)
    },
    number=CALLER,
)
#: An application's flow, as the node runs it.
Flow = Callable[[Call, Host], None]


def arriving(application: Any, *path: str, policy: AppPolicy = POLICY) -> Flow:
    """Return the flow of a caller whom the dialplan sent to a path."""
    return lambda call, host: application.arrive(call, Arrival(path), policy, host)


def ringing_back(call: Call, host: Host) -> None:
    placed = callback.new_call(PLAN.read(CALLER), CARD, ACCOUNT, POLICY)
    host.begin(placed.attempt)
    placed.answered(call, POLICY, host)


def click_to_dial(call: Call, host: Host) -> None:
    order = CLIENT.read({"agent": "1000", "callee": CALLEE, "outbound_id": DID})
    placed = click2dial.new_call(order, CLIENT, SETTINGS)
    host.begin(placed.attempt)
    placed.answered(call, POLICY, host)


def autodialling(b: str | None, conference: str | None, media_id: str | None) -> Flow:
    order = AutodialOrder(PLAN.read("1000"), PLAN.read(b) if b else None, conference, 0.0, False, media_id)

    def flow(call: Call, host: Host) -> None:
        placed = autodial.new_call(order, ACCOUNT)
        host.begin(placed.attempt)
        placed.answered(call, POLICY, host)

    return flow


FLOWS: dict[str, Flow] = {
    "disa": arriving(disa, "disa", "acme", "front"),
    "dialthrough": arriving(dialthrough, "dialthrough"),
    "callback": ringing_back,
    "click2dial": click_to_dial,
    "click2dial from a phone": arriving(click2dial, "click2dial", "acme"),
    "inbound": arriving(inbound, "inbound"),
    "autodial": autodialling(CALLEE, None, "announcement"),
    "autodial to a conference": autodialling(None, "weekly", None),
}
REFUSALS: dict[str, Flow] = {
    "click2dial from a phone": arriving(
        click2dial,
        "click2dial",
        policy=replace(POLICY, clients={"acme": IntegratorRules("acme", PLAN, caller_ids=["0119998888"])}),
    ),
    "inbound": arriving(inbound, "inbound", policy=replace(POLICY, queues={})),
}
HEADERS: dict[str, object] = {
    "Caller-Destination-Number": DID,
    "Caller-Channel-Answered-Time": 1_700_000_001_000_000,
    "variable_sip_authorized": "true",
    "variable_sip_auth_username": "1000",
    "variable_sip_h_X-Teleforge-Outbound-ID": "27115550000",
}


def types(digits: str) -> bytes:
    return b"".join(raw_event(b"key: x\ndigits: %c\n\n" % ord(digit)) for digit in digits)


def leaves() -> bytes:
    return event("CHANNEL_HANGUP") + event("CHANNEL_HANGUP_COMPLETE", {"variable_sip_hangup_disposition": "recv_bye"})


def joins(command: str) -> bool:
    """Whether a command bridges the caller or puts them into a conference."""
    return "execute-app-name: bridge" in command or "execute-app-name: conference" in command


def teach(switch: CallSwitch) -> None:
    """Let the caller type what is asked for, talk once, and hang up at the next dial tone."""
    talks: list[str] = []

    def playback(uuid: str) -> bytes:
        audio = application(switch.commands[-1])[1]
        asked = {"enter_pin": PIN + "#", "confirm_callback": "1"}
        digits = next((digits for name, digits in asked.items() if name in audio), "")
        if "enter_number" in audio or audio == disa.DIALTONE:
            if talks:
                return leaves()
            digits = CALLEE + "#"
        return types(digits) + complete("playback", uuid)

    def bridge(uuid: str) -> bytes:
        talks.append(uuid)
        other = event("CHANNEL_BRIDGE", {"Other-Leg-Unique-ID": B})
        return rings() + answers() + other + ends("NORMAL_CLEARING", 16, answered=True) + bridge_over(uuid)

    switch.scripts = {"playback": playback, "bridge": bridge, "hangup": lambda _uuid: leaves()}


def run(flow: Flow, stops_after: int | None, *, closes: bool = False) -> Outcome:
    """Run a flow whose switch stops after so many commands."""
    channel, switch, session = new_call(HEADERS)
    teach(switch)
    switch.stops_after, switch.closes = stops_after, closes
    attempts: list[Attempt] = []

    def begin(attempt: Attempt) -> None:
        attempts.append(attempt)
        if len(attempts) == 1:
            channel.begin(attempt.session_ref, watched=True)

    node = structs.replace(host([], Purse(), announce=lambda *_call: None), begin=begin)
    try:
        flow(channel, node)
    finally:
        session.close("the flow has ended")
        switch.peer.close()
        switch.greenlet.kill()
    return Outcome(attempts, switch.commands)


@dataclass
class Outcome:
    """A flow's attempts, and the commands that its switch obeyed."""

    attempts: list[Attempt]
    commands: list[str]

    @property
    def reasons(self) -> list[str | None]:
        return [attempt.record.end_reason if attempt.record else None for attempt in self.attempts]


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every wait of a session much shorter."""
    wait, reply = OutboundSession.wait, OutboundSession._reply

    def wait_less(self: OutboundSession, done: Any, timeout: float | None, **more: Any) -> bool:
        return wait(self, done, min((timeout or 0.0) / FASTER, LONGEST), **more)

    monkeypatch.setattr(OutboundSession, "wait", wait_less)
    monkeypatch.setattr(OutboundSession, "_reply", lambda self, one, timeout: reply(self, one, timeout / FASTER))


@pytest.mark.parametrize("name", FLOWS)
def test_flow_with_a_live_switch_reaches_its_end(name: str) -> None:
    """The scripted switch takes each application to the end of a talk, so that the tests below cover all steps."""
    outcome = run(FLOWS[name], None)
    assert outcome.attempts[0].bridged_at is not None
    assert terms.LOST not in outcome.reasons


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("closes", [False, True], ids=["silent", "closed"])
@pytest.mark.parametrize("name", FLOWS)
def test_flow_whose_switch_stops_ends_with_a_record(name: str, closes: bool) -> None:
    flow = FLOWS[name]
    commands = run(flow, None).commands
    talks = next(count for count, command in enumerate(commands) if joins(command))
    runs = [gevent.spawn(run, flow, count, closes=closes) for count in range(len(commands))]
    reasons = [one.get().reasons[-1] for one in runs]
    assert reasons[: talks + 1] == [terms.LOST] * (talks + 1)
    # After the talk, its record may say that it was answered.
    assert set(reasons[talks + 1 :]) <= {terms.LOST, terms.ANSWERED}


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("closes", [False, True], ids=["silent", "closed"])
@pytest.mark.parametrize("name", REFUSALS)
def test_refusal_whose_switch_stops_has_its_record(name: str, closes: bool) -> None:
    commands = run(REFUSALS[name], None).commands
    runs = [gevent.spawn(run, REFUSALS[name], count, closes=closes) for count in range(len(commands) + 1)]
    assert {tuple(one.get().reasons) for one in runs} == {(terms.REJECTED,)}


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("closes", [False, True], ids=["silent", "closed"])
@pytest.mark.parametrize("answer_after", [0.0, 10.0])
def test_callback_refusal_whose_switch_stops_is_a_missed_call(answer_after: float, closes: bool) -> None:
    """The caller rang, so they are rung back, whether or not the 486 reached them."""
    missed: list[bool] = []

    def refuse(call: Call, _host: Host) -> None:
        assert isinstance(call, Channel)
        call.watch_only()
        missed.append(callback.refuse(call, answer_after))

    for count in range(4):
        run(refuse, count, closes=closes)
    assert missed[:3] == [answer_after == 0 or closes] * 3


# The server ------------------------------------------------------------------------------------------------


def test_server_with_a_silent_switch_logs_no_traceback(
    serve: Callable[..., OutboundServer], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "FIRST_TIMEOUT", 0.02)
    server = serve(lambda session: session.connect(timeout=0.02))
    with caplog.at_level(logging.INFO):
        peer = dial(server.bound_port)
        list(peer.commands())
    assert [(record.message, record.exc_info) for record in caplog.records] == [("switch_silent", None)]
    assert server.connection_count == 0


def test_server_application_of_an_ended_call_logs_no_traceback(
    serve: Callable[..., OutboundServer], caplog: pytest.LogCaptureFixture
) -> None:
    def application(_session: OutboundSession) -> None:
        raise CallEnded("the switch closed the socket", lost=True)

    server = serve(application)
    with caplog.at_level(logging.INFO):
        peer = dial(server.bound_port)
        list(peer.commands())
    assert [(record.message, record.exc_info) for record in caplog.records] == [("call_gone", None)]
