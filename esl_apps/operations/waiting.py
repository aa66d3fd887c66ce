"""The callbacks and autodials that wait to be placed, and dropping one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from esl_apps.apps import APPLICATIONS
from esl_apps.config.model import Config
from esl_apps.store.redis_client import Client
from esl_apps.store.timed_calls import TimedCalls


def stores(config: Config, client: Client) -> dict[str, TimedCalls]:
    """The stores of timed calls by application."""
    return {
        app.ref: TimedCalls(client, config.node.name, app.timed.store) for app in APPLICATIONS.values() if app.timed
    }


def listed(by_app: Mapping[str, TimedCalls]) -> list[dict[str, Any]]:
    """The waiting calls, the next one first; of each application the next thousand.

    :raises StoreUnavailable: Redis is down.
    """
    now = time.time()
    found = [(call.due_at, f"{app}/{call.number}", call) for app, store in by_app.items() for call in store.waiting()]
    return [
        {"key": key, "account": call.owner or None, "due_in": round(due_at - now, 1), "placing": call.placing}
        for due_at, key, call in sorted(found, key=lambda entry: entry[:2])
    ]


def drop(by_app: Mapping[str, TimedCalls], key: str) -> bool | None:
    """Drop a waiting call by its ``key``. False: there is none; None: a node is placing it.

    :raises StoreUnavailable: Redis is down.
    """
    app, _, number = key.partition("/")
    store = by_app.get(app)
    call = None if store is None else store.find(number)
    return False if store is None or call is None else store.drop(number, call.owner)
