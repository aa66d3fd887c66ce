"""Numbers that an operator without the scope ``numbers`` sees."""

from __future__ import annotations

from typing import Any

import pytest

from esl_apps.http.console.masking import masked, masked_number, masked_text

REF = "0199f0a2-4c1e-7bd2-8a55-0123456789ab"


@pytest.mark.parametrize(
    ("number", "seen"),
    [
        ("1000", "1000"),
        ("+27820001234", "+278••••••34"),
        ("0820001234", "082•••••34"),
        ("82 000 12", "•• ••• 12"),
        ("12345", "•••45"),
        ("alice", "alice"),
        ("27820001234;ext=9", "278•••••••4;ext=9"),
    ],
)
def test_number_shows_its_beginning_and_end_alone(number: str, seen: str) -> None:
    assert masked_number(number) == seen


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("number:27820001234", "number:278••••••34"),
        ("callback/27825556666", "callback/278••••••66"),
        ("call +27 82 000-1234 back", "call +27 8• •••-••34 back"),
        ("tel:082.000.1234", "tel:082.•••.••34"),
        ("x0820001234", "x082•••••34"),
        ("(082) 000 1234", "(082) ••• ••34"),
        (f"call {REF}", f"call {REF}"),
        ("card 0123456789abcdef0123456789abcdef", "card 0123456789abcdef0123456789abcdef"),
        ("address:192.168.100.200", "address:192.168.100.200"),
        ("cause 41, tried 3 times", "cause 41, tried 3 times"),
    ],
)
def test_text_keeps_references_and_addresses_alone(text: str, seen: str) -> None:
    assert masked_text(text) == seen


def test_masked_reaches_numbers_at_any_depth() -> None:
    call: Any = {
        "call_ref": REF,
        "agent": "27 82 11",
        "record": {"number": "0820001234", "end_code": 17},
        "decisions": [{"what": "refused", "detail": "no 0820001234"}],
        "at": 1e9,
        "bridged_at": None,
    }
    assert masked(call) == {
        "call_ref": REF,
        "agent": "•• •• 11",
        "record": {"number": "082•••••34", "end_code": 17},
        "decisions": [{"what": "refused", "detail": "no 082•••••34"}],
        "at": 1e9,
        "bridged_at": None,
    }
