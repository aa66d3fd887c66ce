"""A node's parts with a console, over a real Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from esl_apps.core import terms
from esl_apps.core.attempt import Attempt
from esl_apps.store import redis_client
from tests.support.bench import Bench, Breakable
from tests.support.console import TOKENS, Browser
from tests.support.node import RedisServer


@pytest.fixture
def bench(redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    redis.client.flushall()
    monkeypatch.setattr(redis_client, "is_patched", lambda: True)
    connect = redis_client.connect
    monkeypatch.setattr(redis_client, "connect", lambda url, **more: Breakable(connect(url, **more)))
    tokens = {"token": "admin-token-for-tests", "console": True, "tokens": TOKENS}
    with gevent.Timeout(30):
        bench = Bench(redis, tmp_path, admin=tokens, spending={"breaker": {"calls_per_hour": 100}}).connect()
        bench.services.membership.say()
        yield bench
        bench.close()


@pytest.fixture
def browser(bench: Bench) -> Browser:
    return Browser(bench)


@pytest.fixture
def call(bench: Bench) -> Callable[..., Attempt]:
    """Return a function that makes a call of this node known to Redis."""

    def make(app: str = "click-dial", *, end: tuple[str, int, str] | None = None, **fields: Any) -> Attempt:
        given = {"integrator": "acme", "call_dir": "outbound", "switch": "fs1", "extension": "1000"}
        attempt = Attempt(**{"app": app, "number": "0820001234", **given, **fields})
        bench.services.calls.begin(attempt, bench.services.switches[0])
        attempt.dialled(attempt.queued_at)
        attempt.enter(terms.AGENT_RINGING, attempt.queued_at + 0.5)
        if end is not None:
            attempt.end(*end, attempt.queued_at + 1)
        attempt.save()
        bench.flush()
        return attempt

    return make
