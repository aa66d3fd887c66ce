"""Say in plain words why a text isn't YAML."""

from __future__ import annotations

import re
from collections.abc import Callable

import yaml

Explained = tuple[str, int]
"""A message, and the line (from 1) that it is about."""


def explain(error: yaml.YAMLError, text: str) -> Explained:
    """Explain an error of PyYAML's own parser (libyaml words its errors differently)."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return _unprintable(error, text)
    opened = getattr(error, "context_mark", None) or mark
    place = _Place(text, getattr(error, "context", None) or "", mark, opened)
    problem = getattr(error, "problem", None) or ""
    for pattern, words in _WORDS:
        match = re.match(pattern, problem)
        if match:
            message, line = words(place, match)
            return f"not YAML: {message}", line
    return "not YAML: this line can't be read; put texts with special characters in quotes", place.line


def _unprintable(error: yaml.YAMLError, text: str) -> Explained:
    position = getattr(error, "position", 0)
    code = getattr(error, "character", 0)
    code = ord(code) if isinstance(code, str) else code
    return f"not YAML: the character U+{code:04X} can't be printed; remove it", text.count("\n", 0, position) + 1


class _Place:
    """Where PyYAML stopped, and where the thing that it was reading began."""

    def __init__(self, text: str, context: str, mark: yaml.Mark, opened: yaml.Mark) -> None:
        self.context = context
        self.line = mark.line + 1
        self.opened = opened.line + 1
        lines = text.splitlines()
        line = lines[mark.line] if mark.line < len(lines) else ""
        self.before = line[: mark.column]


_Words = Callable[[_Place, re.Match[str]], Explained]


def _here(message: str) -> _Words:
    return lambda place, _match: (message, place.line)


def _opened(message: str) -> _Words:
    return lambda place, _match: (message, place.opened)


def _cannot_begin(place: _Place, match: re.Match[str]) -> Explained:
    if match[1] == r"\t":
        return "a tab; YAML takes spaces only", place.line
    return f"a value can't begin with {match[1]}; put it in quotes", place.line


def _second_colon(place: _Place, _match: re.Match[str]) -> Explained:
    if re.search(r":\s", place.before):
        return "a second colon in one line; put a text that holds a colon and a space in quotes", place.line
    return (
        "a key can't begin here; check the indentation, and that the line above has a space after its colon",
        place.line,
    )


def _unclosed(place: _Place, match: re.Match[str]) -> Explained:
    kind, bracket = ("list", "[") if match[1] == "]" else ("mapping", "{")
    return f"expected , or {match[1]}: the {kind} that {bracket} opens in line {place.opened} goes on", place.line


def _block_ends(place: _Place, match: re.Match[str]) -> Explained:
    if match[1] in ("<scalar>", "<anchor>", "<alias>", "<tag>"):
        return "text behind a value that has ended; is a quote too many, or one missing in a line above?", place.line
    if match[1] in "]},":
        return f"{match[1]} closes a bracket that was never opened", place.line
    return f"this line doesn't belong to what begins in line {place.opened}; check its indentation", place.line


_WORDS: list[tuple[str, _Words]] = [
    (r"found character '(.+)' that cannot start any token", _cannot_begin),
    (r"mapping values are not allowed here", _second_colon),
    (r"could not find expected ':'", _opened("expected KEY: VALUE; this line has no colon with a space behind it")),
    (r"found unexpected (?:end of stream|document separator)", _opened("a quote is opened here and never closed")),
    (r"expected ',' or '([]}])'", _unclosed),
    (r"expected the node content, but found '[]}]'", _here("this line closes a bracket that was never opened")),
    (r"expected the node content", _here("expected a value")),
    (r"expected <block end>, but found '(.+)'", _block_ends),
    (
        r"(?:block )?sequence entries are not allowed here",
        _here("a list's item can't begin here; put each - in a line of its own"),
    ),
    (
        r"found unknown escape character",
        _here(r"a \ with a character that means nothing behind it; use single quotes, or write \\"),
    ),
    (r"expected escape sequence", _here(r"\x, \u and \U take 2, 4 and 8 hex digits; use single quotes, or write \\")),
    (
        r"expected alphabetic or numeric character",
        _here("& and * have a meaning of their own in YAML; put the value in quotes"),
    ),
    (
        r"expected (?:chomping or )?indentation indicator",
        _here("| and > have a meaning of their own in YAML; put the value in quotes"),
    ),
    (r"but found another document", _here("a second document begins here; remove ---")),
    (r"expected '<document start>'", _here("this doesn't belong to the mapping above; check brackets and indentation")),
]
