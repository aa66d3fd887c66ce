"""Tokens: only their hashes are kept."""

from __future__ import annotations

import re

from esl_apps.config import parse
from esl_apps.config.model import Account
from esl_apps.config.tokens import digest_of, hash_token
from tests.support.configurations import LEAST, read


def test_parse_keeps_only_hashes_of_tokens() -> None:
    made = parse(
        LEAST.replace("{token: t0ken}", "{token: 0perator, tokens: [{name: a, token: s3cond, scopes: [read]}]}")
        + "accounts: {acme: {token: th1rd, tokens: [{name: b, token: f0urth, scopes: [cards]}]}}\n",
        {},
    )
    assert not re.search("t0ken|0perator|s3cond|th1rd|f0urth", repr(made))
    assert made.integrators[0].token_hash == hash_token("t0ken")
    assert made.admin.tokens[0].token_hash == hash_token("s3cond")
    assert made.accounts["acme"].tokens[0].digest == digest_of(Account(token="f0urth"))


def test_parse_makes_no_hash_of_an_empty_token() -> None:
    account = read("accounts: {a: {token: ''}, b: {}}\n").accounts["a"]
    assert (account.token, account.token_hash, account.digest) == (None, None, b"")


def test_digest_of_a_hash_and_of_its_token_are_equal() -> None:
    assert digest_of(Account(token="t")) == digest_of(Account(token_hash=hash_token("t"))) != digest_of(Account())
