"""One node from its start to its end: what it opens, what a reload changes, and how it drains."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest
from gevent import socket

from esl_apps import __version__
from esl_apps.config.model import Config
from esl_apps.config.problems import ConfigError
from esl_apps.core.limits import SYSTEM
from esl_apps.node.node import Node
from esl_apps.node.workers import Share
from esl_apps.store import keys, redis_client
from esl_apps.store import outbox as outbox_module
from esl_apps.store.breakers import Breakers
from tests.support.bench import DID, node_config, placed
from tests.support.node import CDRS, RedisServer
from tests.support.peer import FakeSwitch, dial, eventually
from tests.support.ports import free_port


@pytest.fixture
def switch() -> Iterator[FakeSwitch]:
    played = FakeSwitch()
    yield played
    played.close()


@pytest.fixture
def config(redis: RedisServer, tmp_path: Path, switch: FakeSwitch) -> Config:
    redis.client.flushall()
    return with_node(node_config(redis.url, tmp_path, {"fs1": switch.address}), listen=f"127.0.0.1:{free_port()}")


def with_node(config: Config, **fields: Any) -> Config:
    return msgspec.structs.replace(config, node=msgspec.structs.replace(config.node, drain_timeout=5.0, **fields))


@pytest.fixture
def node(config: Config) -> Iterator[Node]:
    """A node that has started."""
    made = Node(config)
    made.start()
    yield made
    if not made.services.readiness.stopped.is_set():
        stop(made, 0.0)


def stop(node: Node, seconds: float) -> None:
    """Stop it, and give its calls so long to end."""
    policies = node.services.policies
    config = policies.now.config
    drains = msgspec.structs.replace(config, node=msgspec.structs.replace(config.node, drain_timeout=seconds))
    policies.now = replace(policies.now, config=drains)
    node.stop()


def port_of(config: Config) -> int:
    return int(config.node.listen.rpartition(":")[2])


def sample(node: Node, name: str, **labels: str) -> float | None:
    value: float | None = node.services.metrics.registry.get_sample_value(name, labels)
    return value


# Start --------------------------------------------------------------------------------------------------


def test_node_takes_calls_once_started(node: Node, config: Config, redis: RedisServer) -> None:
    assert node.services.readiness.reasons() == []
    assert redis.client.hexists(keys.NODES, node.services.membership.boot)
    peer = dial(port_of(config))
    assert peer.expect("connect")
    eventually(lambda: sample(node, "esl_apps_outbound_sockets") == 1.0)
    peer.close()
    eventually(lambda: node.services.readiness.sockets == 0)


def test_node_starts_without_its_switch(config: Config, switch: FakeSwitch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first wait is bounded."""
    switch.close()
    node = Node(config)
    monkeypatch.setattr(node.services.switches[0], "wait_up", lambda _seconds: gevent.sleep(0.001))
    node.start()
    assert node.services.readiness.reasons()[0].startswith("switch fs1: ")
    stop(node, 0.0)


def test_node_address_in_use_is_a_fault_of_the_configuration(config: Config) -> None:
    with socket.create_server(("127.0.0.1", port_of(config))), pytest.raises(ConfigError, match=r"node\.listen"):
        Node(config)


def test_node_worker_address_in_use_names_the_workers_ports(config: Config) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    common = socket.create_server(("127.0.0.1", 0))
    share = Share(1, {config.node.listen: common.detach()}, -1, -1, [f"esl_apps.test.{port}"])
    with pytest.raises(ConfigError, match=r"node\.worker_ports"):
        Node(with_node(config, worker_ports=port), share)
    taken.close()


def test_node_of_a_worker_has_its_name_and_both_ports(config: Config) -> None:
    common = socket.create_server(("127.0.0.1", port_of(config)))
    own = free_port()
    share = Share(2, {config.node.listen: common.detach()}, -1, -1, ["esl_apps.test.1", f"esl_apps.test.{own}"], 3)
    node = Node(with_node(config, worker_ports=own - 1), share)
    node.start()
    assert node.services.membership.name == "app1-2"
    assert sample(node, "esl_apps_worker_restarts_total") == 3.0
    for port in (port_of(config), own):
        peer = dial(port)
        assert peer.expect("connect")
        peer.close()
    assert node.scrapes is not None
    node.scrapes.stop()
    stop(node, 0.0)


def test_node_metrics_name_its_versions(node: Node) -> None:
    (info,) = [metric for metric in node.services.metrics.registry.collect() if metric.name == "esl_apps_build_info"]
    labels = {"node": "app1", "version": __version__, "python": platform.python_version()}
    assert [(sample.labels, sample.value) for sample in info.samples] == [(labels, 1.0)]


def test_node_metrics_show_whether_calls_are_taken(node: Node, config: Config) -> None:
    assert (sample(node, "esl_apps_ready"), sample(node, "esl_apps_redis_up")) == (1.0, 1.0)
    assert sample(node, "esl_apps_max_calls") == config.node.max_calls
    node.services.store.watch._trouble = "redis: no answer"
    assert (sample(node, "esl_apps_ready"), sample(node, "esl_apps_redis_up")) == (0.0, 0.0)


def test_node_metrics_begin_what_alarms_count_at_0(node: Node) -> None:
    """Prometheus sees no increase in a series that begins with 1."""
    assert sample(node, "esl_apps_calls_total", app="disa", end_reason="lost") == 0.0
    assert sample(node, "esl_apps_alerts_total", alert="pin_lock") == 0.0
    assert sample(node, "esl_apps_worker_restarts_total") == 0.0


def test_node_metrics_measure_redis(node: Node) -> None:
    before = sample(node, "esl_apps_redis_round_trip_seconds_count", redis="main") or 0.0
    node.services.redis.ping()
    node.services.redis.send_all([("GET", "a"), ("GET", "b")])
    assert (sample(node, "esl_apps_redis_round_trip_seconds_count", redis="main") or 0.0) >= before + 2


def test_node_metrics_show_what_is_known_now(node: Node) -> None:
    node.services.calls.begin(placed().attempt, node.services.switches[0])
    assert sample(node, "esl_apps_live_calls", app="click-dial") == 1.0
    assert sample(node, "esl_apps_live_calls", app="inbound") == 0.0
    assert sample(node, "esl_apps_switch_load", switch="fs1") == 0.0
    assert sample(node, "esl_apps_switch_out", switch="fs1") == 0.0
    assert sample(node, "esl_apps_breakers_tripped") == 0.0
    assert sample(node, "esl_apps_outbox_depth", outbox="main") == 0.0
    assert sample(node, "esl_apps_outbox_failing_seconds", outbox="history") == 0.0


def test_node_without_a_console_keeps_no_history(node: Node) -> None:
    assert node.history is None


def test_node_with_a_console_keeps_a_history(config: Config) -> None:
    admin = msgspec.structs.replace(config.admin, console=True)
    node = Node(msgspec.structs.replace(config, admin=admin))
    node.start()
    assert node.history is not None
    history = node.history
    eventually(lambda: history.samples)
    stop(node, 0.0)


def test_node_knows_tripped_breakers_from_its_start(config: Config, redis: RedisServer) -> None:
    client = redis_client.connect(redis.url)
    assert Breakers(client, "app2").trip(SYSTEM, "by hand", by="operator")
    node = Node(config)
    node.start()
    assert sample(node, "esl_apps_breakers_tripped") == 1.0
    stop(node, 0.0)


# Reload -------------------------------------------------------------------------------------------------


def test_node_reload_puts_the_whole_policy_in_force(node: Node, config: Config) -> None:
    before = node.services.policy
    node.apply(msgspec.structs.replace(config, inbound={}))
    assert DID in before.queues
    assert node.services.policy.queues == {}


def test_node_reload_with_keep_days_deletes_at_once(node: Node, config: Config, tmp_path: Path) -> None:
    old = tmp_path / "recordings/acme/20250101/01900000-0000-7000-8000-000000000000.wav"
    old.parent.mkdir(parents=True)
    old.touch()
    recordings = msgspec.structs.replace(config.recordings, dir=str(tmp_path / "recordings"), keep_days=30)
    node.apply(msgspec.structs.replace(config, recordings=recordings))
    eventually(lambda: not old.exists())


def test_node_reload_that_fails_changes_nothing(node: Node, config: Config) -> None:
    """It fails half way: the integrators have been read, the inbound numbers can't be."""
    before = node.services.policy
    with pytest.raises(ConfigError, match="no integrator is named acme"):
        node.apply(msgspec.structs.replace(config, integrators=[]))
    assert node.services.policy is before


# Stop ---------------------------------------------------------------------------------------------------


def test_node_stop_leaves_the_cluster_and_closes_its_port(node: Node, config: Config, redis: RedisServer) -> None:
    stop(node, 0.0)
    assert node.services.readiness.stopped.is_set()
    raw = str(redis.client.hget(keys.NODES, node.services.membership.boot))
    assert msgspec.json.decode(raw)[2:] == [True, "-1"]
    with pytest.raises(ConnectionRefusedError):
        dial(port_of(config))


def test_node_stop_lets_a_ringing_leg_come_in(node: Node, config: Config, switch: FakeSwitch) -> None:
    """Its socket stays open for legs that ring for this node; everyone else is refused."""
    order = placed(integrator="acme")
    node.outgoing.place(order)
    stopping = gevent.spawn(stop, node, 5.0)
    eventually(lambda: node.services.readiness.draining)
    gevent.sleep(0.03)
    assert not stopping.dead
    order.attempt.end("agent_busy", 17, "agent", time.time())
    stopping.get(timeout=10)
    with pytest.raises(ConnectionRefusedError):
        dial(port_of(config))


def test_node_stop_waits_for_calls_until_its_time_is_up(node: Node, redis: RedisServer) -> None:
    live = node.services.calls.begin(placed(integrator="acme").attempt, node.services.switches[0])
    live.attached = True
    stopping = gevent.spawn(stop, node, 5.0)
    gevent.sleep(0.06)
    assert not stopping.dead
    live.attempt.end("answered", 16, "agent", time.time())
    stopping.get(timeout=10)
    # Its record went out before the node had gone.
    assert redis.client.llen(CDRS) == 1


def test_node_stop_leaves_calls_still_up_to_others(node: Node, redis: RedisServer) -> None:
    live = node.services.calls.begin(placed(integrator="acme").attempt, node.services.switches[0])
    live.attached = True
    stop(node, 0.02)
    assert not live.attempt.ended
    assert redis.client.hexists(keys.live(node.services.membership.boot), live.attempt.call_ref)
    # The node that adopts the call records its end, not this one.
    live.attempt.end("lost", 31, "system", time.time())
    assert redis.client.llen(CDRS) == 0


def test_node_stop_without_redis_keeps_records_in_the_journal(node: Node, redis: RedisServer) -> None:
    attempt = placed(integrator="acme").attempt
    node.services.calls.begin(attempt, node.services.switches[0])
    redis.kill()
    try:
        attempt.end("answered", 16, "agent", time.time())
        stop(node, 0.0)
    finally:
        redis.start()
    again = Node(node.services.policy.config)
    assert again.services.outboxes.of("acme").depth == 1
    stop(again, 0.0)


# One process for a name ---------------------------------------------------------------------------------


def test_node_whose_name_is_taken_does_not_start(node: Node, config: Config, tmp_path: Path) -> None:
    """The other process has files of its own: on another machine, or with another ``state_dir``."""
    own = with_node(config, listen=f"127.0.0.1:{free_port()}", state_dir=str(tmp_path / "other"))
    second = Node(own)
    with pytest.raises(ConfigError, match="another process runs as node app1"):
        second.start()
    assert set(second.services.membership.peers) == set()


def test_node_starts_at_once_after_a_crash(config: Config) -> None:
    """Redis still has the entry of its last run, which nothing has declared dead."""
    first = Node(config)
    first.services.membership.say()
    for outbox in first.services.outboxes:
        outbox.stop()
    first.services.call_log.close()
    again = Node(with_node(config, listen=f"127.0.0.1:{free_port()}"))
    began = time.monotonic()
    again.start()
    assert time.monotonic() - began < 8.0  # it would be dead after ten
    assert again.services.membership.is_dead(first.services.membership.boot)
    stop(again, 0.0)


def test_node_starts_without_redis_whatever_its_name(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    away = msgspec.structs.replace(config, redis=msgspec.structs.replace(config.redis, url="redis://127.0.0.1:1/0"))
    node = Node(away)
    node.start()
    assert "node_name_not_checked" in caplog.messages
    stop(node, 0.0)


# A disk that fails --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [OSError(5, "Input/output error"), RuntimeError("a fault of ours")])
@pytest.mark.parametrize("part", ["outboxes", "usage", "breakers", "store", "call_log"])
def test_node_stops_whatever_a_part_of_it_raises(
    node: Node, monkeypatch: pytest.MonkeyPatch, part: str, fault: Exception
) -> None:
    """fdatasync answered EIO, and SIGTERM ended the node no more."""
    services = node.services
    target = next(iter(services.outboxes)) if part == "outboxes" else getattr(services, part)
    name = "close" if part == "call_log" else "stop"
    ends = getattr(type(target), name)

    def fail(its: Any) -> None:
        # It has ended all the same, or it would go on in the next tests.
        ends(its)
        raise fault

    monkeypatch.setattr(type(target), name, fail)
    stop(node, 0.0)
    assert services.readiness.stopped.is_set()
    assert not services.switches[0].connected


def test_node_takes_no_call_whose_record_finds_no_room(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "UNWRITTEN", -1)
    assert node.services.readiness.full
    assert "outbox main: the disk is full and Redis takes no records" in node.services.readiness.reasons()


def test_node_with_its_files_on_a_remote_mount_says_so(
    config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("esl_apps.node.node.remote_type", lambda _folder: "nfs4")
    node = Node(config)
    node.start()
    stop(node, 0.0)
    assert [vars(record)["type"] for record in caplog.records if record.message == "state_folder_remote"] == ["nfs4"]
