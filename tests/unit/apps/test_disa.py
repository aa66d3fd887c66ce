"""DISA by script: the tone, the number, the caller ID, and what ends the session."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from msgspec import structs

from esl_apps.apps import disa
from esl_apps.apps.context import Arrival, NotServed
from esl_apps.apps.settings import Entrance
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Bridged, Complete, Leg, Progress
from esl_apps.testing import ScriptedCall, ScriptedPolicy, Step, caller_leaves, ended, fails, host, talks
from tests.support.card_table import ACCOUNT

ENTRANCE = Entrance("front", ACCOUNT, None, 10, 3, 2.0, 15, disa.DIALTONE, 10.0, True, True, 3600.0)
ARRIVAL = Arrival(("disa", "acme", "front"))


@dataclass(frozen=True)
class Rule:
    action: str


def session(
    keyed: Sequence[str],
    *steps: Step,
    arrival: Arrival = ARRIVAL,
    caller: str | None = "0825556666",
    **entrance: Any,
) -> tuple[ScriptedCall, list[Attempt]]:
    begun: list[Attempt] = []
    call = ScriptedCall(list(steps), ended(a_by="recv_bye"), keyed=list(keyed))
    made = structs.replace(ENTRANCE, **entrance)
    disa.arrive(call, arrival, ScriptedPolicy(number=caller, entrances={("acme", "front"): made}), host(begun))
    return call, begun


@pytest.mark.parametrize(
    "path", [("disa",), ("disa", "acme"), ("disa", "acme", "back"), ("disa", "acme", "front", "x")]
)
def test_path_of_no_disa_is_not_served(path: tuple[str, ...]) -> None:
    with pytest.raises(NotServed) as refused:
        session([], arrival=Arrival(path))
    assert refused.value.cause == "UNALLOCATED_NUMBER"


def test_caller_hears_the_tone_until_they_key_a_number() -> None:
    call, _begun = session(["0820001234"], talks())
    assert call.did("collect")[0] == (disa.DIALTONE,)
    assert call.did("bridge")[0][1] == [("sofia/gateway/pstn/27820001234", None)]


def test_tone_comes_again_after_each_call() -> None:
    call, begun = session(["0820001234", "1000"], fails("USER_BUSY"), talks())
    assert [endpoints[0][0] for _leg, endpoints, *_times in call.did("bridge")] == [
        "sofia/gateway/pstn/27820001234",
        "user/1000@127.0.0.1",
    ]
    assert call.did("play")[0] == ("callee_busy",)
    assert [attempt.number for attempt in begun[:2]] == ["+27820001234", "1000"]


def test_number_that_is_none_counts_against_the_tries() -> None:
    call, begun = session(["0", "", "*"], retries=3)
    assert call.did("play") == [("invalid_extension",)] * 3 + [("retries_exceeded",)]
    assert begun[0].record is not None
    assert (begun[0].record.end_reason, begun[0].record.number) == ("rejected", None)


class Typist(ScriptedCall):
    """Types each entry key by key, as far as it is collected. ``heard``: what was collected of each."""

    def collect_pin(
        self, audio: str, most: int, first: float, between: float, longest: float = 120.0, *, complete: Complete = None
    ) -> str:
        typed, entry = "", super().collect_pin(audio, most, first, between, longest)
        for key in entry:
            typed += key
            if len(typed) == most or (complete is not None and complete(typed)):
                break
        self.log.append(("heard", typed))
        return typed


def typed_pins(pin: str, entries: Sequence[str], *, hashed: bool, length: int = 10) -> Typist:
    made = structs.replace(ENTRANCE, pin_hash=f"#{pin}", pin_length=length, pin_hashed=hashed)
    call = Typist([], ended(a_by="recv_bye"), keyed=list(entries))
    disa.arrive(call, ARRIVAL, ScriptedPolicy(entrances={("acme", "front"): made}), host([]))
    return call


@pytest.mark.parametrize("pin", ["4821", "4821907356", "482190735612", "4" * 32])
def test_hashed_pin_of_any_length_opens(pin: str) -> None:
    call = typed_pins(pin, [pin + "0820001234"] if len(pin) >= 10 else [pin], hashed=True)
    # Digits behind it are the number's.
    assert call.did("heard") == [(pin,)]
    assert call.did("collect")


@pytest.mark.parametrize(("hashed", "heard"), [(True, "1" * 32), (False, "1" * 10)])
def test_wrong_pin_is_collected_to_its_bound(hashed: bool, heard: str) -> None:
    call = typed_pins("4821907356", ["1" * 99], hashed=hashed)
    assert call.did("heard")[0] == (heard,)


@pytest.mark.parametrize("entry", ["111", "9" * 12])
def test_last_prompt_is_not_skipped_by_keys_that_wait(entry: str) -> None:
    """As those are that are left of an entry that was longer than its limit."""
    call = typed_pins("4821907356", [entry] * 3, hashed=False)
    steps = [step for step in call.log if step[0] in ("drop_keys", "play")]
    assert steps[-2:] == [("drop_keys",), ("play", "retries_exceeded")]


def test_short_hashed_pin_is_not_found_in_a_longer_one() -> None:
    """As with a PIN in clear: the first digits of a longer entry don't open."""
    call = typed_pins("4821", ["4821907356"], hashed=True)
    assert call.did("heard")[0] == ("4821907356",)
    assert call.did("collect") == []


def test_silence_opens_no_disa_whatever_was_hashed() -> None:
    assert typed_pins("", ["", "", ""], hashed=True).did("collect") == []


@pytest.mark.parametrize(("account_caller_id", "shown"), [(True, "+27115550000"), (False, "0825556666")])
def test_callee_is_shown_the_account_or_the_caller(account_caller_id: bool, shown: str) -> None:
    account = replace(ACCOUNT, caller_ids=("0825556666",))
    call, _begun = session(["0820001234"], talks(), account=account, use_account_caller_id=account_caller_id)
    assert call.did("bridge")[0][0]["origination_caller_id_number"] == shown


@pytest.mark.parametrize(("caller_id", "privacy"), [("+27115550000", "screen"), (None, None)])
def test_accounts_number_is_shown_though_the_caller_withholds(caller_id: str | None, privacy: str | None) -> None:
    """By default the switch gives B's leg the privacy of A's."""
    account = replace(ACCOUNT, caller_id=caller_id)
    call, _begun = session(["0820001234"], talks(), caller=None, account=account)
    assert call.did("bridge")[0][0].get("origination_privacy") == privacy


@pytest.mark.parametrize(("enforced", "dials"), [(True, 0), (False, 1)])
def test_denied_class_is_refused_if_that_is_enforced(enforced: bool, dials: int) -> None:
    account = replace(ACCOUNT, call_restriction={"mobile": Rule("deny")})
    call, _begun = session(["0820001234"], talks(), account=account, enforce_call_restriction=enforced)
    assert len(call.did("bridge")) == dials


def test_fraud_classes_are_refused_even_if_nothing_is_enforced() -> None:
    call, begun = session(["00882123456789"], talks(), enforce_call_restriction=False)
    assert call.did("bridge") == []
    assert begun[0].record is not None
    assert begun[0].record.end_code == 57


def test_caller_who_breaks_the_call_is_its_agent_and_may_dial_on() -> None:
    def breaks(progress: Progress) -> Bridged:
        leg = Leg("B", answered_at=1005.0, ended_at=1007.0, disposition="send_bye")
        progress("answered", 1005.0, leg)
        return Bridged(True, 16, bleg=leg, broken=True)

    call, begun = session(["0820001234", "1000"], breaks, talks())
    assert begun[0].record is not None
    assert (begun[0].record.end_reason, begun[0].record.hung_up_by) == ("answered", "agent")
    assert len(call.did("bridge")) == 2
    assert ("callee_failed",) not in call.did("play")


def test_caller_who_breaks_the_ringing_has_abandoned_it() -> None:
    _call, begun = session(["0820001234"], lambda _progress: Bridged(False, 16, broken=True))
    assert begun[0].record is not None
    assert (begun[0].record.end_reason, begun[0].record.hung_up_by) == ("abandoned", "agent")


def test_caller_who_leaves_while_it_rings_has_abandoned_it() -> None:
    _call, begun = session(["0820001234"], caller_leaves())
    assert begun[0].record is not None
    assert begun[0].record.end_reason == "abandoned"


@pytest.mark.parametrize(
    ("caller", "direction"),
    [("0825556666", "external"), ("1000", "outbound"), (None, "external"), ("not a number", "external")],
)
def test_direction_is_from_the_caller_to_the_number(caller: str | None, direction: str) -> None:
    _call, begun = session(["0820001234"], talks(), caller=caller)
    assert begun[0].call_dir == direction


def test_callers_number_is_only_claimed_in_each_record() -> None:
    _call, begun = session(["0820001234", "0820001234"], talks(), talks(), caller="1000")
    assert [(attempt.extension, attempt.claimed) for attempt in begun] == [("1000", True)] * 2


def test_session_that_goes_on_on_another_node_begins_now() -> None:
    _call, begun = session(["0820001234"], talks(), arrival=structs.replace(ARRIVAL, session_ref="session-1"))
    assert begun[0].session_ref == "session-1"
    assert begun[0].dialed_at is not None
    assert begun[0].dialed_at > 1000.0


def test_talk_ends_with_the_session_however_long_b_rang() -> None:
    began = time.monotonic()
    call, _begun = session(["0820001234", "1000"], fails("NO_ANSWER"), talks(), max_session=60.0)
    assert all(60.0 <= until - began < 65.0 for (until,) in call.did("until"))
    assert len(call.did("until")) == 2


def test_session_ends_with_its_time() -> None:
    call, begun = session([], max_session=0.0)
    assert call.did("collect") == []
    assert len(begun) == 1
