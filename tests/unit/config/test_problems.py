"""The error that lists problems."""

from __future__ import annotations

import pytest

from esl_apps.config.problems import MOST_SHOWN, ConfigError, Problem


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (Problem("is wrong", "node.name", 3, "f.yml"), "f.yml:3: node.name: is wrong"),
        (Problem("is wrong", "node.name", None, "f.yml"), "f.yml: node.name: is wrong"),
        (Problem("is wrong", "", 3, "f.yml"), "f.yml:3: is wrong"),
        (Problem("is wrong", "node.name"), "node.name: is wrong"),
    ],
)
def test_problem_says_place_and_message(problem: Problem, told: str) -> None:
    assert str(problem) == told


def test_config_error_of_one_message_has_one_problem() -> None:
    error = ConfigError("can't listen", "admin.listen")
    assert list(error.problems) == [Problem("can't listen", "admin.listen")]
    assert str(error) == "admin.listen: can't listen"


def test_config_error_has_a_line_per_problem() -> None:
    error = ConfigError.of([Problem("is wrong", "a"), Problem("is missing", "b")])
    assert str(error) == "a: is wrong\nb: is missing"


def test_config_error_of_thousands_shows_the_first() -> None:
    error = ConfigError.of([Problem("is wrong", f"accounts.a{i}") for i in range(2000)])
    lines = str(error).split("\n")
    assert lines[0] == "accounts.a0: is wrong"
    assert lines[MOST_SHOWN:] == [f"and {2000 - MOST_SHOWN} more problems"]
    assert len(error.problems) == 2000
