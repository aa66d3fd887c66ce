"""Notifications for tests of the outbox, and records for those of histories."""

from __future__ import annotations

from typing import Any

from esl_apps.store.journal import Entry, entry

LIST = "enigma:notifications:cdr"


def item(number: int, list: str = LIST, side: str = "left") -> Entry:
    return entry(f"id-{number}", list, {"type": "cdr", "payload": {"call_ref": f"id-{number}"}}, side)


def record_of(ref: str, **fields: Any) -> dict[str, Any]:
    """A call's record, with what every one has."""
    own = {"call_ref": ref, "contact_ref": ref, "session_ref": ref, "ref": "click-dial", "call_dir": "outbound"}
    end = {"end_reason": "answered", "end_code": 16, "hung_up_by": "agent", "call_time": 7, "gateways_failed": []}
    return {**own, **end, "dialed_at": 1_700_000_000, "ended_at": 1_700_000_007.0, **fields}
