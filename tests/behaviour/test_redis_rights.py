"""Calls with a user of Redis that has exactly the rights of the manual, and with one that may not ask INFO."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from esl_apps.store.commands import acl_rule
from tests.rig.base import Script, eventually
from tests.rig.sandbox import SandboxRig
from tests.support import ROOT, redis_servers
from tests.support.cluster import ClusterServer
from tests.support.node import ADMIN_TOKEN, CDRS, Node, RedisServer, configuration, request

CALLEE, DID, PASSWORD = "0820001234", "27115550000", "a/b#c?d%e@f:g"
QUOTED = "a%2Fb%23c%3Fd%25e%40f%3Ag"
#: As the manual has it, and as hosted Redis has it.
RIGHTS = {"least": acl_rule(), "hosted": "~* +@all -@dangerous"}


@pytest.fixture(params=["", *redis_servers.ENDS])
def redis(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    server = RedisServer(program=redis_servers.program(request.param) if request.param else "")
    yield server
    server.close()


def grant(server: RedisServer, rights: str) -> str:
    """Make a user with these rights; return its URL."""
    server.client.execute_command("ACL", "SETUSER", "esl_apps", "reset", "on", f">{PASSWORD}", *rights.split())
    return server.url.replace("://", f"://esl_apps:{QUOTED}@")


@pytest.fixture
def start(sandbox: SandboxRig) -> Iterator[Callable[..., Node]]:
    nodes: list[Node] = []

    def make(redis: RedisServer, url: str) -> Node:
        config = configuration(sandbox, redis)
        config["redis"]["url"] = url
        config["pin_key"] = "key-for-tests"
        config["inbound"] = {DID: {"integrator": "acme", "agents": ["1000"], "ring_timeout": 5}}
        limits = {"calls_per_hour": 100, "minutes_per_day": 100}
        config["accounts"] = {
            "acme": {"caller_id": {"number": "+27115550000"}, "integrator": "acme", "limits": limits, "token": "t" * 20}
        }
        nodes.append(Node(config))
        return nodes[-1]

    yield make
    sandbox.reset()
    for node in nodes:
        node.end()
        log = node.log.read_text()
        assert not re.search("NOPERM|a/b#c|%2Fb%23", log), log


def whole_calls(node: Node, sandbox: SandboxRig, redis: RedisServer) -> None:
    """Place, list and end a call, twice with one key; be called; make a card, read it and delete it."""
    sandbox.phone("1000", Script(answer_after=0.0))
    sandbox.outside(CALLEE, Script(answer_after=0.0))
    sandbox.route(DID, "inbound", node.config["node"]["listen"])
    order = {"agent": "1000", "callee": CALLEE, "outbound_id": DID}
    answers = [request(node.api, "POST", "/click2dial/calls", order, Idempotency_Key="k") for _ in range(2)]
    assert [answer.status for answer in answers] == [202, 202]
    (ref,) = {answer.json["call_ref"] for answer in answers}
    eventually(lambda: node.get(ref)["state"] == "bridged")
    assert request(node.api, "GET", "/click2dial/calls").status == 200
    assert node.delete(ref).status == 202
    assert redis.pop()["call_ref"] == ref
    leg = sandbox.outside("0825556666").dial(DID)
    eventually(lambda: redis.client.llen("enigma:notifications:inbound") == 1)
    leg.hangup()
    assert redis.pop()["ref"] == "inbound"
    card: Any = {"data": {"cid": "+27825557777", "active": True}}
    cards = "/v2/accounts/acme/cccps"
    made = request(node.admin, "PUT", cards, card, token=ADMIN_TOKEN)
    assert made.status in (200, 201), made.body
    id = made.json["data"]["id"]
    assert request(node.admin, "GET", cards, token=ADMIN_TOKEN).status == 200
    assert request(node.admin, "DELETE", f"{cards}/{id}", token=ADMIN_TOKEN).status == 200
    assert request(node.admin, "GET", "/readyz", token=None).json["reasons"] == []


@pytest.mark.parametrize("rights", RIGHTS)
def test_calls_work_with_few_rights(
    start: Callable[..., Node], sandbox: SandboxRig, redis: RedisServer, rights: str
) -> None:
    node = start(redis, grant(redis, RIGHTS[rights]))
    whole_calls(node, sandbox, redis)


def test_records_survive_an_empty_redis_without_info(
    start: Callable[..., Node], sandbox: SandboxRig, redis: RedisServer
) -> None:
    node = start(redis, grant(redis, RIGHTS["hosted"]))
    sandbox.phone("1000", Script(reject=486))
    refs = {node.call("1000", CALLEE) for _ in range(5)}
    eventually(lambda: redis.client.llen(CDRS) == 5)
    redis.kill()
    redis.start()
    grant(redis, RIGHTS["hosted"])
    assert {redis.pop()["call_ref"] for _ in range(5)} == refs
    assert redis.client.llen(CDRS) == 0


def test_calls_work_with_the_least_rights_of_a_cluster(start: Callable[..., Node], sandbox: SandboxRig) -> None:
    server = ClusterServer(redis_servers.program("6.2"))
    try:
        page = " ".join((ROOT / "docs/howto/give-redis-a-user.rst").read_text().split())
        more = "+cluster|slots +command"
        assert f"``{more}``" in page
        node = start(server, grant(server, f"{acl_rule()} {more}"))
        whole_calls(node, sandbox, server)
    finally:
        server.close()


def test_start_logs_what_makes_redis_unfit(start: Callable[..., Node], sandbox: SandboxRig, redis: RedisServer) -> None:
    redis.client.config_set("maxmemory-policy", "allkeys-lru")
    node = start(redis, redis.url)

    def unfit() -> list[str]:
        lines = [json.loads(line) for line in node.log.read_text().splitlines() if line.startswith("{")]
        return [line["reason"] for line in lines if line["event"] == "redis_unfit"]

    eventually(lambda: unfit() != [])
    (reason,) = unfit()
    assert "noeviction" in reason
    assert "cards" in reason
