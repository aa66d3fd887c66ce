"""Integrators: names, numbers, patterns."""

from __future__ import annotations

import pytest

from tests.support.configurations import refusal, refusal_of_integrator


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("caller_ids: ['27115550000', 'x']", "caller_ids[1]: not a telephone number: expected digits"),
        ("campaigns: {spring: x}", "campaigns.spring: not a telephone number"),
        ("campaigns: {spring: []}", "campaigns.spring: expected at least one number"),
        ("campaigns: {spring: ['27115550000', 'x']}", "campaigns.spring[1]: not a telephone number"),
        ("campaigns: {'a b': '27115550000'}", "campaigns.a b: expected letters, digits"),
        ("patterns: {agent: '('}", "patterns.agent: not a regular expression"),
        ("patterns: {contact_ref: '('}", "patterns.contact_ref: not a regular expression"),
    ],
)
def test_wrong_integrator_value_is_refused(line: str, told: str) -> None:
    assert refusal_of_integrator(line).startswith(f"f.yml:10: integrators[1].{told}")


def test_two_integrators_of_one_name_are_refused() -> None:
    told = refusal('  - {name: acme, listen: "127.0.0.1:8301", token: t}\n')
    assert told == "f.yml:6: integrators[1].name: an integrator above has this name"
