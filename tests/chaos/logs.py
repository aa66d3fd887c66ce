"""The lines of the nodes' logs about a call."""

from __future__ import annotations

import json
from pathlib import Path


class Logs:
    """The nodes' log lines, by the references and UUIDs in them."""

    def __init__(self, files: list[Path]) -> None:
        self._lines: dict[str, list[str]] = {}
        for file in files:
            for line in file.read_text(errors="replace").splitlines():
                if not line.startswith("{"):
                    continue
                row = json.loads(line)
                for key in {row.get("call_ref"), row.get("uuid"), row.get("session_ref")} - {None}:
                    self._lines.setdefault(key, []).append(f"{row['at'][11:]} {file.stem} {line}")

    def about(self, names: list[str]) -> list[str]:
        return sorted({line for name in names for line in self._lines.get(name, ())})
