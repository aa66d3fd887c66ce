"""Whether a number may be dialled by the rules in force: asked before each number, by every application."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from esl_apps.apps.settings import Rules, Settings
from esl_apps.core.numbers import Number
from esl_apps.core.restrictions import ClassRule, denied


class Denial(NamedTuple):
    """Why a number may not be dialled."""

    code: str
    """``forbidden``, or ``restricted`` if another rule could allow it."""
    note: str
    prompt: str = "unauthorized_call"
    """For a caller."""


def denial(number: Number, settings: Settings, rules: Rules, *levels: Mapping[str, ClassRule]) -> Denial | None:
    """Return why a number may not be dialled; None if it may. ``levels``: as :func:`denied`'s."""
    if number.is_emergency:
        return None if rules.emergency else Denial("forbidden", "an emergency number", "emergency_refused")
    if is_own(number, rules.own_numbers):
        # The call would come back here and could dial again: a loop that pays for each round.
        return Denial("forbidden", "a number of this installation")
    if klass := denied(number, *levels):
        return Denial("restricted", f"class {klass} is denied")
    if not settings.endpoints.reaches(number):
        return Denial("restricted", "dial.external is empty")
    return None


def is_own(number: Number, own_numbers: Collection[str]) -> bool:
    """Return whether a number leads back to this installation. ``own_numbers``: its DIDs, as E.164 digits.

    An exchange may ignore digits after a complete number, so a number that isn't valid and begins with a DID is one.
    """
    if number.subscriber in own_numbers:
        return True
    if number.valid or number.is_extension:
        return False
    return any(len(own) > 6 and number.e164.startswith(own) for own in own_numbers)
