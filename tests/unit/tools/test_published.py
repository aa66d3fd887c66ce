"""Addresses that pyproject.toml needs before a release."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import ROOT
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


def test_no_command_asks_an_index_for_esl_apps() -> None:
    """The project isn't on PyPI: with its name there, a stranger would run code on the machines of readers."""
    files = [*ROOT.glob("*"), *(ROOT / "esl_apps").rglob("*.py")]
    files += [file for folder in ("docs", "examples", "packaging", "conf") for file in (ROOT / folder).rglob("*")]
    texts = {file: file.read_bytes().decode(errors="replace") for file in files if file.is_file()}
    asks = re.compile(r"(?:pipx?|uv tool) install\b[^\n`]*\s['\"]?esl[_-]apps(?![\w./*-])")
    assert [str(file) for file, text in texts.items() if asks.search(text)] == []
    assert asks.search("pip install --quiet esl_apps\n")
    assert asks.search("pip install 'esl_apps[demo]'")
