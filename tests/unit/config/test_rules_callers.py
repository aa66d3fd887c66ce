"""Calling cards, callback, and the PIN guard."""

from __future__ import annotations

import pytest

from tests.support.configurations import LEAST, problems_of, refusal

_SAME = "is cccp_cc_number, too: callback and dialthrough need a number each"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("allowed_callee_regex: '('", "7: cccp.allowed_callee_regex: not a regular expression"),
        ("cccp_cc_number: '5141115555'\n  cccp_cb_number: '5141115555'", f"8: cccp.cccp_cb_number: {_SAME}"),
        ("cccp_cc_number: '+27820001234'\n  cccp_cb_number: '0820001234'", f"8: cccp.cccp_cb_number: {_SAME}"),
        ("cccp_cc_number: none", "7: cccp.cccp_cc_number: not a telephone number"),
        ("default_caller_id_number: '1\n\n  api x'", "7: cccp.default_caller_id_number: not a telephone number"),
        (
            "attest_header: 'X-A: b'",
            "7: cccp.attest_header: expected From, or the name of a header that begins with P-",
        ),
        ("attest_header: Date", "7: cccp.attest_header: expected From, or the name of a header that begins with P-"),
    ],
)
def test_wrong_cccp_value_is_refused(more: str, told: str) -> None:
    assert refusal(f"cccp:\n  {more}\n").startswith(f"f.yml:{told}")


def test_two_wrong_numbers_are_not_compared() -> None:
    told = problems_of(LEAST + "cccp:\n  cccp_cb_number: '1'\n  cccp_cc_number: '1'\n")
    assert [line.split(": ")[1] for line in told] == ["cccp.cccp_cb_number", "cccp.cccp_cc_number"]


@pytest.mark.parametrize(("key", "lock"), [("longest_service_lock", 7200), ("longest_lock", 90_000)])
def test_lock_longer_than_the_longest_is_refused(key: str, lock: int) -> None:
    told = problems_of(LEAST + f"pin_guard:\n  lock: {lock}\n")
    assert f"f.yml:6: pin_guard.{key}: is shorter than lock, which is the first" in told


def test_number_that_cannot_be_compared_is_reported_once() -> None:
    told = problems_of(LEAST + "cccp: {cccp_cb_number: '0115550000', cccp_cc_number: x}\n")
    assert [line.split(": ")[1] for line in told] == ["cccp.cccp_cc_number"]


def test_default_password_at_a_wrong_address_is_reported_once() -> None:
    told = problems_of(LEAST.replace('"127.0.0.1:8021", password: s3cret', "fs, password: ClueCon"))
    assert told == ["f.yml:1: switches[0].address: expected host:port"]
