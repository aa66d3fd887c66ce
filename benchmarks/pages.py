"""The tables in the documentation: each is what its benchmark printed last."""

from __future__ import annotations

import re
import sys

from benchmarks.process import ROOT

TABLES = ROOT / "docs" / "benchmarks"
PAGES = [ROOT / "docs" / "performance.rst", ROOT / "docs" / "scaling.rst"]
#: What stands before a table, and the table: the lines behind it that are indented, or empty.
_BLOCK = r"(^.*``docs/benchmarks/{name}\.txt``\)?::\n)((?:(?: {{4}}.*)?\n)+)"


def put(page: str, name: str, text: str) -> str:
    """The page with this table in the place of the one that it had."""
    lines = "".join(f"    {line}".rstrip() + "\n" for line in text.strip("\n").split("\n"))
    block = re.compile(_BLOCK.format(name=re.escape(name)), re.MULTILINE)
    return block.sub(lambda found: f"{found[1]}\n{lines}\n", page)


def write() -> None:
    """All tables into all pages."""
    for page in PAGES:
        before = text = page.read_text()
        for table in sorted(TABLES.glob("*.txt")):
            text = put(text, table.stem, table.read_text())
        if text != before:
            page.write_text(text)


if __name__ == "__main__":
    write()
    sys.exit(0)
