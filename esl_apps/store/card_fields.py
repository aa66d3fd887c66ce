"""Check the fields of a card as clients send them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from esl_apps.core.faults import Fault

#: As many digits as Kazoo asks callers for: a PIN of another length could never be used.
PIN = re.compile(r"[0-9]{9,12}")
COMMENT_LENGTH = 255
MOST_CONCURRENT_CALLS = 10_000
CARD_ID = re.compile(r"[0-9a-f]{32}")
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
LANGUAGE = re.compile(r"[A-Za-z0-9_-]{1,64}")

#: Kazoo's spellings, accepted in place of ours.
SPELLINGS = {"max_concurent_calls_per_user": "max_concurrent_calls_per_user", "cid_retain": "retain_cid"}
FIELDS = ("pin", "cid", "user_id", "active", "retain_cid", "max_concurrent_calls_per_user", "comment", "language")


def spelled(fields: Mapping[str, Any], faults: list[Fault]) -> dict[str, Any]:
    """The fields under our names. Fields of the API's own answers and of CouchDB are ignored."""
    given: dict[str, Any] = {}
    for name, value in fields.items():
        ours = SPELLINGS.get(name, name)
        if ours in FIELDS:
            # If both spellings are given, ours counts.
            if ours == name or ours not in fields:
                given[ours] = value
        elif name not in ("id", "ui_metadata") and not name.startswith(("_", "pvt_")):
            # A misspelt `active` must not leave a stolen card working.
            faults.append(Fault(name[:64], "additionalProperties", f"unknown; expected one of {', '.join(FIELDS)}"))
    return given


def _boolean(value: object, name: str, faults: list[Fault]) -> bool:
    if isinstance(value, bool):
        return value
    faults.append(Fault(name, "type", "expected true or false"))
    return False


def _user_id(value: object, name: str, faults: list[Fault]) -> str | None:
    if isinstance(value, str) and NAME.fullmatch(value):
        return value
    faults.append(Fault(name, "pattern", "expected 1 to 64 letters, digits, . _ -"))
    return None


def _concurrent_calls(value: object, name: str, faults: list[Fault]) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_CONCURRENT_CALLS:
        return value
    faults.append(Fault(name, "minimum", f"expected a whole number from 0 to {MOST_CONCURRENT_CALLS}"))
    return 0


def _comment(value: object, name: str, faults: list[Fault]) -> str:
    if isinstance(value, str) and len(value) <= COMMENT_LENGTH:
        return value
    faults.append(Fault(name, "maxLength", f"expected a text of {COMMENT_LENGTH} characters at most"))
    return ""


def _language(value: object, name: str, faults: list[Fault]) -> str | None:
    if isinstance(value, str) and LANGUAGE.fullmatch(value):
        return value
    faults.append(Fault(name, "pattern", "expected the name of a language, as fr"))
    return None


#: How each field is read, but ``pin`` and ``cid``: ``(value, name, faults)`` → the value, or a further fault.
CHECKS = {
    "user_id": _user_id,
    "active": _boolean,
    "retain_cid": _boolean,
    "max_concurrent_calls_per_user": _concurrent_calls,
    "comment": _comment,
    "language": _language,
}
