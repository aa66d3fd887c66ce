"""The configuration's section ``records``, and the forms of a notification."""

from __future__ import annotations

from typing import Literal

from esl_apps.config.fields import Count, Section

Payload = Literal["v2", "v3", "v4"]


class RecordsConfig(Section, frozen=True):
    keep_days: Count = 7
    """Days for which records can be asked for, from when a call began; a record takes some 1 KB of the top-level
    Redis; 0: none are kept."""
    payload: Literal["v3", "v4"] = "v3"
    """Form of the records of calls that belong to no integrator; v4 has all fields, and those of later versions."""
    session_records: bool = False
    """True: a closing entry of type session after the records of each session that belongs to no integrator."""
