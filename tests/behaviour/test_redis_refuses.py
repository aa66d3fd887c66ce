"""A node whose Redis answers but refuses: it is not ready, says why, keeps what it can, and goes on by itself."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from esl_apps.store import keys
from tests.rig.base import Script, eventually
from tests.rig.sandbox import SandboxRig
from tests.support import redis_servers
from tests.support.node import CDRS, Node, RedisServer, configuration, request

CALLEE, DID = "0820001234", "27115550000"


@pytest.fixture(params=["", *redis_servers.ENDS])
def redis(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    server = RedisServer(program=redis_servers.program(request.param) if request.param else "")
    yield server
    server.close()


@pytest.fixture
def node(sandbox: SandboxRig, redis: RedisServer) -> Iterator[Node]:
    config = configuration(sandbox, redis)
    config["inbound"] = {DID: {"integrator": "acme", "agents": ["1000"], "ring_timeout": 5}}
    node = Node(config)
    sandbox.phone("1000", Script(reject=486))
    yield node
    sandbox.reset()
    node.end()


def ready(node: Node) -> list[str] | None:
    """The reasons of ``/readyz``; None: ready."""
    answer = request(node.admin, "GET", "/readyz", token=None)
    reasons: list[str] = answer.json["reasons"]
    assert answer.status == (503 if reasons else 200)
    return reasons or None


def events(node: Node) -> Counter[str]:
    return Counter(json.loads(line)["event"] for line in node.log.read_text().splitlines() if line.startswith("{"))


def full(redis: RedisServer) -> Callable[[], object]:
    redis.client.config_set("maxmemory", "1")
    return lambda: redis.client.config_set("maxmemory", "0")


def replica(redis: RedisServer) -> Callable[[], object]:
    redis.client.replicaof("127.0.0.1", "1")
    return lambda: redis.client.replicaof("NO", "ONE")


def without_right(redis: RedisServer) -> Callable[[], object]:
    redis.client.execute_command("ACL", "SETUSER", "default", "-set")
    return lambda: redis.client.execute_command("ACL", "SETUSER", "default", "+set")


@pytest.mark.parametrize(
    ("refuse", "reason"),
    [
        (full, "redis: OOM, its memory is full"),
        (replica, "redis: READONLY, a read-only replica"),
        (without_right, "redis: NOPERM, its user lacks a right"),
    ],
)
def test_redis_that_refuses_writes_is_not_ready(
    node: Node,
    redis: RedisServer,
    sandbox: SandboxRig,
    refuse: Callable[[RedisServer], Callable[[], object]],
    reason: str,
) -> None:
    sandbox.route(DID, "inbound", node.config["node"]["listen"])
    caller = sandbox.outside("0825556666")
    mend = refuse(redis)
    with contextlib.ExitStack() as stack:
        stack.callback(mend)
        eventually(lambda: reason in (ready(node) or []))
        refused = node.post("1000", CALLEE)
        assert refused.status == 503
        assert refused.json["errors"][0]["message"] == reason
        # Calls that arrive go on; their records wait.
        for _ in range(20):
            caller.dial(DID)
        eventually(lambda: sandbox.live_channels() == 0)
        assert redis.client.llen(CDRS) == 0
        order = {"agent": "1000", "callee": CALLEE, "outbound_id": DID}
        dry = request(node.api, "POST", "/click2dial/calls?dry_run=1", order)
        assert reason in str(dry.json)
    eventually(lambda: ready(node) is None)
    eventually(lambda: redis.client.llen(CDRS) == 20)
    assert node.post("1000", CALLEE).status == 202
    assert events(node)["redis_write_refused"] <= 2
    assert events(node)["records_refused"] <= 2


def test_key_of_another_type_holds_up_no_other(node: Node, redis: RedisServer) -> None:
    for key in (keys.calls("acme"), "enigma:notifications:inbound"):
        redis.client.set(key, "text")
    refs = []
    for _ in range(30):
        answer = node.post("1000", CALLEE)
        assert answer.status == 202
        refs.append(answer.json["call_ref"])
    eventually(lambda: redis.client.llen(CDRS) == 30)
    assert ready(node) == ["redis: esl_apps:calls:acme: WRONGTYPE, a key is of another type"]
    assert [node.get(ref)["state"] for ref in refs] == ["ended"] * 30
    eventually(lambda: redis.live() == [])
    assert request(node.api, "GET", "/click2dial/calls").json["errors"][0]["message"] == (
        "redis: WRONGTYPE, a key is of another type"
    )
    assert events(node)["redis_write_refused"] == 1
    redis.client.delete(keys.calls("acme"))
    eventually(lambda: ready(node) is None, within=20)
    assert len(request(node.api, "GET", "/click2dial/calls").json["calls"]) == 30
