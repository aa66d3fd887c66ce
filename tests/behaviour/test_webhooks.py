"""Webhooks of a whole node: a call's record is posted, verified as receivers verify it, whatever dies in between."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from esl_apps.store import keys
from tests.chaos.receiver import Receiver
from tests.conftest import on_the_sandbox
from tests.rig.base import Rig, Script, eventually
from tests.support.node import ADMIN_TOKEN, CDRS, Node, RedisServer, configuration, request

CALLEE = "1001"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def hooked(rig: Rig, redis: RedisServer, receiver: Receiver) -> Iterator[Node]:
    rig.reset()
    redis.flush()
    node = Node(configuration(rig, redis, webhooks=[receiver.webhook("crm")]))
    yield node
    node.stop(signal.SIGKILL)


@pytest.fixture
def other(rig: Rig, redis: RedisServer, receiver: Receiver, hooked: Node) -> Iterator[Node]:
    node = Node(configuration(rig, redis, webhooks=[receiver.webhook("crm")]))
    yield node
    node.stop(signal.SIGKILL)


def call(rig: Rig, node: Node) -> str:
    rig.phone("1000", Script(answer_after=0.05))
    rig.phone(CALLEE, Script(answer_after=0.05, hangup_after=0.1))
    return node.call("1000", CALLEE)


def test_webhook_gets_the_record_that_the_list_gets(
    rig: Rig, hooked: Node, redis: RedisServer, receiver: Receiver
) -> None:
    ref = call(rig, hooked)
    eventually(lambda: [taken.key for taken in receiver.taken] == [("cdr", ref)])
    assert receiver.taken[0].id == f"cdr_{ref}"
    assert receiver.faults == []
    record: Any = json.loads(redis.client.rpop(CDRS))["payload"]
    # Each counts its own notifications.
    assert {**receiver.payloads["cdr", ref], "seq": record["seq"]} == record
    assert record["call_ref"] == ref
    # It is marked as delivered a little later.
    eventually(lambda: webhooks(hooked)[0]["depth"] == 0)
    (view,) = webhooks(hooked)
    assert (view["name"], view["state"], view["last_status"]) == ("crm", "delivering", 204)


@on_the_sandbox
def test_webhook_is_delivered_by_the_next_run(rig: Rig, hooked: Node, receiver: Receiver) -> None:
    receiver.misbehave("answers 500")
    ref = call(rig, hooked)
    eventually(lambda: webhooks(hooked)[0]["state"] == "failing")
    hooked.stop(signal.SIGKILL)
    receiver.mend()
    hooked.start()
    eventually(lambda: [taken.key for taken in receiver.taken] == [("cdr", ref)])
    assert receiver.taken[0].id == f"cdr_{ref}"


@on_the_sandbox
def test_webhook_of_a_node_that_was_stopped_stays_in_order(
    hooked: Node, other: Node, redis: RedisServer, receiver: Receiver
) -> None:
    """It goes on when another node has long taken over, and its own clock hasn't told it so."""
    receiver.patience, count = 0.03, 100
    queue = keys.webhook("acme", "crm")
    sent = []
    for _ in range(count):
        seq = redis.client.incr(keys.seq(queue))
        body = {"type": "cdr", "payload": {"seq": seq, "call_ref": str(seq)}}
        sent.append(f"cdr_{seq}")
        redis.client.xadd(queue, {"seq": seq, "json": json.dumps({"id": f"cdr_{seq}", "body": body})})
    eventually(lambda: len(receiver.taken) > 5)
    holder = next(one for one in (hooked, other) if one.config["node"]["name"] == webhooks(hooked)[0]["node"])
    assert holder.process is not None
    holder.process.send_signal(signal.SIGSTOP)
    taken = len(receiver.taken)
    # The lease of a process that doesn't renew it ends after ten seconds.
    redis.client.delete(keys.webhook_lease(queue))
    eventually(lambda: len(receiver.taken) > taken + 10)
    holder.process.send_signal(signal.SIGCONT)
    eventually(lambda: webhooks(other)[0]["depth"] == 0, 60)
    ids = [one.id for one in receiver.taken]
    assert list(dict.fromkeys(ids)) == sent
    # Again came what hadn't been marked as delivered, for a quarter of a second on either side.
    assert len(ids) < count + 40
    assert receiver.faults == []


def webhooks(node: Node) -> Any:
    return request(node.admin, "GET", "/v1/webhooks", token=None, X_Auth_Token=ADMIN_TOKEN).json["data"]
