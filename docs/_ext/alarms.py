"""``.. alarms::``: the alarms of ``conf/prometheus/rules.yml``."""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml
from from_code import Generated, table, text
from repository import ROOT
from sphinx.application import Sphinx

FILE = ROOT / "conf" / "prometheus" / "rules.yml"


def _readable(message: str) -> str:
    """A message with plain words for its templates: ``SWITCH`` for ``{{ $labels.switch }}``, ``N`` for the value."""
    named = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda match: match[1].upper(), message)
    return re.sub(r"\{\{ \$value.*?\}\}", "N", named)


class Alarms(Generated):
    def lines(self) -> Iterator[str]:
        self.env.note_dependency(str(FILE))
        rows = [
            [
                f"``{rule['alert']}``",
                rule["labels"]["severity"],
                text(_readable(rule["annotations"]["summary"])) + ".",
                text(rule["annotations"]["action"]),
            ]
            for group in yaml.safe_load(FILE.read_text(encoding="utf-8"))["groups"]
            for rule in group["rules"]
        ]
        yield from table(["Alarm", "Severity", "It says", "What to do"], rows, "18 10 32 40")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("alarms", Alarms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
