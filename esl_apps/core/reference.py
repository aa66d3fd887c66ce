"""Make a call's reference, and read its time back."""

from __future__ import annotations

import secrets
import time


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
