"""The table of faults: each entry of the review has its tests, and each case comes once."""

from __future__ import annotations

import csv
import re

from tests.support import ROOT

TABLE = ROOT / "docs" / "reference" / "faults.csv"
ENTRIES = 30


def rows() -> list[dict[str, str]]:
    with TABLE.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_faults_table_has_each_entry_in_order() -> None:
    entries = [int(row["entry"]) for row in rows()]
    assert sorted(set(entries)) == list(range(1, ENTRIES + 1))
    assert entries == sorted(entries)


def test_faults_table_has_each_case_once() -> None:
    cases = [(row["entry"], row["case"]) for row in rows()]
    assert sorted(cases) == sorted(set(cases))


def test_faults_table_names_tests_that_exist() -> None:
    texts = (path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    tests = {name for text in texts for name in re.findall(r"def (test_\w+)", text)}
    named = {name for row in rows() for name in row["tests"].split()}
    assert named - tests == set()
