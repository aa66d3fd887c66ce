"""The calls that a node has begun, as its next run finds them, at whatever instant the first run was killed."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.json import encode

from esl_apps.core.attempt import Attempt
from esl_apps.core.terms import BRIDGED
from esl_apps.node import call_log
from esl_apps.node.call_log import CallLog
from esl_apps.process.files import open_private
from esl_apps.store.essence import Essence, essence, restored


def call(ref: str, **more: object) -> Essence:
    fields = {"session_ref": ref, "contact_ref": "c", "app": "disa", "queued_at": 1.5, "state": "queued"}
    return Essence(call_ref=ref, call_dir="external", **{**fields, **more})  # type: ignore[arg-type]


def refs(folder: Path) -> list[str]:
    again = CallLog(folder)
    again.close()
    return [one.call_ref for one in again.left]


def test_call_log_gives_each_live_call_as_it_was_last(tmp_path: Path) -> None:
    one = CallLog(tmp_path)
    assert one.left == []
    for ref in ("a", "b", "c"):
        one.note(encode(call(ref)))
    one.note(encode(call("b", number="+27820001234", state="bridged", bridged_at=2.5)))
    one.ended("a")
    one.close()
    again = CallLog(tmp_path)
    assert again.left == [call("b", number="+27820001234", state="bridged", bridged_at=2.5), call("c")]
    again.ended("b")
    again.close()
    assert refs(tmp_path) == ["c"]


@given(cut=st.integers(0, 2000))
def test_call_log_line_cut_short_costs_no_other(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("begun")
    one = CallLog(folder)
    for number in range(5):
        one.note(encode(call(f"ref-{number}")))
    one.close()
    file = folder / "begun.log"
    whole = file.read_bytes()
    file.write_bytes(whole[:cut])
    complete = whole[:cut].count(b"\n")
    left = refs(folder)
    assert left[:complete] == [f"ref-{number}" for number in range(complete)]
    assert len(left) <= complete + 1


def test_call_log_damaged_line_costs_itself_alone(tmp_path: Path) -> None:
    one = CallLog(tmp_path)
    one.note(encode(call("a")))
    one.note(encode(call("b")))
    one.close()
    file = tmp_path / "begun.log"
    file.write_bytes(file.read_bytes().replace(b'"a"', b"\xff\x00"))
    assert refs(tmp_path) == ["b"]


def test_call_log_file_is_rewritten_when_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_log, "_REWRITE", 10_000)
    live = [call("kept")]
    one = CallLog(tmp_path, lambda: live)
    one.note(encode(live[0]))
    for number in range(500):
        one.note(encode(call(f"ref-{number}")))
        one.ended(f"ref-{number}")
    one.close()
    assert (tmp_path / "begun.log").stat().st_size < 11_000
    assert refs(tmp_path) == ["kept"]


def test_call_log_rewrite_keeps_what_is_not_adopted_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that is killed while it adopts its last run's calls finds the rest the next time."""
    first = CallLog(tmp_path)
    first.note(encode(call("left")))
    first.close()
    monkeypatch.setattr(call_log, "_REWRITE", 1000)
    second = CallLog(tmp_path, lambda: [call("new")])
    for number in range(50):
        second.note(encode(call(f"ref-{number}")))
        second.ended(f"ref-{number}")
    second.close()
    assert refs(tmp_path) == ["left", "new"]


def test_call_log_with_many_live_calls_is_seldom_rewritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_log, "_REWRITE", 1000)
    live: list[Essence] = []
    asked = []

    def all_of_them() -> list[Essence]:
        asked.append(len(live))
        return live

    one = CallLog(tmp_path, all_of_them)
    for number in range(1000):
        live.append(call(f"ref-{number}"))
        one.note(encode(live[-1]))
    one.close()
    # Each time at twice what it was: a few times, not at each of the last 990.
    assert 0 < len(asked) < 20
    assert refs(tmp_path) == [f"ref-{number}" for number in range(1000)]


def test_call_log_on_a_full_disk_stops_no_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = CallLog(tmp_path)

    def full(_fd: int, _line: bytes) -> int:
        raise OSError(28, "No space left on device")

    def nearly_full(fd: int, line: bytes) -> int:
        return write(fd, line[:10])

    write = os.write
    for fails in (full, nearly_full):
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", fails)
            one.note(encode(call("a")))
    one.note(encode(call("b")))
    one.close()
    assert refs(tmp_path) == ["b"]


def test_call_log_attempt_comes_back_as_it_was() -> None:
    attempt = Attempt(
        app="dialthrough",
        integrator=None,
        extension="+27820001234",
        number="+27820001235",
        dial_number="+27115550000",
        call_dir="external",
        account_id="acme",
    )
    attempt.holder, attempt.order, attempt.aleg_uuid, attempt.switch = "card:1", {"card": "1"}, "uuid", "fs1"
    attempt.dialled(5.0)
    attempt.enter(BRIDGED, 7.0)
    attempt.cancelled_by = "api"
    known = essence(attempt, "core")
    again = restored(known)
    assert essence(again, "core") == known
    assert again.timeline[0] == attempt.timeline[0]


# A full disk ----------------------------------------------------------------------------------------------


def test_call_log_of_a_crash_opens_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise the node doesn't start, and its live calls have no record."""
    one = CallLog(tmp_path)
    one.note(encode(call("a")))
    one.close()

    def no_room(path: Path, flags: int) -> int:
        if path.suffix == ".new":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return open_private(path, flags)

    with monkeypatch.context() as patch:
        patch.setattr(call_log, "open_private", no_room)
        again = CallLog(tmp_path)
    assert again.left == [call("a")]
    assert caplog.messages == ["call_log_write_failed"]
    again.note(encode(call("b")))
    again.ended("a")
    again.close()
    assert refs(tmp_path) == ["b"]


def test_call_log_on_a_full_disk_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = CallLog(tmp_path)
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda *_: no_room())
            for _ in range(5):
                one.note(encode(call("a")))
        one.note(encode(call("b")))
    one.close()
    assert caplog.messages == ["call_log_write_failed"] * 2


def no_room() -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_call_log_forgets_what_ended_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the next run takes that for a call that is up."""
    live = {ref: call(ref) for ref in ("ended", "changed")}
    log = CallLog(tmp_path, lambda: list(live.values()))
    for one in list(live.values()):
        log.note(encode(one))
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda _fd, _line: no_room())
        del live["ended"]
        log.ended("ended")
        live["changed"] = call("changed", account_id="acme")
        log.note(encode(live["changed"]))
    log.note(encode(call("next")))
    log.close()
    again = CallLog(tmp_path)
    again.close()
    assert [(one.call_ref, one.account_id) for one in again.left] == [("changed", "acme"), ("next", None)]


def test_call_log_rewrite_that_fails_is_seldom_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try writes all live calls."""
    monkeypatch.setattr(call_log, "_REWRITE", 1000)
    tries: list[int] = []

    def live() -> list[Essence]:
        tries.append(1)
        return [call("kept")]

    one = CallLog(tmp_path, live)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: no_room())
        for number in range(500):
            one.note(encode(call(f"ref-{number}")))
    one.close()
    assert 0 < len(tries) < 15


@pytest.mark.parametrize("left_by_hand", [False, True])
def test_call_log_is_readable_by_its_user_alone(tmp_path: Path, left_by_hand: bool) -> None:
    """It holds telephone numbers."""
    if left_by_hand:
        for name in ("begun.log", "begun.new"):
            (tmp_path / name).touch(0o644)
    CallLog(tmp_path).close()
    assert (tmp_path / "begun.log").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_call_log_that_is_no_file_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "begun.log")
    with pytest.raises(OSError):
        CallLog(tmp_path)


def test_call_log_keeps_lines_of_a_version_it_cannot_read(tmp_path: Path) -> None:
    """A node that was rolled back too far must not lose the calls of the run before it."""
    later = [call(ref).encode()[:-1] + b',"v":3}' for ref in ("b", "c")]
    one = CallLog(tmp_path)
    for line in (call("a").encode(), *later, later[0]):
        one.note(line)
    one.ended("c")
    one.close()
    assert refs(tmp_path) == ["a"]
    assert refs(tmp_path) == ["a"]
    assert (tmp_path / "begun.log").read_bytes().splitlines() == [call("a").encode(), later[0]]


def test_call_log_keeps_members_of_a_later_version(tmp_path: Path) -> None:
    line = call("a").encode()[:-1] + b',"later":1,"v":2}'
    one = CallLog(tmp_path)
    one.note(line)
    one.close()
    assert refs(tmp_path) == ["a"]
    assert (tmp_path / "begun.log").read_bytes() == line + b"\n"


def test_call_log_says_once_that_its_folder_was_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    one = CallLog(folder)
    assert one.faults == []
    shutil.rmtree(folder)
    for _ in range(2):
        (fault,) = one.faults
        assert fault.startswith(f"{folder} was removed")
    assert [record.message for record in caplog.records] == ["state_folder_removed"]
    one.close()
    assert one.faults == []
