"""Say in plain words what a place of the configuration takes, and what is wrong with a value there."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from datetime import date
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from esl_apps.config.fields import Section


def alternatives(kind: Any) -> tuple[Any, ...]:
    """The members of a union, or the type alone."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def bare(kind: Any) -> Any:
    """A type without its constraints."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def fields(section: Any) -> dict[str, msgspec.structs.FieldInfo]:
    """The fields of a section by the keys that the file has for them."""
    return {field.encode_name: field for field in msgspec.structs.fields(section)}


#: How types are called.
_NAMES: dict[Any, str] = {
    dict: "a mapping",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a whole number",
    NoneType: "nothing",
}


# Expectations ----------------------------------------------------------------------------------------------


def expected(kind: Any) -> str:
    """Say what a place takes: ``a whole number from 1 to 9``, ``left or right``, ``a list``."""
    return " or ".join(_expected(member) for member in alternatives(kind) if member is not NoneType)


def _expected(kind: Any) -> str:
    inner = bare(kind)
    if inner is not kind:
        meta = _constraints(kind)
        return meta.get("expected") or _expected(inner) + _bounds(meta)
    origin = get_origin(kind)
    if origin is Literal:
        return _listed([str(word).lower() if isinstance(word, bool) else str(word) for word in get_args(kind)])
    if is_section(kind):
        return "a mapping of " + ", ".join(fields(kind))
    return _NAMES.get(origin or kind, "a number")


def _listed(words: list[str]) -> str:
    return ", ".join(words[:-1]) + " or " + words[-1] if len(words) > 1 else words[0]


def _constraints(kind: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for meta in kind.__metadata__:
        found |= meta.extra or {}
        found |= {name: getattr(meta, name) for name in ("ge", "le", "min_length")}
    return found


def _bounds(meta: dict[str, Any]) -> str:
    if meta["min_length"] is not None:
        return f" of at least {meta['min_length']}"
    if meta["le"] is not None:
        return f" from {meta['ge']} to {meta['le']}"
    return f", {meta['ge']} or more"


# Values ----------------------------------------------------------------------------------------------------


def wrong(kind: Any, value: Any, spelled: str | None, from_environment: bool) -> str:
    """Say what is wrong with a value, without showing it: it could be a secret."""
    return f"expected {expected(kind)}{_found(kind, value)}{_hint(kind, value, spelled, from_environment)}"


def _found(kind: Any, value: Any) -> str:
    name = _kind_of(value)
    kinds = {_kind_of_type(member) for member in alternatives(kind)}
    # If it is of the right kind, the expectation says the bounds.
    return "" if name in kinds or (name == "a number" and "a whole number" in kinds) else f", got {name}"


def _kind_of(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    for types, name in (
        (dict, "a mapping"),
        (list, "a list"),
        (str, "text"),
        ((int, float), "a number"),
        (date, "a date"),
    ):
        if isinstance(value, types):
            return name
    return "something else"


def _kind_of_type(kind: Any) -> str:
    kind = bare(kind)
    if get_origin(kind) is Literal:
        return _kind_of(get_args(kind)[0])
    if is_section(kind):
        return "a mapping"
    return _NAMES.get(get_origin(kind) or kind, "a number")


def _hint(kind: Any, value: Any, spelled: str | None, from_environment: bool) -> str:
    kinds = {_kind_of_type(member) for member in alternatives(kind)}
    if "text" in kinds and isinstance(value, bool):
        if spelled is not None:
            return f"; without quotes, YAML reads {spelled} as {str(value).lower()}: put it in quotes"
        return "; put it in quotes if it is a text"
    if "text" in kinds and isinstance(value, int | float):
        return "; put the number in quotes"
    if "text" in kinds and isinstance(value, date):
        return "; put it in quotes"
    if isinstance(value, str) and kinds & {"a number", "a whole number", "true or false"}:
        if from_environment:
            return "; what an environment variable holds is always text"
        if re.fullmatch(r"[-+]?[0-9]+(\.[0-9]+)?|true|false", value):
            return "; remove the quotes"
    if "a list" in kinds and not isinstance(value, dict | list) and value is not None:
        return "; write [A, B], or each item in a line of its own, behind -"
    if "a mapping" in kinds and isinstance(value, list):
        return "; remove the - or the brackets"
    return ""


# Unknown keys ---------------------------------------------------------------------------------------------

_HARMLESS = re.compile(r"[A-Za-z_.-]{1,40}")


@dataclass(frozen=True)
class UnknownKey:
    """A key that a section doesn't have."""

    shown: str
    """The key, or the harmless part of it."""
    message: str
    meant: str = ""
    """The key that was probably meant."""


def unknown(key: str, value: Any, known: list[str]) -> UnknownKey:
    """Say what is wrong with a key. Neither it nor its value is shown if it could be a secret."""
    name, colon, _value = key.partition(":")
    if colon and name in known:
        return UnknownKey(name, "expected a space behind the colon", name)
    if key == "<<":
        return UnknownKey(key, "unknown key; merged mappings (<<) are not supported")
    word, *others = key.split() or [""]
    # A key alone, without a colon, could be a secret whose key was forgotten.
    near = difflib.get_close_matches(word, known, 1, 0.6 if value is not None else 0.85)
    if near and others:
        return UnknownKey(word, "expected a colon and a space behind the key", near[0])
    if near:
        return UnknownKey(word, f"unknown key; did you mean {near[0]}?", near[0])
    shown = key if _HARMLESS.fullmatch(key) and value is not None else ""
    return UnknownKey(shown, f"unknown key; expected {_listed(sorted(known))}")
