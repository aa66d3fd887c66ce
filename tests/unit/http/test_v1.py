"""``/v1`` of the operator's port, over a node's parts and a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import pytest
from msgspec import structs
from prometheus_client import CollectorRegistry

from esl_apps.config.webhooks import Webhook
from esl_apps.core import terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.timed_call import Frequency
from esl_apps.http import admin
from esl_apps.node.reporting import Reporter
from esl_apps.operations import switches
from esl_apps.store import keys, redis_client
from tests.support.bench import Bench, Breakable
from tests.support.http_client import HttpClient
from tests.support.node import RedisServer
from tests.support.peer import eventually

TOKENS = [
    {"name": "wallboard", "token": "the-wallboards-token", "scopes": ["read"]},
    {"name": "noc", "token": "the-nocs-token-for-tests", "scopes": ["read", "operate"]},
    {"name": "shop", "token": "the-shops-token-for-tests", "scopes": ["cards"]},
]
SPENDING = {"breaker": {"calls_per_hour": 100}}


class Operator:
    """A node of which the operator's port is asked."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.services = bench.services
        self._client = HttpClient(admin.build(bench.services, bench.outgoing, CollectorRegistry()))

    def ask(self, method: str, path: str, *, token: str = "the-nocs-token-for-tests", **more: Any) -> Any:
        return self._client.simulate_request(method, path, headers={"X-Auth-Token": token}, **more)

    def data(self, path: str, **more: Any) -> Any:
        result = self.ask("GET", path, **more)
        assert result.status_code == 200, result.text
        return result.json["data"]


@pytest.fixture
def operator(redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Operator]:
    redis.client.flushall()
    monkeypatch.setattr(redis_client, "is_patched", lambda: True)
    connect = redis_client.connect
    monkeypatch.setattr(redis_client, "connect", lambda url, **more: Breakable(connect(url, **more)))
    tokens = {"token": "admin-token-for-tests", "tokens": TOKENS, "rate": {"per_token": None, "per_address": None}}
    with gevent.Timeout(30):
        bench = Bench(redis, tmp_path, admin=tokens, spending=SPENDING).connect()
        bench.services.membership.say()
        yield Operator(bench)
        bench.close()


def call(operator: Operator, app: str = "disa", *, ended: bool = False, **fields: Any) -> Attempt:
    """A call of this node that Redis knows."""
    attempt = Attempt(**{"app": app, "call_dir": "external", "switch": "fs1", "number": "+27820001234", **fields})
    operator.services.calls.begin(attempt, operator.services.switches[0])
    attempt.dialled(attempt.queued_at)
    if ended:
        attempt.end(terms.REJECTED, 21, terms.SYSTEM, attempt.queued_at + 1)
    attempt.save()
    operator.bench.flush()
    return attempt


# Webhooks -------------------------------------------------------------------------------------------------


@pytest.fixture
def hooked(operator: Operator, redis: RedisServer) -> Operator:
    """Its integrator has a webhook with three notifications, of which one was delivered."""
    policies = operator.services.policies
    hook = Webhook(name="crm", url="https://crm.example.com/secret-path", secrets=["whsec_" + "QUJD" * 8])
    (acme,) = policies.now.config.integrators
    config = structs.replace(policies.now.config, integrators=[structs.replace(acme, webhooks=[hook])])
    policies.now = replace(policies.now, config=config)
    queue, client = keys.webhook("acme", "crm"), redis.client
    for seq in (1, 2, 3):
        client.xadd(queue, {"seq": client.incr(keys.seq(queue)), "json": "{}"}, id=f"{seq * 1000}-0")
    client.hset(keys.webhook_state(queue), mapping={"done": "1000-0", "seq": 1, "status": 200, "delivered_at": 7.5})
    client.set(keys.webhook_lease(queue), operator.services.membership.boot)
    return operator


def test_webhooks_show_depth_age_and_last_status(hooked: Operator) -> None:
    (view,) = hooked.data("/v1/webhooks")
    assert (view["name"], view["integrator"], view["host"]) == ("crm", "acme", "crm.example.com")
    assert (view["state"], view["depth"], view["last_status"], view["node"]) == ("delivering", 2, 200, "app1")
    assert view["oldest_seconds"] > 1e9
    assert "secret" not in str(view)


def test_webhook_replay_goes_back(hooked: Operator) -> None:
    result = hooked.ask("POST", "/v1/webhooks/crm/replay", json={"since": 0.5})
    assert (result.status_code, result.json["data"]["waiting"]) == (200, 3)
    assert hooked.data("/v1/webhooks")[0]["depth"] == 3


@pytest.mark.parametrize(
    ("name", "body", "status", "field"),
    [
        ("other", {"since": 1}, 404, "name"),
        ("crm", {}, 422, "since"),
        ("crm", {"since": "yesterday"}, 422, "since"),
        ("crm", {"since": True}, 422, "since"),
        ("crm", {"since": -1}, 422, "since"),
        ("crm", {"since": 1e300}, 422, "since"),
        ("crm", {"since": 1, "until": 2}, 422, "until"),
    ],
)
def test_webhook_replay_refuses_what_it_does_not_know(
    hooked: Operator, name: str, body: Any, status: int, field: str
) -> None:
    result = hooked.ask("POST", f"/v1/webhooks/{name}/replay", json=body)
    assert (result.status_code, result.json["errors"][0]["field"]) == (status, field)
    assert hooked.data("/v1/webhooks")[0]["depth"] == 2


def test_webhook_replay_needs_the_scope_operate(hooked: Operator) -> None:
    result = hooked.ask("POST", "/v1/webhooks/crm/replay", json={"since": 0}, token="the-wallboards-token")
    assert result.status_code == 403


# Tokens ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "read", "operate"),
    [
        ("admin-token-for-tests", 200, 200),
        ("the-nocs-token-for-tests", 200, 200),
        ("the-wallboards-token", 200, 403),
        ("the-shops-token-for-tests", 403, 403),
        ("acme-cards-token", 401, 401),
        ("acme-token-for-tests", 401, 401),
        ("", 401, 401),
    ],
)
def test_v1_admits_operators_by_scope(operator: Operator, token: str, read: int, operate: int) -> None:
    Reporter(operator.services).beat()
    assert operator.ask("GET", "/v1/status", token=token).status_code == read
    assert operator.ask("POST", "/v1/switches/fs1/pause", token=token).status_code == operate
    assert set(switches.pauses(operator.services.redis)) == ({"fs1"} if operate == 200 else set())


def test_v1_without_redis_is_503(operator: Operator) -> None:
    operator.bench.redis.break_after(0)
    for path in ("status", "nodes", "switches", "calls", "calls?live=true", "locks", "breakers", "callbacks"):
        assert operator.ask("GET", f"/v1/{path}").status_code == 503, path


# Nodes and switches ---------------------------------------------------------------------------------------


def test_v1_status_sums_up_what_processes_report(operator: Operator) -> None:
    call(operator)
    Reporter(operator.services).beat()
    status = operator.data("/v1/status")
    assert (status["node"], status["nodes"], status["live"], status["reasons"]) == ("app1", 1, 1, [])


def test_v1_nodes_lists_each_process_with_its_report(operator: Operator) -> None:
    (node,) = operator.data("/v1/nodes")
    assert (node["name"], node["alive"], node["report"]) == ("app1", True, None)
    call(operator)
    Reporter(operator.services).beat()
    (node,) = operator.data("/v1/nodes")
    assert node["report"]["live"] == {"disa": 1}
    assert node["report"]["max_calls"] == 5000
    operator.services.redis.set(keys.report(node["boot"]), b'{"node": 7}')
    assert operator.data("/v1/nodes")[0]["report"] is None


def test_v1_switch_paused_takes_no_call_until_resumed(operator: Operator) -> None:
    Reporter(operator.services).beat()
    (switch,) = operator.data("/v1/switches")
    assert (switch["name"], switch["connected"], switch["paused"]) == ("fs1", True, None)
    assert operator.ask("POST", "/v1/switches/nowhere/pause").status_code == 404
    assert operator.ask("POST", "/v1/switches/fs1/pause").json["data"] == {"name": "fs1", "changed": True}
    assert operator.ask("POST", "/v1/switches/fs1/pause").json["data"]["changed"] is False
    assert operator.data("/v1/switches")[0]["paused"]["by"] == "admin/noc"
    assert operator.services.switch_pool.best() is None
    assert operator.services.readiness.reasons() == ["switch fs1: paused"]
    assert operator.ask("POST", "/v1/switches/fs1/resume").json["data"]["changed"] is True
    assert operator.services.switch_pool.best() is not None
    assert operator.services.readiness.reasons() == []


def test_reporter_goes_on_when_redis_is_back(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esl_apps.operations.reports.EVERY", 0.001)
    reporter = Reporter(operator.services)
    operator.bench.redis.break_after(0)
    reporter.start()
    gevent.sleep(0.005)
    operator.bench.redis.mend()
    eventually(lambda: operator.bench.redis_server.client.exists(keys.report(operator.services.membership.boot)))
    reporter.stop()


# Calls ----------------------------------------------------------------------------------------------------


def test_v1_calls_lists_all_applications_by_page(operator: Operator) -> None:
    refs = [call(operator, app).call_ref for app in ("disa", "callback")]
    refs.append(call(operator, "click2dial", integrator="acme", ended=True).call_ref)
    newest = sorted(refs, reverse=True)
    assert [one["call_ref"] for one in operator.data("/v1/calls")] == newest
    first = operator.ask("GET", "/v1/calls", params={"limit": "2"})
    assert [one["call_ref"] for one in first.json["data"]] == newest[:2]
    second = operator.ask("GET", "/v1/calls", params={"limit": "2", "before": first.json["next"]})
    assert [one["call_ref"] for one in second.json["data"]] == newest[2:]
    assert [one["app"] for one in operator.data("/v1/calls", params={"app": "callback"})] == ["callback"]
    assert [one["call_ref"] for one in operator.data("/v1/calls", params={"integrator": "acme"})] == refs[2:]


def test_v1_live_calls_have_their_age(operator: Operator) -> None:
    live = call(operator)
    call(operator, ended=True)
    (listed,) = operator.data("/v1/calls", params={"live": "true"})
    assert listed["call_ref"] == live.call_ref
    assert "age" in listed
    assert "timeline" not in listed
    assert operator.data("/v1/calls", params={"live": "true", "before": live.call_ref}) == []


@pytest.mark.parametrize(
    "params", [{"state": "x"}, {"live": "maybe"}, {"limit": "0"}, {"limit": "x"}, {"before": "x"}, {"pin": "1"}]
)
def test_v1_calls_wrong_parameter_is_422(operator: Operator, params: dict[str, str]) -> None:
    result = operator.ask("GET", "/v1/calls", params=params)
    assert (result.status_code, result.json["errors"][0]["field"]) == (422, next(iter(params)))


def test_v1_call_shows_its_timeline_and_is_ended(operator: Operator) -> None:
    live = call(operator)
    path = f"/v1/calls/{live.call_ref}"
    assert operator.data(path)["timeline"][0]["state"] == "queued"
    assert operator.ask("DELETE", path).status_code == 202
    eventually(lambda: any(f"esl_call_ref {live.call_ref}" in text for text in operator.bench.switch.heard))
    assert live.cancelled_by == "api"
    done = call(operator, ended=True)
    ended = operator.ask("DELETE", f"/v1/calls/{done.call_ref}")
    assert (ended.status_code, ended.json["data"]["record"]["end_code"]) == (200, 21)
    assert operator.ask("GET", "/v1/calls/nothing").status_code == 404
    live.end(terms.ABANDONED, 16, terms.AGENT, live.queued_at + 1)


# Locks, breakers, waiting calls ---------------------------------------------------------------------------


def test_v1_lock_with_slashes_is_lifted(operator: Operator) -> None:
    name = "entrance:disa/acme/front"
    operator.services.redis.execute_command("ZADD", keys.PIN_LOCKS, 4e9, name)
    operator.services.redis.execute_command("HSET", keys.pin_lock(name), "until", 4e9, "level", 1)
    assert [lock["name"] for lock in operator.data("/v1/locks")] == [name]
    assert operator.ask("DELETE", f"/v1/locks/{name}").status_code == 200
    assert operator.data("/v1/locks") == []
    assert operator.ask("DELETE", f"/v1/locks/{name}").status_code == 404


@pytest.mark.parametrize("scope", ["system", "account:acme", "account:acme/country:CU"])
def test_v1_breaker_is_tripped_and_reset(operator: Operator, scope: str) -> None:
    path = f"/v1/breakers/{scope}"
    assert operator.ask("POST", f"{path}/reset").status_code == 404
    assert operator.ask("POST", f"{path}/trip", json={"end_calls": True}).json["data"]["changed"] is True
    assert operator.ask("POST", f"{path}/trip").json["data"]["changed"] is False
    (tripped,) = operator.data("/v1/breakers")["tripped"]
    assert (tripped["scope"], tripped["by"], tripped["end_calls"]) == (scope, "token admin/noc", True)
    assert operator.ask("POST", f"{path}/reset").status_code == 200
    listed = operator.data("/v1/breakers")
    assert listed["tripped"] == []
    assert [line["what"] for line in listed["log"]] == ["reset", "tripped"]
    assert listed["ok"] == [{"scope": "system", "trips_over": "calls_per_hour 100"}]


def test_v1_breaker_that_has_tripped_ends_calls_once(operator: Operator) -> None:
    path = "/v1/breakers/account:acme/trip"
    bodies = None, {"end_calls": True}, {"end_calls": True}
    changed = [operator.ask("POST", path, json=body).json["data"]["changed"] for body in bodies]
    assert changed == [True, True, False]
    (tripped,) = operator.data("/v1/breakers")["tripped"]
    assert tripped["end_calls"] is True


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("account:nobody/trip", None, 404),
        ("card:x/trip", None, 404),
        ("system/trip", {"end_calls": "yes"}, 422),
        ("system/trip", {"x": 1}, 422),
    ],
)
def test_v1_breaker_wrong_request_trips_nothing(operator: Operator, path: str, body: Any, status: int) -> None:
    assert operator.ask("POST", f"/v1/breakers/{path}", json=body).status_code == status
    assert operator.data("/v1/breakers")["tripped"] == []


def test_v1_callback_is_listed_and_dropped(operator: Operator) -> None:
    store = operator.services.timed_calls["callback"]
    store.schedule("27825556666", ["card", ""], 4e9, now=1.0, frequency=Frequency())
    (waiting,) = operator.data("/v1/callbacks")
    assert (waiting["key"], waiting["placing"]) == ("callback/27825556666", False)
    assert operator.ask("DELETE", "/v1/callbacks/27825556666").json["data"]["dropped"] is True
    assert operator.ask("DELETE", "/v1/callbacks/callback/27825556666").status_code == 404
    assert operator.data("/v1/callbacks") == []


@pytest.mark.parametrize(
    ("waits", "key"),
    [
        ("27825556666", "+27825556666"),
        ("27825556666", "%2B27825556666"),
        ("27825556666", "0825556666"),
        ("447700900123", "447700900123"),
        ("447700900123", "+447700900123"),
    ],
)
def test_v1_callback_is_dropped_by_any_form_of_its_number(operator: Operator, waits: str, key: str) -> None:
    store = operator.services.timed_calls["callback"]
    store.schedule(waits, ["card", ""], 4e9, now=1.0, frequency=Frequency())
    assert operator.ask("DELETE", f"/v1/callbacks/{key}").json["data"] == {"key": f"callback/{waits}", "dropped": True}
    assert operator.data("/v1/callbacks") == []


def test_v1_action_is_logged_with_its_token(operator: Operator, caplog: pytest.LogCaptureFixture) -> None:
    operator.ask("POST", "/v1/breakers/system/trip")
    (line,) = [record for record in caplog.records if record.message == "operator_acted"]
    assert (line.by, line.action, line.target) == ("admin/noc", "breaker_trip", "system")  # type: ignore[attr-defined]
