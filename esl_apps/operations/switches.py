"""Switches as all nodes see them, and pausing one: then no node places calls on it. Calls that it sends are served."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import msgspec

from esl_apps.core.versions import PAUSE
from esl_apps.operations.reports import Report
from esl_apps.store import documents, keys
from esl_apps.store.redis_client import Client


class Pause(msgspec.Struct, frozen=True):
    by: str
    at: float
    """Unix seconds."""


def pauses(client: Client) -> dict[str, Pause]:
    """The paused switches. :raises StoreUnavailable: Redis is down, or one can't be read."""
    return {name.decode(): documents.decode(PAUSE, raw, Pause) for name, raw in client.hgetall(keys.PAUSED).items()}


def pause(client: Client, name: str, by: str) -> bool:
    """Pause a switch on all nodes, within two seconds. False: it was paused. :raises StoreUnavailable: Redis is
    down."""
    if client.hget(keys.PAUSED, name) is not None:
        return False
    client.hset(keys.PAUSED, name, documents.encode(PAUSE, Pause(by, time.time())))
    return True


def resume(client: Client, name: str) -> bool:
    """False: it was not paused. :raises StoreUnavailable: Redis is down."""
    return bool(client.hdel(keys.PAUSED, name))


def seen_by(reports: Iterable[Report], paused: dict[str, Pause]) -> list[dict[str, Any]]:
    """Each switch that a report or a pause names, with the freshest figures, and how each node sees it."""
    views: dict[str, dict[str, Any]] = {}
    for report in sorted(reports, key=lambda report: report.at):
        for switch in report.switches:
            view = views.setdefault(switch.name, {"name": switch.name, "nodes": {}})
            seen = msgspec.to_builtins(switch)
            del seen["name"]
            if switch.connected or "sessions" not in view:
                view |= {field: seen[field] for field in ("sessions", "max_sessions", "load")}
            view["nodes"][report.node] = seen
    for name in paused:
        views.setdefault(name, {"name": name, "nodes": {}})
    for name, view in views.items():
        view["connected"] = any(node["connected"] for node in view["nodes"].values())
        view["paused"] = msgspec.to_builtins(paused.get(name))
    return [views[name] for name in sorted(views)]
