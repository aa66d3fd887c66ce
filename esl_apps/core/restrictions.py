"""Decide which classes of number may be dialled, by Kazoo's ``call_restriction``: the first rule that denies wins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from esl_apps.core.number_classes import HIGH_RISK, PREMIUM, SATELLITE, UNKNOWN
from esl_apps.core.numbers import Number

#: Denied unless a level allows them, because toll fraud dials them.
DENIED_UNLESS_ALLOWED = frozenset({PREMIUM, SATELLITE, UNKNOWN})


class ClassRule(Protocol):
    @property
    def action(self) -> str:
        """``deny``, ``allow`` or ``inherit``."""


def denied(number: Number, *levels: Mapping[str, ClassRule]) -> str:
    """Return why a number may not be dialled: its class, ``international`` or ``high_risk``; empty if it may.

    Levels are the system's, the account's and the user's rules, outermost first; the first that denies wins. Premium,
    satellite and unknown numbers need a level that allows them, by the built-in class and by the operator's; an unknown
    number that has a class of the operator's, one that allows either. So does a number of a high-risk range, whatever
    its class: rules name ``high_risk`` like a class. A freephone, shared-cost or premium number abroad is an
    international call as well.
    """
    for level in levels:
        for klass, rule in level.items():
            if rule.action == "deny" and number.is_of(klass):
                return klass
    # Whatever class an operator's classifier gives to a number that the built-in reading doesn't know.
    unknown = not (number.valid or number.is_extension or number.is_emergency)
    needed = {number.built_in, number.klass} & DENIED_UNLESS_ALLOWED
    if not (needed or unknown or number.high_risk):
        return ""
    allows = {klass for level in levels for klass, rule in level.items() if rule.action == "allow"}
    if missing := needed - allows:
        return number.built_in if number.built_in in missing else number.klass
    if unknown and not allows & {UNKNOWN, number.klass}:
        return UNKNOWN
    # All satellite ranges are high-risk, so allowing that class by name allows them too.
    if number.high_risk and HIGH_RISK not in allows and not (number.built_in == SATELLITE and SATELLITE in allows):
        return HIGH_RISK
    return ""
