"""Accounts, their caller IDs and their DISAs."""

from __future__ import annotations

import pytest

from tests.support.configurations import read, refusal

HASH = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("a: {integrator: none}", "a.integrator: no such integrator"),
        ("a: {caller_id: {number: x}}", "a.caller_id.number: not a telephone number"),
        ("a: {caller_ids: [x]}", "a.caller_ids[0]: not a telephone number"),
        ("'a/b': {}", "a/b: expected letters, digits, . _ - (at most 64)"),
        ("a: {disa: {d: {}}}", "a.disa.d: no pin: anyone who calls may dial; set pin, or allow_no_pin: true"),
        ("a: {disa: {d: {pin: ''}}}", "a.disa.d: no pin"),
        ("a: {disa: {d: {pin: 12ab}}}", "a.disa.d.pin: expected digits"),
        ("a: {disa: {d: {pin: '١٢٣٤'}}}", "a.disa.d.pin: expected digits"),
        ("a: {disa: {d: {pin: '12', numbers: ['0115550000', x]}}}", "a.disa.d.numbers[1]: not a telephone number"),
        (f"a: {{disa: {{d: {{pin_hash: {HASH}}}}}}}", "a.disa.d.pin_hash: needs pin_key, which is missing"),
        ("a: {disa: {'d e': {pin: '12'}}}", "a.disa.d e: expected letters, digits"),
    ],
)
def test_wrong_account_value_is_refused(more: str, told: str) -> None:
    assert refusal(f"accounts: {{{more}}}\n").startswith(f"f.yml:6: accounts.{told}")


def test_pin_and_hash_are_refused() -> None:
    told = refusal(f"pin_key: k\naccounts: {{a: {{disa: {{d: {{pin: '12', pin_hash: {HASH}}}}}}}}}\n")
    assert told == "f.yml:7: accounts.a.disa.d.pin_hash: expected pin or pin_hash, not both"


def test_disa_without_pin_may_be_meant() -> None:
    assert read("accounts: {a: {disa: {d: {allow_no_pin: true}}}}\n").accounts["a"].disa["d"].pin is None


def test_disa_with_a_hash_needs_no_pin() -> None:
    made = read(f"pin_key: k\naccounts: {{a: {{disa: {{d: {{pin_hash: {HASH}}}}}}}}}\n")
    assert made.accounts["a"].disa["d"].pin_hash == HASH


@pytest.mark.parametrize("text", [HASH.upper(), HASH[:-1], HASH + "0", f"sha256:{HASH}", "4821907356", "four"])
def test_pin_hash_of_another_form_is_refused_unseen(text: str) -> None:
    told = refusal(f"pin_key: k\naccounts: {{a: {{disa: {{d: {{pin_hash: '{text}'}}}}}}}}\n")
    assert told.startswith("f.yml:7: accounts.a.disa.d.pin_hash: expected 64 hex digits in small letters")
    assert text not in told
