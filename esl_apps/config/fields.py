"""Types of single configuration values: names, counts, seconds, ports."""

from __future__ import annotations

import re
from typing import Annotated, Any

from msgspec import Meta, Struct

from esl_apps.core import display_name


def described(expected: str, **constraints: Any) -> Meta:
    """Constraints of a value, and the words that say what is expected of it."""
    return Meta(extra={"expected": expected}, **constraints)


#: Part of paths of the event socket and of the file system, so never ``.`` or ``..``.
NAME = re.compile(r"(?!\.+\Z)[A-Za-z0-9._-]+")
NAME_EXPECTED = "expected letters, digits, . _ - (at most 64)"
_NAME_WORDS = NAME_EXPECTED.removeprefix("expected ")

Name = Annotated[str, described(_NAME_WORDS, pattern=rf"^{NAME.pattern}\Z", max_length=64)]
#: A folder of prompts.
Language = Annotated[str, described("letters, digits, _ - (at most 64)", pattern=r"^[A-Za-z0-9_-]+\Z", max_length=64)]
#: As browsers write it, so that it can be compared: without a path or a default port, in small letters.
Origin = Annotated[
    str,
    described(
        "an origin as browsers write it, as https://crm.example.com or http://localhost:8080: no path, no *",
        pattern=r"^(?:https://(?![^/]*:443\Z)|http://(?![^/]*:80\Z))(?:[a-z0-9.-]+|\[[0-9a-f:]+\])(?::[0-9]{1,5})?\Z",
    ),
]
DisplayName = Annotated[str, described(display_name.EXPECTED, pattern=display_name.PATTERN)]
#: Goes into a dial string as it is, so it has no character that ends anything there.
SipValue = Annotated[
    str,
    described(
        "a header's value of letters, digits and <>;=:/._~+@-, at most 200, no spaces",
        pattern=r"^(?!.*:_:)[A-Za-z0-9<>;=:/._~+@-]{1,200}\Z",
    ),
]
XHeader = Annotated[str, described("a header's name, as X-Lead", pattern=r"^[Xx]-[A-Za-z0-9-]{1,62}\Z")]
#: An upper bound keeps .inf out, and numbers that a switch's or Redis's counters can't hold.
_YEAR, MANY = 31_536_000, 1_000_000_000
Seconds = Annotated[float, described(f"a number of seconds, 0 to {_YEAR} (a year)", ge=0, le=_YEAR)]
Count = Annotated[int, Meta(ge=0, le=MANY)]
Positive = Annotated[int, Meta(ge=1, le=MANY)]
Port = Annotated[int, described("a port, 1 to 65535", ge=1, le=65535)]
#: Redis keeps each one that is counted until its window is over.
Threshold = Annotated[int, Meta(ge=1, le=10_000)]
LockSeconds = Annotated[float, described("a number of seconds, 1 to 2592000", ge=1, le=2_592_000)]
PerSecond = Annotated[float, described("a number of requests a second, above 0, 1000000 at most", gt=0, le=1e6)]
Timeout = Annotated[float, described("a number of seconds, above 0, 3600 at most", gt=0, le=3600)]
Duration = Annotated[float, described(f"a number of seconds, above 0, {_YEAR} (a year) at most", gt=0, le=_YEAR)]


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A mapping with fixed keys."""
