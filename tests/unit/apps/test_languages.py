"""The language that each application chooses for its calls, and that a transfer keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from esl_apps.apps import autodial, callback, click2dial, disa, inbound, transfer
from esl_apps.apps.autodial import AutodialOrder
from esl_apps.apps.context import Arrival
from esl_apps.apps.settings import Entrance, Queue
from esl_apps.core.attempt import Attempt
from esl_apps.core.order import IntegratorRules
from esl_apps.core.timed_call import TimedCall
from esl_apps.testing import PLAN, SETTINGS, ScriptedCall, ScriptedPolicy, ended, fails, host
from tests.support.card_table import ACCOUNT, CARD, NUMBER, CardTable

DID = "27115550000"
FIELDS = {"agent": "1000", "callee": "0820001234", "outbound_id": "0115550000"}
CLIENT = IntegratorRules("acme", PLAN, language="pt")


def test_click_to_dial_is_in_its_integrators_language() -> None:
    assert click2dial.new_call(CLIENT.read(FIELDS), CLIENT, SETTINGS).attempt.language == "pt"


def test_transfer_keeps_the_language_of_the_call_before() -> None:
    old = Attempt(
        app="inbound",
        dial_number=DID,
        integrator="acme",
        extension="1000",
        number="+27820001234",
        call_dir="inbound",
        language="es",
    )
    made = transfer.new_call(old, PLAN.read("1001"), "agent", CLIENT, PLAN)
    assert made.attempt.language == "es"


def test_autodial_is_in_its_accounts_language() -> None:
    order = AutodialOrder(PLAN.read("0825556666"), PLAN.read("0820001234"), None, 0.0, False, None)
    assert autodial.new_call(order, replace(ACCOUNT, language="de")).attempt.language == "de"


@pytest.mark.parametrize(("numbers", "spoken"), [({DID: "fr"}, "fr"), ({}, "pt")])
def test_inbound_call_speaks_its_numbers_or_integrators_language(numbers: dict[str, str], spoken: str) -> None:
    queue = Queue(PLAN.read(DID), "acme", (PLAN.read("1000"),), 20.0, 3600.0, record=False)
    policy = ScriptedPolicy(queues={DID: queue}, clients={"acme": CLIENT}, number="0820001234", languages=numbers)
    begun: list[Attempt] = []
    call = ScriptedCall([fails("NO_ANSWER")], ended(), headers={"Caller-Destination-Number": DID})
    inbound.arrive(call, Arrival(("inbound",)), policy, host(begun))
    assert [attempt.language for attempt in begun] == [spoken]


@pytest.mark.parametrize(("numbers", "spoken"), [({DID: "fr"}, "fr"), ({}, "de")])
def test_disa_is_in_the_language_of_its_number_or_account(numbers: dict[str, str], spoken: str) -> None:
    account = replace(ACCOUNT, language="de")
    entrance = Entrance("front", account, "#1234", 4, 1, 3.0, 15, "tone_stream://x", 1.0, False, True, 3600.0)
    policy = ScriptedPolicy(entrances={("acme", "front"): entrance}, languages=numbers)
    begun: list[Attempt] = []
    call = ScriptedCall(end=ended(a_by="recv_bye"), headers={"Caller-Destination-Number": DID}, keyed=["0000"])
    disa.arrive(call, Arrival(("disa", "acme", "front")), policy, host(begun))
    assert [attempt.language for attempt in begun] == [spoken]


@pytest.mark.parametrize(("of_card", "spoken"), [("es", "es"), (None, "fr")])
def test_callback_speaks_the_cards_language_or_the_numbers(of_card: str | None, spoken: str) -> None:
    cards = CardTable(numbers={NUMBER: structs.replace(CARD, cid=NUMBER, language=of_card)})
    policy = ScriptedPolicy(cards=cards, languages={DID: "fr"})
    made = callback.due(TimedCall("t1", NUMBER, ("c1", DID), 1, "claim"), policy)
    assert isinstance(made, callback.RingBack)
    assert made.attempt.language == spoken
    # Once it is answered, the number that the node dialled says nothing of the language.
    call = ScriptedCall(end=ended(a_by="recv_bye"), headers={"Caller-Destination-Number": NUMBER})
    made.answered(call, replace(policy, languages={NUMBER: "pt"}), host([]))
    assert made.attempt.language == spoken
