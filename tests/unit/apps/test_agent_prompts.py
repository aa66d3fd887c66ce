"""An agent who hears an announcement, is asked for a key, or whose phone answers by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from esl_apps.apps import click2dial
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Leg
from esl_apps.core.dialstring import Endpoints
from esl_apps.core.limits import MINUTES_PER_DAY, Refusal
from esl_apps.core.order import IntegratorRules
from esl_apps.testing import PLAN, SETTINGS, ScriptedCall, ScriptedPolicy, ended, host, talks

URL = "https://media.example/hello.wav"
HEADERS = {"Call-Info": "<sip:auto@answer>;answer-after=0", "Alert-Info": "<http://localhost>;info=alert-autoanswer"}
FIELDS = {"agent": "0831112222", "callee": "0820001234", "outbound_id": "27115550000"}
NUMBER = "call_to digit_0 digit_8 digit_2 digit_0 digit_0 digit_0 digit_1 digit_2 digit_3 digit_4"
SOCKET = "socket(127.0.0.1:8084/click2dial async full)"


def rules(**more: Any) -> IntegratorRules:
    heard = {"announcement", URL}
    return IntegratorRules("acme", PLAN, is_media=heard.__contains__, auto_answer_headers=HEADERS, **more)


def click(client: IntegratorRules, **options: Any) -> click2dial.ClickCall:
    return click2dial.new_call(client.read({**FIELDS, **options}), client, SETTINGS)


def run(
    *keyed: str, client: IntegratorRules | None = None, gone_at: str = "", by: str | None = None, **options: Any
) -> tuple[ScriptedCall, Attempt]:
    """Run a call whose agent has answered and presses these keys, each when asked."""
    client = client or rules()
    call = ScriptedCall(
        [talks()],
        ended(a_by=by, b=Leg("B", answered_at=1005.0, ended_at=1010.0, q850=16) if keyed[-1:] == ("1",) else None),
        keyed=list(keyed),
        gone_at=gone_at,
    )
    made = click(client, **options)
    made.attempt.dialled(1000.0)
    made.answered(call, ScriptedPolicy(clients={"acme": client}), host([]))
    return call, made.attempt


def told(attempt: Attempt) -> tuple[str, int, str]:
    assert attempt.record is not None
    return attempt.record.end_reason, attempt.record.end_code, attempt.record.hung_up_by


def did(call: ScriptedCall) -> list[str]:
    return [entry[0] for entry in call.log]


# Confirming ----------------------------------------------------------------------------------------------


def test_agent_outside_hears_who_is_called_and_confirms() -> None:
    call, attempt = run("1")
    assert call.did("collect") == [(f"{NUMBER} confirm_call",)]
    # From the key on, all keys are the callee's.
    steps = did(call)
    assert steps[:2] == ["answer", "drop_keys"]
    assert steps.index("pass_keys") < steps.index("bridge")
    assert told(attempt)[0] == "answered"


@pytest.mark.parametrize("keyed", [("",), ("7", ""), ("12", "12"), ("7", "7", "1")])
def test_agent_outside_who_does_not_confirm_gets_no_callee(keyed: tuple[str, ...]) -> None:
    call, attempt = run(*keyed)
    assert call.did("bridge") == []
    assert told(attempt) == ("agent_unconfirmed", 19, "system")
    assert any(moment.what == "unconfirmed" for moment in attempt.timeline)


def test_agent_outside_who_pressed_another_key_is_asked_again() -> None:
    call, _attempt = run("7", "1")
    assert len(call.did("collect")) == 2
    assert len(call.did("bridge")) == 1


def test_agent_who_hangs_up_at_the_question_did_not_confirm() -> None:
    call, attempt = run(gone_at="collect", by="recv_bye")
    assert call.did("bridge") == []
    assert told(attempt) == ("agent_unconfirmed", 19, "agent")


def test_call_that_is_cancelled_at_the_question_is_cancelled() -> None:
    client = rules()
    made = click(client)

    class Cancelled(ScriptedCall):
        def collect(self, *args: Any, **more: Any) -> str:
            made.attempt.cancelled_by = "api"
            return ""

    made.answered(Cancelled([], ended()), ScriptedPolicy(clients={"acme": client}), host([]))
    assert told(made.attempt) == ("cancelled", 16, "api")


def test_call_whose_limit_is_reached_at_the_question_is_rejected() -> None:
    client = rules()
    made = click(client)
    charges = made.charges(ScriptedPolicy(clients={"acme": client}))
    made.attempt.pay(*charges)

    class Cut(ScriptedCall):
        def collect(self, *args: Any, **more: Any) -> str:
            charges[0].cut = Refusal(MINUTES_PER_DAY, "integrator:acme")
            return ""

    made.answered(Cut([], ended()), ScriptedPolicy(clients={"acme": client}), host([]))
    assert told(made.attempt) == ("rejected", 17, "system")


@pytest.mark.parametrize(
    ("confirm", "options", "asked"),
    [
        ("outside", {}, True),
        ("outside", {"agent": "1000"}, False),
        ("outside", {"confirm": False}, False),
        ("outside", {"agent": "1000", "confirm": True}, True),
        ("always", {"agent": "1000"}, True),
        ("always", {"agent": "1000", "confirm": False}, False),
        ("never", {}, False),
        ("never", {"confirm": True}, True),
    ],
)
def test_request_comes_before_the_integrators_choice(confirm: str, options: dict[str, Any], asked: bool) -> None:
    call, _attempt = run("1", client=rules(confirm=confirm), **options)
    assert bool(call.did("collect")) is asked
    assert len(call.did("bridge")) == 1


# Announcing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("announce", "played"), [("announcement", "announcement"), (URL, URL), ("number", NUMBER)])
def test_announcement_is_heard_before_the_callee_is_dialled(announce: str, played: str) -> None:
    call, _attempt = run("", agent="1000", announce=announce)
    assert did(call)[:2] == ["play", "bridge"]
    assert call.did("play") == [(played,)]


@pytest.mark.parametrize(("announce", "played"), [("announcement", [("announcement",)]), ("number", [])])
def test_announcement_comes_before_the_question(announce: str, played: list[tuple[str]]) -> None:
    call, _attempt = run("1", announce=announce)
    assert call.did("play") == played
    assert call.did("collect") == [(f"{NUMBER} confirm_call",)]


def test_agent_who_leaves_during_the_announcement_abandons() -> None:
    _call, attempt = run(gone_at="play", by="recv_bye", agent="1000", announce="announcement")
    assert told(attempt) == ("abandoned", 16, "agent")


# Answering by itself -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("auto_answer", "options", "asked"),
    [
        (False, {}, False),
        (False, {"auto_answer": True}, True),
        (True, {}, True),
        (True, {"auto_answer": False}, False),
        (["1000"], {}, True),
        (["1001"], {}, False),
        (True, {"agent": "0831112222"}, False),
        (True, {"agent": "0831112222", "auto_answer": True}, False),
    ],
)
def test_extensions_phone_is_asked_to_answer_by_itself(
    auto_answer: bool | list[str], options: dict[str, Any], asked: bool
) -> None:
    made = click(rules(auto_answer=auto_answer), **{"agent": "1000", **options})
    variables = made.aleg(ScriptedPolicy(), SOCKET).variables
    found = {name: value for name, value in variables.items() if name.startswith("sip_h_")}
    assert found == ({f"sip_h_{name}": value for name, value in HEADERS.items()} if asked else {})


def test_extension_behind_a_gateway_is_not_asked_to_answer() -> None:
    settings = replace(SETTINGS, endpoints=Endpoints("sofia/gateway/pbx/{number}", ()))
    made = click(rules(), agent="1000", auto_answer=True)
    assert not any(name.startswith("sip_h_") for name in made.aleg(ScriptedPolicy(settings), SOCKET).variables)
