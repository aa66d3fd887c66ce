"""Times as a person types and reads them on the command line."""

from __future__ import annotations

import argparse
import re
import time
from datetime import datetime

_AGE = re.compile(r"(\d{1,6})([smhd])", re.ASCII)
_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def shown_time(at: float, *, utc: bool = False) -> str:
    """Write a time that Redis has; a dash if no calendar has it."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at) if utc else time.localtime(at))
    except (OverflowError, ValueError, OSError):
        return "-"


def read_time(text: str, now: float | None = None) -> float:
    """Read ``2026-11-29``, ``2026-11-29T12:00``, ``24h`` ago or Unix seconds. :raises argparse.ArgumentTypeError: none
    of them."""
    if age := _AGE.fullmatch(text):
        return (time.time() if now is None else now) - int(age[1]) * _UNIT[age[2]]
    if re.fullmatch(r"[0-9]{9,11}(\.[0-9]+)?", text):
        return float(text)
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError("expected a time as 2026-11-29, 2026-11-29T12:00, 24h or 7d") from None
