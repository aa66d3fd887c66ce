"""Whether an agent is there, as an integrator asks it; the same on the sandbox and on a real FreeSWITCH."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.rig.base import Rig, Script, eventually
from tests.support.node import Answer, Node, RedisServer, configuration, request

CALLEE = "0820001234"


def told(ask: Callable[[], Answer]) -> Answer:
    """What a node answers once its switch has told it. On a busy machine that may take longer than a request waits."""
    answers: list[Answer] = []

    def answered() -> bool:
        answers.append(ask())
        return answers[-1].status != 503 and answers[-1].json.get("state") != "unknown"

    eventually(answered)
    return answers[-1]


def agent(node: Node, extension: str = "1000") -> dict[str, Any]:
    answer = told(lambda: request(node.api, "GET", f"/click2dial/agents/{extension}"))
    assert answer.status == 200, answer.body
    return dict(answer.json)


def place(node: Node, **options: Any) -> Answer:
    return told(lambda: node.post("1000", CALLEE, **options))


@pytest.fixture(scope="module")
def other_node(rig: Rig, module_node: Node, redis: RedisServer) -> Iterator[Node]:
    """A second node with the same switch and the same Redis."""
    made = Node(configuration(rig, redis))
    yield made
    assert made.stop() == 0


def test_agent_in_another_nodes_call_is_busy_here(rig: Rig, node: Node, other_node: Node, redis: RedisServer) -> None:
    phone = rig.phone("1000", Script(answer_after=0.1))
    rig.outside(CALLEE, Script(answer_after=0.1))
    assert agent(node) == {"extension": "1000", "registered": True, "state": "idle", "calls": []}
    eventually(lambda: place(node, require_agent="idle", query="?dry_run=1").json["ok"])
    ref = place(other_node, require_agent="idle").json["call_ref"]
    eventually(lambda: phone.calls)
    eventually(lambda: agent(node)["state"] == "busy")
    assert agent(node)["calls"] == [ref]
    # As one of several: the first request of a connection costs more, and the machine may be busy.
    took = []
    for _ in range(20):
        began = time.monotonic()
        refused = node.post("1000", CALLEE, require_agent="idle")
        if refused.status == 503:
            continue
        took.append(time.monotonic() - began)
        assert refused.status == 409
        (error,) = refused.json["errors"]
        assert (error["code"], error["reason"]) == ("agent_unavailable", "busy")
    assert min(took) < 0.05
    assert len(phone.calls) == 1
    phone.calls[0].hangup()
    assert redis.pop()["call_ref"] == ref
    eventually(lambda: agent(node)["state"] == "idle")


def test_agent_who_dials_with_their_own_phone_is_busy(
    rig: Rig, node: Node, other_node: Node, redis: RedisServer
) -> None:
    rig.route(CALLEE, "click2dial", other_node.config["node"]["listen"])
    rig.outside(CALLEE, Script(answer_after=0.1))
    leg = rig.phone("1000").dial(CALLEE, {"X-Teleforge-Outbound-ID": "27115550000"})
    eventually(lambda: leg.leg.answered_at is not None)
    eventually(lambda: agent(node)["state"] == "busy")
    found = agent(node)["calls"]
    leg.hangup()
    assert [redis.pop()["call_ref"]] == found


def test_agent_without_a_registration_is_not_rung(rig: Rig, node: Node) -> None:
    rig.phone("1000").unregister()
    eventually(lambda: agent(node)["registered"] is False)
    refused = place(node, require_agent="registered")
    assert refused.status == 409
    assert refused.json["errors"][0]["reason"] == "not_registered"
