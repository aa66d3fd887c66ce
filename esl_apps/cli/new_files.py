"""Files that a command writes: all of them whole, or none."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path


def write(texts: Mapping[Path, str], modes: Mapping[Path, int] | None = None) -> None:
    """Write files, and make their folders. ``modes``: the permissions of a new file, 0o644 otherwise; one that is there
    keeps its own, and is replaced in one step.

    :raises OSError: a file can't be written; then none has changed.
    """
    made: dict[Path, Path] = {}
    try:
        for name, text in texts.items():
            # Through a link, as an open file would be.
            file = Path(os.path.realpath(name))
            file.parent.mkdir(parents=True, exist_ok=True)
            # A name that FreeSWITCH's *.xml doesn't include.
            fresh = file.with_name(f".{file.name}.new")
            fresh.unlink(missing_ok=True)
            made[fresh] = file
            # With its mode from the beginning, whatever the umask.
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(fd, "w", encoding="utf-8") as stream:
                stream.write(text)
                _permit(fd, file, (modes or {}).get(name, 0o644))
        for fresh, file in made.items():
            fresh.replace(file)
    except BaseException:
        for fresh in made:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
        raise


def _permit(fd: int, file: Path, mode: int) -> None:
    try:
        old = file.stat()
    except FileNotFoundError:
        os.fchmod(fd, mode)
        return
    # Only root may give a file away.
    with contextlib.suppress(PermissionError):
        os.fchown(fd, old.st_uid, old.st_gid)
    os.fchmod(fd, old.st_mode & 0o777)
