"""Compare ``docs/explanation/security.rst`` with the attacks: it names each of them. (The build of the docs checks that
every test that a page names exists.)"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.support import ROOT

PAGE = (ROOT / "docs" / "explanation" / "security.rst").read_text()


def names_in(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_security_page_names_every_attack() -> None:
    named = set(re.findall(r":test:`(test_\w+)`", PAGE))
    attacks = {name for path in Path(__file__).parent.glob("test_*.py") for name in names_in(path)}
    controls = {
        "test_security_page_names_every_attack",
        "test_security_page_says_what_is_not_protected",
        "test_grammar_sees_what_hazard_15_says",
        "test_recording_name_opens_its_file",
    }
    assert attacks - controls - named == set()


def test_security_page_says_what_is_not_protected() -> None:
    assert PAGE.index("What is not protected") > PAGE.index("What bytes can do")
    unprotected = PAGE[PAGE.index("What is not protected") :]
    for subject in ("plain text", "node.listen", "debug", "cid_trust: any", "trust", "rediss://", "gateways", "REFER"):
        assert subject in unprotected
