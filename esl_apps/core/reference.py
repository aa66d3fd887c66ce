"""Make a call's reference, read its time back, and tell what has a reference's form."""

from __future__ import annotations

import re
import secrets
import time
from functools import lru_cache

#: A UUID of any version, as of a call, a session or a channel.
FORM = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
LENGTH = 36
_FORM = re.compile(FORM)


def new_ref(now: float | None = None) -> str:
    """Make a call's reference: a UUID version 7 (RFC 9562), so that references sort by time.

    It needs no encoding in FreeSWITCH, Redis keys and file names.
    """
    ms = int((time.time() if now is None else now) * 1000)
    value = (ms & (1 << 48) - 1) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(3 << 62) | 2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def began(ref: str) -> float:
    """Return when a reference was made, in Unix seconds."""
    return int(ref[:8] + ref[9:13], 16) / 1000


def is_reference(text: str) -> bool:
    """Return whether a text has the form of a UUID, so that it can stand in a command to a switch."""
    # By length first, so that the cache holds nothing long.
    return len(text) == LENGTH and _has_form(text)


@lru_cache(maxsize=2048)  # a call's are asked about some twenty times
def _has_form(text: str) -> bool:
    return _FORM.fullmatch(text) is not None
