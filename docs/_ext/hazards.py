"""``.. hazard:: 9 Title``: a hazard's section with its anchor (``hazard-9``), and the tests that cover it.

A test covers a hazard if its name or its docstring says so (``test_hazard_09_…``, "hazard 9"), or if
``explanation/hazard_tests.csv`` lists it. A row of that file that no test matches is a warning.
"""

from __future__ import annotations

import ast
import csv
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache

from docutils import nodes
from repository import ROOT, tests, tree
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

_log = logging.getLogger(__name__)
_BY_NAME = re.compile(r"_hazard_(\d+)_")
_BY_TEXT = re.compile(r"\bhazards? (\d+(?:(?:, | and |, and | to )\d+)*)", re.IGNORECASE)


def _numbers(text: str) -> set[int]:
    found: set[int] = set()
    for match in _BY_TEXT.finditer(text):
        if " to " not in match[1]:
            found.update(int(number) for number in re.findall(r"\d+", match[1]))
    return found


def _tests_with_hazards() -> Iterator[ast.FunctionDef]:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if "hazard" in path.read_text(encoding="utf-8").lower():
            for node in ast.walk(tree(path)):
                if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                    yield node


@cache
def covering() -> dict[int, list[str]]:
    """Each hazard's tests (by name), or test modules (by path)."""
    found: dict[int, set[str]] = defaultdict(set)
    for node in _tests_with_hazards():
        named = {int(number) for number in _BY_NAME.findall(node.name)}
        for hazard in named | _numbers(ast.get_docstring(node) or ""):
            found[hazard].add(node.name)
    table = ROOT / "docs" / "explanation" / "hazard_tests.csv"
    for number, test in csv.reader(table.read_text().splitlines()):
        if test in tests() or (ROOT / test).is_file():
            found[int(number)].add(test)
        else:
            _log.warning("%s: hazard %s: no such test: %s", table.name, number, test)
    return {number: sorted(names) for number, names in found.items()}


@cache
def met_in() -> dict[int, list[str]]:
    """The modules whose comments or docstrings refer to each hazard, by their path in the package."""
    found: dict[int, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "esl_apps").rglob("*.py")):
        module = path.relative_to(ROOT / "esl_apps")
        if module.parts[0] != "sandbox":
            for number in sorted(_numbers(path.read_text())):
                found[number].append(str(module))
    return found


class Hazard(SphinxDirective):
    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # for the tests' sake
        number, _, title = self.arguments[0].partition(" ")
        heading = f"{number}: {title}"
        covered = covering().get(int(number), [])
        listed = ", ".join(f":repo:`{name}`" if "/" in name else f":test:`{name}`" for name in covered)
        plain = title.replace("`", "")
        lines = [
            f".. _hazard-{number}:",
            "",
            f".. index:: single: hazard; {number}: {plain}",
            "",
            heading,
            "~" * len(heading),
            "",
            *self.content,
            "",
        ]
        if modules := met_in().get(int(number)):
            lines += [f".. rst-class:: tests\n\nIn the code: {', '.join(f'``{module}``' for module in modules)}.", ""]
        if listed:
            lines += [f".. rst-class:: tests\n\nTests: {listed}.", ""]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("hazard", Hazard)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
