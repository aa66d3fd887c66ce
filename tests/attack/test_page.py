"""``docs/security.rst`` names a test for each promise: all of them exist, and each attack of ours is named."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support import ROOT

PAGE = (ROOT / "docs" / "security.rst").read_text()
NAMED = sorted(set(re.findall(r"``(tests/[\w/]+\.py)::(test_\w+)``", PAGE)))


def names_in(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize(("path", "name"), NAMED, ids=lambda part: part.rpartition("/")[2])
def test_each_test_that_the_page_names_exists(path: str, name: str) -> None:
    assert name in names_in(ROOT / path)


def test_the_page_names_every_attack() -> None:
    named = {name for path, name in NAMED if path.startswith("tests/attack/")}
    ours = {name for path in Path(__file__).parent.glob("test_*.py") for name in names_in(path)}
    controls = {
        "test_each_test_that_the_page_names_exists",
        "test_the_page_names_every_attack",
        "test_the_page_says_what_is_not_protected",
        "test_the_grammar_sees_what_hazard_15_says",
        "test_a_recording_is_read_by_its_name",
    }
    assert named == ours - controls


def test_the_page_says_what_is_not_protected() -> None:
    assert PAGE.index("What is not protected") > PAGE.index("What bytes can do")
    unprotected = PAGE[PAGE.index("What is not protected") :]
    for subject in ("plain text", "node.listen", "debug", "cid_trust: any", "trust", "rediss://", "gateways", "REFER"):
        assert subject in unprotected
