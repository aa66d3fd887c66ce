"""Build originate and bridge strings.

FreeSWITCH tokenises them three times, and a ``}`` ends the variables even inside quotes (hazard 15). So nothing is
quoted here: a variable's value is percent-encoded unless all of it is in a closed alphabet, and an endpoint is the
operator's template filled with digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote

from esl_apps.core.numbers import Number

#: Characters that a value may hold unencoded: no comma, quote, brace, bracket, pipe, dollar, space or backslash.
_SAFE = "-_.~:+@/*#"
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
#: A value that needs no encoding. Most don't.
_PLAIN = re.compile(r"[A-Za-z0-9_.~+@/*#-]*(?::(?!_:)[A-Za-z0-9_.~+@/*#-]*)*")
_DIGITS = re.compile(r"\+?[0-9]+")
#: A whole endpoint, once its template is filled in.
_ENDPOINT = re.compile(r"[A-Za-z0-9_./:;=@*+-]+")


#: Separates variables, because a tone has commas in it. No value may hold it.
_BETWEEN = "!"


#: Separates dial strings that ring at once. A comma is not enough: of every user but the first it rings only the first
#: registration.
_TOGETHER = ":_:"

#: The id of an application whose CHANNEL_EXECUTE_COMPLETE isn't wanted: ``app_uuid`` for the one that the channel
#: executes next, ``Event-UUID`` of an execute. FreeSWITCH's own ids are UUIDs.
UNHEARD = "0"


#: A space after three tokenisers, each of which halves the backslashes.
_SPACE_OF_ORIGINATE = "\\\\\\\\s"


_NONE: Mapping[str, str] = {}


class Raw(str):
    """A value of the operator's that is sent unencoded, as a tone. The configuration has checked it."""


class Spaced(str):
    """A header's value that arrives as it is, spaces and all: a closed alphabet has been checked."""


class Gateway(str):
    """An endpoint behind a gateway, which may fail: then the next one is worth a try."""

    __slots__ = ("silence", "variables")
    silence: float | None
    variables: Mapping[str, str]

    def __new__(cls, endpoint: str, silence: float | None = None, variables: Mapping[str, str] = _NONE) -> Gateway:
        """``silence``: seconds without ringing, early media or an answer after which the gateway has failed; None: any
        time. ``variables``: those of its legs that differ from the others' of the same bridge."""
        gateway = super().__new__(cls, endpoint)
        gateway.silence, gateway.variables = silence, variables
        return gateway

    @property
    def label(self) -> str:
        """Its name in records: the gateway's on the switch, otherwise the host, otherwise the endpoint's module."""
        parts = self.split("/")
        if parts[:2] == ["sofia", "gateway"] and len(parts) > 2:
            return parts[2]
        return self.rpartition("@")[2] if "@" in self else parts[0]

    def is_silent(self, waited: float) -> bool:
        """Return whether a gateway has failed from which nothing was heard for so many seconds."""
        return self.silence is not None and waited >= self.silence


class Turn(NamedTuple):
    """One of the endpoints that are tried one after the other."""

    endpoint: str
    patience: Mapping[str, str]
    """The variables that end a leg to a silent gateway."""

    @property
    def gateway(self) -> Gateway | None:
        """The endpoint, if it is one."""
        return self.endpoint if isinstance(self.endpoint, Gateway) else None

    @property
    def label(self) -> str | None:
        return None if self.gateway is None else self.gateway.label

    def is_silent(self, waited: float) -> bool:
        return self.gateway is not None and self.gateway.is_silent(waited)


def in_turn(endpoints: Sequence[str]) -> Iterator[Turn]:
    """Yield the turn of each endpoint. The last gateway is waited for: it may only be slow, as FreeSWITCH doesn't tell
    a 100 Trying from silence."""
    for endpoint in endpoints:
        silence = endpoint.silence if isinstance(endpoint, Gateway) and endpoint is not endpoints[-1] else None
        # In whole seconds, up to one late.
        yield Turn(endpoint, {} if silence is None else {"leg_progress_timeout": str(int(silence))})


def encode(value: str) -> str:
    """Encode a value so that no tokeniser changes it. ``decode`` reverses it."""
    if isinstance(value, Raw | Spaced) or _PLAIN.fullmatch(value):
        return value
    # FreeSWITCH takes these three characters for the end of a dial string, even inside the braces.
    return quote(value, safe=_SAFE).replace(_TOGETHER, _TOGETHER[:2] + "%3A")


decode = unquote


def refusal(headers: Iterable[tuple[str, str]], code: int | None) -> dict[str, str]:
    """Return the variables of a refusal's headers, and of its ``Reason`` if ``code`` is a Q.850 cause.

    Not encoded: these texts are the application's own.
    """
    variables = {} if code is None else {"sip_reason": f"Q.850;cause={code}"}
    for name, value in headers:
        key = f"sip_rh_{name}"
        while key in variables:
            # A second header of the same name: FreeSWITCH writes it without the space (hazard 31).
            key += " "
        variables[key] = value
    return variables


def encoded(values: Mapping[str, str]) -> Mapping[str, str]:
    """Encode all values."""
    # One match over all of them, because mostly none needs encoding.
    if _PLAIN.fullmatch("".join([value for value in values.values() if type(value) is str])):
        return values
    return {name: encode(value) for name, value in values.items()}


def variables(values: Mapping[str, str], space: str = "\\\\s") -> str:
    """Return ``{^^!a=1!b=2}``. Empty values are left out: FreeSWITCH takes them for unset.

    ``space``: what the tokenisers make a space of in a :class:`Spaced` value.
    """
    _check_names(tuple(values))
    pairs = encoded(values)
    text = _BETWEEN.join([f"{name}={value}" for name, value in pairs.items() if value])
    if " " in text:
        parts = [
            f"{name}={value.replace(' ', space) if type(value) is Spaced else value}"
            for name, value in pairs.items()
            if value
        ]
        text = _BETWEEN.join(parts)
    return "{^^" + _BETWEEN + text + "}"


@lru_cache(maxsize=256)  # a leg's are one of a few sets
def _check_names(names: tuple[str, ...]) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"not a channel variable's name: {name!r}")


#: The dial string of a user of the switch's directory, whose phones register.
_USER = re.compile(r"user/([^@/]+(?:@[^@/]+)?)")


def mark_of(agent: str) -> str:
    """Return what an agent's legs have as ``presence_data``, by which a switch finds them. The channel's name has it,
    too, if the phone has registered with its extension in Contact, which browsers don't."""
    return f"/{agent}@"


@dataclass(frozen=True)
class Endpoints:
    """The configuration's ``dial`` templates."""

    extension: str
    external: tuple[str, ...]
    emergency: str | None = None
    silence: float | None = None
    """Seconds after which a gateway that says nothing has failed."""

    def of(self, number: Number, *, as_asked: bool, variables: Mapping[str, str] = _NONE) -> tuple[str, ...]:
        """Return the endpoints to try, in order.

        ``as_asked``: ``{number}`` is the number as the client gave it (click2dial), otherwise its E.164 digits.
        ``variables``: of a leg through a gateway.
        Empty if the configuration has no dial string for it.
        """
        given = number.dialled if as_asked or number.is_extension else number.e164
        endpoints = [_fill(template, number, given) for template in self._templates(number)]
        if number.is_extension:
            return tuple(endpoints)
        return tuple(Gateway(endpoint, self.silence, variables) for endpoint in endpoints)

    def registration(self, extension: Number) -> str | None:
        """Return the argument of ``sofia_contact`` that tells where an extension's phones are; None if its dial string
        isn't that of registered phones."""
        user = _USER.fullmatch(self.of(extension, as_asked=True)[0]) if extension.is_extension else None
        return None if user is None else f"*/{user[1]}"

    def reaches(self, number: Number) -> bool:
        """Whether the configuration has a dial string for a number."""
        return bool(self._templates(number))

    def _templates(self, number: Number) -> tuple[str, ...]:
        if number.is_extension:
            return (self.extension,)
        if number.is_emergency:
            return (self.emergency,) if self.emergency else ()
        return self.external


#: The forms of a number that a template may name, beside ``number``.
_FORMS = frozenset({"e164", "plus", "national", "dialled"})


@lru_cache(maxsize=256)
def _parsed(template: str) -> list[str]:
    """Return the parts of a template: its own text, and between two texts the name of a form."""
    parts = re.split(r"\{(\w+)\}", template)
    if unknown := {*parts[1::2]} - _FORMS - {"number"}:
        raise KeyError(unknown.pop())
    return parts


def _fill(template: str, number: Number, given: str) -> str:
    """Put a number into a template. ``given``: stands for ``{number}``.

    :raises ValueError: the result isn't an endpoint.
    """
    parts = _parsed(template).copy()
    for i in range(1, len(parts), 2):
        parts[i] = given if parts[i] == "number" else getattr(number, parts[i])
        if not _DIGITS.fullmatch(parts[i]):
            raise ValueError("an endpoint with something else than a number in it")
    endpoint = "".join(parts)
    if not _ENDPOINT.fullmatch(endpoint):
        raise ValueError("an endpoint with something else than a number in it")
    return endpoint


def caller_id(number: Number, how: str) -> str:
    """Format a number as ``dial.caller_id_format`` says: ``as_given``, ``e164``, ``plus`` or ``national``."""
    return str(getattr(number, "dialled" if how == "as_given" else how))


def originate(leg: Mapping[str, str], endpoint: str, application: str) -> str:
    """Return ``originate {…}endpoint '&socket(host:port/path async full)'``: an A-leg that runs ``application``.

    The quotes keep the application's spaces together (hazard 13).
    """
    # Taken apart three times, a bridge's variables twice.
    return f"originate {variables(leg, _SPACE_OF_ORIGINATE)}{endpoint} '&{application}'"


def bridge(leg: Mapping[str, str], endpoints: Iterable[tuple[str, str | None]]) -> str:
    """Return the argument of ``bridge``. Endpoints ring at once, all phones of each, each with its ``esl_user_id``."""
    parts = []
    for endpoint, user in endpoints:
        own = dict(endpoint.variables) if isinstance(endpoint, Gateway) else {}
        if user is not None:
            own |= {"esl_user_id": user, "presence_data": mark_of(user)}
        parts.append(variables({**leg, **own}) + endpoint)
    return _TOGETHER.join(parts)
