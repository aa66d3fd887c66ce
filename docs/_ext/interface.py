"""The reference of the interface for applications, read from ``esl_apps.apps.interface``."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from esl_apps.apps import interface


def paragraphs(docstring: str | None) -> Iterator[str]:
    """A docstring, with its roles as literals: they name things that this page has under the same name."""
    for line in inspect.cleandoc(docstring or "").splitlines():
        plain = re.sub(r":(?:class|meth|func|attr|data|mod):`~?([^`]*)`", r"``\1``", line)
        if plain.count("``") % 2:
            # A literal that goes over two lines can't be indented as a definition's text.
            plain = plain.replace("``", "")
        yield re.sub(r"(?<![`\w])\*\*(?=\s|$|[.,;])", r"\\*\\*", plain)


def attributes(kind: type) -> dict[str, str]:
    """A class's attributes and the docstrings below them."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    except (OSError, TypeError):
        return {}
    assert isinstance(body, ast.ClassDef)
    found = {}
    for statement, following in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            value = following.value if isinstance(following, ast.Expr) else None
            text = value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""
            if not statement.target.id.startswith("_"):
                found[f"{statement.target.id}: {ast.unparse(statement.annotation)}"] = text
    return found


def members(kind: type) -> Iterator[tuple[str, str]]:
    yield from attributes(kind).items()
    for name, value in vars(kind).items():
        function = getattr(value, "fget", None) or getattr(value, "__func__", None) or value
        if name.startswith("_") or not inspect.isfunction(function):
            continue
        signature = "" if isinstance(value, property) else str(inspect.signature(function)).replace("'", "")
        yield f"{name}{signature}", function.__doc__ or ""


class Interface(SphinxDirective):
    """Everything in ``__all__``, in its order."""

    def run(self) -> list[nodes.Node]:
        lines: list[str] = []
        for name in interface.__all__:
            value: Any = getattr(interface, name)
            if not (inspect.isclass(value) or inspect.isroutine(value)):
                lines += [f"``{name}``", *(f"   {line}" for line in paragraphs(_short(name, value))), ""]
                continue
            signature = str(inspect.signature(value)).replace("'", "") if inspect.isroutine(value) else ""
            lines += [f"``{name}{signature}``"]
            own_docstring = value.__doc__ if not str(value.__doc__).startswith(f"{name}(") else ""
            lines += [f"   {line}" for line in paragraphs(own_docstring)]
            if inspect.isclass(value):
                for title, docstring in members(value):
                    lines += ["", f"   - ``{title}``", "", *(f"     {line}" for line in paragraphs(docstring))]
            lines.append("")
        return self.parse_text_to_nodes("\n".join(lines))


def _short(name: str, value: Any) -> str:
    return str(value.__doc__).partition("\n")[0] if inspect.ismodule(value) else f"{name} is now {value!r}."


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("interface", Interface)
    return {"parallel_read_safe": True}
