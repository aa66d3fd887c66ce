"""The configuration's section ``records``, and the forms of a notification."""

from __future__ import annotations

from typing import Annotated, Literal

from esl_apps.config.fields import Count, Section, described

Payload = Literal["v2", "v3", "v4"]


class RecordsConfig(Section, frozen=True):
    keep_days: Count = 7
    """Days for which records can be asked for, from when a call began; a record takes some 2 KB of the top-level
    Redis; 0: none are kept."""
    payload: Literal["v3", "v4"] = "v3"
    """Form of the records of calls that belong to no integrator; v4 has all fields, and those of later versions."""
    round_trip: bool = False
    """True: measure the round trip of each leg by RTCP; one event per leg every five seconds."""
    capture_url: (
        Annotated[
            str,
            described(
                "an address with {call_id} in it, and {from} and {to} if needed",
                pattern=r"^https?://(?=.*\{call_id\})(?:[^\s{}]|\{(?:call_id|from|to)\})+\Z",
            ),
        ]
        | None
    ) = None
    """Address of a leg's packet capture, as https://homer.example.com/?callid={call_id}&from={from}&to={to} (Unix
    milliseconds); `esl-apps trace` and the console link to it."""
    session_records: bool = False
    """True: a closing entry of type session after the records of each session that belongs to no integrator."""
