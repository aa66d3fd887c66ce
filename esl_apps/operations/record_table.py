"""Records as a table: CSV (RFC 4180), for spreadsheets and bills."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from esl_apps.core.notification import CallRecord

#: The first characters by which a spreadsheet takes a text for a formula (OWASP, CSV injection), also behind what one
#: with another list separator, as in South Africa, takes for the end of a cell. A number with its plus isn't a formula.
_FORMULA = re.compile(r"(\A|[;\t\r\n])(?=[=@\t\r\n\uff1d\uff20\uff0b\uff0d]|[+-](?![0-9 ]*\Z))")
#: In JSON a stranger's Call-ID may have one.
_SEPARATOR = (";", "\\u003b")


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
        return msgspec.json.encode(value).decode().replace(*_SEPARATOR)
    # A stranger chooses the number that they call from. In a spreadsheet it must stay a text.
    return _FORMULA.sub(r"\1'", value) if isinstance(value, str) else value
