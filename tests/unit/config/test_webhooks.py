"""``integrators[].webhooks``: what can be posted to, and what is refused before a node starts."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from esl_apps.config import parse
from esl_apps.config.model import Config
from esl_apps.config.problems import ConfigError

SECRET, OTHER = ("whsec_" + base64.b64encode(letter * 24).decode() for letter in (b"a", b"b"))
HOOK = {"name": "crm", "url": "https://crm.example.com/hook", "secrets": [SECRET]}


def made(*hooks: dict[str, Any], more: list[dict[str, Any]] | None = None) -> Config:
    integrators = [
        {"name": name, "listen": f"127.0.0.1:{8300 + i}", "token": f"token-{name}", "webhooks": listed}
        for i, (name, listed) in enumerate([("acme", list(hooks)), ("other", more or [])])
    ]
    text = {
        "admin": {"token": "admin-token-for-tests"},
        "switches": [{"name": "fs1", "address": "127.0.0.1:8021", "password": "secret"}],
        "integrators": integrators,
    }
    return parse(json.dumps(text), {}, "f.yml")


def refusal(*hooks: dict[str, Any], more: list[dict[str, Any]] | None = None) -> str:
    with pytest.raises(ConfigError) as refused:
        made(*hooks, more=more)
    return "\n".join(f"{problem.key}: {problem.message}" for problem in refused.value.problems)


def test_webhook_carries_everything_by_default() -> None:
    (hook,) = made(HOOK).integrators[0].webhooks
    assert hook.events == ["cdr", "call", "inbound", "session"]
    assert (hook.allow_http, hook.allow_private) == (False, False)


def test_two_secrets_are_for_a_rotation() -> None:
    assert made({**HOOK, "secrets": [SECRET, OTHER]}).integrators[0].webhooks[0].secrets == [SECRET, OTHER]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"url": "http://crm.example.com/"}, "webhooks[0].url: expected https, or allow_http: true"),
        ({"url": "ftp://crm.example.com/"}, "webhooks[0].url: expected https://HOST[:PORT]/PATH"),
        ({"url": "https://a:secret@crm.example.com/"}, "webhooks[0].url: expected no user"),
        ({"url": "https://127.0.0.1/"}, "webhooks[0].url: 127.0.0.1 is loopback; expected a public address"),
        ({"url": "https://[64:ff9b::10.0.0.1]/"}, "webhooks[0].url: 64:ff9b::a00:1 stands for 10.0.0.1 is private"),
        ({"url": "https://localhost/"}, "webhooks[0].url: localhost is loopback"),
        ({"url": "https://2130706433/"}, "webhooks[0].url: expected a host name"),
        ({"secrets": []}, "webhooks[0].secrets: expected a list of at least 1"),
        ({"secrets": ["whsec_short"]}, "webhooks[0].secrets[0]: expected whsec_ and the base64"),
        ({"secrets": [SECRET, SECRET]}, "webhooks[0].secrets[1]: a secret above is the same"),
        ({"secrets": [SECRET[:-2]]}, "webhooks[0].secrets[0]: expected whsec_ and the base64"),
        ({"events": []}, "webhooks[0].events: expected at least one"),
        ({"events": ["calls"]}, "webhooks[0].events[0]: expected cdr, call, inbound or session"),
        ({"name": "a/b"}, "webhooks[0].name: expected letters"),
        ({"retries": 3}, "webhooks[0].retries: unknown key"),
    ],
)
def test_wrong_webhook_is_explained(change: dict[str, Any], told: str) -> None:
    found = refusal({**HOOK, **change})
    assert f"integrators[0].{told}" in found
    assert SECRET[6:20] not in found
    assert "a:secret" not in found


def test_allowed_http_and_private_addresses_are_taken() -> None:
    hook = {**HOOK, "url": "http://10.0.0.1:8080/x", "allow_http": True, "allow_private": True}
    assert made(hook).integrators[0].webhooks[0].allow_private


def test_names_differ_over_all_integrators() -> None:
    """``esl-apps webhook replay NAME`` names no integrator."""
    assert "integrators[1].webhooks[0].name: a webhook above has this name" in refusal(HOOK, more=[HOOK])


def test_bare_variable_as_a_secret_is_named() -> None:
    assert "integrators[0].webhooks[0].secrets[0]" in refusal({**HOOK, "secrets": ["$HOOK_SECRET"]})
