"""What the systemd unit of this machine lets a node write to. ``check`` itself doesn't run under the unit."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from glob import glob

UNIT = "esl-apps.service"
#: systemd reads the unit of the first, and the drop-ins of all.
FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
_LINE = re.compile(r"(ProtectSystem|ReadWritePaths|StateDirectory)\s*=\s*(.*?)\s*", re.ASCII)


def forbids(folder: str) -> bool:
    """Return whether a unit is there, under which a node can't write to a folder."""
    path, strict = os.path.realpath(folder), False
    for key, value in _lines():
        if key == "ProtectSystem":
            strict = value == "strict"
            continue
        for name in value.split():
            writable = os.path.realpath(f"/var/lib/{name}" if key == "StateDirectory" else name.strip('"').lstrip("-+"))
            if os.path.commonpath([writable, path]) == writable:
                return False
    return strict


def remedy(folder: str) -> str:
    return f"run `systemctl edit esl-apps`, add ReadWritePaths={folder} below [Service], and restart"


def _lines() -> Iterator[tuple[str, str]]:
    units = [file for place in FOLDERS if os.path.isfile(file := f"{place}/{UNIT}")]
    for file in [*units[:1], *(file for place in FOLDERS for file in sorted(glob(f"{place}/{UNIT}.d/*.conf")))]:
        with suppress(OSError), open(file, encoding="utf-8", errors="replace") as stream:
            yield from (match.groups() for line in stream if (match := _LINE.fullmatch(line.strip())))  # type: ignore[misc]
