"""Webhooks as all nodes deliver them, and delivering again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from esl_apps.config.model import Config
from esl_apps.store.redis_client import Client
from esl_apps.store.webhook_queue import Target, WebhookQueue, number, targets


def find(config: Config, name: str) -> Target:
    """:raises LookupError: no integrator has a webhook of this name; the message says which there are."""
    found = {target.webhook.name: target for target in targets(config)}
    if name not in found:
        known = f"the configuration has {', '.join(sorted(found))}" if found else "the configuration has none"
        raise LookupError(f"no such webhook; {known}")
    return found[name]


def listed(config: Config, client: Client, nodes: Mapping[str, str]) -> list[dict[str, Any]]:
    """Each webhook of the configuration. ``nodes``: the names of nodes, by boot. :raises StoreUnavailable: Redis is
    down."""
    found = list(targets(config))
    described = WebhookQueue(client).describe([target.queue for target in found])
    return [_view(target, state, nodes) for target, state in zip(found, described, strict=True)]


def _view(target: Target, state: Mapping[str, Any], nodes: Mapping[str, str]) -> dict[str, Any]:
    now = time.time()
    oldest, since = state["oldest_at"], number(state.get("since"))
    return {
        "name": target.webhook.name,
        "integrator": target.integrator,
        "host": target.host,
        "events": target.webhook.events,
        "state": "off" if target.is_off(state.get("off", "")) else "failing" if since else "delivering",
        "depth": state["depth"],
        "oldest_seconds": None if oldest is None else round(max(0.0, now - oldest), 1),
        "last_status": int(number(state.get("status"))) or None,
        "last_error": state.get("error") or None,
        "failing_seconds": round(max(0.0, now - since), 1) if since else None,
        "failures": int(number(state.get("failures"))),
        "delivered_at": number(state.get("delivered_at")) or None,
        "set_aside": int(number(state.get("aside"))),
        "node": nodes.get(state["boot"]) or None,
    }


def replay(client: Client, target: Target, since: float) -> int:
    """Deliver what was pushed after a time (Unix seconds) again, and switch the webhook on if it is off. Return how
    many notifications wait now. :raises StoreUnavailable: Redis is down."""
    return WebhookQueue(client).replay(target.queue, since)
