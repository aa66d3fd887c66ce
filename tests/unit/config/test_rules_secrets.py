"""Tokens, passwords and keys: missing, weak, or not what was meant."""

from __future__ import annotations

import json

import pytest

from esl_apps.config import parse
from esl_apps.config.tokens import hash_token
from tests.support.configurations import LEAST, instead, problems_of, read, refusal, refusal_of_integrator


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("admin: {token: t0ken}", "admin: {}", "admin.token"),
        ("admin: {token: t0ken}", "admin: {token: ''}", "admin.token"),
        ("admin: {token: t0ken}", "admin: {token: null}", "admin.token"),
        (", token: t0ken}", ", token: ''}", "integrators[0].token"),
        (", token: t0ken}", "}", "integrators[0].token"),
        ("password: s3cret", "password: ''", "switches[0].password"),
    ],
)
def test_missing_secret_is_refused(old: str, new: str, key: str) -> None:
    assert f": {key}: missing" in instead(old, new)


def test_token_of_a_list_without_secret_is_refused() -> None:
    told = refusal_of_integrator("tokens: [{name: a, scopes: [read]}]")
    assert told == "f.yml:10: integrators[1].tokens[0].token: missing secret; expected token or token_hash"


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("admin: {token: t0ken}", "admin: {token: $ADMIN_TOKEN}", "admin.token"),
        (", token: t0ken}", ", token: '$T'}", "integrators[0].token"),
        ("password: s3cret", "password: $FS_PASSWORD", "switches[0].password"),
        ("node: {name: app1}", "pin_key: $_PIN_KEY2", "pin_key"),
        ("node: {name: app1}", "recordings: {link_key: $A_KEY_THAT_IS_LONG}", "recordings.link_key"),
        ("node: {name: app1}", "accounts: {a: {token: $T}}", "accounts.a.token"),
        (
            "admin: {token: t0ken}",
            "admin: {token: t, tokens: [{name: a, scopes: [read], token: $T}]}",
            "admin.tokens[0].token",
        ),
        ("node: {name: app1}", "redis: {url: 'redis://:$PW@h:6379/0'}", "redis.url"),
        ("node: {name: app1}", "redis: {url: 'redis+sentinel://u:$PW@h:1,i:2/main'}", "redis.url"),
        (", token: t0ken}", ", token: t, redis: {url: 'redis+cluster://:$PW@h:6379'}}", "integrators[0].redis.url"),
    ],
)
def test_variable_without_braces_is_refused(old: str, new: str, key: str) -> None:
    told = instead(old, new)
    assert told.endswith(f": {key}: expected ${{NAME}}, with braces: $NAME alone isn't read from the environment")


@pytest.mark.parametrize("password", ["$ecret", "a$PW", "$PW-x", "pa$$word", "$1"])
def test_password_with_a_dollar_is_accepted(password: str) -> None:
    text = LEAST.replace("password: s3cret", f"password: '{password}'")
    assert parse(text, {}).switches[0].password == password
    assert password in read(f"redis: {{url: 'redis://:{password}@h:6379'}}\n").redis.url


def test_url_that_cannot_be_split_has_one_problem() -> None:
    assert refusal("redis: {url: 'redis://[:$PW@h'}\n").startswith("f.yml:6: redis.url: expected redis://[USER")


@pytest.mark.parametrize("token", ["a b", "é", "a\tb"])
def test_token_that_no_header_carries_is_refused(token: str) -> None:
    assert instead(", token: t0ken}", f', token: "{token}"}}') == (
        "f.yml:5: integrators[0].token: expected printable characters, no spaces"
    )


def test_token_and_hash_are_refused() -> None:
    told = instead(", token: t0ken}", f", token: t, token_hash: '{hash_token('u')}'}}")
    assert told == "f.yml:5: integrators[0].token_hash: expected token or token_hash, not both"


def test_hash_of_an_empty_token_is_refused() -> None:
    told = instead(", token: t0ken}", f", token_hash: '{hash_token('')}'}}")
    assert told == "f.yml:5: integrators[0].token_hash: is the hash of nothing"


@pytest.mark.parametrize(
    ("second", "key", "holder"),
    [
        ("token: t", "tokens[1].token", "integrators[1]"),
        (f"token_hash: '{hash_token('u')}'", "tokens[1].token_hash", "integrators[1].tokens[0]"),
    ],
)
def test_same_token_twice_on_a_port_is_refused(second: str, key: str, holder: str) -> None:
    told = refusal_of_integrator(
        f"tokens: [{{name: a, scopes: [read], token: u}}, {{name: b, scopes: [call], {second}}}]"
    )
    assert told == f"f.yml:10: integrators[1].{key}: is {holder}'s already"


def test_account_token_that_is_an_admin_token_is_refused() -> None:
    admin = LEAST.replace("{token: t0ken}", "{token: t0ken, tokens: [{name: a, scopes: [read], token: other}]}")
    told = problems_of(admin + "accounts: {a: {token: other}}\n")
    assert told == ["f.yml:6: accounts.a.token: is admin.tokens[0]'s already"]
    hashed = problems_of(admin + f"accounts: {{a: {{token_hash: '{hash_token('other')}'}}}}\n")
    assert hashed == ["f.yml:6: accounts.a.token_hash: is admin.tokens[0]'s already"]


def test_account_token_may_be_the_operators() -> None:
    made = read("accounts: {a: {token: t0ken}, b: {token: t0ken}}\n")
    assert made.accounts["a"].digest == made.admin.digest


def test_two_tokens_of_one_name_are_refused() -> None:
    told = refusal_of_integrator("tokens: [{name: a, scopes: [read], token: u}, {name: a, scopes: [read], token: v}]")
    assert told == "f.yml:10: integrators[1].tokens[1].name: a token above has this name"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.8.0.1"])
def test_default_password_on_loopback_is_accepted(host: str) -> None:
    text = LEAST.replace('"127.0.0.1:8021", password: s3cret', f'"{host}:8021", password: ClueCon')
    assert parse(text, {}).switches[0].password == "ClueCon"


@pytest.mark.parametrize("host", ["10.0.0.1", "fs.example.org", "[2001:db8::1]", "0.0.0.0"])
def test_default_password_elsewhere_is_refused(host: str) -> None:
    old = '"127.0.0.1:8021", password: s3cret'
    assert "switches[0].password: is FreeSWITCH's default" in instead(old, f'"{host}:8021", password: ClueCon')
    allowed = LEAST.replace(old, f'"{host}:8021", password: ClueCon, allow_default_password: true')
    assert parse(allowed, {}).switches[0].allow_default_password


def test_short_link_key_is_refused() -> None:
    assert refusal("recordings: {link_key: fifteen-letters}\n") == (
        "f.yml:6: recordings.link_key: expected 16 characters at least: anyone who finds it hears every recording"
    )
    assert read("recordings: {link_key: sixteen--letters}\n").recordings.link_key


@pytest.mark.parametrize(
    "secret",
    ["fifteen-letters", "with a space in it", "$(system-id)-and-more", "quoted'quoted-quoted", "a" * 129, "ö" * 16],
)
def test_node_secret_that_is_short_or_not_plain_is_refused(secret: str) -> None:
    told = instead("{name: app1}", json.dumps({"secret": secret}))
    assert told.startswith("f.yml:3: node.secret: expected 16 to 128 letters, digits or . _ ~ -")
    assert secret not in told


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("pin_key: one\npin_key_old: one\n", "expected another key than pin_key"),
        ("pin_key_old: one\n", "needs pin_key"),
    ],
)
def test_old_pin_key_needs_another_one(keys: str, message: str) -> None:
    assert f"pin_key_old: {message}" in "\n".join(problems_of(LEAST + keys))


def test_old_node_secret_needs_another_one() -> None:
    told = "\n".join(
        problems_of(LEAST.replace("node: {name: app1}", "node: {name: app1, secret_old: old-secret-of-a-node}"))
    )
    assert "node.secret_old: needs node.secret" in told


def test_old_pin_key_next_to_another_is_accepted() -> None:
    assert read("pin_key: one\npin_key_old: other\n").pin_key_old == "other"
