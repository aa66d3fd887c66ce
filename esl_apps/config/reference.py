"""The description of every key: the docstring below its field in the section's class."""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from typing import Any

from esl_apps.config import explain
from esl_apps.config.fields import Section


@cache
def descriptions(section: type[Section]) -> dict[str, str]:
    """Key → what it means, as a sentence, for every key of a section in the order of the class."""
    written: dict[str, str] = {}
    for kind in reversed(section.__mro__):
        if issubclass(kind, Section):
            written |= _docstrings(kind)
    return {key: written.get(entry.name, "") for key, entry in explain.fields(section).items()}


def _docstrings(kind: Any) -> dict[str, str]:
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for statement, following in zip(body.body, body.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            match following:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    found[statement.target.id] = " ".join(text.split())
    return found
