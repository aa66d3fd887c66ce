"""``esl-apps files``, and what is made for the shell and ``man``."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from esl_apps.cli import files
from esl_apps.cli.parser import parser
from tests.support import ROOT
from tests.unit.cli.conftest import Run


def test_files_lists_everything_in_conf(run: Run) -> None:
    shipped = {str(path.relative_to(ROOT / "conf")) for path in (ROOT / "conf").rglob("*") if path.is_file()}
    listed = run("files").out.splitlines()
    assert set(listed) == shipped | {f"completions/esl-apps.{shell}" for shell in ("bash", "fish", "zsh")} | {
        "man/esl-apps.1"
    }


def test_files_prints_a_file_as_it_is(run: Run) -> None:
    ran = run("files", "systemd/esl-apps.service")
    assert (ran.status, ran.out) == (0, (ROOT / "conf/systemd/esl-apps.service").read_text())


def test_files_as_json_have_a_line_each(run: Run) -> None:
    assert run("files", "--json").json == [{"name": name} for name in files.names()]
    wanted = ["high_risk.yml", "systemd/esl-apps.service"]
    assert run("files", *wanted, "--json").json == [{"name": name, "text": files.text_of(name)} for name in wanted]


@pytest.mark.parametrize("command", ["files", "dialplan"])
def test_files_are_written_or_printed_as_json(run: Run, tmp_path: Path, command: str) -> None:
    ran = run(command, "--json", "-o", str(tmp_path))
    assert (ran.status, [*tmp_path.iterdir()]) == (2, [])
    assert "not allowed with argument" in ran.err


@pytest.mark.parametrize("name", ["systemd/esl-apps.servic", "../setup.cfg", "/etc/passwd", "freeswitch"])
def test_files_unknown_name_prints_nothing(run: Run, name: str) -> None:
    ran = run("files", "high_risk.yml", name)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith(f"esl-apps: no file {name}")


def test_files_copies_all_and_overwrites_nothing(run: Run, tmp_path: Path) -> None:
    own = tmp_path / "esl_apps.yml"
    own.write_text("mine")
    ran = run("files", "-o", str(tmp_path))
    assert (ran.status, ran.err) == (1, f"esl-apps: {own}: is there already, and stays as it is\n")
    assert own.read_text() == "mine"
    copied = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert copied == set(files.names())


def complete(*words: str) -> list[str]:
    """What bash offers for the last word."""
    script = (
        f"{files.text_of('completions/esl-apps.bash')}\n"
        f"COMP_WORDS=({' '.join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}\n"
        f"_esl_apps esl-apps {words[-1]!r} {words[-2]!r}\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["esl-apps", "se"], ["serve"]),
        (["esl-apps", "hash-"], ["hash-pin", "hash-token"]),
        (["esl-apps", "--v"], ["--version"]),
        (["esl-apps", "serve", "--log"], ["--log-level", "--log-format"]),
        (["esl-apps", "serve", "--log-format", ""], ["json", "text"]),
        (["esl-apps", "check", "-c", "setup."], ["setup.cfg"]),
        (["esl-apps", "import", "setup."], ["setup.cfg"]),
        (["esl-apps", "dialplan", "-o", "doc"], ["docs"]),
        (["esl-apps", "trace", "x"], []),
    ],
)
def test_bash_completion_offers(words: list[str], offered: list[str]) -> None:
    assert complete(*words) == offered


def test_bash_completion_knows_every_option() -> None:
    for name, sub in parser().commands.items():
        known = {option for action in sub._actions for option in action.option_strings}
        assert set(complete("esl-apps", name, "-")) >= known


def test_fish_completion_has_a_line_per_option() -> None:
    lines = files.text_of("completions/esl-apps.fish").splitlines()
    count = sum(1 for sub in parser().commands.values() for action in sub._actions if action.option_strings)
    assert len([line for line in lines if "__fish_seen_subcommand_from" in line and " -d " in line]) == count


@pytest.mark.skipif(shutil.which("man") is None, reason="no man on this machine")
def test_manual_page_has_each_command_and_status() -> None:
    done = subprocess.run(
        ["man", "--warnings=all", "-l", "-"],
        input=files.text_of("man/esl-apps.1"),
        env={"MANWIDTH": "200", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    shown = re.sub(r".\x08", "", done.stdout)
    for name in parser().commands:
        assert re.search(rf"^   esl-apps {name}$", shown, re.MULTILINE), name
    assert re.search(r"^ {7}2 +A wrong argument", shown, re.MULTILINE)
