"""Roles for what is in the repository: ``:repo:`conf/esl_apps.yml```, ``:test:`test_name``` and
``:src:`node/outgoing.py Outgoing.click2dial``` (a function, method or class of the package).

All of them are checked at the start of each build, also in pages that Sphinx doesn't read again. A file or a test that
is gone, or has another name now, is a warning, and the build turns warnings into errors.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

ROOT = Path(__file__).resolve().parent.parent.parent
_log = logging.getLogger(__name__)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def tests() -> frozenset[str]:
    """Every test function's name."""
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    return frozenset(name for text in texts for name in re.findall(r"^ *def (test_\w+)\(", text, re.MULTILINE))


@cache
def names_of(module: str) -> frozenset[str]:
    """The functions, classes and methods (``Class.method``) of a module of the package."""
    path = ROOT / "esl_apps" / module
    if not path.is_file():
        return frozenset()
    found = set()
    for node in tree(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
    return frozenset(found)


class File(SphinxRole):
    """A file or folder of the repository, by its path from the root."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        return [nodes.literal(self.rawtext, self.text, classes=["file"])], []


class Source(SphinxRole):
    """A function, method or class: shown as its name, with the module behind it."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        module, _, name = self.text.partition(" ")
        shown = [
            nodes.literal("", name),
            nodes.Text(" ("),
            nodes.literal("", module, classes=["file"]),
            nodes.Text(")"),
        ]
        return shown, []


class Test(SphinxRole):
    """A test, by the name of its function alone."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        return [nodes.literal(self.rawtext, self.text, classes=["test"])], []


def uses(srcdir: Path, role: str) -> Iterator[tuple[str, str]]:
    """Where a role is used (``PAGE:LINE``), and with which text."""
    pattern = re.compile(rf":{role}:`([^`]+)`")
    for page in sorted(srcdir.rglob("*.rst")):
        for number, line in enumerate(page.read_text(encoding="utf-8").split("\n"), 1):
            for match in pattern.finditer(line):
                yield f"{page.relative_to(srcdir)}:{number}", match[1]


#: A path in a text, if it begins with a folder of the repository: ``docs/howto/monitor.rst``, ``tests/golden``.
_PATH = re.compile(r"(?<![\w./-])(?:docs|conf|dialplan|esl_apps|tests|tools|benchmarks)/[\w./-]*[\w/](?![\w*…{])")
#: The files whose texts name pages of the docs, apart from the docs themselves.
_CODE = ("esl_apps", "tests", "benchmarks", "tools", "conf", "dialplan")


def _named_paths() -> Iterator[tuple[str, str]]:
    """The paths that the repository's root documents name, and the pages that code and configuration name."""
    for document in sorted(ROOT.glob("*.rst")):
        for literal in re.findall(r"``([^`]+)``", document.read_text(encoding="utf-8")):
            if (match := _PATH.fullmatch(literal)) and not re.search(r"[A-Z]{3}", literal):
                yield document.name, match[0]
    for folder in _CODE:
        for file in sorted((ROOT / folder).rglob("*")):
            if file.suffix in (".py", ".yml", ".xml", ".conf", ".service", ".rst", ".lua"):
                for page in re.findall(r"\bdocs/[a-z_/-]{3,}\.(?:rst|txt|svg|csv)\b", file.read_text(encoding="utf-8")):
                    yield str(file.relative_to(ROOT)), page


def _check(app: Sphinx) -> None:
    for place, path in _named_paths():
        if not (ROOT / path).exists():
            _log.warning("%s: no such file in the repository: %s", place, path)
    for place, path in uses(Path(app.srcdir), "repo"):
        if not (ROOT / path).exists():
            _log.warning("%s: no such file in the repository: %s", place, path)
    for place, source in uses(Path(app.srcdir), "src"):
        module, _, name = source.partition(" ")
        if name not in names_of(module):
            close = difflib.get_close_matches(name, names_of(module), 1, 0.3)
            _log.warning("%s: no %s in esl_apps/%s (closest: %s)", place, name, module, *close or ["none"])
    for place, name in uses(Path(app.srcdir), "test"):
        if name not in tests():
            close = difflib.get_close_matches(name, tests(), 1, 0.3)
            _log.warning("%s: no such test: %s (closest: %s)", place, name, *close or ["none"])


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_role("repo", File())
    app.add_role("src", Source())
    app.add_role("test", Test())
    app.connect("builder-inited", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
