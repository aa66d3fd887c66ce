"""A leg's states, and small values of a leg."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import IntEnum


class State(IntEnum):
    """Channel states; ``Channel-State-Number`` is the value."""

    NEW = 0
    INIT = 1
    ROUTING = 2
    SOFT_EXECUTE = 3
    EXECUTE = 4
    EXCHANGE_MEDIA = 5
    PARK = 6
    CONSUME_MEDIA = 7
    HIBERNATE = 8
    RESET = 9
    HANGUP = 10
    REPORTING = 11
    DESTROY = 12
    NONE = 13
    """Only as a running state: nothing runs the leg yet."""


Tones = set[int]
"""Frequencies in Hz."""
CALL_STATES = ("DOWN", "DIALING", "RINGING", "EARLY", "ACTIVE", "HELD", "RING_WAIT", "HANGUP", "UNHELD")


@dataclass(slots=True)
class Dtmf:
    """One received digit."""

    digit: str
    duration: int = 2000
    source: str = "RTP"
    sensitive: bool = False


@dataclass(slots=True)
class Executed:
    """One line of the application log, for the CDR."""

    app: str
    data: str
    stamp: int


def microseconds() -> int:
    """Return the current time in the switch's unit."""
    return int(time.time() * 1_000_000)
