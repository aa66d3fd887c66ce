"""Helpers of the tests of transfers: the new party, the records, and a node that dies."""

from __future__ import annotations

import signal
from typing import Any

from tests.rig.base import Phone, Rig, Script, eventually
from tests.support.node import ADMIN_TOKEN, Node, RedisServer, configuration, request


def target(rig: Rig, number: str, script: Script) -> Phone:
    return rig.phone(number, script) if len(number) == 4 else rig.outside(number, script)


def records(redis: RedisServer, *refs: str) -> list[dict[str, Any]]:
    """The records of these calls, in this order; there are no others."""
    found = {record["call_ref"]: record for record in (redis.pop() for _ in refs)}
    assert redis.client.llen("enigma:notifications:cdr") == 0
    return [found[ref] for ref in refs]


def kill(node: Node) -> None:
    assert node.process is not None
    node.process.send_signal(signal.SIGKILL)
    node.process.wait()


def dying_node(rig: Rig, redis: RedisServer, **changes: str) -> Node:
    config = configuration(rig, redis, record=True, payload="v4")
    config["node"].update(changes)
    node = Node(config)
    # It knows the module's node from its second beat on.
    eventually(lambda: len(request(node.admin, "GET", "/v1/nodes", token=ADMIN_TOKEN).json["data"]) >= 2)
    return node
