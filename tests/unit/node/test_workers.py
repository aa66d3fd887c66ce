"""Workers of one node: what each has of it, and how their supervisor keeps them. No worker is started here."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest
from gevent import os as gevent_os
from gevent import socket
from gevent.event import AsyncResult

from esl_apps.config.model import Config
from esl_apps.config.problems import ConfigError
from esl_apps.node import workers
from esl_apps.node.workers import VARIABLE, Share, Supervisor
from esl_apps.process.service_manager import ServiceManager
from tests.support.bench import node_config
from tests.support.peer import eventually
from tests.support.ports import free_port


@pytest.fixture
def config(tmp_path: Path) -> Config:
    acme = {"name": "acme", "token": "acme-token-for-tests", "listen": f"127.0.0.1:{free_port()}"}
    admin = {"token": "admin-token-for-tests", "listen": f"127.0.0.1:{free_port()}"}
    made = node_config(
        "redis://127.0.0.1:1", tmp_path, {"fs1": ("127.0.0.1", 8021)}, integrators=[acme], admin=admin, inbound={}
    )
    return with_node(made, listen=f"127.0.0.1:{free_port()}")


def with_node(config: Config, **fields: Any) -> Config:
    return msgspec.structs.replace(config, node=msgspec.structs.replace(config.node, **fields))


# A worker's share ---------------------------------------------------------------------------------------


def test_share_gives_each_worker_its_own_name_and_address(config: Config) -> None:
    config = msgspec.structs.replace(
        with_node(config, listen="0.0.0.0:8085", advertise="10.0.0.5:9085"), switches=config.switches
    )
    first, second = (Share(number, {}, -1, -1, []) for number in (1, 2))
    assert [share.own_address(config) for share in (first, second)] == [("0.0.0.0", 8086), ("0.0.0.0", 8087)]
    assert [share.of(config).node.name for share in (first, second)] == ["app1-1", "app1-2"]
    # One forwarding rule covers all ports.
    assert [share.of(config).node.advertise for share in (first, second)] == ["10.0.0.5:9086", "10.0.0.5:9087"]


def test_share_takes_its_ports_from_where_it_is_told(config: Config) -> None:
    config = with_node(config, listen="[::1]:8085", advertise="[fd00::5]:8085", worker_ports=9000)
    share = Share(3, {}, -1, -1, [])
    assert share.own_address(config)[1] == 9002
    assert share.of(config).node.advertise == "[fd00::5]:9002"


def test_share_is_read_from_the_environment_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ready, alive = os.pipe()
    share = Share(1, {}, ready, alive, ["a", "b"])
    for fd in (ready, alive):
        os.set_inheritable(fd, True)
    monkeypatch.setenv(VARIABLE, msgspec.json.encode(share).decode())
    assert Share.inherited() == share
    # Neither the worker's own children nor a second reading get it.
    assert not any(os.get_inheritable(fd) for fd in (ready, alive))
    assert Share.inherited() is None
    for fd in (ready, alive):
        os.close(fd)


def test_share_hands_out_the_inherited_socket() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    share = Share(1, {"address": listener.detach()}, -1, -1, [])
    with share.socket("address") as taken:
        assert taken.getsockname()[1] == port


def test_share_tells_the_supervisor_that_its_loop_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_BEAT", 0.002)
    heard, told = os.pipe()
    telling = gevent.spawn(Share(1, {}, told, -1, []).keep_telling)
    for _ in range(3):
        assert gevent_os.tp_read(heard, 1) == b"1"
    os.close(heard)
    # A supervisor that has gone needs no telling.
    gevent.sleep(0.01)
    assert not telling.dead
    telling.kill()
    os.close(told)


def test_share_whose_supervisor_does_not_read_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_BEAT", 0)
    heard, told = os.pipe()
    fcntl.fcntl(told, fcntl.F_SETPIPE_SZ, 4096)
    telling = gevent.spawn(Share(1, {}, told, -1, []).keep_telling)
    for _ in range(5000):
        gevent.sleep(0)
    telling.kill()
    assert len(os.read(heard, 8192)) == 4096
    os.close(heard)
    os.close(told)


def test_share_notices_that_its_supervisor_has_ended() -> None:
    alive, supervisor = os.pipe()
    waiting = gevent.spawn(Share(1, {}, -1, alive, []).wait_alone)
    gevent.sleep(0.002)
    assert not waiting.dead
    os.close(supervisor)
    waiting.get(timeout=5)
    os.close(alive)


# The supervisor -----------------------------------------------------------------------------------------


class Child:
    """A worker's process, as far as its supervisor sees it."""

    def __init__(self, command: list[str], pass_fds: list[int], env: dict[str, str]) -> None:
        self.command = command
        self.share = msgspec.json.decode(env[VARIABLE], type=Share)
        self.signals: list[int] = []
        self.inherited = set(pass_fds)
        self._status: AsyncResult[int] = AsyncResult()
        # It inherits its own.
        self._ready = os.dup(self.share.ready)

    def says_ready(self) -> Child:
        os.write(self._ready, b"1")
        return self

    def ends(self, status: int) -> None:
        if not self._status.ready():
            os.close(self._ready)
            self._status.set(status)

    def wait(self) -> int:
        return self._status.get() or 0

    def send_signal(self, number: int) -> None:
        if self._status.ready():
            raise ProcessLookupError
        self.signals.append(number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.ends(-signal.SIGKILL)


class Family:
    """A supervisor and the children that it has started."""

    def __init__(self, config: Config, count: int) -> None:
        self.children: list[Child] = []
        self.supervisor = Supervisor(config, count, ServiceManager())
        self.running = gevent.spawn(self.supervisor.run)

    def started(self, count: int) -> list[Child]:
        eventually(lambda: len(self.children) >= count)
        return self.children

    def stop(self) -> int:
        """Stop as SIGTERM does; return the exit status."""
        self.supervisor._stop()
        gevent.sleep(0)
        for child in self.children:
            child.ends(0)
        return int(self.running.get(timeout=5))


@pytest.fixture
def family(config: Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Family]]:
    families: list[Family] = []

    def popen(command: list[str], *, pass_fds: list[int], env: dict[str, str]) -> Child:
        families[-1].children.append(child := Child(command, pass_fds, env))
        return child

    monkeypatch.setattr(workers.subprocess, "Popen", popen)  # type: ignore[attr-defined]
    monkeypatch.setattr(workers.gevent, "signal_handler", lambda *_: None)  # type: ignore[attr-defined]
    monkeypatch.setattr(workers, "_AGAIN_FIRST", 0.002)
    monkeypatch.setattr(workers, "_AGAIN_LAST", 0.008)

    def make(count: int) -> Family:
        families.append(Family(config, count))
        return families[-1]

    yield make
    for one in families:
        one.supervisor._stop()
        for child in one.children:
            child.ends(0)
        one.running.get(timeout=5)


def test_supervisor_gives_each_worker_every_port(family: Callable[[int], Family], config: Config) -> None:
    children = family(2).started(2)
    assert [child.share.number for child in children] == [1, 2]
    listened = {config.node.listen, config.admin.listen, config.integrators[0].listen}
    for child in children:
        assert set(child.share.sockets) == listened
        assert set(child.share.sockets.values()) <= child.inherited
    assert children[0].share.scrapes == children[1].share.scrapes


def test_supervisor_is_ready_once_all_workers_are(
    family: Callable[[int], Family], capfd: pytest.CaptureFixture[str]
) -> None:
    first, second = family(2).started(2)
    first.says_ready()
    gevent.sleep(0.005)
    assert capfd.readouterr().err == ""
    second.says_ready()
    eventually(lambda: "node app1 ready" in capfd.readouterr().err)


def test_supervisor_restarts_a_worker_that_ended(
    family: Callable[[int], Family], caplog: pytest.LogCaptureFixture
) -> None:
    one = family(2)
    first, _second = one.started(2)
    first.says_ready()
    first.ends(-9)
    children = one.started(3)
    assert [(child.share.number, child.share.restarts) for child in children] == [(1, 0), (2, 0), (1, 1)]
    assert "worker_ended" in caplog.messages


def test_supervisor_restarts_a_failing_worker_ever_later(
    family: Callable[[int], Family], caplog: pytest.LogCaptureFixture
) -> None:
    one = family(1)
    for count in range(1, 5):
        one.started(count)[-1].ends(1)
    one.started(5)
    pauses = [vars(record)["again in"] for record in caplog.records if record.message == "worker_ended"]
    assert pauses == [0.004, 0.008, 0.008, 0.008]


def test_supervisor_worker_that_lived_is_restarted_at_once(
    family: Callable[[int], Family], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_YOUNG", 0.0)
    one = family(1)
    for count in range(1, 4):
        one.started(count)[-1].ends(1)
    one.started(4)
    assert {vars(record)["again in"] for record in caplog.records if record.message == "worker_ended"} == {0.002}


def test_supervisor_kills_and_restarts_a_silent_worker(
    family: Callable[[int], Family], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped process keeps its ports, and legs would wait for it."""
    monkeypatch.setattr(workers, "_BEAT", 0.02)
    one = family(2)
    silent, lively = one.started(2)
    silent.says_ready()
    while len(one.children) < 3:
        lively.says_ready()
        gevent.sleep(0.01)
    assert [(child.share.number, child.share.restarts) for child in one.children] == [(1, 0), (2, 0), (1, 1)]
    told = [(record.message, vars(record)["worker"], vars(record).get("status")) for record in caplog.records]
    assert told == [("worker_silent", 1, None), ("worker_ended", 1, -signal.SIGKILL)]


def test_supervisor_lets_a_worker_take_its_time_to_start(
    family: Callable[[int], Family], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_BEAT", 0.001)
    one = family(1)
    one.started(1)
    gevent.sleep(0.05)
    assert len(one.children) == 1


def test_supervisor_unusable_configuration_ends_all(family: Callable[[int], Family]) -> None:
    """Starting with fewer workers would hide the fault."""
    one = family(2)
    first, second = one.started(2)
    first.ends(2)
    eventually(lambda: second.signals == [signal.SIGTERM])
    second.ends(0)
    assert one.running.get(timeout=5) == 2


def test_supervisor_unusable_reload_restarts_the_worker(family: Callable[[int], Family]) -> None:
    """It took calls before: the file was broken since, and the other workers go on."""
    one = family(1)
    one.started(1)[0].says_ready()
    eventually(lambda: one.supervisor._was_ready)
    one.children[0].ends(2)
    assert one.started(2)[1].share.number == 1


def test_supervisor_stop_reaches_all_workers_and_frees_the_ports(
    family: Callable[[int], Family], config: Config
) -> None:
    one = family(2)
    children = one.started(2)
    one.supervisor._stop()
    one.supervisor._stop()
    assert [child.signals for child in children] == [[signal.SIGTERM]] * 2
    host, _, port = config.node.listen.rpartition(":")
    socket.create_server((host, int(port))).close()
    for child in children:
        child.ends(0)
    assert one.running.get(timeout=5) == 0


def test_supervisor_stop_between_two_runs_starts_none(family: Callable[[int], Family]) -> None:
    one = family(1)
    one.started(1)[0].ends(1)
    gevent.sleep(0)
    one.supervisor._stop()
    assert one.running.get(timeout=5) == 1
    assert len(one.children) == 1


def test_supervisor_passes_a_reload_on(family: Callable[[int], Family]) -> None:
    one = family(2)
    first, second = one.started(2)
    second._status.set(1)
    one.supervisor._signal(signal.SIGHUP)
    assert (first.signals, second.signals) == ([signal.SIGHUP], [])
    os.close(second._ready)


def test_supervisor_stopped_while_workers_start_ends_well(family: Callable[[int], Family]) -> None:
    """Before a worker has a handler, SIGTERM ends it."""
    one = family(2)
    first, second = one.started(2)
    one.supervisor._stop()
    first.ends(0)
    second.ends(-signal.SIGTERM)
    assert one.running.get(timeout=5) == 0


def test_supervisor_worst_exit_status_is_its_own(family: Callable[[int], Family]) -> None:
    one = family(2)
    first, second = one.started(2)
    one.supervisor._stop()
    first.ends(0)
    second.ends(-9)
    assert one.running.get(timeout=5) == 9


def test_supervisor_port_in_use_is_a_fault_of_the_configuration(config: Config) -> None:
    host, _, port = config.admin.listen.rpartition(":")
    with socket.create_server((host, int(port))), pytest.raises(ConfigError, match=r"admin\.listen"):
        Supervisor(config, 1, ServiceManager())
