"""Dialthrough by script: how a caller is known, what they may dial, and what they hear."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from msgspec import structs

from esl_apps.apps import dialthrough
from esl_apps.apps.context import Arrival
from esl_apps.apps.settings import Rules
from esl_apps.core.attempt import Attempt
from esl_apps.core.dialstring import Endpoints
from esl_apps.testing import SETTINGS, Purse, ScriptedCall, ScriptedPolicy, Step, ended, fails, host, talks
from tests.support.card_table import ACCOUNT, CARD, NUMBER, PIN, CardTable

CALLEE, DID = "0820001234", "27115550000"


@dataclass(frozen=True)
class Rule:
    action: str


class Dialled:
    """One caller's session."""

    def __init__(
        self,
        keyed: Sequence[str],
        *steps: Step,
        cards: CardTable | None = None,
        caller: str | None = "0825556666",
        usage: Purse | None = None,
        settings: Any = SETTINGS,
        attested: bool = False,
        languages: Mapping[str, str] | None = None,
        **rules: Any,
    ) -> None:
        self.cards = cards or CardTable()
        self.begun: list[Attempt] = []
        dialled = {"Caller-Destination-Number": DID}
        self.call = ScriptedCall(list(steps), ended(a_by="recv_bye"), headers=dialled, keyed=list(keyed))
        policy = ScriptedPolicy(settings, Rules(**rules), cards=self.cards, number=caller, is_attested=attested)
        policy.languages = languages or {}
        dialthrough.arrive(self.call, Arrival(("dialthrough",)), policy, host(self.begun, usage))

    @property
    def endpoints(self) -> list[str]:
        return [endpoint for _leg, ((endpoint, _user),), _timeout, _longest in self.call.did("bridge")]

    @property
    def played(self) -> list[str]:
        return [audio for (audio,) in self.call.did("play")]

    @property
    def told(self) -> list[tuple[str, int]]:
        return [(one.record.end_reason, one.record.end_code) for one in self.begun if one.record is not None]


ENROLLED = CardTable(numbers={NUMBER: structs.replace(CARD, cid=NUMBER)})


@pytest.mark.parametrize(
    ("cid_trust", "attested", "asked"),
    [
        ("any", False, False),
        ("national", False, False),
        ("pin", False, True),
        ("attested", False, True),
        ("attested", True, False),
    ],
)
def test_enrolled_number_is_asked_for_a_pin_unless_it_is_trusted(cid_trust: str, attested: bool, asked: bool) -> None:
    one = Dialled([PIN, CALLEE] if asked else [CALLEE], talks(), cards=ENROLLED, cid_trust=cid_trust, attested=attested)
    assert bool(one.call.did("collect_pin")) == asked
    assert one.endpoints == ["sofia/gateway/pstn/27820001234"]


@pytest.mark.parametrize(("cid_trust", "dials"), [("national", 0), ("any", 1)])
def test_number_alone_dials_at_home_only(cid_trust: str, dials: int) -> None:
    one = Dialled(["00442079460000"], talks(), cards=ENROLLED, cid_trust=cid_trust)
    assert len(one.endpoints) == dials
    if not dials:
        assert one.told == [("rejected", 57)]


def test_pin_from_enrolled_opens_from_enrolled_numbers_only() -> None:
    assert Dialled([PIN, CALLEE], talks(), pin_from_enrolled=True).told == [("rejected", 21)]
    one = Dialled([PIN, CALLEE], talks(), cards=ENROLLED, cid_trust="pin", pin_from_enrolled=True)
    assert len(one.endpoints) == 1


@pytest.mark.parametrize(
    ("of_card", "of_number", "of_account", "spoken"),
    [
        ("de", "fr", "es", "de"),
        (None, "fr", "es", "fr"),
        (None, None, "es", "es"),
        ("de", None, None, "de"),
        (None, None, None, None),
    ],
)
def test_language_is_the_cards_or_the_numbers_or_the_accounts(
    of_card: str | None, of_number: str | None, of_account: str | None, spoken: str | None
) -> None:
    cards = CardTable({PIN: structs.replace(CARD, language=of_card)}, known=replace(ACCOUNT, language=of_account))
    one = Dialled([PIN, CALLEE, CALLEE], talks(), talks(), cards=cards, languages={DID: of_number or ""})
    assert [attempt.language for attempt in one.begun] == [spoken, spoken]


def test_card_of_an_unknown_account_is_refused() -> None:
    one = Dialled([PIN, CALLEE], talks(), cards=CardTable(known=None))
    assert (one.told, one.played) == ([("rejected", 21)], ["unauthorized_call"])


def test_caller_without_room_is_told_so() -> None:
    class Full(Purse):
        def enter(self, holder: str, limit: int, call_ref: str) -> bool:
            return False

    one = Dialled([PIN, CALLEE], talks(), usage=Full())
    assert (one.told, one.played, one.endpoints) == ([("rejected", 17)], ["too_many_channels"], [])


# Numbers ----------------------------------------------------------------------------------------------


def test_redial_code_dials_the_last_number() -> None:
    one = Dialled([PIN, "*0"], talks(), cards=CardTable(last="0831112222"), redial_code="*0")
    assert one.endpoints == ["sofia/gateway/pstn/27831112222"]


def test_redial_without_a_last_number_says_so_and_asks_again() -> None:
    one = Dialled([PIN, "*0", CALLEE], talks(), redial_code="*0")
    assert one.played[0] == "no_last_number"
    assert len(one.endpoints) == 1


@pytest.mark.parametrize("typed", ["", "1", "0", "00"])
def test_number_that_is_none_is_asked_for_again_three_times(typed: str) -> None:
    one = Dialled([PIN, typed, typed, typed], talks())
    assert one.played == ["invalid_extension"] * 3 + ["retries_exceeded"]
    assert (one.endpoints, one.told) == ([], [("rejected", 21)])


def test_number_that_the_rules_do_not_allow_is_asked_for_again() -> None:
    allowed = re.compile(r"^\+2782").search
    one = Dialled([PIN, "0831112222", CALLEE], talks(), allowed_callee=allowed)
    assert one.endpoints == ["sofia/gateway/pstn/27820001234"]
    assert [moment.detail for moment in one.begun[0].timeline if moment.what == "callee_not_allowed"]


@pytest.mark.parametrize(("emergency", "prompt"), [(False, "emergency_refused"), (True, None)])
def test_emergency_number_needs_a_dial_string_of_its_own(emergency: bool, prompt: str | None) -> None:
    settings = replace(SETTINGS, endpoints=Endpoints("user/{number}", ("gw/{number}",), "sofia/gateway/112/{number}"))
    one = Dialled([PIN, "112"], talks(), settings=settings, emergency=emergency)
    assert one.endpoints == (["sofia/gateway/112/112"] if emergency else [])
    assert one.played[:1] == ([prompt] if prompt else ["invalid_extension"])


def test_number_of_a_denied_class_is_refused_with_its_record() -> None:
    account = replace(ACCOUNT, call_restriction={"mobile": Rule("deny")})
    one = Dialled([PIN, CALLEE], talks(), cards=CardTable(known=account))
    assert (one.endpoints, one.told, one.played) == ([], [("rejected", 57)], ["unauthorized_call"])
    assert one.begun[0].number == "+27820001234"


@pytest.mark.parametrize(
    ("cause", "prompt"),
    [
        ("USER_BUSY", "callee_busy"),
        ("NO_ANSWER", "callee_no_answer"),
        ("UNALLOCATED_NUMBER", "callee_no_such_number"),
        ("CALL_REJECTED", "callee_refused"),
        ("INCOMPATIBLE_DESTINATION", "callee_failed"),
    ],
)
def test_number_that_is_not_reached_has_a_prompt_for_its_cause(cause: str, prompt: str) -> None:
    one = Dialled([PIN, CALLEE], fails(cause))
    assert one.played[0] == prompt


def test_each_number_of_a_session_is_a_record_of_its_own() -> None:
    one = Dialled([PIN, CALLEE, "0831112222"], fails("USER_BUSY"), talks())
    assert [reason for reason, _code in one.told][:2] == ["callee_busy", "answered"]
    first, second = one.begun[0], one.begun[1]
    assert second.session_ref == first.session_ref == first.call_ref != second.call_ref
    assert ({"esl_call_ref": second.call_ref},) in one.call.did("set")
    assert second.holder == first.holder == "user:acme:u1"


# Caller IDs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("account", "realm"), [(ACCOUNT, "acme.example"), (replace(ACCOUNT, realm="a b"), "localhost")]
)
def test_retained_caller_id_has_a_diversion_of_the_account(account: Any, realm: str) -> None:
    card = structs.replace(CARD, retain_cid=True)
    cards = CardTable(pins={PIN: card}, known=replace(account, caller_ids=("0825556666",)))
    one = Dialled([PIN, CALLEE], talks(), cards=cards)
    leg = one.call.did("bridge")[0][0]
    assert leg["origination_caller_id_number"] == "0825556666"
    assert leg["sip_h_Diversion"] == f"<sip:+27115550000@{realm}>;reason=unconditional"


@pytest.mark.parametrize("caller_id", [None, "not a number"])
def test_account_without_a_number_diverts_nothing(caller_id: str | None) -> None:
    account = replace(ACCOUNT, caller_id=caller_id, caller_ids=("0825556666",))
    one = Dialled(
        [PIN, CALLEE], talks(), cards=CardTable(pins={PIN: structs.replace(CARD, retain_cid=True)}, known=account)
    )
    assert "sip_h_Diversion" not in one.call.did("bridge")[0][0]


@pytest.mark.parametrize(
    ("caller_id", "default", "shown"),
    [(None, "27115559999", "27115559999"), (None, None, "anonymous"), ("not a number", None, "not a number")],
)
def test_account_without_a_number_shows_the_default(caller_id: str | None, default: str | None, shown: str) -> None:
    cards = CardTable(known=replace(ACCOUNT, caller_id=caller_id))
    one = Dialled([PIN, CALLEE], talks(), cards=cards, default_caller_id=default)
    assert one.call.did("bridge")[0][0]["origination_caller_id_number"].lstrip("+") == shown


def test_session_whose_time_is_up_is_told_so() -> None:
    one = Dialled([PIN, CALLEE], talks(), max_session=0.0)
    assert (one.endpoints, one.told, one.played) == ([], [("rejected", 17)], ["time_is_up"])


@pytest.mark.parametrize(
    ("config", "numbers"),
    [({}, []), ({"cccp": None}, []), ({"cccp": {"cccp_cc_number": "5141115555"}}, ["5141115555"])],
)
def test_dialplan_has_the_calling_card_number(config: dict[str, Any], numbers: list[str]) -> None:
    assert [number for extension in dialthrough.extensions(config) for number in extension.numbers] == numbers
