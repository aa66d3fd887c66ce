"""Restrictions, limits and breakers."""

from __future__ import annotations

import json

import pytest

from esl_apps.core.number_classes import KAZOO_CLASSES
from tests.support.configurations import read, refusal, refusal_of_integrator


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            "accounts: {a: {call_restriction: {premuim: {action: deny}}}}",
            "accounts.a.call_restriction.premuim: unknown",
        ),
        (
            "accounts: {a: {users: {u: {call_restriction: {x: {action: deny}}}}}}",
            "accounts.a.users.u.call_restriction.x: unknown class; expected one of ",
        ),
        (
            "spending: {limits: {calls_per_hour: -1}}",
            "spending.limits.calls_per_hour: expected a whole number from 0 to",
        ),
        (
            "spending: {limits: {calls_per_day: 1.5}}",
            "spending.limits.calls_per_day: expected a whole number from 0 to",
        ),
        ("spending: {breaker: {minutes_per_hour: lots}}", "spending.breaker.minutes_per_hour: expected a whole number"),
        ("spending: {limits: {high_risk_calls_per_hour: 1}}", "spending.limits.high_risk_calls_per_hour: unknown key"),
        ("spending: {breaker: {longest_call: 1}}", "spending.breaker.longest_call: unknown key"),
        (
            "spending: {limits: {destinations: {Cuba: {calls_per_day: 1}}}}",
            "spending.limits.destinations.Cuba: expected country:XX",
        ),
        (
            "spending: {limits: {destinations: {'country:XX': {}}}}",
            "spending.limits.destinations.country:XX: unknown country; expected an ISO 3166 code",
        ),
        (
            "spending: {breaker: {destinations: {'class:mobil': {}}}}",
            "spending.breaker.destinations.class:mobil: unknown class; expected one of ",
        ),
        (
            "accounts: {a: {card_limits: {destinations: {'prefix:53': {}}}}}",
            "accounts.a.card_limits.destinations.prefix:53: expected country:XX",
        ),
        (
            "accounts: {a: {limits: {destinations: {'country:CU': {destinations: {}}}}}}",
            "accounts.a.limits.destinations.country:CU.destinations: unknown key",
        ),
    ],
)
def test_wrong_limit_is_refused(more: str, told: str) -> None:
    assert refusal(more + "\n").startswith(f"f.yml:6: {told}")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("call_restriction: {mobil: {action: deny}}", "call_restriction.mobil: unknown class"),
        ("limits: {destinations: {x: {}}}", "limits.destinations.x: expected country:XX"),
        ("breaker: {destinations: {'prefix:+': {}}}", "breaker.destinations.prefix:+: expected country"),
    ],
)
def test_wrong_integrator_limit_is_refused(line: str, told: str) -> None:
    assert refusal_of_integrator(line).startswith(f"f.yml:10: integrators[1].{told}")


def test_rule_may_name_a_stock_class_of_kazoo() -> None:
    rules = json.dumps({name: {"action": "deny"} for name in KAZOO_CLASSES})
    config = read(f"accounts: {{a: {{call_restriction: {rules}}}}}\n")
    assert config.accounts["a"].call_restriction.keys() == KAZOO_CLASSES
