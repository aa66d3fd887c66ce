"""The reports that each process writes every other second: its load, its health and its switches."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import msgspec

from esl_apps.core.versions import REPORT
from esl_apps.store import documents, keys
from esl_apps.store.errors import Fault, Unreadable
from esl_apps.store.redis_client import Client

log = logging.getLogger(__name__)

#: Seconds between two reports, and for which one is kept.
EVERY, KEPT = 2.0, 20


class SwitchReport(msgspec.Struct, kw_only=True):
    """A switch as one process sees it."""

    name: str
    connected: bool
    ready: bool
    out: bool
    """Whether its faults have taken it out."""
    sessions: int
    max_sessions: int
    load: float
    clock_ahead: float | None
    """Seconds; None if it isn't known."""
    error: str
    """Why it isn't connected; empty if it is."""


class Report(msgspec.Struct, kw_only=True):
    node: str
    advertise: str
    version: str
    pid: int
    started_at: float
    at: float
    live: dict[str, int]
    """Live calls by application."""
    max_calls: int
    draining: bool
    reasons: list[str]
    """Why it takes no calls, and what a person has to mend."""
    outbox: dict[str, int]
    """Records that wait for each list."""
    redis_seconds: float
    """How long the last report took to reach Redis."""
    switches: list[SwitchReport]


def write(client: Client, boot: str, report: Report) -> None:
    """:raises StoreUnavailable: Redis is down."""
    client.set(keys.report(boot), documents.encode(REPORT, report), ex=KEPT)


def read(client: Client, boots: Iterable[str]) -> dict[str, Report]:
    """The reports of processes, by process. One that can't be read, as of a later version, is left out, and logged.

    :raises StoreUnavailable: Redis is down.
    """
    found = {}
    for boot in boots:
        try:
            raw = client.get(keys.report(boot))
            if raw is not None:
                found[boot] = documents.decode(REPORT, raw, Report)
        except (Fault, Unreadable) as error:
            log.warning("report_unreadable", extra={"boot": boot, "reason": str(error)})
    return found
