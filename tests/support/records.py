"""Notifications for tests of the outbox."""

from __future__ import annotations

from esl_apps.store.journal import Entry, entry

LIST = "enigma:notifications:cdr"


def item(number: int, list: str = LIST, side: str = "left") -> Entry:
    return entry(f"id-{number}", list, {"type": "cdr", "payload": {"call_ref": f"id-{number}"}}, side)
