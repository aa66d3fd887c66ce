"""The journal's files: a bad disk, a wrong file, or many entries lose none and fill no memory."""

from __future__ import annotations

import errno
import os
import tracemalloc
from pathlib import Path

import pytest

from esl_apps.store import journal as journal_module
from esl_apps.store.journal import Journal
from tests.support.records import item


def written(folder: Path, count: int, first: int = 1, done: int = 0) -> None:
    """Have an earlier process leave entries, the first of them done."""
    journal = opened(folder)
    for number in range(first, first + count):
        journal.append(item(number))
    journal.finish(len(journal.read(done)))
    journal.close()


def opened(folder: Path) -> Journal:
    journal = Journal(folder)
    journal.open()
    return journal


def left(folder: Path) -> list[str]:
    journal = opened(folder)
    names = [one.id for one in journal.read(1_000_000)]
    journal.close()
    return names


def ids(first: int, last: int) -> list[str]:
    return [f"id-{number}" for number in range(first, last + 1)]


def _existing_only(path: Path, flags: int) -> int:
    """Open a file on a disk that has no room for another one."""
    if not path.exists():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return os.open(path, flags)


# The file "done" ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"\0\0",
        b"garbage!",
        (1_000_000).to_bytes(8, "big"),
        b"\xff" * 16,
        (7).to_bytes(8, "big") * 2,
        b"a text that is far too long",
    ],
)
def test_wrong_done_file_loses_no_entry(tmp_path: Path, wrong: bytes) -> None:
    written(tmp_path, 10, done=4)
    (tmp_path / "done").write_bytes(wrong)
    # Redis takes those again that it has, and drops them.
    assert left(tmp_path)[-6:] == ids(5, 10)


def test_journal_closed_twice_closes_no_other_file(tmp_path: Path) -> None:
    journal = opened(tmp_path / "one")
    journal.close()
    other = opened(tmp_path / "other")  # gets the same descriptors
    journal.close()
    other.append(item(1))
    other.close()
    assert left(tmp_path / "other") == ["id-1"]


def test_wrong_done_file_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written(tmp_path, 3)
    assert "journal_done_unreadable" not in caplog.messages
    (tmp_path / "done").write_bytes(b"garbage!")
    assert left(tmp_path) == ids(1, 3)
    assert caplog.messages.count("journal_done_unreadable") == 1


def test_done_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    written(tmp_path, 5)
    (tmp_path / "done").write_bytes((3).to_bytes(8, "big"))
    assert left(tmp_path) == ids(4, 5)


def test_done_file_behind_removed_files_is_believed(tmp_path: Path) -> None:
    written(tmp_path, 5, done=5)
    for path in tmp_path.glob("*.log"):
        path.unlink()
    journal = opened(tmp_path)
    journal.append(item(6))
    assert (journal.done, journal.written) == (5, 6)
    journal.close()
    assert left(tmp_path) == ["id-6"]


# Files that aren't ours ---------------------------------------------------------------------------------


def test_stray_files_are_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written(tmp_path, 2)
    (tmp_path / "debug.log").write_text("an operator's")
    (tmp_path / "٣.log").write_text("a digit, but not ours")
    (tmp_path / "0000000000000001.log").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "0000000000000007.log")
    (tmp_path / "0000000000000009.log").mkdir()
    assert left(tmp_path) == ids(1, 2)
    assert caplog.messages.count("journal_file_ignored") == 5
    assert (tmp_path / "debug.log").exists()


def test_files_of_the_journal_are_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        written(tmp_path / "new", 3)
    finally:
        os.umask(old)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()} == {0o600}


def test_file_that_others_could_read_is_made_private(tmp_path: Path) -> None:
    written(tmp_path, 1, done=1)
    for path in tmp_path.iterdir():
        path.chmod(0o644)
    written(tmp_path, 1)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_file_removed_by_a_person_costs_its_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journal_module, "SEGMENT", 300)
    written(tmp_path, 30)
    second = sorted(tmp_path.glob("*.log"))[1]
    lines = second.read_bytes().count(b"\n")
    second.unlink()
    assert len(left(tmp_path)) == 30 - lines
    assert caplog.messages.count("journal_lines_lost") == 1


# A full disk ----------------------------------------------------------------------------------------------


def test_journal_of_a_crashed_process_opens_on_a_full_disk(tmp_path: Path) -> None:
    written(tmp_path, 5, done=2)
    with pytest.MonkeyPatch.context() as context:
        context.setattr(journal_module, "open_private", _existing_only)
        journal = opened(tmp_path)
        with pytest.raises(OSError, match="No space"):
            journal.append(item(6))
        assert [one.id for one in journal.read(10)] == ids(3, 6)
    journal.append(item(7))
    assert [one.id for one in journal.read(10)] == ["id-7"]
    journal.finish(4)
    journal.close()
    assert left(tmp_path) == ["id-7"]


def test_sync_that_fails_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = opened(tmp_path)
    journal.append(item(1))
    synced: list[int] = []
    with monkeypatch.context() as context:

        def fail(_fd: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        context.setattr(os, "fdatasync", fail)
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output"):
                journal.sync()
    monkeypatch.setattr(os, "fdatasync", synced.append)
    journal.sync()
    journal.sync()
    assert len(synced) == 1
    journal.close()


# Many entries ---------------------------------------------------------------------------------------------


def test_journal_reads_only_what_is_asked_for(tmp_path: Path) -> None:
    """200,000 records for a Redis that stayed away took 161 MB, and all were read at the start."""
    written(tmp_path, 20_000)
    tracemalloc.start()
    journal = opened(tmp_path)
    first = journal.read(100)
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [one.id for one in first] == ids(1, 100)
    assert peak < 2_000_000
    assert journal.waiting == 19_900
    journal.close()


def test_journal_read_in_parts_is_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "SEGMENT", 2000)
    monkeypatch.setattr(journal_module, "_PART", 500)
    journal = opened(tmp_path)
    names, appended = [], 0
    for part in range(1, 60):
        for _ in range(part % 7):
            appended += 1
            journal.append(item(appended))
        names += [one.id for one in journal.read(part % 5)]
        journal.finish(part % 5 and min(part % 5, len(journal._read)))
    names += [one.id for one in journal.read(1000)]
    assert names == ids(1, appended)
    journal.finish(len(journal._read))
    assert (journal.waiting, journal.done) == (0, appended)
    journal.close()


def test_journal_removes_files_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "SEGMENT", 2000)
    written(tmp_path, 500)
    journal = opened(tmp_path)
    before = len(list(tmp_path.glob("*.log")))
    for _ in range(4):
        journal.finish(len(journal.read(100)))
    assert len(list(tmp_path.glob("*.log"))) < before / 3
    journal.close()
    assert left(tmp_path) == ids(401, 500)
