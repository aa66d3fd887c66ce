"""A party's number as a record describes it: E.164, class and country."""

from __future__ import annotations

from typing import Any

from esl_apps.core.number_classes import EXTENSION as EXTENSION_CLASS
from esl_apps.core.numbers import Number

#: The fields of A's party if it is an extension.
EXTENSION = {"extension_e164": None, "extension_class": EXTENSION_CLASS, "extension_country": None}


def first(number: Number | None) -> dict[str, Any]:
    """Return the fields of an attempt for A's party. None: its number is withheld or can't be read."""
    return dict(zip(("extension_e164", "extension_class", "extension_country"), _facts(number), strict=True))


def second(number: Number | None) -> dict[str, Any]:
    """Return the fields of an attempt for B's party."""
    return dict(zip(("number_e164", "number_class", "country"), _facts(number), strict=True))


def _facts(number: Number | None) -> tuple[str | None, str | None, str | None]:
    if number is None:
        return None, None, None
    if number.is_extension or number.is_emergency:
        return None, number.klass, None
    return number.plus, number.klass, number.country or None
