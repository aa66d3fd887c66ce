"""The Pythons that `make test-pythons` finds, and what it makes of each."""

from __future__ import annotations

import re
import stat
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from tools import pythons

HERE = "{}.{}".format(*sys.version_info)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty PATH and pyenv of this test's own."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    return tmp_path


def program(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


def test_find_python_prefers_path(path: Path) -> None:
    found = program(path / "python3.13", "echo 3.13")
    program(path / "pyenv/versions/3.13.0/bin/python3.13", "echo 3.13")
    assert pythons.find_python("3.13") == found


def test_find_python_passes_over_a_shim_that_fails(path: Path) -> None:
    program(path / "python3.13", "exit 127")
    found = program(path / "pyenv/versions/3.13.0/bin/python3.13", "echo 3.13")
    assert pythons.find_python("3.13") == found


def test_find_python_passes_over_another_version(path: Path) -> None:
    program(path / "python3.13", "echo 3.12")
    assert pythons.find_python("3.13") is None


def test_main_reports_an_absent_python(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pythons.main(["--only", "3.14"]) == 1
    assert "Python 3.14: not installed" in capsys.readouterr().out


@pytest.mark.parametrize("failing", [None, "mypy", "python"])
def test_main_tells_which_command_failed(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failing: str | None
) -> None:
    program(path / f"python{HERE}", f"echo {HERE}")
    monkeypatch.setattr(pythons, "VENVS", path / "venvs")
    for name in ("mypy", "python"):
        program(path / "venvs" / HERE / "bin" / name, "exit 1" if name == failing else "exit 0")
    (path / "venvs" / HERE / ".installed").touch()
    assert pythons.main(["--only", HERE]) == (0 if failing is None else 1)
    result = f"FAILED: {failing} " if failing else "passed"
    assert f"\nPython {HERE}: {result}" in capsys.readouterr().out


def test_classifiers_and_tool_name_the_same_pythons() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert tuple(re.findall(r"Python :: (3\.\d+)", text)) == pythons.SUPPORTED
