"""An integrator or account with as many live calls as it may: its callers are busy or told, and others go on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from esl_apps.apps import click2dial, dialthrough, disa, inbound
from esl_apps.apps.context import Arrival
from esl_apps.apps.settings import Entrance, Queue, Rules
from esl_apps.core.attempt import Attempt
from esl_apps.core.cards import Card
from esl_apps.core.order import IntegratorRules
from esl_apps.testing import PLAN, ScriptedCall, ScriptedPolicy, ended, host, talks
from tests.support.card_table import ACCOUNT, CardTable

ENTRANCE = Entrance("front", ACCOUNT, None, 10, 3, 2.0, 15, disa.DIALTONE, 10.0, True, True, 3600.0)
WITH_PIN = structs.replace(ENTRANCE, pin_hash="#4821907356", pin_length=10)
ENROLLED = Card("c2", "acme", "u1", "27825556666", active=True)
POLICY = ScriptedPolicy(
    rules=Rules(cid_trust="any"),
    cards=CardTable(numbers={"27825556666": ENROLLED}),
    entrances={("acme", "front"): ENTRANCE, ("acme", "pin"): WITH_PIN},
    queues={"27115550000": Queue(PLAN.read("27115550000"), "acme", (PLAN.read("1000"),), 20, 3600, record=False)},
    clients={"acme": IntegratorRules("acme", PLAN)},
    number="0825556666",
)


def arrive(path: tuple[str, ...], call: ScriptedCall, *, room: bool, strangers: bool = True) -> Attempt:
    """``strangers``: whether those who haven't typed a PIN have room."""
    begun: list[Attempt] = []
    payers: list[tuple[str | None, str | None]] = []

    def has_room(attempt: Attempt) -> bool:
        assert attempt in begun
        if attempt.stranger:
            return strangers
        payers.append((attempt.account_id, attempt.integrator))
        return room

    applications = {"disa": disa, "dialthrough": dialthrough, "inbound": inbound, "click2dial": click2dial}
    announce = lambda _attempt, _agent, _hold: None  # noqa: E731
    applications[path[0]].arrive(call, Arrival(path), POLICY, host(begun, room=has_room, announce=announce))
    # The payer is known when it is asked.
    assert len(payers) == strangers
    assert (None, None) not in payers
    return begun[0]


def caller(*pin: str, **more: dict[str, str]) -> ScriptedCall:
    given = {"headers": {"Caller-Destination-Number": "27115550000"}, **more}
    keyed = [*pin, "0820001234"]
    return ScriptedCall([talks()] * 2, ended(a_by="recv_bye"), keyed=keyed, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "strangers"),
    [(("disa", "acme", "front"), True), (("disa", "acme", "pin"), False), (("inbound",), True)],
)
def test_caller_without_room_is_busy_unanswered(path: tuple[str, ...], strangers: bool) -> None:
    call = caller()
    attempt = arrive(path, call, room=False, strangers=strangers)
    assert call.did("hangup") == [("USER_BUSY",)]
    assert (call.did("answer"), call.did("bridge")) == ([], [])
    assert attempt.record is not None
    assert (attempt.record.end_reason, attempt.record.end_code) == ("rejected", 17)


@pytest.mark.parametrize(
    ("path", "pin"), [(("dialthrough",), []), (("disa", "acme", "pin"), ["1111111111", "4821907356"])]
)
def test_answered_caller_without_room_hears_why(path: tuple[str, ...], pin: list[str]) -> None:
    call = caller(*pin)
    attempt = arrive(path, call, room=False)
    assert call.did("play")[-1] == ("too_many_channels",)
    assert call.did("bridge") == []
    assert attempt.record is not None
    assert (attempt.record.end_reason, attempt.record.end_code) == ("rejected", 17)


def phone() -> ScriptedCall:
    call = caller(headers={"Caller-Destination-Number": "0820001234"})
    return replace(
        call,
        variables={"sip_authorized": "true", "sip_auth_username": "1000"},
        sip={"X-Teleforge-Outbound-ID": "27115550000"},
    )


def test_phone_without_room_gets_a_refusal() -> None:
    call = phone()
    attempt = arrive(("click2dial",), call, room=False)
    assert call.did("respond") == [(400, [("X-Teleforge-Error", "limits: max_calls is reached")])]
    assert attempt.record is not None
    assert (attempt.record.end_reason, attempt.record.end_code) == ("rejected", 17)


@pytest.mark.parametrize(
    ("path", "pin"),
    [
        (("disa", "acme", "front"), []),
        (("disa", "acme", "pin"), ["4821907356"]),
        (("dialthrough",), []),
        (("inbound",), []),
        (("click2dial",), []),
    ],
)
def test_caller_with_room_is_connected(path: tuple[str, ...], pin: list[str]) -> None:
    call = phone() if path == ("click2dial",) else caller(*pin)
    arrive(path, call, room=True)
    assert len(call.did("bridge")) == 1
