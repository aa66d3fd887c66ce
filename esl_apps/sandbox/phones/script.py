"""A phone's script, and its view of a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass
class Script:
    """How a phone behaves when it is called, and once it is connected. Times are seconds."""

    answer_after: float | None = 0.1
    """From the INVITE to the 200; None to ring for ever."""
    ring_after: float | None = 0.0
    """From the INVITE to the 180; None to send no 180."""
    early_media: bool = False
    """183 with the phone's tone in place of the 180."""
    reject: int | None = None
    """A final SIP status in place of an answer, after ``answer_after`` (None: at once)."""
    redirect: str | None = None
    """The Contact if ``reject`` is 302."""
    hangup_after: float | None = None
    """From the answer to this phone's BYE."""
    tone: int | None = None
    """Hz of the sine that it plays while it has media."""
    telephone_event: bool = True
    """It offers telephone-event (RFC 4733). If not, the switch expects its digits by SIP INFO."""
    digits: str = ""
    """DTMF sent ``digits_after`` seconds after the answer; ``,`` pauses half a second."""
    digits_after: float = 0.3
    auto_answer: bool = False
    """It answers at once if the INVITE asks for that: ``answer-after=0`` in Call-Info, or Alert-Info."""
    silent: bool = False
    """Nothing responds to the INVITE."""
    unreachable: bool = False
    """The INVITE's address refuses it, as that of a phone that is gone."""
    reason: str | None = None
    """With ``reject``, a Reason header, such as ``Q.850;cause=34``."""

    @staticmethod
    def parse(values: Mapping[str, Any]) -> Script:
        """Read a script from JSON. :raises ValueError: an unknown key; the message lists the known ones."""
        known = {item.name for item in fields(Script)}
        unknown = set(values) - known
        if unknown:
            raise ValueError(f"unknown script keys {sorted(unknown)}; known are {sorted(known)}")
        return Script(**values)


@dataclass
class Leg:
    """One call as the phone saw it; instants are ``time.time()``."""

    direction: str
    number: str
    caller_number: str = ""
    caller_name: str = ""
    headers: dict[str, list[str]] = field(default_factory=dict)
    started_at: float = 0.0
    ringing_at: float | None = None
    early_media_at: float | None = None
    answered_at: float | None = None
    ended_at: float | None = None
    status: int | None = None
    ended_by: str | None = None
    referred: list[int] = field(default_factory=list)
    """The SIP statuses of the NOTIFYs that ended this phone's REFERs."""


def asks_for_answer(headers: Mapping[str, Sequence[str]]) -> bool:
    """Return whether an INVITE asks the phone to answer by itself. Names are in lower case."""
    return any("answer-after=0" in value for value in headers.get("call-info", ())) or any(
        "alert-autoanswer" in value for value in headers.get("alert-info", ())
    )
