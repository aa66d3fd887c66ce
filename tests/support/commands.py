"""The commands of an event socket's client, taken apart as a switch does."""

from __future__ import annotations

import re

_LENGTH = re.compile(rb"\ncontent-length: *([0-9]+)", re.IGNORECASE)


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """Return the whole commands, and the rest. None has an empty line at its end; a body follows behind one."""
    whole = []
    while (end := data.find(b"\n\n")) >= 0:
        length = _LENGTH.search(data, 0, end)
        body = int(length[1]) if length is not None else 0
        after = end + 2 + body
        if len(data) < after:
            break
        whole.append(data[: after if body else end])
        data = data[after:]
    return whole, data


def application(command: str) -> tuple[str, str]:
    """Return the application that a ``sendmsg`` executes, and its argument."""
    head, _, body = command.partition("\n\n")
    fields = dict(line.split(": ", 1) for line in head.split("\n")[1:])
    return fields["execute-app-name"], body
