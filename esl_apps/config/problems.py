"""Things that are wrong with a configuration, and the error that lists them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Lines of one error. A file that was generated wrong can hold the same mistake thousands of times.
MOST_SHOWN = 50


@dataclass(frozen=True)
class Problem:
    """One thing wrong, in words for the operator. No part of it repeats a value: it could be a secret."""

    message: str
    key: str = ""
    """The path of the key, as ``integrators[0].listen``."""
    line: int | None = None
    file: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (where, self.key, self.message) if part)


class ConfigError(Exception):
    """A configuration that can't be used. ``str()`` has one line per problem."""

    def __init__(self, message: str, path: str = "", line: int | None = None, file: str = "") -> None:
        super().__init__(message)
        self.problems: Sequence[Problem] = [Problem(message, path, line, file)]

    @classmethod
    def of(cls, problems: Sequence[Problem]) -> ConfigError:
        """An error with all of these problems; at least one."""
        error = cls(problems[0].message)
        error.problems = problems
        return error

    def __str__(self) -> str:
        lines = [str(problem) for problem in self.problems[:MOST_SHOWN]]
        if len(self.problems) > MOST_SHOWN:
            lines.append(f"and {len(self.problems) - MOST_SHOWN} more problems")
        return "\n".join(lines)
