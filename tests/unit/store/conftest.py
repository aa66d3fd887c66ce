"""Servers on which the stores must behave alike: Redis 6.2, this machine's Redis and Valkey, alone and as clusters.

A test runs on each of the three, one of them a cluster; ``make test-redis`` adds the other combinations.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis as redispy

from esl_apps.config.model import Account, CallerId, Rule, User
from esl_apps.config.spending import Limits
from esl_apps.core.numbers import NumberPlan
from esl_apps.store import documents, redis_client
from esl_apps.store.cards import CardStore
from tests.support import redis_servers
from tests.support.cluster import ClusterServer
from tests.support.node import RedisServer
from tests.support.ports import free_port

PIN_KEY = "key-for-tests"
PLAN = NumberPlan("ZA", r"\d{3,4}")
ACCOUNTS = {
    "acme": Account(
        token="acme-cards-token",
        realm="acme.example",
        caller_id=CallerId("+27115550000", "Acme"),
        caller_ids=["+27115550001"],
        call_restriction={"international": Rule("deny")},
        users={"u1": User({"mobile": Rule("deny")})},
        limits=Limits(calls_per_hour=100),
        card_limits=Limits(longest_call=600),
    ),
    "other": Account(token="other-cards-token"),
}


@pytest.fixture(autouse=True)
def refusals(monkeypatch: pytest.MonkeyPatch) -> documents.Refusals:
    """The versions that were refused: none yet."""
    fresh = documents.Refusals()
    monkeypatch.setattr(documents, "refusals", fresh)
    return fresh


@pytest.fixture(scope="session")
def alone() -> Iterator[RedisServer]:
    yield from _running(RedisServer())


@pytest.fixture(scope="session")
def cluster() -> Iterator[RedisServer]:
    yield from _running(ClusterServer())


@pytest.fixture(scope="session")
def redis_62() -> Iterator[RedisServer]:
    yield from _running(RedisServer(program=redis_servers.program("6.2")))


@pytest.fixture(scope="session")
def cluster_62() -> Iterator[RedisServer]:
    yield from _running(ClusterServer(redis_servers.program("6.2")))


@pytest.fixture(scope="session")
def valkey() -> Iterator[RedisServer]:
    yield from _running(RedisServer(program=redis_servers.program("valkey")))


def _running(server: RedisServer) -> Iterator[RedisServer]:
    yield server
    server.close()


@pytest.fixture(
    params=["redis_62", "cluster", "valkey", *(["alone", "cluster_62"] if "ALL_REDIS" in os.environ else [])]
)
def server(request: pytest.FixtureRequest) -> RedisServer:
    """The machine's Redis, and both ends of what is supported (``tests/support/redis_servers.py``)."""
    found: RedisServer = request.getfixturevalue(request.param)
    found.client.flushall()
    # Redis loses scripts when it restarts or fails over, so every test begins without any.
    found.client.script_flush()
    return found


@pytest.fixture
def connect(server: RedisServer) -> Callable[[], Any]:
    """Another client of the server, as another node would have."""
    return lambda: redis_client.connect(server.url)


@pytest.fixture
def client(connect: Callable[[], Any]) -> Any:
    return connect()


@pytest.fixture
def cards(client: Any) -> CardStore:
    return CardStore(client, PIN_KEY, PLAN, ACCOUNTS)


@pytest.fixture
def away() -> Any:
    """A client whose Redis is down."""
    return redis_client.connect(f"redis://127.0.0.1:{free_port()}/0")


def everything(server: RedisServer) -> str:
    """All keys, members, fields and values of a Redis, as one text."""
    found: list[Any] = []
    client = server.client
    readers = {
        "string": client.get,
        "hash": client.hgetall,
        "set": client.smembers,
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        "list": lambda key: client.lrange(key, 0, -1),
    }
    for key in sorted(client.scan_iter()):
        found.append((key, readers[client.type(key)](key)))
    return repr(found)


def commands(server: RedisServer, ask: Callable[[], object]) -> int:
    """The number of commands that Redis was sent."""
    client: Any = redispy.Redis(port=server.port)
    before: int = client.info("stats")["total_commands_processed"]
    ask()
    after: int = client.info("stats")["total_commands_processed"]
    return after - before - 1
