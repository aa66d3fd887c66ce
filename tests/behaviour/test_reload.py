"""SIGHUP: a node applies its configuration file whole, or refuses it whole."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rig.base import Script, eventually
from tests.rig.sandbox import SandboxRig
from tests.support.callers import DIALTONE, DISA
from tests.support.node import ADMIN_TOKEN, TOKEN, Node, RedisServer, asks, configuration, request


@pytest.fixture(scope="module")
def reloadable(sandbox: SandboxRig, redis: RedisServer) -> Iterator[Node]:
    node = Node(configuration(sandbox, redis))
    yield node
    node.end()


@pytest.fixture
def node(reloadable: Node) -> Iterator[Node]:
    before = json.dumps(reloadable.config)
    yield reloadable
    reloadable.config = json.loads(before)
    reloadable.reload(before)


def dry_run(node: Node, **fields: str) -> Any:
    return request(node.api, "POST", "/click2dial/calls?dry_run=1", {"agent": "1000", "callee": "0820001234", **fields})


def test_reload_applies_patterns_tokens_and_caller_ids(node: Node) -> None:
    acme = node.config["integrators"][0]
    acme.update(token="new-token", caller_ids=["27115559999"], patterns={"agent": "7\\d{3}"})
    assert node.reload(json.dumps(node.config)) == "config_reloaded"
    body = {"agent": "7000", "callee": "0820001234", "outbound_id": "27115559999"}
    answer = request(node.api, "POST", "/click2dial/calls?dry_run=1", body, token="new-token")
    assert answer.json["ok"], answer.json
    assert request(node.api, "GET", "/click2dial/calls", token=TOKEN).status == 401


def test_reload_with_one_mistake_changes_nothing(node: Node) -> None:
    acme = node.config["integrators"][0]
    acme.update(token="new-token", caller_ids=["27115559999"])
    node.config["inbound"] = {"27115550000": {"integrator": "nobody", "agents": ["1000"]}}
    told = node.reload(json.dumps(node.config, indent=1))
    assert re.match(
        r"config_reload_refused: .*esl_apps\.yml:\d+: inbound\.27115550000\.integrator: no such integrator", told
    )
    assert dry_run(node, outbound_id="27115550000").json["ok"]
    assert not dry_run(node, outbound_id="27115559999").json["ok"]


@pytest.mark.parametrize("text", ["", "node: [", "\x00"])
def test_reload_of_a_file_that_is_not_yaml_changes_nothing(node: Node, text: str) -> None:
    assert node.reload(text).startswith("config_reload_refused: ")
    assert dry_run(node, outbound_id="27115550000").json["ok"]


@pytest.mark.parametrize("section", ["node", "redis", "switches", "admin"])
def test_reload_that_needs_a_restart_names_the_key(node: Node, section: str) -> None:
    node.config["integrators"][0]["token"] = "new-token"
    if section == "switches":
        node.config["switches"][0]["password"] = "other"
    else:
        key = {"node": "listen", "redis": "url", "admin": "listen"}[section]
        node.config[section][key] = "redis://127.0.0.1:1/0" if section == "redis" else "127.0.0.1:1"
    told = node.reload(json.dumps(node.config))
    assert told.startswith(f"config_reload_refused: {section}"), told
    assert request(node.api, "GET", "/click2dial/calls", token=TOKEN).status == 200


def test_reload_without_a_gateway_refuses_numbers_outside(node: Node) -> None:
    node.config["dial"] = {**node.config.get("dial", {}), "external": []}
    assert node.reload(json.dumps(node.config)) == "config_reloaded"
    body = {"agent": "1000", "callee": "0820001234", "outbound_id": "27115550000"}
    answer = request(node.api, "POST", "/click2dial/calls", body)
    assert answer.status == 422, answer.json
    assert "dial.external is empty" in json.dumps(answer.json)
    assert dry_run(node, callee="1001", outbound_id="27115550000").json["ok"]


def test_reload_drops_no_call(node: Node, sandbox: SandboxRig, redis: RedisServer) -> None:
    redis.client.flushdb()
    sandbox.phone("1000")
    callee = sandbox.outside("0820001234")
    ref = node.call("1000", "0820001234")
    eventually(lambda: node.get(ref)["state"] == "bridged")
    node.config["integrators"][0]["dispositions"] = "teleforge"
    assert node.reload(json.dumps(node.config)) == "config_reloaded"
    time.sleep(0.1)
    assert node.get(ref)["state"] == "bridged"
    callee.calls[0].hangup()
    assert redis.pop()["call_ref"] == ref


def test_admin_port_answers_after_a_refused_reload(node: Node) -> None:
    node.reload("{")
    assert request(node.admin, "GET", "/readyz", token=ADMIN_TOKEN).status == 200


@pytest.mark.parametrize("change", ["disa removed", "country barred", "PIN changed"])
def test_reload_ends_a_session_at_its_next_number(
    node: Node, sandbox: SandboxRig, redis: RedisServer, change: str
) -> None:
    redis.flush()
    entrance = {"pin": "4821907356", "numbers": [DISA], "interdigit": 700}
    node.config["accounts"] = {"acme": {"caller_id": {"number": "+27115550000"}, "disa": {"front": entrance}}}
    assert node.reload(json.dumps(node.config)) == "config_reloaded"
    sandbox.route(DISA, "disa/acme/front", node.config["node"]["listen"])
    callee = sandbox.outside("441234567890", Script(answer_after=0.1, tone=900))
    leg = sandbox.outside("0825556666").dial(DISA)
    eventually(lambda: asks(sandbox, "enter_pin"))
    leg.digits("4821907356")
    assert leg.hears(*DIALTONE)
    leg.digits("00441234567890#")
    assert leg.hears(900)
    acme = node.config["accounts"]["acme"]
    if change == "disa removed":
        del acme["disa"]
    elif change == "country barred":
        acme["call_restriction"] = {"international": {"action": "deny"}}
    else:
        entrance["pin"] = "1029384756"
    assert node.reload(json.dumps(node.config)) == "config_reloaded"
    callee.calls[0].hangup()
    assert leg.hears(*DIALTONE)
    leg.digits("00441234567890#")
    eventually(lambda: leg.leg.ended_at is not None)
    assert len(callee.calls) == 1
    assert [redis.pop()["end_reason"] for _ in range(2)] == ["answered", "rejected"]
