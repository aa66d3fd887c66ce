"""Records as a table."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from esl_apps.core.notification import CallRecord
from esl_apps.operations.record_table import table


def row(**record: Any) -> dict[str, str]:
    (found,) = csv.DictReader(io.StringIO(table([record])))
    return found


def test_table_has_all_columns_of_a_record() -> None:
    assert table([], ["integrator"]) == ",".join(["integrator", *CallRecord.__struct_fields__]) + "\r\n"
    assert table([], header=False) == ""


def test_table_holds_every_kind_of_value() -> None:
    found = row(number=None, end_code=16, ended_at=1.5, contact_ref='a,"b"\n', metadata={"lead": "7"})
    assert (found["number"], found["end_code"], found["ended_at"]) == ("", "16", "1.5")
    assert (found["contact_ref"], found["metadata"]) == ('a,"b"\n', '{"lead":"7"}')


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("+27820001234", "+27820001234"),
        ("-5", "-5"),
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1+cmd|' /C calc'!A0", "'+1+cmd|' /C calc'!A0"),
        ("-1\n", "'-1\n"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\t=1", "'\t'=1"),
        ("\n=1", "'\n'=1"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("a=1", "a=1"),
        # Where the list separator is a semicolon, a comma ends no cell, and this does.
        ("a;=cmd|'/C calc'!A0", "a;'=cmd|'/C calc'!A0"),
        ("a;@SUM(1);-2+3", "a;'@SUM(1);'-2+3"),
        ("a;b", "a;b"),
    ],
)
def test_table_shows_no_formula_of_a_stranger(text: str, shown: str) -> None:
    assert row(number=text)["number"] == shown


def test_table_shows_no_formula_in_a_strangers_call_id() -> None:
    quality = {"agent": {"sip_call_id": "x;=cmd|'/C calc'!A0;y"}}
    cell = row(quality=quality)["quality"]
    assert ";" not in cell
    assert json.loads(cell) == quality
