"""The reference of log events, read from the log calls in the package, and the role ``:log:`event```.

``reference/log_events.csv`` says what each event means; level and fields are the code's. An event that the file lacks,
or one that the code no longer has, is a warning. ``reference/log_events_renamed.csv`` has old and new names; the role
takes either.
"""

from __future__ import annotations

import ast
import csv
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from docutils.nodes import make_id
from repository import ROOT, tree, uses
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

_log = logging.getLogger(__name__)
_REFERENCE = ROOT / "docs" / "reference"
_LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}


class Event(NamedTuple):
    levels: set[str]
    fields: set[str]


def _constants(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return _constants(node.body) + _constants(node.orelse)
    return []


def _keys(call: ast.Call) -> set[str]:
    given = [word.value for word in call.keywords if word.arg == "extra"] + call.args[1:]
    keys = {
        key.value for item in given if isinstance(item, ast.Dict) for key in item.keys if isinstance(key, ast.Constant)
    }
    return {str(key) for key in keys}


@cache
def in_code() -> dict[str, Event]:
    """Each event that the package logs, with its levels and fields."""
    events: dict[str, Event] = {}
    for path in sorted((ROOT / "esl_apps").rglob("*.py")):
        if "sandbox" in path.parts or not re.search(r"\blog\.|\bsay\(", path.read_text(encoding="utf-8")):
            continue
        for call in ast.walk(tree(path)):
            if not isinstance(call, ast.Call) or not call.args:
                continue
            function = call.func
            if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
                owner, method = function.value.id, function.attr
            elif isinstance(function, ast.Name):
                owner, method = "", function.id
            else:
                continue
            if owner in ("log", "_log") and method in _LEVELS:
                names, fields, level = _constants(call.args[0]), _keys(call), _LEVELS[method]
            elif owner in ("", "logs") and method == "say" and len(call.args) == 3:
                names, fields, level = _constants(call.args[1]), _keys(call), "info"
            else:
                continue
            if method == "exception":
                fields = fields | {"exception"}
            for name in names:
                event = events.setdefault(name, Event(set(), set()))
                event.levels.add(level)
                event.fields.update(fields)
    return events


def _rows(name: str) -> list[dict[str, str]]:
    with (_REFERENCE / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@cache
def renamed() -> dict[str, str]:
    """Old name → new name."""
    return {row["old"]: row["new"] for row in _rows("log_events_renamed.csv")}


def _is_in_code(name: str) -> bool:
    return any(f'"{name}"' in path.read_text(encoding="utf-8") for path in (ROOT / "esl_apps").rglob("*.py"))


@cache
def described() -> dict[str, tuple[Event, str]]:
    """Each event, by its present name, with what it means."""
    events = in_code()
    found: dict[str, tuple[Event, str]] = {}
    for row in _rows("log_events.csv"):
        name = renamed().get(row["event"], row["event"])
        if name in found:
            _log.warning("reference/log_events.csv has two lines for the event %r", name)
        if name in events:
            event = events[name]
        elif row["level"] and _is_in_code(name):  # its name is passed in a variable
            event = Event({row["level"]}, set(row["fields"].split()))
        else:
            _log.warning("reference/log_events.csv: the code logs no event %r", name)
            continue
        found[name] = event, row["meaning"]
    for name in sorted(events.keys() - found.keys()):
        _log.warning("reference/log_events.csv has no line for the event %r", name)
    return found


class LogEvents(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # the code isn't a file of the site, so look each time
        lines = [".. index::", *(f"   pair: log event; {name}" for name in described()), ""]
        lines += [".. list-table::", "   :header-rows: 1", "   :widths: 27 10 63", ""]
        lines += ["   * - Event", "     - Level", "     - Meaning, and its other fields"]
        for name, (event, meaning) in sorted(described().items(), key=lambda item: item[0].lower()):
            fields = ", ".join(f"``{field}``" for field in sorted(event.fields - {"call_ref"}))
            lines += [
                f'   * - .. raw:: html\n\n          <span id="{make_id("event-" + name)}"></span>\n',
                f"       ``{name}``",
                f"     - {', '.join(sorted(event.levels))}",
                f"     - {meaning}{' Fields: ' + fields + '.' if fields else ''}",
            ]
        return self.parse_text_to_nodes("\n".join(lines))


class LogEventsRenamed(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        self.env.note_reread()
        if not renamed():
            return self.parse_text_to_nodes("No event has been renamed since the first release.")
        lines = [".. list-table::", "   :header-rows: 1", "", "   * - Old name", "     - New name"]
        for old, new in renamed().items():
            if new not in described():
                _log.warning("reference/log_events_renamed.csv: the code logs no event %r", new)
            lines += [f"   * - ``{old}``", f"     - ``{new}``"]
        return self.parse_text_to_nodes("\n".join(lines))


class LogEvent(SphinxRole):
    """A link to an event in the reference, by its present name or an old one."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        name = renamed().get(self.text, self.text)
        reference = addnodes.pending_xref(
            "", refdomain="std", reftype="doc", reftarget="/reference/log-events", refexplicit=True, refwarn=True,
            refdoc=self.env.docname,
        )  # fmt: skip
        reference += nodes.literal("", name)
        return [reference], []


def _check(app: Sphinx) -> None:
    for place, name in uses(Path(app.srcdir), "log"):
        if renamed().get(name, name) not in described():
            _log.warning("%s: no such log event: %s", place, name)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("log-events", LogEvents)
    app.add_directive("log-events-renamed", LogEventsRenamed)
    app.add_role("log", LogEvent())
    app.connect("builder-inited", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
