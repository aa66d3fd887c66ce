"""Which classes of number may be dialled: ``call_restriction`` of Kazoo, where the first that denies wins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from esl_apps.core.numbers import INTERNATIONAL, PREMIUM, SATELLITE, UNKNOWN, Number

#: Denied unless some level allows them: what toll fraud dials (contract §4).
DENIED_UNLESS_ALLOWED = frozenset({PREMIUM, SATELLITE, UNKNOWN})


class Rule(Protocol):
    @property
    def action(self) -> str:
        """``deny``, ``allow`` or ``inherit``."""


def denied(number: Number, *levels: Mapping[str, Rule]) -> bool:
    """Whether a number's class is denied at any level (system, account, user: outermost first).

    The first that denies wins; premium, satellite and unknown need a level that allows them. A freephone,
    shared-cost or premium number abroad is an international call, too: a rule against those holds for it.
    """
    allowed = number.klass not in DENIED_UNLESS_ALLOWED
    for level in levels:
        if number.abroad and (abroad := level.get(INTERNATIONAL)) is not None and abroad.action == "deny":
            return True
        rule = level.get(number.klass)
        if rule is None or rule.action == "inherit":
            continue
        if rule.action == "deny":
            return True
        allowed = True
    return not allowed
