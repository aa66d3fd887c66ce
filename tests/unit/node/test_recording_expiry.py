"""Recordings that are too old: whole days go, and nothing else in the folder does."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from esl_apps.node import recording_expiry
from esl_apps.node.recording_expiry import RecordingExpiry
from tests.support.bench import Bench, Build
from tests.support.peer import eventually

REF = "01900000-0000-7000-8000-00000000000"
TODAY = date(2026, 11, 29)


@pytest.fixture
def bench(build: Build, tmp_path: Path) -> Bench:
    return build(recordings={"dir": str(tmp_path / "recordings"), "keep_days": 30})


def recording(bench: Bench, day: str, name: str = f"{REF}0.wav") -> Path:
    path = Path(bench.config.recordings.dir) / "acme" / day / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_expiry_deletes_days_that_are_too_old(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    old, older = recording(bench, "20261029"), recording(bench, "20250101")
    kept = [recording(bench, day) for day in ("20261030", "20261129", "20261130")]
    RecordingExpiry(bench.services).tidy(TODAY)
    assert not old.parent.exists()
    assert not older.parent.exists()
    assert all(path.exists() for path in kept)
    assert caplog.messages.count("recordings_expired") == 2


def test_expiry_deletes_a_day_in_batches(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_expiry, "_BATCH", 2)
    paths = [recording(bench, "20250101", f"{REF}{n}.wav") for n in range(5)]
    RecordingExpiry(bench.services).tidy(TODAY)
    assert not any(path.exists() for path in paths)


def test_expiry_leaves_what_is_not_a_recording(bench: Bench, tmp_path: Path) -> None:
    ours = recording(bench, "20250101")
    others = [
        recording(bench, "20250101", "notes.txt"),
        recording(bench, "20250101", "music.wav"),
        recording(bench, "2025"),
        recording(bench, "20251399"),
    ]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    far = elsewhere / f"{REF}0.wav"
    far.write_bytes(b"x")
    (Path(bench.config.recordings.dir) / "acme" / "20240101").symlink_to(elsewhere)
    RecordingExpiry(bench.services).tidy(TODAY)
    assert not ours.exists()
    assert all(path.exists() for path in [*others, far])


def test_expiry_waits_for_the_clock_of_redis(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """This node's clock, by which the recording is too old, may be wrong."""
    monkeypatch.setattr(recording_expiry, "LOOK_EVERY", 0.01)
    path = recording(bench, "20261029")
    times = [None, datetime(2026, 11, 28, 23, 59, tzinfo=UTC).timestamp()]
    looks: list[float | None] = []

    def redis_time() -> float | None:
        looks.append(times[0])
        return times[0]

    monkeypatch.setattr(bench.services.membership, "redis_time", redis_time)
    expiry = RecordingExpiry(bench.services)
    expiry.start()
    eventually(lambda: len(looks) > 1)
    times.pop(0)
    eventually(lambda: looks.count(times[0]) > 1)
    assert path.exists()
    times[0] = datetime(2026, 11, 29, tzinfo=UTC).timestamp()
    eventually(lambda: not path.exists())
    expiry.stop()


def test_expiry_without_keep_days_deletes_nothing(build: Build) -> None:
    bench = build()
    path = recording(bench, "20000101")
    RecordingExpiry(bench.services).tidy(TODAY)
    assert path.exists()


def not_deleted(bench: Bench) -> float | None:
    return bench.services.metrics.registry.get_sample_value("esl_apps_recordings_not_deleted")


def test_expiry_of_a_folder_that_is_not_there_is_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    RecordingExpiry(bench.services).tidy(TODAY)
    assert "recordings_not_expired" in caplog.messages
    assert not_deleted(bench) == 0


@pytest.mark.parametrize("keep_days", [30, None])
def test_expiry_reports_a_folder_that_is_read_only_at_once(
    build: Build,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    keep_days: int | None,
) -> None:
    """As under the systemd unit, outside of its own folder. Neither Redis nor an old recording is needed to know."""
    acme: dict[str, Any] = {"name": "acme", "listen": "127.0.0.1:8300", "token": "acme-token-for-tests"}
    acme["tokens"] = [{"name": "gdpr", "token": "t" * 20, "scopes": ["record_delete"]}]
    bench = build(recordings={"dir": str(tmp_path), "keep_days": keep_days}, integrators=[acme], inbound={})
    flags = [os.ST_RDONLY, 0]
    statvfs = SimpleNamespace(**{**vars(os), "statvfs": lambda _path: SimpleNamespace(f_flag=flags[0])})
    monkeypatch.setattr(recording_expiry, "os", statvfs)
    expiry = RecordingExpiry(bench.services)
    expiry.tidy(None)
    (line,) = [record for record in caplog.records if record.message == "recordings_not_expired"]
    assert vars(line)["reason"] == f"[Errno 13] no recording can be deleted in it: '{tmp_path}'"
    assert not_deleted(bench) == 1
    flags.pop(0)
    expiry.tidy(None)
    assert not_deleted(bench) == 0


def test_expiry_that_a_reload_turns_off_reports_no_fault(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_only = SimpleNamespace(f_flag=os.ST_RDONLY)
    monkeypatch.setattr(recording_expiry, "os", SimpleNamespace(**{**vars(os), "statvfs": lambda _path: read_only}))
    monkeypatch.setattr(bench.services.membership, "redis_time", lambda: None)
    (tmp_path / "recordings").mkdir()
    expiry = RecordingExpiry(bench.services)
    expiry.start()
    eventually(lambda: not_deleted(bench) == 1)
    recordings = msgspec.structs.replace(bench.config.recordings, keep_days=None)
    policies = bench.services.policies
    policies.now = replace(policies.now, config=msgspec.structs.replace(bench.config, recordings=recordings))
    expiry.look()
    eventually(lambda: not_deleted(bench) == 0)
    expiry.stop()


def test_expiry_goes_on_behind_a_folder_that_cannot_be_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """``lost+found`` of a disk of its own is root's: with it, no recording was ever deleted."""
    (Path(bench.config.recordings.dir) / "aaa").mkdir(parents=True)
    (Path(bench.config.recordings.dir) / "lost+found").mkdir()
    old = recording(bench, "20250101")
    asked: list[str] = []

    def scan(path: str) -> Any:
        asked.append(Path(path).name)
        if Path(path).name in ("aaa", "lost+found"):
            raise PermissionError(13, "Permission denied", path)
        return os.scandir(path)

    monkeypatch.setattr(recording_expiry, "os", SimpleNamespace(**{**vars(os), "scandir": scan}))
    RecordingExpiry(bench.services).tidy(TODAY)
    assert not old.exists()
    assert "lost+found" not in asked
    (line,) = [record for record in caplog.records if record.message == "recordings_not_expired"]
    assert "aaa" in vars(line)["reason"]


def test_expiry_goes_on_behind_a_day_that_cannot_be_deleted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stuck, old = recording(bench, "20250101"), recording(bench, "20250102")
    folder = recording(bench, "20250103").parent / f"{REF}1.wav"
    folder.mkdir()

    def unlink(path: str) -> None:
        if path == str(stuck):
            raise PermissionError(13, "Permission denied", path)
        os.unlink(path)

    monkeypatch.setattr(recording_expiry, "os", SimpleNamespace(**{**vars(os), "unlink": unlink}))
    RecordingExpiry(bench.services).tidy(TODAY)
    assert stuck.exists()
    assert not old.exists()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert caplog.messages.count("recordings_not_expired") == 1
    assert not_deleted(bench) == 1
