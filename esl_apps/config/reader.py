"""Read YAML as plain data that remembers the line of every key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from esl_apps.config import syntax
from esl_apps.config.env_file import Environment
from esl_apps.config.problems import ConfigError, Problem

#: Values in one file; 200 integrators and 10,000 accounts need fewer. A few lines of aliases of aliases make more.
MAX_VALUES = 1_000_000
MAX_DEPTH = 20

#: libyaml's parser where PyYAML was built with it: 20 times as fast.
FAST_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_STRING = "tag:yaml.org,2002:str"
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Unreadable:
    """The value of a place that has been reported already."""


UNREADABLE = Unreadable()


class Document:
    """A file's data, and what is known about the places in it."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.data: dict[str, Any] = {}
        self.problems: list[Problem] = []
        self.lines: dict[str, int] = {}
        self.spelled: dict[str, str] = {}
        """Words that YAML reads as true or false (NO, on, …), as the file spells them."""
        self.from_environment: set[str] = set()
        """The paths whose value holds an environment variable."""
        self._moved: dict[str, str] = {}

    def problem(self, path: str, message: str) -> Problem:
        return Problem(message, path, self._line(path), self.file)

    def report(self, path: str, message: str) -> None:
        self.problems.append(self.problem(path, message))

    def move(self, path: str, real: str) -> None:
        """From now on, take the lines of what is under ``path`` from ``real``."""
        self._moved[path] = real

    def _line(self, path: str) -> int | None:
        for moved, real in self._moved.items():
            if path == moved or path.startswith((f"{moved}.", f"{moved}[")):
                path = real + path[len(moved) :]
        while path:
            if path in self.lines:
                return self.lines[path]
            # A key may hold dots and brackets itself: what is cut off is a part of a step, at worst.
            path = re.sub(r"(\.[^.\[]*|\[[^.\[]*|^[^.\[]+)$", "", path)
        return self.lines.get("")


def read(text: str, environ: Mapping[str, str], file: str) -> Document:
    """Read a YAML text. Problems with single values are in the document's list.

    :raises ConfigError: the text as a whole can't be read.
    """
    try:
        return _Builder(text, environ, file, FAST_LOADER).document()
    except (yaml.YAMLError, UnicodeEncodeError):
        # PyYAML's own parser reads some texts that libyaml doesn't (JSON's escapes of one character as two), and its
        # errors say more.
        pass
    try:
        return _Builder(text, environ, file, yaml.SafeLoader).document()
    except yaml.YAMLError as error:
        message, line = syntax.explain(error, text)
        raise ConfigError(message, line=line, file=file) from None


def _line_of(event: Any) -> int:
    return int(event.start_mark.line) + 1


class _Builder:
    """Makes data of a parser's events. PyYAML's composer would build a tree of nodes first, at six times the cost."""

    def __init__(self, text: str, environ: Mapping[str, str], file: str, loader: Any) -> None:
        self._text = text
        self._environ = environ
        self._loader = loader
        self._document = Document(file)
        #: Anchor → its value, and how many values that is.
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._values = 0
        self._resolver: Any = yaml.SafeLoader("")

    def document(self) -> Document:
        """:raises ConfigError: it can't be read as a whole. :raises yaml.YAMLError: it isn't YAML."""
        self._events: Iterator[Any] = yaml.parse(self._text, Loader=self._loader)
        document = self._document
        data: Any = None
        begun = False
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if begun:
                    line = _line_of(event)
                    raise ConfigError(
                        "not YAML: a second document begins here; remove ---", line=line, file=document.file
                    )
                begun = True
                data = self._value(next(self._events), "", 0)
        if data is None:
            raise ConfigError("the file is empty; expected a configuration", line=1, file=document.file)
        if not isinstance(data, dict):
            raise ConfigError("expected a mapping of sections, as node:, switches:, admin:", line=1, file=document.file)
        document.data = data
        return document

    def _value(self, event: Any, path: str, depth: int) -> Any:
        line = _line_of(event)
        document = self._document
        document.lines.setdefault(path, line)
        self._values += 1
        if isinstance(event, yaml.AliasEvent):
            return self._alias(str(event.anchor), path, line)
        if self._values > MAX_VALUES:
            raise ConfigError(f"expected at most {MAX_VALUES:,} values", path, line, document.file)
        if depth > MAX_DEPTH:
            raise ConfigError("nested too deep", path, line, document.file)
        before = self._values
        if event.anchor is not None:
            # An alias inside its own anchor would have no end.
            self._anchors[event.anchor] = (UNREADABLE, 0)
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event, path, line)
        elif isinstance(event, yaml.MappingStartEvent):
            value = self._mapping(path, depth)
        else:
            value = self._sequence(path, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, self._values - before + 1)
        return value

    def _alias(self, anchor: str, path: str, line: int) -> Any:
        value, count = self._anchors.get(anchor, (None, 0))
        if count == 0:
            message = (
                "a value that begins with * refers to another, marked with &; put it in quotes if it is a text"
                if value is None
                else "refers to itself"
            )
            self._problem(path, line, message)
            return UNREADABLE
        self._values += count
        if self._values > MAX_VALUES:
            raise ConfigError(f"expected at most {MAX_VALUES:,} values", path, line, self._document.file)
        return value

    def _mapping(self, path: str, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        lines = self._document.lines
        prefix = f"{path}." if path else ""
        for event in self._events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            line = _line_of(event)
            if not isinstance(event, yaml.ScalarEvent):
                self._problem(path, line, "expected a plain text as key")
                self._value(event, path, depth + 1)
                self._value(next(self._events), path, depth + 1)
                continue
            key = self._whole(event.value, path, line)
            if key is None:
                self._value(next(self._events), path, depth + 1)
                continue
            child = prefix + key
            if key in result:
                self._problem(child, line, f"duplicate key; it is in line {lines[child]} already")
                self._value(next(self._events), child, depth + 1)
                continue
            lines[child] = line
            result[key] = self._value(next(self._events), child, depth + 1)
        return result

    def _sequence(self, path: str, depth: int) -> list[Any]:
        result: list[Any] = []
        for event in self._events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            result.append(self._value(event, f"{path}[{len(result)}]", depth + 1))
        return result

    def _scalar(self, event: Any, path: str, line: int) -> Any:
        tag = event.tag
        if tag is None or tag == "!":
            # In quotes it is a text, whatever it looks like.
            tag = self._resolver.resolve(yaml.ScalarNode, event.value, event.implicit) if event.implicit[0] else _STRING
        text: str | None = event.value
        if "$" in event.value:
            text = self._with_variables(event.value, path, line)
        if text is not None:
            text = self._whole(text, path, line)
        if text is None:
            return UNREADABLE
        if tag == _STRING:
            return text
        try:
            value = self._resolver.construct_object(yaml.ScalarNode(tag, text, event.start_mark, event.end_mark))
        except (yaml.YAMLError, ValueError, OverflowError):
            self._problem(path, line, "isn't a plain value; put it in quotes if it is a text")
            return UNREADABLE
        if isinstance(value, bool) and text.lower() not in ("true", "false"):
            self._document.spelled[path] = text
        return value

    def _with_variables(self, text: str, path: str, line: int) -> str | None:
        """The text with its ``${NAME}`` replaced; None: one isn't set, or can't be read."""
        if "${" in _VARIABLE.sub(" ", text):
            # As a text, it would be a token or a key that anyone who sees the file knows.
            self._problem(path, line, "expected ${NAME}; defaults (:-) and other forms aren't supported")
            return None
        missing: list[str] = []

        def value(match: re.Match[str]) -> str:
            found = self._environ.get(match[1])
            if not found:
                missing.append(match[1])
            self._document.from_environment.add(path)
            return found or ""

        text = _VARIABLE.sub(value, text)
        hidden = self._environ.hidden if isinstance(self._environ, Environment) else None
        hint = f"; this user may not read {hidden}" if hidden else ""
        for name in dict.fromkeys(missing):
            self._problem(path, line, f"the environment variable {name} is not set, or is empty{hint}")
        return None if missing else text

    def _whole(self, text: str, path: str, line: int) -> str | None:
        """The text with JSON's escapes of one character as two put together; None: half of one is missing."""
        if text.isascii() or not _SURROGATE.search(text):
            return text
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self._problem(path, line, "half a character: \\ud800 to \\udfff are written in pairs")
            return None

    def _problem(self, path: str, line: int, message: str) -> None:
        self._document.problems.append(Problem(message, path, line, self._document.file))
