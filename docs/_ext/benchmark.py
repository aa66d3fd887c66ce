"""``.. benchmark:: esl``: a table of ``docs/benchmarks`` as its benchmark printed it last, its prose as prose."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

#: Columns: a rule of dashes, or a gap within a line.
_COLUMNS = re.compile(r"^[- ]*---[- ]*$|\S {3,}\S", re.MULTILINE)


class Benchmark(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / "benchmarks" / f"{self.arguments[0]}.txt"
        self.env.note_dependency(str(path))
        return list(self._blocks(path.read_text(encoding="utf-8")))

    def _blocks(self, text: str) -> Iterator[nodes.Node]:
        for block in re.split(r"\n\s*\n", text.strip("\n")):
            if _COLUMNS.search(block):
                table = nodes.literal_block(block, block, classes=["benchmark"])
                table["language"] = "none"
                yield table
            elif "\n" not in block and not block.rstrip().endswith((".", ":")) and not block[0].isdigit():
                yield nodes.rubric(block, block.strip())
            else:
                yield nodes.paragraph(block, " ".join(block.split()), classes=["benchmark"])


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("benchmark", Benchmark)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
