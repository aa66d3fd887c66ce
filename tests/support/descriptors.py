"""The descriptors of a process of this machine, from ``/proc``."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple


class Connection(NamedTuple):
    state: str
    """In hexadecimal, as in ``/proc/net/tcp``: ``01`` is established, ``08`` closed by the peer."""
    here: int
    """Its own port."""
    there: int
    """The peer's port."""


def descriptors(pid: int) -> list[str]:
    """What a process's descriptors are, as ``socket:[inode]`` or a file's path."""
    names = []
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            names.append(os.readlink(entry.path))
    return names


def connections(names: list[str]) -> list[Connection]:
    """The TCP connections over IPv4 among descriptors; no listening sockets."""
    inodes = {name[8:-1] for name in names if name.startswith("socket:[")}
    # By inode: a table that changes while it is read may have a line twice.
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[9] in inodes and words[3] != _LISTENING:
            found[words[9]] = Connection(words[3], _port(words[1]), _port(words[2]))
    return list(found.values())


_LISTENING = "0A"


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)
