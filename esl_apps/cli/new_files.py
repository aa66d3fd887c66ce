"""Files that a command writes: all of them whole, or none."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path


def write(texts: Mapping[Path, str], modes: Mapping[Path, int] | None = None) -> None:
    """Write files, and make their folders (0o755). ``modes``: the permissions of a new file, 0o644 otherwise; one that
    is there keeps its own, and is replaced in one step.

    :raises OSError: a file can't be written, or its owner could no longer read it; then none has changed.
    """
    made: dict[Path, Path] = {}
    try:
        for name, text in texts.items():
            # Through a link, as an open file would be.
            file = Path(os.path.realpath(name))
            _make_folder(file.parent)
            if file.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
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


def _make_folder(folder: Path) -> None:
    """Make a folder, and those above it, that the users of the service and of the switch can enter, whatever the umask.
    Secrets in it have modes of their own."""
    missing = [each for each in (folder, *folder.parents) if not os.path.lexists(each)]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        # With the set-group-ID bit of its parent.
        each.chmod(stat.S_IMODE(each.stat().st_mode) | 0o755)


def _permit(fd: int, file: Path, mode: int) -> None:
    try:
        old = file.stat()
    except FileNotFoundError:
        os.fchmod(fd, mode)
        return
    # Only root may give a file away. Others may give it to a group that they are in.
    for owner in (old.st_uid, -1):
        with contextlib.suppress(PermissionError):
            os.fchown(fd, owner, old.st_gid)
    os.fchmod(fd, old.st_mode & 0o777)
    if _is_lost(old, os.fstat(fd)):
        message = "FreeSWITCH, or who else may read it now, couldn't any more; run this as root, or name another folder"
        raise PermissionError(errno.EPERM, message, str(file))


def _is_lost(old: os.stat_result, new: os.stat_result) -> bool:
    """Return whether the owner or the group of a file can't read what replaces it. Owners count as in its group."""
    of_owner, of_group, of_others = (old.st_mode & bit for bit in (0o400, 0o040, 0o004))
    group_reads = of_group and old.st_gid == new.st_gid
    owner_lost = of_owner and old.st_uid not in (0, new.st_uid) and not group_reads
    return bool((owner_lost or (of_group and not group_reads)) and not of_others)
