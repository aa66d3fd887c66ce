"""Split dial strings."""

from __future__ import annotations


def split(text: str, delimiter: str) -> list[str]:
    """Split alternatives or legs. A delimiter inside ``[…]`` belongs to the variables."""
    parts: list[str] = []
    start = depth = 0
    quoted = False
    for index, char in enumerate(text):
        if char == "[":
            depth += 1
        elif char == "]" and depth:
            depth -= 1
        elif char == "'" and not depth:
            quoted = not quoted and "'" in text[index + 1 :]
        elif char == delimiter and not depth and not quoted:
            parts.append(text[start:index])
            start = index + 1
    parts.append(text[start:])
    return [part for part in parts if part.strip(" ")]


def number_of(data: str) -> str:
    """Return the callee's number: the last part of the address."""
    user = data.split("@", maxsplit=1)[0].split(";", maxsplit=1)[0]
    user = user.rsplit("/", 1)[-1]
    return user.removeprefix("sip:")
