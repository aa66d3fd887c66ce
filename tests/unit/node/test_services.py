"""Building a node's parts: what can't be used is said before anything connects."""

from __future__ import annotations

from pathlib import Path

import pytest

from esl_apps.apps import ApplicationError
from esl_apps.apps.context import Host
from esl_apps.config.problems import ConfigError
from esl_apps.core.attempt import Attempt
from esl_apps.core.charges import Charge
from esl_apps.core.limits import SYSTEM
from esl_apps.core.timed_call import Frequency
from esl_apps.node import policy as policy_module
from esl_apps.node.state_folder import state_folder
from tests.support.bench import Bench, Build, node_config
from tests.support.peer import eventually


def test_services_connect_to_nothing_yet(build: Build) -> None:
    bench = build()
    assert bench.switch.heard == []
    assert bench.redis.asked == 0


def test_services_hold_the_places_of_calls_once_redis_is_back(bench: Bench) -> None:
    """It came back empty. The next renewal is due in ten seconds."""
    usage, store = bench.services.usage, bench.services.store
    assert usage.enter("acme:u1", 1, "up")
    store.watch.check()
    bench.redis.break_after(0)
    store.watch.check()
    bench.redis_server.client.flushall()
    bench.redis.mend()
    assert store.watch.check()
    assert not usage.enter("acme:u1", 1, "another")


def test_services_name_an_application_that_cannot_be_used(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise ApplicationError("application wakeup (wakeup:APPLICATION): no module")

    monkeypatch.setattr(policy_module, "load_installed", load)
    with pytest.raises(ConfigError, match="applications: application wakeup"):
        build()


def test_services_name_a_call_log_that_cannot_be_written(build: Build, tmp_path: Path) -> None:
    folder = tmp_path / "app1" / "state" / "outbox" / "app1"
    (folder / "begun.new").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"node\.state_dir: the call log can't be written"):
        build()


def test_services_host_gives_an_application_its_own_store(build: Build) -> None:
    bench = build()
    host: Host = bench.services.host(lambda _attempt: None, "callback")
    assert host.schedule("27825556666", ["card", ""], 5.0, Frequency())
    assert bench.services.timed_calls["callback"].waiting()[0].due_at == 5.0
    # One at a time.
    assert not host.schedule("27825556666", ["card", ""], 5.0, Frequency())


def test_flows_of_an_application_share_its_services(build: Build) -> None:
    """Made for each call, they took 0.7 KB of a held one."""
    services = build().services
    first, second = (services.host(lambda _attempt: None, "callback") for _ in range(2))
    assert (first.schedule, first.used, first.policy) == (second.schedule, second.used, second.policy)
    assert services.host(lambda _attempt: None, "disa").schedule != first.schedule


def test_services_count_refused_requests(build: Build) -> None:
    bench = build()
    bench.services.refused(429)
    assert bench.services.metrics.registry.get_sample_value("esl_apps_requests_refused_total", {"status": "429"}) == 1.0


def test_services_say_alive_before_a_call_is_written(build: Build) -> None:
    """Other nodes look for calls of the processes that they know; this one is new."""
    bench = build()
    bench.services.calls.begin(Attempt(app="disa", call_dir="external"), bench.services.switches[0])
    bench.flush()
    assert bench.services.membership.boot in bench.services.membership.peers


def test_services_know_a_switch_that_comes_and_goes(bench: Bench) -> None:
    def up() -> float | None:
        value: float | None = bench.services.metrics.registry.get_sample_value("esl_apps_switch_up", {"switch": "fs1"})
        return value

    assert up() == 1.0
    bench.switch.server.stop()
    bench.switch.drop()
    eventually(lambda: up() == 0.0)
    lost = bench.services.metrics.registry.get_sample_value("esl_apps_switch_reconnects_total", {"switch": "fs1"})
    assert lost == 1.0


@pytest.mark.parametrize("end_calls", [True, False])
def test_services_tripped_breaker_ends_the_calls_it_is_told_to(build: Build, end_calls: bool) -> None:
    bench = build()
    policy = bench.services.policy
    charge = Charge("r-1", [policy.system], None)
    assert bench.services.usage.begin(charge) is None
    bench.services.breakers.refresh()
    assert bench.services.breakers.trip(SYSTEM, "by hand", by="operator", end_calls=end_calls)
    assert (charge.cut is not None) is end_calls


# The state folder ---------------------------------------------------------------------------------------


def test_state_folder_is_the_configured_one(tmp_path: Path) -> None:
    config = node_config("redis://127.0.0.1:1", tmp_path, {"fs1": ("127.0.0.1", 8021)})
    assert state_folder(config) == tmp_path / "state" / "outbox" / "app1"


def test_state_folder_is_the_first_that_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = {"name": "app1", "listen": "127.0.0.1:8085"}
    config = node_config("redis://127.0.0.1:1", tmp_path, {"fs1": ("127.0.0.1", 8021)}, node=node)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "systemd"))
    assert state_folder(config) == tmp_path / "systemd" / "outbox" / "app1"


def test_state_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    config = node_config("redis://127.0.0.1:1", tmp_path, {"fs1": ("127.0.0.1", 8021)})
    with pytest.raises(ConfigError, match=r"no folder for the outbox can be written \(tried .*state/outbox/app1\)"):
        state_folder(config)
