"""How often a key was pressed that the switch heard several times: by RFC 2833, by SIP INFO, in the audio.

A phone may say one key in two ways: by SIP INFO and by RFC 2833, or by INFO and, some 100 ms later, as a tone (hazard
42). The switch reports each as a key, without its source. But it also reports each INFO (``RECV_INFO``), and a caller
is heard by INFO and *one* other way. So of ``heard`` equal keys in quick succession, of which ``by_info`` came by INFO,
the caller pressed as many as the way that was heard more often said. The same key twice by the same way is two keys.
"""

from __future__ import annotations

import re
from collections import deque

#: Seconds within which equal keys may be one press in two ways: a phone sends INFO at the press and RFC 2833 at the
#: release, which is as long as the caller holds the key, or a detector needs 100 to 120 ms.
TOGETHER = 1.0
#: Seconds by which the switch may report an INFO later than its key. Both take some 20 ms, or more on a busy machine.
SETTLED = 0.2
#: INFOs that may wait for their keys.
_EARLY = 16
#: Keys that have a number in ``application/dtmf-relay`` and ``application/dtmf`` (RFC 4733, section 3.2).
_NUMBERED = {"10": "*", "11": "#", "12": "A", "13": "B", "14": "C", "15": "D"}
_RELAY = re.compile(r"Signal= *([0-9]{1,2}|[*#A-D])", re.IGNORECASE)
_NUMBER = re.compile(r"\s*([0-9]{1,2})\s*")


def key_of_info(body: str) -> str | None:
    """Read the key in an INFO's body: ``Signal=5``, or its number alone; None if the INFO is of another kind."""
    match = _RELAY.search(body) or _NUMBER.fullmatch(body)
    return None if match is None else _NUMBERED.get(match[1], match[1].upper())


class Presses:
    """Turns what the switch hears into presses. Times are ``time.monotonic``."""

    __slots__ = ("_at", "_by_info", "_counted", "_early", "_heard", "_key", "twofold")

    def __init__(self) -> None:
        self.twofold = False
        """This phone says each key in two ways."""
        # The present run of equal keys: which key, how often it was heard and counted, and when last.
        self._key = ""
        self._at = 0.0
        self._heard = self._by_info = self._counted = 0
        #: INFOs that were reported before their keys, over another connection: which keys, and when.
        self._early: deque[tuple[str, float]] = deque(maxlen=_EARLY)

    def hear(self, key: str, now: float) -> str:
        """Take in a key; return the presses that are certain now."""
        if key == self._key and now - self._at <= TOGETHER:
            self._heard += 1
            self._at = now
            return self._count(self._certain)
        pressed = key
        if self._by_info or self._counted < self._heard:
            pressed = self.settle() + key
            self._by_info = 0
        self._key, self._at = key, now
        if self._early:
            self._by_info = self._take_early(key, now)
        # The first of a run is a press, however it came.
        self._heard = self._counted = 1
        return pressed

    def hear_info(self, key: str, now: float) -> str:
        """Note that a key was also reported as SIP INFO; return the presses that are certain now."""
        early = self._early
        while early and now - early[0][1] > TOGETHER:
            early.popleft()
        if early or key != self._key or now - self._at > TOGETHER:
            early.append((key, now))
            return ""
        self._by_info += 1
        return self._count(self._certain)

    def _take_early(self, key: str, now: float) -> int:
        """Return how many INFOs of a key came before it; those of the keys before are of no use any more."""
        early, times = self._early, 0
        while early and (early[0][0] == key or not times):
            reported, at = early.popleft()
            times += reported == key and now - at <= TOGETHER
        return times

    def settle(self) -> str:
        """Return the presses that were in doubt: by now an INFO would have been reported."""
        self.twofold = self.twofold or 0 < self._by_info < self._heard
        return self._count(self._pressed)

    @property
    def in_doubt(self) -> bool:
        """Whether a key was heard that may be a press, or the one before in another way."""
        return self._counted < self._heard and self._counted < self._pressed

    def doubt(self, now: float) -> float | None:
        """Return the seconds until what is in doubt counts; None if nothing is."""
        return max(0.0, self._at + SETTLED - now) if self.in_doubt else None

    @property
    def _pressed(self) -> int:
        return max(self._by_info, self._heard - self._by_info)

    @property
    def _certain(self) -> int:
        # Every second key may be a repetition whose INFO is still to be reported.
        return max(self._by_info, (self._heard + 1) // 2)

    def _count(self, presses: int) -> str:
        more = min(self._heard, presses) - self._counted
        if more <= 0:
            return ""
        self._counted += more
        return self._key * more
