"""``.. drawing:: parts``: an SVG of ``docs/images`` within the page, so that it takes the page's colours.

As an ``<img>`` it would follow the system's light or dark setting and not the button of the page.
"""

from __future__ import annotations

import runpy
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

_log = logging.getLogger(__name__)


class Drawing(SphinxDirective):
    required_arguments = 1
    option_spec = {"alt": directives.unchanged_required}  # noqa: RUF012 - docutils' own way

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / "images" / f"{self.arguments[0]}.svg"
        self.env.note_dependency(str(path))
        if "alt" not in self.options:
            raise self.error("a drawing needs :alt:")
        svg = path.read_text(encoding="utf-8").replace(
            "<svg ", f'<svg role="img" aria-label="{self.options["alt"]}" ', 1
        )
        return [nodes.raw("", f'<div class="drawing">{svg}</div>', format="html")]


def _check(app: Sphinx) -> None:
    folder = Path(app.srcdir) / "images"
    for name, draw in runpy.run_path(str(folder / "draw.py"))["DRAWINGS"].items():
        if (folder / f"{name}.svg").read_text(encoding="utf-8") != draw().svg():
            _log.warning("images/%s.svg is not what draw.py draws: run python docs/images/draw.py", name)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("drawing", Drawing)
    app.connect("builder-inited", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
