"""The optional fields of a click-to-dial request, each declared once.

How a value is read, what a fault says, ``/openapi.json``, the dry run, and what another node goes on with
(``CallFields.order``) all follow from :class:`CallOptions`. A field that an integrator may limit has a check in
:data:`_CHECKS`, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Annotated, Any, Literal, Protocol, get_type_hints

import msgspec
from msgspec import Meta

from esl_apps.core.display_name import EXPECTED, PATTERN
from esl_apps.core.faults import Fault

#: Pairs of ``metadata``, and headers of one leg.
_MOST_PAIRS, _MOST_HEADERS = 16, 8
_VALUE_LENGTH = _HEADER_LENGTH = 256
#: A header's text that is read as a number.
_DECIMAL = re.compile(r"[0-9]{1,5}(\.[0-9]{1,3})?")
_YES_OR_NO = "true or false"
#: The announcement that speaks the callee's number.
NUMBER = "number"
#: Printable ASCII without what a dial string's tokenisers take for themselves, single spaces, and no ``:_:``.
_HEADER_CHARACTERS = r"[A-Za-z0-9_.~+@/*#=;?&%():-]+"
#: Milliseconds on and off, then frequencies; several in turn.
_TONE = r"%\([0-9]{1,5},[0-9]{1,5}(?:,[0-9]{2,4}){1,4}\)"
_SECONDS = "a number of seconds, 1 to 3600"


def _described(about: str, expected: str, **constraints: Any) -> Meta:
    """Constraints of a value, what it does, and the words of its fault."""
    return Meta(description=about, extra={"expected": expected}, **constraints)


Seconds = Annotated[float, Meta(ge=1, le=3600)]
DisplayName = Annotated[str, Meta(pattern=PATTERN)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,32}(?!\n)$")]
HeaderName = Annotated[str, Meta(pattern=r"^[Xx]-[A-Za-z0-9-]{1,62}(?!\n)$")]
HeaderValue = Annotated[
    str,
    Meta(
        pattern=rf"^(?!.*:_:){_HEADER_CHARACTERS}(?: {_HEADER_CHARACTERS})*(?!\n)$",
        max_length=_HEADER_LENGTH,
    ),
]
Tone = Annotated[str, Meta(pattern=rf"^{_TONE}(?:;{_TONE}){{0,3}}(?!\n)$")]
Text = Annotated[str, Meta(max_length=_VALUE_LENGTH)]


class CallOptions(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How one call is made. None: as its integrator is configured."""

    callee_name: (
        Annotated[
            DisplayName,
            _described("Shown with the callee's number on an agent's phone, unless that is outside", EXPECTED),
        ]
        | None
    ) = None
    outbound_name: (
        Annotated[DisplayName, _described("Shown to the callee with outbound_id (names: true)", EXPECTED)] | None
    ) = None
    agent_timeout: Annotated[Seconds, _described("How long the agent is rung", _SECONDS)] | None = None
    callee_timeout: Annotated[Seconds, _described("How long the callee is rung", _SECONDS)] | None = None
    max_duration: (
        Annotated[
            float,
            _described("How long the two may talk, at most the integrator's", "a number of seconds, 1 or more", ge=1),
        ]
        | None
    ) = None
    require_agent: (
        Annotated[
            Literal["registered", "idle"],
            _described(
                "Answer 409 `agent_unavailable` at once if no phone of the agent, an extension, is registered, or "
                "(`idle`) if they are in a call",
                '"registered" or "idle"',
            ),
        ]
        | None
    ) = None
    auto_answer: (
        Annotated[bool, _described("Have the agent's phone answer by itself, if it is an extension's", _YES_OR_NO)]
        | None
    ) = None
    confirm: (
        Annotated[
            bool,
            _described(
                "Dial the callee only after the agent has pressed a key; by default for agents with an outside number",
                _YES_OR_NO,
            ),
        ]
        | None
    ) = None
    announce: (
        Annotated[
            str,
            _described(
                "What the agent hears before the callee is dialled: a prompt, a URL of `prompts.urls`, or `number`, "
                "which speaks the callee's",
                f"{NUMBER}, the name of a prompt, or a URL of prompts.urls",
                max_length=2048,
            ),
        ]
        | None
    ) = None
    record: Annotated[bool, _described("False: don't record this call", _YES_OR_NO)] | None = None
    ringback: (
        Annotated[
            Tone,
            _described(
                "Tone that the agent hears while the callee rings, instead of dial.ringback",
                "a tone as %(2000,4000,440,480): milliseconds on and off, then 1 to 4 frequencies; up to 4 tones "
                "with ; between",
            ),
        ]
        | None
    ) = None
    headers: (
        Annotated[
            dict[Literal["agent", "callee"], Annotated[dict[HeaderName, HeaderValue], Meta(max_length=_MOST_HEADERS)]],
            _described(
                "Headers in the INVITE to the agent and to the callee, of the names that the integrator has (headers)",
                f"an object of agent and callee, each an object of up to {_MOST_HEADERS} X- headers with texts of "
                f"letters, digits, single spaces and _.~+@/*#=;?&%():- of up to {_HEADER_LENGTH} characters",
            ),
        ]
        | None
    ) = None
    metadata: (
        Annotated[
            dict[Name, Text],
            _described(
                f"Up to {_MOST_PAIRS} pairs, carried unchanged to the status, list filters, the record and "
                "notifications. Names: 1 to 32 of A-Z a-z 0-9 _ . -",
                f"an object of up to {_MOST_PAIRS} texts of up to {_VALUE_LENGTH} characters, each with a name of 1 to "
                "32 letters, digits, _ . -",
                max_length=_MOST_PAIRS,
            ),
        ]
        | None
    ) = None


NO_OPTIONS = CallOptions()


class Allowances(Protocol):
    """What an integrator's calls may have."""

    @property
    def record(self) -> bool: ...

    @property
    def longest(self) -> float: ...

    @property
    def names(self) -> bool: ...

    @property
    def headers(self) -> Collection[str]:
        """The names of SIP headers, in lower case."""

    def is_media(self, name: str, /) -> bool:
        """Return whether this may be played: an existing prompt, or a URL that the configuration lists."""


Check = Callable[[Any, Allowances], str | None]
"""Returns why an integrator's call can't have a value; None if it can."""


def _record(value: bool, allowed: Allowances) -> str | None:
    return "this integrator's calls are not recorded" if value and not allowed.record else None


def _outbound_name(_value: str, allowed: Allowances) -> str | None:
    return None if allowed.names else "this integrator's calls show no name (names: false)"


def _headers(value: Mapping[str, Mapping[str, str]], allowed: Allowances) -> str | None:
    foreign = sorted({name for leg in value.values() for name in leg if name.lower() not in allowed.headers})
    return f"{foreign[0]} is not one of the integrator's headers" if foreign else None


def _max_duration(value: float, allowed: Allowances) -> str | None:
    return f"expected at most {allowed.longest:g} s" if value > allowed.longest else None


def _announce(value: str, allowed: Allowances) -> str | None:
    return None if value == NUMBER or allowed.is_media(value) else f"expected {expected('announce')}"


_CHECKS: Mapping[str, Check] = {
    "announce": _announce,
    "headers": _headers,
    "max_duration": _max_duration,
    "outbound_name": _outbound_name,
    "record": _record,
}

#: The fields that a phone may send as SIP headers ``X-Teleforge-NAME``. Not ``record``: it isn't for those who are
#: recorded to say.
HEADERS = {"Outbound-Name": "outbound_name", "Callee-Timeout": "callee_timeout", "Max-Duration": "max_duration"}
_HINTS = get_type_hints(CallOptions, include_extras=True)
#: The names of the fields.
OPTIONS = CallOptions.__struct_fields__
_NAMES = frozenset(OPTIONS)


def expected(field: str) -> str:
    """Return what a field's value should be."""
    return next(_expected_of(_HINTS[field]))


def read(fields: Mapping[str, object], allowed: Allowances, faults: list[Fault]) -> CallOptions:
    """Read the options among a request's fields. A wrong one adds a fault and is left out."""
    if _NAMES.isdisjoint(fields):
        return NO_OPTIONS
    values = {}
    for name in OPTIONS:
        value = fields.get(name)
        if value is None:
            continue
        try:
            values[name] = msgspec.convert(value, _HINTS[name])
        except msgspec.ValidationError:
            faults.append(Fault(name, "value", f"expected {expected(name)}"))
    options = CallOptions(**values) if values else NO_OPTIONS
    faults.extend(faults_of(options, allowed))
    return options


def of_headers(header: Callable[[str], str | None]) -> dict[str, object]:
    """Return the options in a phone's headers, as a request's fields. ``header``: reads ``X-Teleforge-NAME``."""
    given = {field: text for name, field in HEADERS.items() if (text := header(name))}
    return {field: float(text) if _DECIMAL.fullmatch(text) else text for field, text in given.items()}


def faults_of(options: CallOptions, allowed: Allowances) -> Iterator[Fault]:
    """Yield what an integrator's rules have against a call's options."""
    if options is NO_OPTIONS:
        return
    for name, check in _CHECKS.items():
        value = getattr(options, name)
        reason = None if value is None else check(value, allowed)
        if reason is not None:
            yield Fault(name, "not_allowed", reason)


def kept(options: CallOptions) -> dict[str, Any] | None:
    """Return the options as ``CallFields.order`` keeps them. The metadata has a field of its own there."""
    if options is NO_OPTIONS:
        return None
    return msgspec.to_builtins(msgspec.structs.replace(options, metadata=None)) or None


def restored(order: Mapping[str, Any] | None) -> CallOptions:
    """:raises msgspec.ValidationError: it isn't what ``kept`` returned."""
    return msgspec.convert(order, CallOptions) if order else NO_OPTIONS


def schemas() -> dict[str, Any]:
    """Return the fields' JSON schemas."""
    _ref, components = msgspec.json.schema_components([CallOptions])
    properties: dict[str, Any] = components[CallOptions.__name__]["properties"]
    return {name: _without_null(schema) for name, schema in properties.items()}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema without its null, which means the same as leaving the field out."""
    (alone,) = [inner for inner in schema["anyOf"] if inner != {"type": "null"}]
    return _without_names(alone)


def _without_names(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema without ``propertyNames``, which OpenAPI 3.0 doesn't have."""
    return {
        key: _without_names(value) if isinstance(value, dict) else value
        for key, value in schema.items()
        if key != "propertyNames"
    }


def _expected_of(hint: Any) -> Iterator[str]:
    for mark in getattr(hint, "__metadata__", ()):
        if mark.extra is not None:
            yield mark.extra["expected"]
    for inner in getattr(hint, "__args__", ()):
        yield from _expected_of(inner)
