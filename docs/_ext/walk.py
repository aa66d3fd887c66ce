"""``.. walk::``: the functions that a value passes, one ``MODULE NAME`` a line, numbered and counted.

A *return* is a stop in a module that the walk had left. The names are checked, so the counts are those of the code.
"""

from __future__ import annotations

import difflib

from docutils import nodes
from repository import names_of
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

_log = logging.getLogger(__name__)


class Walk(SphinxDirective):
    has_content = True

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # for the code's sake
        stops = [line.split() for line in self.content if line.strip()]
        lines, left, before, returns = [], set(), "", 0
        for number, (module, name) in enumerate(stops, 1):
            if name not in names_of(module):
                close = difflib.get_close_matches(name, names_of(module), 1, 0.3)
                _log.warning(
                    "no %s in esl_apps/%s (closest: %s)", name, module, *close or ["none"], location=self.get_location()
                )
            if module != before:
                returns += module in left
                left.add(before)
            before = module
            lines.append(f"{number}. :src:`{module} {name}`")
        modules = len({module for module, _name in stops})
        told = (
            f"{len(stops)} stops in {modules} modules, {returns} return{'s' * (returns != 1)} to a module already left."
        )
        return self.parse_text_to_nodes("\n".join([*lines, "", f"**{told}**"]))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("walk", Walk)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
