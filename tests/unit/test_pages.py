"""The tables in the documentation are what the benchmarks printed."""

from __future__ import annotations

import pytest

from benchmarks import pages


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_a_page_has_the_tables_that_were_printed(page: object) -> None:
    text = page.read_text()  # type: ignore[attr-defined]
    for table in pages.TABLES.glob("*.txt"):
        assert pages.put(text, table.stem, table.read_text()) == text, f"{table.name}: python -m benchmarks.pages"


def test_every_table_stands_on_a_page() -> None:
    text = "".join(page.read_text() for page in pages.PAGES)
    assert [table.name for table in pages.TABLES.glob("*.txt") if f"docs/benchmarks/{table.name}``" not in text] == []


def test_a_table_takes_the_place_of_the_one_before() -> None:
    page = "Before (``docs/benchmarks/one.txt``)::\n\n    old\n\n    older\n\nBehind.\n"
    assert pages.put(page, "one", "new\n\n  newer\n") == (
        "Before (``docs/benchmarks/one.txt``)::\n\n    new\n\n      newer\n\nBehind.\n"
    )
    assert pages.put(page, "other", "new\n") == page
