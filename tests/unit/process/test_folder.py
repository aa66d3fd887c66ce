"""Threads for files: a mount that hangs costs a bounded wait and a bounded number of threads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Event
from types import SimpleNamespace

import gevent
import pytest
from gevent.hub import Hub

from esl_apps.process import folder
from esl_apps.process.folder import Folder, Hangs
from tests.support.hung_disk import HungDisk, hung_disk
from tests.support.peer import eventually


@pytest.fixture
def disk() -> Iterator[HungDisk]:
    with hung_disk() as disk:
        yield disk


def hang(one: Folder, disk: HungDisk) -> None:
    with pytest.raises(Hangs):
        one.run(disk.hang)


def test_folder_returns_what_the_function_returns() -> None:
    assert Folder("x").run(divmod, 7, 2) == (3, 1)


def test_folder_raises_what_the_function_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    faults: list[object] = []
    monkeypatch.setattr(Hub, "handle_error", lambda _hub, *error: faults.append(error))
    with pytest.raises(FileNotFoundError):
        Folder("x").run(open, "/nowhere")
    # The hub would log a traceback for a recording that isn't there.
    assert faults == []


def test_folder_that_hangs_lets_others_run(disk: HungDisk) -> None:
    waiting = gevent.spawn(hang, Folder("x", patience=30), disk)
    eventually(lambda: disk.asked)
    # This greenlet goes on, though the thread is in a system call.
    assert not waiting.ready()
    waiting.kill()


def test_folder_that_hangs_is_refused_in_time(disk: HungDisk, caplog: pytest.LogCaptureFixture) -> None:
    one = Folder("spool", patience=0.01)
    hang(one, disk)
    assert one.stuck == 1
    assert [vars(record)["folder"] for record in caplog.records if record.message == "folder_hangs"] == ["spool"]


def test_folder_with_all_threads_hung_refuses_at_once(disk: HungDisk) -> None:
    one = Folder("x", patience=0.01, threads=2)
    for _ in range(5):
        hang(one, disk)
    assert one.stuck == 2
    # A thread may begin after its work was given up.
    eventually(lambda: disk.asked == 2)
    one._patience = 60.0
    began = time.monotonic()
    hang(one, disk)
    assert time.monotonic() - began < 30
    assert disk.asked == 2


def test_folder_that_answers_again_is_used_again(disk: HungDisk, caplog: pytest.LogCaptureFixture) -> None:
    one = Folder("x", patience=0.01, threads=2)
    for _ in range(3):
        hang(one, disk)
    disk.release()
    eventually(lambda: one.stuck == 0)
    assert "folder_answers" in caplog.messages
    one._patience = 10.0
    assert one.run(len, "abc") == 3


def test_folder_busy_but_not_hung_is_waited_for(disk: HungDisk) -> None:
    one = Folder("x", patience=10, threads=1)
    first = gevent.spawn(one.run, disk.before(lambda: 1))
    eventually(lambda: disk.asked)
    second = gevent.spawn(one.run, lambda: 2)
    disk.release()
    assert (first.get(), second.get(), one.stuck) == (1, 2, 0)


def test_folder_work_that_was_killed_frees_its_thread(disk: HungDisk) -> None:
    one = Folder("x", patience=10, threads=1)
    waiting = gevent.spawn(one.run, disk.before(lambda: 1))
    eventually(lambda: disk.asked)
    waiting.kill()
    disk.release()
    assert one.run(len, "abc") == 3


def test_stuck_counts_the_threads_by_folder(disk: HungDisk) -> None:
    one = Folder("stuck-in-a-test", patience=0.01)
    hang(one, disk)
    assert dict(folder.stuck())["stuck-in-a-test"] == 1


def test_folder_that_hangs_closes_files_once_it_answers(disk: HungDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_CLOSE_AGAIN", 0.01)
    one, closed = Folder("x", patience=0.01, threads=1), Event()
    hang(one, disk)
    one.close(SimpleNamespace(close=closed.set))
    gevent.sleep(0.05)
    assert not closed.is_set()
    disk.release()
    eventually(closed.is_set)
