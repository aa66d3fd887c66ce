"""Reading in a process of its own: what comes out is what ``load`` returns, or its problems."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from esl_apps.config import child, load
from esl_apps.config.problems import ConfigError
from tests.support.configurations import LEAST

ACCOUNTS = "".join(f"  a{number}: {{token: token-{number}}}\n" for number in range(250))


def write(folder: Path, text: str) -> str:
    (folder / "f.yml").write_text(text)
    return str(folder / "f.yml")


def decoded(file: str) -> object:
    decoder = child.Decoder()
    for frame in child.frames(file):
        decoder.take(frame)
    return decoder.config()


@pytest.mark.parametrize("more", ["", f"pin_key: key\naccounts:\n{ACCOUNTS}", "trust: [0.0.0.0/0]\n"])
def test_child_frames_are_the_configuration(tmp_path: Path, more: str) -> None:
    file = write(tmp_path, LEAST + more)
    config = load(file)
    assert decoded(file) == config
    assert config.high_risk() == decoded(file).high_risk()  # type: ignore[attr-defined]


def test_child_accounts_have_small_frames(tmp_path: Path) -> None:
    file = write(tmp_path, f"{LEAST}pin_key: key\naccounts:\n{ACCOUNTS}")
    assert len(list(child.frames(file))) == 2 + 3
    assert max(len(frame) for frame in child.frames(file)) < 100_000


def test_child_problems_keep_their_lines(tmp_path: Path) -> None:
    file = write(tmp_path, LEAST + "colour: red\nadmin: {}\n")
    with pytest.raises(ConfigError) as here:
        load(file)
    with pytest.raises(ConfigError) as there:
        decoded(file)
    assert str(there.value) == str(here.value)
    assert f"{file}:6: colour" in str(there.value)


def test_child_that_ends_early_is_incomplete(tmp_path: Path) -> None:
    data = b"".join(len(frame).to_bytes(4, "big") + frame for frame in child.frames(write(tmp_path, LEAST)))
    assert len(list(child.split(data))) == 2
    for cut in (len(data) - 1, 3):
        with pytest.raises(child.Incomplete):
            list(child.split(data[:cut]))
    with pytest.raises(child.Incomplete):
        child.Decoder().config()


def test_child_main_writes_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, written, nicer = write(tmp_path, LEAST), io.BytesIO(), list[int]()
    monkeypatch.setattr(sys, "argv", ["-c", file])
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=written))
    monkeypatch.setattr(os, "nice", nicer.append)
    child.main()
    assert [bytes(frame) for frame in child.split(written.getvalue())] == list(child.frames(file))
    assert nicer == [5]


def test_child_that_may_not_be_nicer_reads_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd's filter of system calls refuses it (``SystemCallFilter=~@resources``)."""

    def refuse(_by: int) -> int:
        raise PermissionError

    written = io.BytesIO()
    monkeypatch.setattr(sys, "argv", ["-c", write(tmp_path, LEAST)])
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=written))
    monkeypatch.setattr(os, "nice", refuse)
    child.main()
    assert list(child.split(written.getvalue()))
