"""README.rst's table of applications, from the registry. ``python docs/_ext/readme.py`` writes it.

A build of the docs warns if the table isn't that of the registry.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

README = Path(__file__).resolve().parent.parent.parent / "README.rst"
_log = logging.getLogger(__name__)
_TABLE = re.compile(r"(?<=\nThe applications\n----------------\n)(?:.+\n)+")
_LEFT, _RIGHT = 14, 104


def table() -> str:
    """A row for each application: its name in records, and its title."""
    from esl_apps.apps import APPLICATIONS

    rule = f"{'=' * _LEFT} {'=' * _RIGHT}"
    lines = [rule, f"{'Application':{_LEFT}} What happens", rule]
    for ref, one in APPLICATIONS.items():
        for number, part in enumerate(textwrap.wrap(one.title, _RIGHT)):
            lines.append(f"{ref if number == 0 else '':{_LEFT}} {part}")
    return "\n".join([*lines, rule, ""])


def _check(_app: Sphinx) -> None:
    if table() not in README.read_text(encoding="utf-8"):
        _log.warning("README.rst: the applications are not those of the registry: run python docs/_ext/readme.py")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    README.write_text(_TABLE.sub(lambda _old: table(), README.read_text(encoding="utf-8")), encoding="utf-8")
