"""Which classes of number may be dialled: ``call_restriction`` of Kazoo, where the first that denies wins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from esl_apps.core.numbers import HIGH_RISK, INTERNATIONAL, PREMIUM, SATELLITE, UNKNOWN, Number

#: Denied unless some level allows them: what toll fraud dials (contract §4).
DENIED_UNLESS_ALLOWED = frozenset({PREMIUM, SATELLITE, UNKNOWN})


class ClassRule(Protocol):
    @property
    def action(self) -> str:
        """``deny``, ``allow`` or ``inherit``."""


def denied(number: Number, *levels: Mapping[str, ClassRule]) -> str:
    """What of a number is denied at any level (system, account, user: outermost first): its class,
    ``international`` or ``high_risk``; empty where it may be dialled.

    The first that denies wins; premium, satellite and unknown need a level that allows them, and so does a
    number of a high-risk range, whatever its class: ``high_risk`` there is ruled like a class. A freephone,
    shared-cost or premium number abroad is an international call, too: a rule against those holds for it.
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
        # Satellites are high-risk ranges all: who allows that class by its name has allowed them.
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
