"""FreeSWITCH's little languages: brackets of variables, quoted lists, ``${…}``, truth values.

Their faults are reproduced on purpose: ``}`` ends the variables even inside quotes, and an originate string is parsed
several times over.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "s": " "}


def true(value: str | None) -> bool:
    """Whether FreeSWITCH takes a value for true."""
    if not value:
        return False
    if value.lower() in ("yes", "on", "true", "t", "enabled", "active", "allow"):
        return True
    return value.isdigit() and int(value) != 0


def number(value: str | None, default: int = 0) -> int:
    """Read the digits at the front, as ``atoi`` does."""
    match = re.match(r"\s*([+-]?\d+)", value or "")
    return int(match[1]) if match else default


def find_end(text: str, opening: str, closing: str) -> int:
    """Return where the bracket at the start of ``text`` ends; -1 if it doesn't. Quotes protect nothing."""
    start = len(text) - len(text.lstrip(" "))
    if start >= len(text) or text[start] != opening:
        return -1
    depth = 0
    for index in range(start, len(text)):
        char = text[index]
        if char == opening and (opening != closing or index == start):
            depth += 1
        elif char == closing:
            depth -= 1
            if depth == 0:
                return index
    return -1


def _clean(part: str, delimiter: str) -> str:
    part = part.lstrip(" ")
    out: list[str] = []
    end = 0
    quoted = False
    index = 0
    while index < len(part):
        char = part[index]
        if char == "\\" and index + 1 < len(part):
            after = part[index + 1]
            if after in ("'", '"', "\\") or (delimiter and after == delimiter) or after in _ESCAPES:
                out.append(_ESCAPES.get(after, after) if after != delimiter else after)
                end = len(out)
                index += 2
                continue
        if char == "'" and (quoted or "'" in part[index + 1 :]):
            quoted = not quoted
            if quoted:
                end = len(out)
        else:
            out.append(char)
            if char != " " or quoted:
                end = len(out)
        index += 1
    return "".join(out[:end]) if end else "".join(out)


def separate(text: str, delimiter: str, limit: int = 0) -> list[str]:
    """Split a list in FreeSWITCH's quoting: ``'`` protects the delimiter, ``\\`` the next character.

    With a ``limit``, the last part is the whole rest.
    """
    if delimiter == " ":
        return _separate_blank(text, limit)
    parts: list[str] = []
    start = 0
    quoted = False
    index = 0
    while index < len(text):
        if limit and len(parts) == limit - 1:
            break
        char = text[index]
        if char == "\\":
            index += 1
        elif char == "'" and (quoted or "'" in text[index + 1 :]):
            quoted = not quoted
        elif char == delimiter and not quoted:
            parts.append(text[start:index])
            start = index + 1
        index += 1
    if start < len(text):
        parts.append(text[start:])
    return [_clean(part, delimiter) for part in parts]


def _separate_blank(text: str, limit: int) -> list[str]:
    parts: list[str] = []
    index = 0
    size = len(text)
    while index < size:
        while index < size and text[index] == " ":
            index += 1
        if index >= size:
            break
        if limit and len(parts) == limit - 1:
            parts.append(text[index:])
            break
        start = index
        quoted = False
        while index < size:
            char = text[index]
            if char == "\\":
                index += 1
            elif char == "'" and (quoted or "'" in text[index + 1 :]):
                quoted = not quoted
            elif char == " " and not quoted:
                break
            index += 1
        parts.append(text[start:index])
    return [_clean(part, "") for part in parts]


def brackets(data: str, opening: str, closing: str, delimiter: str) -> tuple[dict[str, str], str] | None:
    """Return the variables of a bracketed list at the front of ``data``, and the rest; None if unclosed.

    Adjacent lists (``{a=1}{b=2}``) are read as one.
    """
    variables: dict[str, str] = {}
    any_list = False
    while True:
        end = find_end(data, opening, closing)
        if end < 0:
            return (variables, data) if any_list else None
        any_list = True
        content = data.lstrip(" ")[1 : end - (len(data) - len(data.lstrip(" ")))]
        separator = delimiter
        if content.startswith("^^") and len(content) > 2:
            separator, content = content[2], content[3:]
        for part in separate(content, separator):
            pair = separate(part, "=", 2)
            if len(pair) == 2:
                variables.pop(pair[0], None)
                variables[pair[0]] = pair[1]
        data = data[end + 1 :]
        if not data.lstrip(" ").startswith(opening):
            return variables, data


_VARIABLE = re.compile(r"\$?\$\{([^{}$]*)\}")


def expand(value: str, lookup: Callable[[str], str | None], api: Callable[[str, str], str]) -> str:
    """Expand ``${variable}``, ``${variable:offset:length}`` and ``${api(argument)}``, inner ones first.

    Two dollars mean the same.
    """
    if "${" not in value:
        return value

    def replacement(match: re.Match[str]) -> str:
        inner = match[1]
        call = re.fullmatch(r"(\w+)[( ](.*?)\)?", inner) if "(" in inner else None
        if call:
            return api(call[1], call[2])
        name, _, span = inner.partition(":")
        text = lookup(name) or ""
        if span:
            offset, _, length = span.partition(":")
            start = number(offset)
            text = text[start:]
            if length:
                count = number(length)
                text = text[:count] if count > 0 else text[: len(text) + count]
        return text

    for _ in range(10):
        expanded = _VARIABLE.sub(replacement, value)
        if expanded == value:
            break
        value = expanded
    return value
