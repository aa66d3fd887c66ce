"""An integrator or account with as many live calls as it may: its callers are busy or told, and others go on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from esl_apps.apps import click2dial, dialthrough, disa, inbound
from esl_apps.apps.context import Arrival
from esl_apps.apps.settings import Entrance, Queue, Rules
from esl_apps.core.attempt import Attempt
from esl_apps.core.cards import Card
from esl_apps.core.order import IntegratorRules
from esl_apps.testing import PLAN, ScriptedCall, ScriptedPolicy, ended, host, talks
from tests.support.card_table import ACCOUNT, CardTable

ENTRANCE = Entrance("front", ACCOUNT, None, 10, 3, 2.0, 15, disa.DIALTONE, 10.0, True, True, 3600.0)
ENROLLED = Card("c2", "acme", "u1", "27825556666", active=True)
POLICY = ScriptedPolicy(
    rules=Rules(cid_trust="any"),
    cards=CardTable(numbers={"27825556666": ENROLLED}),
    entrances={("acme", "front"): ENTRANCE},
    queues={"27115550000": Queue(PLAN.read("27115550000"), "acme", (PLAN.read("1000"),), 20, 3600, record=False)},
    clients={"acme": IntegratorRules("acme", PLAN)},
    number="0825556666",
)


def arrive(path: tuple[str, ...], call: ScriptedCall, *, room: bool) -> Attempt:
    begun: list[Attempt] = []
    payers: list[tuple[str | None, str | None]] = []

    def has_room(attempt: Attempt) -> bool:
        assert attempt in begun
        payers.append((attempt.account_id, attempt.integrator))
        return room

    applications = {"disa": disa, "dialthrough": dialthrough, "inbound": inbound, "click2dial": click2dial}
    announce = lambda _attempt, _agent, _hold: None  # noqa: E731
    applications[path[0]].arrive(call, Arrival(path), POLICY, host(begun, room=has_room, announce=announce))
    # The payer is known when it is asked.
    assert len(payers) == 1
    assert payers[0] != (None, None)
    return begun[0]


def caller(**more: dict[str, str]) -> ScriptedCall:
    given = {"headers": {"Caller-Destination-Number": "27115550000"}, **more}
    return ScriptedCall([talks()] * 2, ended(a_by="recv_bye"), keyed=["0820001234"], **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", [("disa", "acme", "front"), ("inbound",)])
def test_caller_without_room_is_busy_unanswered(path: tuple[str, ...]) -> None:
    call = caller()
    attempt = arrive(path, call, room=False)
    assert call.did("hangup") == [("USER_BUSY",)]
    assert (call.did("answer"), call.did("bridge")) == ([], [])
    assert attempt.record is not None
    assert (attempt.record.end_reason, attempt.record.end_code) == ("rejected", 17)


def test_card_without_room_hears_why() -> None:
    call = caller()
    attempt = arrive(("dialthrough",), call, room=False)
    assert call.did("play") == [("too_many_channels",)]
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


@pytest.mark.parametrize("path", [("disa", "acme", "front"), ("dialthrough",), ("inbound",), ("click2dial",)])
def test_caller_with_room_is_connected(path: tuple[str, ...]) -> None:
    call = phone() if path == ("click2dial",) else caller()
    arrive(path, call, room=True)
    assert len(call.did("bridge")) == 1
