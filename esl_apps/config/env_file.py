"""The secrets next to a configuration: ``esl_apps.env`` for ``esl_apps.yml``, as systemd reads it (EnvironmentFile).

A node gets them from systemd. Other commands read the file, so that ``esl-apps calls`` needs no exports.
"""

from __future__ import annotations

import os
from collections import ChainMap
from pathlib import Path

#: Bytes. A longer file isn't one of ours.
_LONGEST = 1 << 16


class Environment(ChainMap[str, str]):
    """Variables, and the file that may have more."""

    hidden: Path | None = None
    """The file, if this user may not read it."""


def environment(config: str) -> Environment:
    """This process's environment and, for what it lacks, the file of a configuration."""
    found = Environment(dict(os.environ))
    if Path(config).name:
        file = Path(config).with_suffix(".env")
        try:
            found.maps.append(read(file))
        except PermissionError:
            # The configuration may need none of it.
            found.hidden = file
    return found


def read(file: Path) -> dict[str, str]:
    """Return a file's variables; none if it isn't there. :raises PermissionError: this user may not read it."""
    try:
        with file.open("rb") as stream:
            return variables(stream.read(_LONGEST).decode())
    except PermissionError:
        raise
    except (OSError, ValueError):
        return {}


def variables(text: str) -> dict[str, str]:
    return dict(filter(None, map(_variable, text.splitlines())))


def _variable(line: str) -> tuple[str, str] | None:
    name, equals, value = line.strip().partition("=")
    if not equals or name.startswith(("#", ";")):
        return None
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    return name.strip(), value
