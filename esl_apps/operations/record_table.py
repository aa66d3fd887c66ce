"""Records as a table: CSV (RFC 4180), for spreadsheets and bills."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from esl_apps.core.notification import CallRecord

#: The first characters by which a spreadsheet takes a text for a formula. A number with its plus is none.
_FORMULA = re.compile(r"[=@\t\r]|[+-](?![0-9 ]*\Z)")


def table(records: Iterable[dict[str, Any]], first: Sequence[str] = (), *, header: bool = True) -> str:
    """:param first: columns before the record's own."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    names = [*first, *CallRecord.__struct_fields__]
    if header:
        writer.writerow(names)
    for record in records:
        writer.writerow([_cell(record.get(name)) for name in names])
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        value = msgspec.json.encode(value).decode()
    if isinstance(value, str) and _FORMULA.match(value):
        # A stranger chooses the number that they call from. In a spreadsheet it must stay a text.
        return f"'{value}"
    return value
