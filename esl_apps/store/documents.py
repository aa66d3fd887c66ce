"""Encode and decode what outlives a process, with its version: the rule is in :mod:`esl_apps.core.versions`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from esl_apps.core.versions import NOTHING, Kind, Rest, VersionRefused
from esl_apps.store.errors import Unreadable

log = logging.getLogger(__name__)

T = TypeVar("T")
#: Seconds for which a refused document makes a node unready after it was last met, and between two lines in the log.
REMEMBERED = 60.0
#: No document of version 1 contains this at its top level, and few elsewhere. Looking for it costs 50 ns.
_MARK = b'"v":'
#: Raised by documents that aren't ours; the last one by arrays in arrays in arrays.
_DAMAGED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class WrongVersion(Unreadable):
    """A document is of a version that this release doesn't read. It is left as it is, to nodes that can."""

    @property
    def summary(self) -> str:
        return str(self)


class _Head(msgspec.Struct):
    v: int = 1


class Refusals:
    """The versions that were refused of late."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._met: dict[str, float] = {}
        """What was said → when it was met last."""

    def note(self, refused: VersionRefused) -> WrongVersion:
        """Remember a refusal, log the first one of a minute, and return it as an error of the store."""
        text, now = str(refused), self._clock()
        if now - self._met.get(text, -REMEMBERED) >= REMEMBERED:
            log.error("version_refused", extra={"kind": refused.kind.name, "reason": text})
        self._met[text] = now
        return WrongVersion(text)

    def current(self) -> list[str]:
        """Return what a person has to mend."""
        oldest = self._clock() - REMEMBERED
        return [text for text, at in self._met.items() if at > oldest]


#: Of this process.
refusals = Refusals()


def encode(kind: Kind, document: Any, rest: Rest = NOTHING) -> bytes:
    """Return a document as JSON with its version. ``rest``: what was there before and isn't known here."""
    raw = msgspec.json.encode(document)
    if rest is NOTHING and kind.version == 1:
        return raw
    version = max(kind.version, rest.version)
    is_list = raw.startswith(b"[")
    mark = b"" if version == 1 else b'{"v":%d}' % version if is_list else b'"v":%d' % version
    return raw[:1] + b",".join(filter(None, (raw[1:-1], rest.members, mark))) + raw[-1:]


def decode(kind: Kind, raw: bytes | None, of: type[T]) -> T:
    """Return a document.

    :raises WrongVersion: it is of a version that this release doesn't read.
    :raises Unreadable: it isn't a document of this kind, or (None) isn't where another key says that it is.
    """
    if raw is None:
        raise Unreadable("redis: a stored document is missing")
    try:
        if _MARK in raw:
            kind.check(_version(raw))
        return msgspec.json.decode(raw, type=of)
    except VersionRefused as error:
        raise refusals.note(error) from None
    except _DAMAGED as error:
        raise Unreadable(f"redis: a stored document can't be read: {error}") from None


def decode_fields(kind: Kind, raw: bytes) -> dict[str, Any]:
    """Return the members of an object that has no type, without its version. Raises as :func:`decode`."""
    found = decode(kind, raw, dict[str, Any])
    found.pop("v", None)
    return found


def decode_checked(kind: Kind, raw: bytes, of: type[msgspec.Struct]) -> dict[str, Any]:
    """As :func:`decode_fields`, of an object that is checked against a type. What it lacks has the type's default; what
    the type doesn't know is there, too."""
    checked = decode(kind, raw, of)
    # All of it is decoded: the type skips members that it doesn't name, and they may not be UTF-8.
    found = decode_fields(kind, raw)
    _complete(found, checked)
    return found


def _complete(found: dict[str, Any], checked: msgspec.Struct) -> None:
    for name in checked.__struct_fields__:
        value = getattr(checked, name)
        if name not in found:
            if value is not msgspec.UNSET:
                found[name] = value
        elif isinstance(value, msgspec.Struct):
            _complete(found[name], value)
        elif isinstance(value, list) and value and isinstance(value[0], msgspec.Struct):
            for item, inner in zip(found[name], value, strict=True):
                _complete(item, inner)


def check(kind: Kind, version: str | None) -> None:
    """Check the version that a leg on the switch carries. :raises WrongVersion: this release doesn't read it."""
    try:
        kind.check(int(version) if version and version.isascii() and version.isdigit() else 1)
    except VersionRefused as error:
        raise refusals.note(error) from None


def rest_of(raw: bytes, of: type[msgspec.Struct]) -> Rest:
    """Return what a document, which was decoded as ``of``, has beyond that type. Members that aren't JSON text, which
    the type skipped, are dropped."""
    known = of.__struct_fields__
    try:
        # All is decoded, because a Raw isn't checked.
        if raw.lstrip().startswith(b"["):
            items = [
                msgspec.json.decode(item) for item in msgspec.json.decode(raw, type=list[msgspec.Raw])[len(known) :]
            ]
            others = [msgspec.json.encode(item) for item in items if not (isinstance(item, dict) and "v" in item)]
            return _rest(_version(raw), others)
        named: Mapping[str, msgspec.Raw] = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        more = {n: msgspec.json.decode(value) for n, value in named.items() if n not in known and n != "v"}
        return _rest(_version(raw), [msgspec.json.encode({n: value})[1:-1] for n, value in more.items()])
    except _DAMAGED:
        return NOTHING


def _rest(version: int, members: list[bytes]) -> Rest:
    return Rest(version, b",".join(members)) if members or version > 1 else NOTHING


def _version(raw: bytes) -> int:
    """:raises msgspec.DecodeError: it isn't JSON, or its version isn't a number."""
    if not raw.lstrip().startswith(b"["):
        return msgspec.json.decode(raw, type=_Head).v
    items = msgspec.json.decode(raw, type=list[Any])
    marks = [item["v"] for item in items if isinstance(item, dict) and isinstance(item.get("v"), int)]
    return marks[-1] if marks else 1
