"""Files that a command writes, and a disk that is full."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from esl_apps.cli import new_files
from tests.unit.cli.conftest import Run, Settings


def found(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("command", ["files", "dialplan", "init"])
def test_command_on_a_full_disk_leaves_no_half_file(settings: Settings, tmp_path: Path, command: str) -> None:
    folder = tmp_path / "out"
    argv = {
        "files": ["files", "-o", str(folder)],
        "dialplan": ["dialplan", "-c", settings.written(), "-o", str(folder)],
        "init": ["init", str(folder), "--yes", "--region", "ZA", "--domain", "192.0.2.2"],
    }[command]
    ran = subprocess.run(
        [sys.executable, "-m", "esl_apps", *argv],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )
    assert (ran.returncode, ran.stderr.splitlines()[-1]) == (1, "esl-apps: File too large")
    assert found(folder) == {}


def test_dialplan_that_cannot_be_written_stays_as_it_was(run: Run, settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "dialplan"
    run("dialplan", "-c", settings.written(), "-o", str(folder))
    for file in folder.iterdir():
        file.write_text("of yesterday")
    before = found(folder)
    texts = {folder / name: "new" for name in before}
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        new_files.write({**texts, tmp_path / "file" / "below": "new"})
    assert found(folder) == before


def test_write_keeps_links_and_permissions(tmp_path: Path) -> None:
    target, link, fresh = tmp_path / "target", tmp_path / "link", tmp_path / "fresh"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    new_files.write({link: "new", fresh: "new"}, {link: 0o600, fresh: 0o600})
    assert (link.is_symlink(), target.read_text()) == (True, "new")
    assert [file.stat().st_mode & 0o777 for file in (target, fresh)] == [0o640, 0o600]
