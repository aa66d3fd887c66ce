"""Open files that others may have put there: regular files only, at most so many bytes, without waiting in ``open``.

A FIFO would block the reader, a link to ``/dev/zero`` would fill its memory, a link could show any file of this user.
These functions still wait for the disk; ``folder`` calls them in a thread.
"""

from __future__ import annotations

import os
import stat


class NotRegular(OSError):
    """A folder, a link, a FIFO, a socket or a device."""


class TooLarge(OSError):
    """More bytes than its kind of file has."""


def open_regular(path: str | os.PathLike[str], *, follow: bool = False) -> int:
    """Open a regular file for reading and return its descriptor.

    ``follow``: allow a symbolic link, for paths that only the operator writes. :raises OSError: it can't be opened.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    fd = os.open(path, flags)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise NotRegular(0, "expected a regular file", os.fspath(path))
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_regular(path: str | os.PathLike[str], most: int, *, follow: bool = False) -> bytes:
    """Return a regular file's content. :raises OSError: it can't be read, or has more than ``most`` bytes."""
    fd = open_regular(path, follow=follow)
    try:
        return _read(fd, most, os.fspath(path))
    finally:
        os.close(fd)


def _read(fd: int, most: int, path: str) -> bytes:
    # Not by its size alone: a file may grow while it is read, and in /proc all have size 0.
    parts, left = [], most + 1
    while left and (part := os.read(fd, min(left, 1 << 20))):
        parts.append(part)
        left -= len(part)
    if not left:
        raise TooLarge(0, f"expected at most {most:,} bytes", path)
    return b"".join(parts)


def open_private(path: str | os.PathLike[str], flags: int) -> int:
    """Open a file of this process's own, made if it isn't there, that only this user can read.

    ``flags``: ``os.O_RDWR`` and the like. :raises OSError: it can't be opened, or isn't a regular file.
    """
    fd = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            raise NotRegular(0, "expected a regular file", os.fspath(path))
        if mode & 0o077:
            # Made by an earlier version, or by hand.
            os.fchmod(fd, 0o600)
    except BaseException:
        os.close(fd)
        raise
    return fd
