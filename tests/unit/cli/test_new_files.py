"""Files that a command writes, and a disk that is full."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from esl_apps.cli import new_files
from esl_apps.cli.output import explain
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
        # -B: the modules that it compiles would be cut short in the cache, too.
        [sys.executable, "-B", "-m", "esl_apps", *argv],
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


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_init_makes_folders_that_the_service_can_enter(run: Run, tmp_path: Path, umask: int) -> None:
    """The service and the switch have users of their own. Those who may not read a secret can't, by its own mode."""
    tmp_path.chmod(0o700)
    folder = tmp_path / "above" / "etc"
    before = os.umask(umask)
    try:
        ran = run("init", str(folder), "--yes", "--region", "ZA", "--domain", "192.0.2.2")
    finally:
        os.umask(before)
    assert ran.status == 0, ran.err
    made = [folder.parent, folder, *(path for path in folder.rglob("*") if path.is_dir())]
    assert {path.stat().st_mode & 0o777 for path in made} == {0o755}
    assert len(made) > 3
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
    secret = {name for name, mode in modes.items() if mode == 0o600}
    assert secret == {"esl_apps.env", "event_socket.conf.xml", "00_esl_apps_secret.xml"} & modes.keys()
    assert "esl_apps.env" in secret
    assert {mode for name, mode in modes.items() if name not in secret} == {0o644, 0o755}
    # A folder that was there is its owner's affair.
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_write_makes_folders_of_their_parents_group(tmp_path: Path) -> None:
    tmp_path.chmod(0o2770)
    new_files.write({tmp_path / "new" / "below" / "file": "text"})
    assert (tmp_path / "new" / "below").stat().st_mode & 0o7777 == 0o2755


_SWITCH, _OPERATOR, _OTHER = 12345, 12346, 12347
"""The switch's user and group, the operator's, and others'."""


@pytest.mark.skipif(os.getuid() != 0, reason="makes files of several users")
@pytest.mark.parametrize(
    ("owner", "group", "mode", "reads"),
    [
        (_SWITCH, _SWITCH, 0o640, True),
        (_SWITCH, _SWITCH, 0o660, True),
        (_SWITCH, _SWITCH, 0o600, False),
        (_SWITCH, _OTHER, 0o640, False),
        (_SWITCH, _OTHER, 0o644, True),
        (0, _SWITCH, 0o640, True),
        (0, _SWITCH, 0o600, True),
        (0, _OTHER, 0o640, False),
        (_OPERATOR, _OTHER, 0o600, True),
    ],
)
@pytest.mark.parametrize("folder_mode", [0o2770, 0o770])
def test_write_takes_no_file_from_the_switch(
    owner: int, group: int, mode: int, folder_mode: int, *, reads: bool
) -> None:
    """Written by an operator in the switch's group, who can't give files away."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        folder = Path(name) / "dialplan"
        first, file = folder / "a.xml", folder / "b.xml"
        folder.mkdir()
        for made in (first, file):
            made.write_text("old")
        first.chmod(0o666)
        os.chown(file, owner, group)
        file.chmod(mode)
        os.chown(folder, _SWITCH, _SWITCH)
        folder.chmod(folder_mode)
        said = _as_operator(lambda: new_files.write({first: "new", file: "new"}))
        assert (said == "") == reads, said
        assert reads or said.startswith(f"{file}: FreeSWITCH, or who else")
        new = "new" if reads else "old"
        assert found(folder) == {"a.xml": new, "b.xml": new}
        assert file.stat().st_mode & 0o777 == mode
        assert group == _OTHER or file.stat().st_gid == group


def _as_operator(write: Callable[[], None]) -> str:
    """Call it in a process of the operator's, and return what it said."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([_SWITCH])
            os.setgid(_OPERATOR)
            os.setuid(_OPERATOR)
            write()
        except OSError as error:
            os.write(writer, explain(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with open(reader) as stream:
        return stream.read()


def test_write_into_the_place_of_a_folder_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "b").mkdir()
    with pytest.raises(IsADirectoryError):
        new_files.write({tmp_path / "a": "new", tmp_path / "b": "new"})
    assert found(tmp_path) == {"a": "old"}
