"""Click-to-dial calls: their one record, and their recording."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.rig.base import Rig
from tests.support.node import RedisServer


def record_of(redis: RedisServer, ref: str) -> dict[str, Any]:
    """The call's one record; AssertionError if a second follows it."""
    record = redis.pop()
    assert record["call_ref"] == ref
    time.sleep(0.05)
    assert redis.client.llen("enigma:notifications:cdr") == 0
    return record


def ended(redis: RedisServer, ref: str, reason: str, code: int, by: str) -> dict[str, Any]:
    record = record_of(redis, ref)
    assert (record["end_reason"], record["end_code"], record["hung_up_by"]) == (reason, code, by), record
    return record


def recording(rig: Rig, record: dict[str, Any]) -> Path:
    found = list(Path(rig.recordings).rglob(record["recording_url"]))
    assert len(found) == 1, record
    return found[0]
