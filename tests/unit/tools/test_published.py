"""Addresses that pyproject.toml needs before a release."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import published

COMPLETE = """
[project]
name = "esl_apps"
authors = [{ name = "the esl_apps authors", email = "authors@esl-apps.example" }]
[project.urls]
Homepage = "https://esl-apps.example"
Documentation = "https://esl-apps.example/docs"
Changelog = "https://esl-apps.example/changes"
"""


@pytest.mark.parametrize(
    ("was", "instead", "named"),
    [
        ("", "", []),
        (', email = "authors@esl-apps.example"', "", ["authors"]),
        ('Changelog = "https://esl-apps.example/changes"', "", ["Changelog"]),
        ('"https://esl-apps.example/docs"', '"https://"', ["Documentation"]),
        ('"https://esl-apps.example"', '"http://esl-apps.example"', ["Homepage"]),
    ],
)
def test_release_needs_addresses_and_says_which(tmp_path: Path, was: str, instead: str, named: list[str]) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text(COMPLETE.replace(was, instead))
    problems = published.lacking(file)
    assert len(problems) == len(named)
    assert all(name in problem for name, problem in zip(named, problems, strict=True))
