"""Decide which classes of number may be dialled, by Kazoo's ``call_restriction``: the first rule that denies wins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from esl_apps.core.numbers import HIGH_RISK, INTERNATIONAL, PREMIUM, SATELLITE, UNKNOWN, Number

#: Denied unless a level allows them, because toll fraud dials them.
DENIED_UNLESS_ALLOWED = frozenset({PREMIUM, SATELLITE, UNKNOWN})


class ClassRule(Protocol):
    @property
    def action(self) -> str:
        """``deny``, ``allow`` or ``inherit``."""


def denied(number: Number, *levels: Mapping[str, ClassRule]) -> str:
    """Return why a number may not be dialled: its class, ``international`` or ``high_risk``; empty if it may.

    Levels are the system's, the account's and the user's rules, outermost first; the first that denies wins. Premium,
    satellite and unknown numbers need a level that allows them. So does a number of a high-risk range, whatever its
    class: rules name ``high_risk`` like a class. A freephone, shared-cost or premium number abroad is an
    international call as well.
    """
    allowed = number.klass not in DENIED_UNLESS_ALLOWED
    named = False
    for level in levels:
        if number.abroad and _action(level, INTERNATIONAL) == "deny":
            return INTERNATIONAL
        action = _action(level, number.klass)
        if action == "deny":
            return number.klass
        allowed = allowed or action == "allow"
        # All satellite ranges are high-risk, so allowing that class by name allows them too.
        named = named or (action == "allow" and number.klass == SATELLITE)
    if not allowed:
        return number.klass
    if number.high_risk:
        actions = [_action(level, HIGH_RISK) for level in levels]
        if "deny" in actions or not (named or "allow" in actions):
            return HIGH_RISK
    return ""


def _action(level: Mapping[str, ClassRule], klass: str) -> str:
    rule = level.get(klass)
    return "inherit" if rule is None else rule.action
