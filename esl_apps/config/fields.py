"""Types of single configuration values: names, counts, seconds, ports."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta, Struct

#: Stands in paths of the event socket and of the file system: never ``.`` or ``..``.
_NAME = re.compile(r"(?!\.+\Z)[A-Za-z0-9._-]+")
_NAME_EXPECTED = "expected letters, digits, . _ -"

Name = Annotated[str, Meta(pattern=rf"^{_NAME.pattern}\Z", max_length=64)]
Seconds = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=1, le=65535)]
#: Each counted one is kept in Redis until its window is over.
Threshold = Annotated[int, Meta(ge=1, le=10_000)]
LockSeconds = Annotated[float, Meta(ge=1, le=2_592_000)]


class ConfigError(Exception):
    """What is wrong, where, and what was expected; ``str()`` is for the operator."""

    def __init__(self, message: str, path: str = "", line: int | None = None, file: str = "") -> None:
        where = f"{file}:{line}" if line else file
        super().__init__(": ".join(part for part in (where, path, message) if part))


class _Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


PerSecond = Annotated[float, Meta(gt=0, le=1e6)]
