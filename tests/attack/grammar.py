"""FreeSWITCH's originate and bridge strings, taken apart as ``switch_ivr_originate.c`` does it: with all its faults.

Written from what the switch does (hazard 15), not from what ``esl_apps.core.dialstring`` writes, and shares no line
with it nor with the sandbox. What it cannot make sense of it says so: a string that is not understood is one that
may dial anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: ``switch_core_session_exec`` and the originate API expand these before anything else; ``$${…}`` too.
_EXPANSION = re.compile(r"\$\$?\{|\$[A-Za-z0-9_]")
#: Between dial strings that are originated each by itself.
_ENTERPRISE = ":_:"


class NotUnderstood(Exception):
    """It may be anything."""


@dataclass(frozen=True)
class Attempt:
    """One endpoint that the switch would dial, with the variables of its leg."""

    endpoint: str
    variables: dict[str, str]


def dialled(text: str) -> list[Attempt]:
    """Everything that a dial string would dial, in whatever order."""
    if _EXPANSION.search(text):
        raise NotUnderstood(f"the switch would expand something in {text!r}")
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise NotUnderstood(f"a control character in {text!r}")
    found: list[Attempt] = []
    for part in text.split(_ENTERPRISE):
        rest = part.lstrip(" ")
        shared: dict[str, str] = {}
        # <…> belongs to all of an enterprise originate, {…} to all of one, [...] to one endpoint of it.
        while rest[:1] in ("<", "{"):
            block, rest = _block(rest, {"<": ">", "{": "}"}[rest[0]])
            shared |= _variables(block)
            rest = rest.lstrip(" ")
        for either in re.split(r"[|,]", rest):
            own, endpoint = dict(shared), either.lstrip(" ")
            while endpoint.startswith("["):
                block, endpoint = _block(endpoint, "]")
                own |= _variables(block)
            if not endpoint or re.search(r"[\s'\"\\{}\[\]<>$&^]", endpoint):
                raise NotUnderstood(f"no endpoint: {endpoint!r} in {text!r}")
            found.append(Attempt(endpoint, own))
    return found


def _block(text: str, closing: str) -> tuple[str, str]:
    """A block of variables, to its first closing bracket: quotes protect nothing. And what is behind it."""
    depth = 0
    for at, char in enumerate(text):
        depth += (char == text[0]) - (char == closing)
        if depth == 0:
            return text[1:at], text[at + 1 :]
    raise NotUnderstood(f"a bracket without an end: {text!r}")


def _variables(block: str) -> dict[str, str]:
    """``a=1,b=2``, or with ``^^`` and another mark between them. The last of a name counts."""
    between = ","
    if block.startswith("^^"):
        between, block = block[2:3], block[3:]
    if re.search(r"['\"\\]", block):
        # Quotes hide the mark, a backslash anything: what is in there is the switch's to know.
        raise NotUnderstood(f"a quote among variables: {block!r}")
    values: dict[str, str] = {}
    for pair in block.split(between) if block else []:
        name, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise NotUnderstood(f"no variable: {pair!r}")
        values[name] = value
    return values


def originated(command: str) -> tuple[list[Attempt], str]:
    """``originate DIALSTRING '&app(argument)'``: what it dials, and what runs on what answers."""
    match = re.fullmatch(r"originate (\S+) '&([a-z_]+\([^'()]*\))'", command)
    if match is None:
        raise NotUnderstood(f"no originate: {command!r}")
    return dialled(match[1]), match[2]


def commands(wire: bytes) -> list[str]:
    """An event socket's commands: a line, or several up to an empty one."""
    if b"\r" in wire or b"\0" in wire:
        raise NotUnderstood(f"a control character in {wire!r}")
    *whole, rest = wire.decode().split("\n\n")
    if rest:
        raise NotUnderstood(f"half a command: {rest!r}")
    return whole


def multiset(argument: str) -> dict[str, str]:
    """What ``multiset`` sets."""
    if _EXPANSION.search(argument):
        raise NotUnderstood(f"the switch would expand something in {argument!r}")
    return _variables(argument)
