"""Nodes of two releases share one Redis while calls are up, and a call survives an upgrade and a rollback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from esl_apps.store import keys
from tests.conftest import on_the_sandbox
from tests.rig.base import Rig, Script, eventually
from tests.support import ROOT, releases
from tests.support.callers import AGENT, CALLEE
from tests.support.node import Node, RedisServer, configuration, request

pytestmark = on_the_sandbox


class ReleaseNode(Node):
    """A node that can be started as another release."""

    code = ROOT

    def __init__(self, config: dict[str, Any], code: Path) -> None:
        self.code = code
        super().__init__(config)

    def _spawn(self, log: BinaryIO) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "esl_apps", "serve", "-c", str(self.file)]
        return subprocess.Popen(command, cwd=self.code, stdout=log, stderr=log, env=dict(os.environ))

    def kill(self) -> None:
        self.stop(signal.SIGKILL)


@pytest.fixture
def node_of(rig: Rig, redis: RedisServer) -> Iterator[Callable[[Path], ReleaseNode]]:
    rig.reset()
    redis.client.flushdb()
    nodes: list[ReleaseNode] = []

    def start(code: Path) -> ReleaseNode:
        config = configuration(rig, redis)
        config["node"]["drain_timeout"] = 0.2
        nodes.append(ReleaseNode(config, code))
        return nodes[-1]

    yield start
    for node in nodes:
        node.stop()
        assert "Traceback" not in node.log.read_text(), node.log.read_text()
    rig.reset()
    # A node of the next module isn't ready while it meets what a later release has written.
    redis.flush()


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return releases.earlier(releases.BEFORE_VERSIONS, tmp_path_factory.mktemp("old") / "release")
    except releases.NoHistory as error:
        pytest.skip(str(error))


def talking(rig: Rig, node: Node) -> tuple[str, Any]:
    rig.phone(AGENT, Script(answer_after=0.1))
    callee = rig.outside(CALLEE, Script(answer_after=0.1))
    ref = node.call(AGENT, CALLEE, metadata={"order": "4711"})
    eventually(lambda: node.get(ref)["state"] == "bridged")
    return ref, callee


def owner(redis: RedisServer, ref: str) -> str:
    """The node that has a live call."""
    names = {boot: json.loads(raw)[0] for boot, raw in redis.client.hgetall(keys.NODES).items()}
    return next((names.get(boot, "") for boot in names if redis.client.hexists(keys.live(boot), ref)), "")


def adopted_by(redis: RedisServer, ref: str, node: Node) -> None:
    eventually(lambda: owner(redis, ref) == node.config["node"]["name"])


def ends_well(redis: RedisServer, ref: str, callee: Any) -> dict[str, Any]:
    """Hang up and return the only record."""
    callee.calls[-1].hangup()
    record = redis.pop(timeout=20)
    assert (record["call_ref"], record["end_reason"], record["hung_up_by"]) == (ref, "answered", "callee")
    assert record["metadata"] == {"order": "4711"}
    assert redis.client.llen("enigma:notifications:cdr") == 0
    assert redis.live() == []
    return record


def test_calls_survive_a_rolling_upgrade_and_rolling_back(
    rig: Rig, redis: RedisServer, node_of: Callable[[Path], ReleaseNode], old: Path
) -> None:
    """From the commit before documents had versions. Each step leaves the call to a node of the other release."""
    first, second = node_of(old), node_of(old)
    ref, callee = talking(rig, first)

    def become(node: ReleaseNode, code: Path, other: ReleaseNode, *, kill: bool = False) -> None:
        """Stop a node, whose call goes to the other one, and start it as another release."""
        assert node.stop(signal.SIGKILL if kill else signal.SIGTERM) == (-signal.SIGKILL if kill else 0)
        adopted_by(redis, ref, other)
        node.code = code
        node.start()

    become(first, ROOT, second)
    become(second, ROOT, first)
    become(first, old, second, kill=True)
    become(second, old, first)
    ends_well(redis, ref, callee)


@pytest.mark.parametrize("killed", ["newer", "older"])
def test_call_of_one_version_ahead_moves_both_ways(
    rig: Rig, redis: RedisServer, node_of: Callable[[Path], ReleaseNode], tmp_path: Path, killed: str
) -> None:
    ahead = releases.later(2, tmp_path / "ahead")
    newer, older = node_of(ahead), node_of(ROOT)
    begins, takes = (newer, older) if killed == "newer" else (older, newer)
    ref, callee = talking(rig, begins)
    begins.kill()
    adopted_by(redis, ref, takes)
    # Of two processes that have it for a moment, one is about to forget it.
    eventually(lambda: len(redis.live()) == 1)
    (live,) = map(json.loads, redis.live())
    # What has been of version 2 stays it, also when an older node writes it.
    assert live["v"] == 2
    begins.start()
    takes.kill()
    adopted_by(redis, ref, begins)
    takes.start()
    ends_well(redis, ref, callee)
    assert not [line for node in (newer, older) for line in node.lines() if line["event"] == "version_refused"]


def test_call_two_versions_ahead_is_left_to_nodes_that_read_it(
    rig: Rig, redis: RedisServer, node_of: Callable[[Path], ReleaseNode], tmp_path: Path
) -> None:
    ahead = releases.later(3, tmp_path / "ahead")
    newer, stale = node_of(ahead), node_of(ROOT)
    ref, callee = talking(rig, newer)
    before = redis.live()
    newer.kill()
    said = "a live call is of version 3, this node reads 1 to 2: upgrade this node"
    eventually(lambda: said in request(stale.admin, "GET", "/readyz").body.decode())
    assert request(stale.admin, "GET", "/readyz").status == 503
    assert redis.live() == before
    newer.start()
    ends_well(redis, ref, callee)
    assert "version_refused" in {line["event"] for line in stale.lines()}
