"""Messages to systemd, and when they are sent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from esl_apps.process import service_manager
from esl_apps.process.service_manager import ServiceManager
from tests.support.service_manager import Manager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("pid", ["", str(os.getpid())], ids=["any", "own"])
def test_manager_is_inherited_by_no_child(manager: Manager, monkeypatch: pytest.MonkeyPatch, pid: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.setenv("WATCHDOG_PID", pid)
    service = ServiceManager.inherited()
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & os.environ.keys()
    assert service._watchdog == 30.0
    service.ready("ready, 0 calls")
    assert manager.told() == [["READY=1", "STATUS=ready, 0 calls"]]


@pytest.mark.parametrize(("microseconds", "pid"), [("30000000", "1"), ("soon", ""), ("", "")])
def test_manager_without_a_watchdog_for_this_process(
    monkeypatch: pytest.MonkeyPatch, microseconds: str, pid: str
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    monkeypatch.setenv("WATCHDOG_PID", pid)
    assert ServiceManager.inherited()._watchdog is None


def test_status_is_one_line_and_short(manager: Manager) -> None:
    ServiceManager(manager.address).ready("refused:\nREADY=1\x1b" + "x" * 500)
    ((first, second),) = manager.told()
    assert (first, len(second)) == ("READY=1", len("STATUS=") + 400)
    assert second.startswith("STATUS=refused: READY=1")


def test_status_is_told_when_it_changes(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_manager, "_EVERY", 0.001)
    statuses = iter(["ready, 0 calls", "ready, 0 calls", "ready, 1 call"])
    service = ServiceManager(manager.address)
    service.ready("ready, 0 calls")
    with pytest.raises(StopIteration):
        service.keep_telling(lambda: next(statuses))
    assert manager.told() == [["READY=1", "STATUS=ready, 0 calls"], ["STATUS=ready, 1 call"]]


def test_refused_reload_is_shown_until_the_next(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_manager, "_EVERY", 0.001)
    service = ServiceManager(manager.address)
    service.reloaded("line 3", "ready, 0 calls")
    statuses = iter(["ready, 1 call"])
    with pytest.raises(StopIteration):
        service.keep_telling(lambda: next(statuses))
    refused = "STATUS=reload refused: line 3; ready, "
    assert manager.told() == [["READY=1", f"{refused}0 calls"], [f"{refused}1 call"]]
    service.reloaded(None, "ready, 1 call")
    assert manager.told() == [["READY=1", "STATUS=ready, 1 call"]]


def test_watchdog_is_told_while_nothing_changes(manager: Manager) -> None:
    service = ServiceManager(manager.address, watchdog=0.03)
    telling = gevent.spawn(service.keep_telling, lambda: "")
    telling.join(0.1)
    telling.kill()
    told = manager.told()
    assert len(told) >= 3
    assert all("WATCHDOG=1" in lines for lines in told)


def test_manager_that_is_away_stops_nothing(tmp_path: Path) -> None:
    service = ServiceManager(str(tmp_path / "nothing"))
    service.ready("ready")
    service.reloading()
    service.stopping()


def test_without_a_manager_nothing_runs() -> None:
    ServiceManager().keep_telling(lambda: pytest.fail("asked"))
