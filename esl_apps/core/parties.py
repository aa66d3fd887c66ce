"""A party's number as a record describes it: E.164, class and country."""

from __future__ import annotations

from typing import Any

from esl_apps.core.number_classes import EXTENSION as EXTENSION_CLASS
from esl_apps.core.numbers import Number

#: The fields of A's party if it is an extension.
EXTENSION = {"extension_e164": None, "extension_class": EXTENSION_CLASS, "extension_country": None}


def first(number: Number | None) -> dict[str, Any]:
    """Return the fields of an attempt for A's party. None: its number is withheld or can't be read."""
    e164, klass, country = _facts(number)
    return {"extension_e164": e164, "extension_class": klass, "extension_country": country}


def second(number: Number | None) -> dict[str, Any]:
    """Return the fields of an attempt for B's party."""
    e164, klass, country = _facts(number)
    return {"number_e164": e164, "number_class": klass, "country": country}


def caller(number: Number | None) -> Number | None:
    """Return a caller's number, for ``first`` or ``second``; None if it is an emergency number: a caller can show any,
    and what they dial would be spared."""
    return None if number is not None and number.is_emergency else number


def shown(number: Number) -> str:
    """Return a number that a caller keyed or a client ordered, as ``number`` of a record shows it."""
    return number.dialled if number.is_extension or number.is_emergency else number.plus


def _facts(number: Number | None) -> tuple[str | None, str | None, str | None]:
    if number is None:
        return None, None, None
    if number.is_extension or number.is_emergency:
        return None, number.klass, None
    return number.plus, number.klass, number.country or None
