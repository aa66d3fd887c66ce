"""Background greenlets: a fault is logged as JSON and counted, and work that must go on is begun again."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest
from gevent.hub import Hub

from esl_apps.process import background
from tests.support.peer import eventually


class Work:
    """Fails as often as told, then waits for the test."""

    def __init__(self, failures: int, error: BaseException | None = None) -> None:
        self.left = failures
        self.error = error or RuntimeError("a fault of ours")
        self.calls = 0

    def __call__(self, *arguments: object) -> tuple[object, ...]:
        self.calls += 1
        if self.calls <= self.left:
            raise self.error
        return arguments


@pytest.fixture(autouse=True)
def counted() -> Iterator[None]:
    background.failures.clear()
    yield
    background.failures.clear()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses before work is begun again, which take no time."""
    slept: list[float] = []
    monkeypatch.setattr("esl_apps.process.background.gevent.sleep", slept.append)
    return slept


def test_keep_begins_failed_work_again(pauses: list[float], caplog: pytest.LogCaptureFixture) -> None:
    work = Work(3)
    assert background.keep("test", work, 1, 2, outbox="main").get() == (1, 2)
    assert (work.calls, background.failures["test"]) == (4, 3)
    failed = [vars(record) for record in caplog.records if record.message == "background_failed"]
    assert [(line["task"], line["outbox"]) for line in failed] == [("test", "main")] * 3
    assert failed[0]["exc_info"]


def test_keep_backs_off_up_to_a_bound(pauses: list[float]) -> None:
    background.keep("test", Work(12)).get()
    assert pauses[:3] == [0.1, 0.2, 0.4]
    assert max(pauses) == background.AGAIN_LAST


def test_keep_work_that_went_well_begins_again_soon(pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "SETTLED", -1.0)
    background.keep("test", Work(5)).get()
    assert pauses == [0.1] * 5


def test_keep_stray_timeout_is_a_fault(pauses: list[float]) -> None:
    assert background.keep("test", Work(1, gevent.Timeout(1))).get() == ()
    assert background.failures["test"] == 1


def test_keep_killed_work_isnt_begun_again() -> None:
    greenlet = background.keep("test", gevent.sleep, 60)
    gevent.sleep(0)
    greenlet.kill()
    assert (greenlet.dead, background.failures["test"]) == (True, 0)


def test_once_failed_work_is_logged_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    work = Work(1)
    assert background.once("test", work, call_ref="ref-1").get() is None
    assert (work.calls, background.failures["test"]) == (1, 1)
    (line,) = [vars(record) for record in caplog.records if record.message == "background_failed"]
    assert (line["task"], line["call_ref"]) == ("test", "ref-1")


def test_once_has_the_value_of_its_work() -> None:
    assert background.once("test", Work(0), 7).get() == (7,)


def test_later_runs_after_its_time() -> None:
    work = Work(0)
    greenlet = background.later(0.01, "test", work)
    assert work.calls == 0
    greenlet.join(5)
    assert work.calls == 1


def test_log_all_logs_what_gevent_would_print(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Hub, "print_exception", Hub.print_exception)
    background.log_all()
    gevent.spawn(Work(1)).join()
    eventually(lambda: background.failures["greenlet"] == 1)
    (line,) = [vars(record) for record in caplog.records if record.message == "background_failed"]
    assert "Work" in line["context"]
    assert "Traceback" not in capsys.readouterr().err
