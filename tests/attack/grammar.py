"""FreeSWITCH's originate and bridge strings, parsed as ``switch_ivr_originate.c`` does, with all its faults.

Written from what the switch does (hazard 15), not from what ``esl_apps.core.dialstring`` writes; it shares no line with
that or with the sandbox. It refuses what it can't parse: such a string might dial anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.support.commands import split

#: ``switch_core_session_exec`` and the originate API expand these first, and ``$${…}`` too.
_EXPANSION = re.compile(r"\$\$?\{|\$[A-Za-z0-9_]")
#: Separates dial strings that are originated independently.
_ENTERPRISE = ":_:"


class NotUnderstood(Exception):
    """This parser doesn't understand the string, so it might dial anything."""


@dataclass(frozen=True)
class Attempt:
    """An endpoint that the switch would dial, with the variables of its leg."""

    endpoint: str
    variables: dict[str, str]


def dialled(text: str) -> list[Attempt]:
    """All that a dial string would dial, in any order."""
    if _EXPANSION.search(text):
        raise NotUnderstood(f"the switch would expand something in {text!r}")
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise NotUnderstood(f"a control character in {text!r}")
    found: list[Attempt] = []
    for part in text.split(_ENTERPRISE):
        rest = part.lstrip(" ")
        shared: dict[str, str] = {}
        # <…> is for all dial strings of an enterprise originate, {…} for one of them, [...] for one endpoint.
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
    """Split off a block of variables. It ends at the first closing bracket: quotes protect nothing."""
    depth = 0
    for at, char in enumerate(text):
        depth += (char == text[0]) - (char == closing)
        if depth == 0:
            return text[1:at], text[at + 1 :]
    raise NotUnderstood(f"a bracket without an end: {text!r}")


def _variables(block: str) -> dict[str, str]:
    """Parse ``a=1,b=2``, or ``^^`` with another separator. The last value of a name counts."""
    between = ","
    if block.startswith("^^"):
        between, block = block[2:3], block[3:]
    # A bridge's variables are taken apart twice, an originate's three times: then these are a space.
    block = re.sub(r"(?<!\\)(?:\\\\|\\\\\\\\)s", " ", block)
    if re.search(r"['\"\\]", block):
        # A quote hides the separator, a backslash hides anything: only the switch knows what is inside.
        raise NotUnderstood(f"a quote among variables: {block!r}")
    values: dict[str, str] = {}
    for pair in block.split(between) if block else []:
        name, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise NotUnderstood(f"no variable: {pair!r}")
        values[name] = value
    return values


def originated(command: str) -> tuple[list[Attempt], str]:
    """Parse ``originate DIALSTRING '&app(argument)'``: the endpoints, and the application that runs on the answered
    leg."""
    match = re.fullmatch(r"originate (\S+) '&([a-z_]+\([^'()]*\))'", command)
    if match is None:
        raise NotUnderstood(f"no originate: {command!r}")
    return dialled(match[1]), match[2]


def commands(wire: bytes) -> list[str]:
    """Split an event socket's input into commands (``tests.support.commands``)."""
    if b"\r" in wire or b"\0" in wire:
        raise NotUnderstood(f"a control character in {wire!r}")
    whole, rest = split(wire)
    if rest:
        raise NotUnderstood(f"half a command: {rest!r}")
    return [command.decode() for command in whole]


def multiset(argument: str) -> dict[str, str]:
    """The variables that ``multiset`` sets."""
    if _EXPANSION.search(argument):
        raise NotUnderstood(f"the switch would expand something in {argument!r}")
    return _variables(argument)
