"""Originate and bridge strings, from parts.

FreeSWITCH tokenises them three times and a ``}`` ends the variables even inside quotes (hazard 15), so
nothing is quoted here: a variable's value is percent-encoded outside a closed alphabet, an endpoint is an
operator's template with digits in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote

from esl_apps.core.numbers import Number

#: What a variable's value may hold as it is. No comma, quote, brace, bracket, pipe, dollar, space or backslash.
_SAFE = "-_.~:+@/*#"
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
#: A value that encoding would not change, which most are.
_PLAIN = re.compile(r"[A-Za-z0-9_.~+@/*#-]*")
_DIGITS = re.compile(r"\+?[0-9]+")
#: A whole endpoint, once its template is filled in.
_ENDPOINT = re.compile(r"[A-Za-z0-9_./:;=@*+-]+")


#: Between variables, in place of the comma that a tone has in it. No value may hold it.
_BETWEEN = "!"


#: Between dial strings that ring at once. A comma would do for one phone each: of a user after the first it rings the
#: first registration alone.
_TOGETHER = ":_:"

#: What an application is called (``app_uuid``, of the one that the channel executes next; an execute's ``Event-UUID``)
#: whose CHANNEL_EXECUTE_COMPLETE is not asked for. FreeSWITCH's own are UUIDs.
UNHEARD = "0"


class Raw(str):
    """A value of the operator's, checked by the configuration, that goes as it is (a tone)."""


def encode(value: str) -> str:
    """A value that no tokeniser changes; ``decode`` gives it back."""
    if isinstance(value, Raw) or _PLAIN.fullmatch(value):
        return value
    # Inside the braces as well, FreeSWITCH takes these three for the end of one dial string.
    return quote(value, safe=_SAFE).replace(_TOGETHER, _TOGETHER[:2] + "%3A")


decode = unquote


def encoded(values: Mapping[str, str]) -> Mapping[str, str]:
    """All of the values as :func:`encode` makes them."""
    # One look at all of them: mostly they need nothing.
    if _PLAIN.fullmatch("".join([value for value in values.values() if type(value) is not Raw])):
        return values
    return {name: encode(value) for name, value in values.items()}


def variables(values: Mapping[str, str]) -> str:
    """``{^^!a=1!b=2}``; empty values are left out (FreeSWITCH takes them for unset)."""
    _check_names(tuple(values))
    parts = [f"{name}={value}" for name, value in encoded(values).items() if value]
    return "{^^" + _BETWEEN + _BETWEEN.join(parts) + "}"


@lru_cache(maxsize=256)  # a leg's are one of a few sets
def _check_names(names: tuple[str, ...]) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"not a channel variable's name: {name!r}")


@dataclass(frozen=True)
class Endpoints:
    """Where numbers are dialled: the configuration's ``dial`` templates."""

    extension: str
    external: tuple[str, ...]
    emergency: str | None = None

    def of(self, number: Number, *, as_asked: bool) -> tuple[str, ...]:
        """The endpoints to try in order.

        ``as_asked``: ``{number}`` is the number as it was asked (click2dial), else its E.164 digits.
        Empty if the configuration has no dial string for it.
        """
        values = {
            "e164": number.e164,
            "plus": number.plus,
            "national": number.national,
            "dialled": number.dialled,
            "number": number.dialled if as_asked or number.is_extension else number.e164,
        }
        return tuple(_fill(template, values) for template in self._templates(number))

    def reaches(self, number: Number) -> bool:
        """Whether the configuration has a dial string for a number."""
        return bool(self._templates(number))

    def _templates(self, number: Number) -> tuple[str, ...]:
        if number.is_extension:
            return (self.extension,)
        if number.is_emergency:
            return (self.emergency,) if self.emergency else ()
        return self.external


def _fill(template: str, values: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if not _DIGITS.fullmatch(values[match[1]]):
            raise ValueError("an endpoint with something else than a number in it")
        return values[match[1]]

    endpoint = re.sub(r"\{(\w+)\}", value, template)
    if not _ENDPOINT.fullmatch(endpoint):
        raise ValueError("an endpoint with something else than a number in it")
    return endpoint


def caller_id(number: Number, how: str) -> str:
    """A number as ``dial.caller_id_format`` shows it: ``as_given``, ``e164``, ``plus``, ``national``."""
    return {"as_given": number.dialled, "e164": number.e164, "plus": number.plus, "national": number.national}[how]


def originate(leg: Mapping[str, str], endpoint: str, application: str) -> str:
    """``originate {…}endpoint '&socket(host:port/path async full)'``: an A-leg that runs ``application``.

    The quotes keep the application's spaces together (hazard 13).
    """
    return f"originate {variables(leg)}{endpoint} '&{application}'"


def bridge(leg: Mapping[str, str], endpoints: Iterable[tuple[str, str | None]]) -> str:
    """A ``bridge`` argument. Several endpoints ring at once, all phones of each, with its own ``esl_user_id``."""
    parts = [
        variables(leg if user is None else {**leg, "esl_user_id": user}) + endpoint for endpoint, user in endpoints
    ]
    return _TOGETHER.join(parts)
