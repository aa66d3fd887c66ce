"""Copy the tables that the benchmarks printed last into the documentation."""

from __future__ import annotations

import re
import sys

from benchmarks.process import ROOT

TABLES = ROOT / "docs" / "benchmarks"
PAGES = [ROOT / "docs" / "performance.rst", ROOT / "docs" / "scaling.rst"]
#: The line that names a table's file, then the table: the indented or empty lines after it.
_BLOCK = r"(^.*``docs/benchmarks/{name}\.txt``\)?::\n)((?:(?: {{4}}.*)?\n)+)"


def put(page: str, name: str, text: str) -> str:
    """Return the page with the table `name` replaced by `text`."""
    lines = "".join(f"    {line}".rstrip() + "\n" for line in text.strip("\n").split("\n"))
    block = re.compile(_BLOCK.format(name=re.escape(name)), re.MULTILINE)
    return block.sub(lambda found: f"{found[1]}\n{lines}\n", page)


def write() -> None:
    """Put all tables into all pages."""
    for page in PAGES:
        before = text = page.read_text()
        for table in sorted(TABLES.glob("*.txt")):
            text = put(text, table.stem, table.read_text())
        if text != before:
            page.write_text(text)


if __name__ == "__main__":
    write()
    sys.exit(0)
