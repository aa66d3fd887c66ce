"""Measure WAV files, whole and unfinished."""

from __future__ import annotations

import hashlib
import wave
from pathlib import Path
from types import SimpleNamespace

import pytest
from gevent.monkey import get_original

from esl_apps.process import wav
from esl_apps.process.folder import Folder
from esl_apps.process.wav import Unfinished, Wav, measure


def write(path: Path, *, channels: int = 2, rate: int = 16000, frames: int = 8000) -> bytes:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(range(256)) * (frames * channels * 2 // 256))
    return path.read_bytes()


def test_measure_says_length_form_and_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wav, "_PART", 1000)
    data = write(tmp_path / "a.wav")
    found = measure(Folder("test"), str(tmp_path / "a.wav"))
    assert found == Wav(0.5, len(data), hashlib.sha256(data).hexdigest(), 2, 16000)


def test_measure_hashes_in_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash of 8 MB takes 20 ms, in which no call would get its turn."""
    get_ident = get_original("_thread", "get_ident")
    threads: list[int] = []

    class Hash:
        def update(self, _data: bytes) -> None:
            threads.append(get_ident())

        def hexdigest(self) -> str:
            return ""

    write(tmp_path / "a.wav")
    monkeypatch.setattr(wav, "hashlib", SimpleNamespace(sha256=Hash))
    measure(Folder("test"), str(tmp_path / "a.wav"))
    assert len(threads) == 1
    assert get_ident() not in threads


@pytest.mark.parametrize("data", [b"", b"RIFF", b"not a wav file" * 10])
def test_measure_of_something_else_is_unfinished(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(Unfinished):
        measure(Folder("test"), str(tmp_path / "a.wav"))


def test_measure_before_the_switch_closes_it_is_unfinished(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    data = write(path)
    for present in (data[:-9000], data + bytes(9000)):
        path.write_bytes(present)
        with pytest.raises(Unfinished):
            measure(Folder("test"), str(path))


def test_measure_follows_no_link(tmp_path: Path) -> None:
    write(tmp_path / "a.wav")
    (tmp_path / "b.wav").symlink_to(tmp_path / "a.wav")
    with pytest.raises(OSError):
        measure(Folder("test"), str(tmp_path / "b.wav"))
