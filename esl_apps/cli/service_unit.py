"""What a node may write to and open by the systemd unit of this machine, under which ``check`` doesn't run."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from glob import glob
from pathlib import Path

UNIT = "esl-apps.service"
#: A file of one hides the file of that name in those behind it.
FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
_COMMENT = re.compile(r"^[ \t]*[#;].*\n?", re.MULTILINE)
#: Settings by their older names (systemd 231).
_RENAMED = {"ReadWriteDirectories": "ReadWritePaths"}


def forbids(folder: str) -> bool:
    """Return whether a unit is there, under which a node can't write to a folder."""
    settings = _settings()
    if _last(settings, "ProtectSystem") != "strict":
        return False
    path = os.path.realpath(folder)
    return not any(os.path.commonpath([name, path]) == name for name in map(os.path.realpath, _writable(settings)))


def remedy(folder: str) -> str:
    return f"run `systemctl edit esl-apps`, add ReadWritePaths={folder} below [Service], and restart"


def descriptors() -> int | None:
    """Return the number of files and sockets that the unit allows a node; None if it gives none."""
    # The filter of system calls keeps a node from raising the first of two to the second.
    soft = _last(_settings(), "LimitNOFILE").partition(":")[0]
    if soft == "infinity":
        return sys.maxsize
    return int(soft) if soft.isdecimal() else None


def _writable(settings: dict[str, list[str]]) -> Iterator[str]:
    for name in settings.get("ReadWritePaths", ()):
        yield name.lstrip("-+")
    for name in settings.get("BindPaths", ()):
        source, _, behind = name.lstrip("-").partition(":")
        yield behind.partition(":")[0] or source
    for name in settings.get("StateDirectory", ()):
        yield f"/var/lib/{name.partition(':')[0]}"


def _last(settings: dict[str, list[str]], key: str) -> str:
    return next(reversed(settings.get(key, ())), "")


def _settings() -> dict[str, list[str]]:
    """Return the words that each setting has been given. An empty value clears those before it."""
    settings: dict[str, list[str]] = {}
    for file in _files():
        with suppress(OSError):
            text = Path(file).read_text(encoding="utf-8", errors="replace")
            for line in _COMMENT.sub("", text).replace("\\\n", " ").splitlines():
                key, _, value = (part.strip() for part in line.partition("="))
                words = settings.setdefault(_RENAMED.get(key, key), [])
                words.extend(word.strip('"') for word in value.split())
                if not value:
                    words.clear()
    return settings


def _files() -> list[str]:
    """Return the unit, and its drop-ins by their names."""
    units = [file for place in FOLDERS if os.path.isfile(file := f"{place}/{UNIT}")]
    drop_ins: dict[str, str] = {}
    for place in FOLDERS:
        for file in glob(f"{place}/{UNIT}.d/*.conf"):
            drop_ins.setdefault(os.path.basename(file), file)
    return [*units[:1], *(drop_ins[name] for name in sorted(drop_ins))]
