"""The command line's description: what it imports, what it suggests, what the patching waits for."""

from __future__ import annotations

import re

import pytest

from esl_apps.cli.parser import parser
from tests.support import ROOT
from tests.support.interpreter import run_fresh
from tests.unit.cli.conftest import Run


def test_parser_needs_no_library_of_a_command() -> None:
    code = (
        "import sys; from esl_apps.cli.parser import parser; parser(); "
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    assert not {"gevent", "redis", "msgspec", "yaml", "phonenumbers"} & set(run_fresh(code).split())


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        (["serv"], "serve"),
        (["chek", "-c", "x"], "check"),
        (["serve", "--log-levl", "info"], "--log-level"),
        (["serve", "--wrokers=2"], "--workers"),
        (["sandbox", "--listn", "127.0.0.1:1"], "--listen"),
        (["hash_pin"], "hash-pin"),
    ],
)
def test_parser_says_what_was_meant(run: Run, argv: list[str], meant: str) -> None:
    ran = run(*argv)
    assert ran.status == 2
    assert ran.err.endswith(f"; did you mean {meant}?\n")


@pytest.mark.parametrize("argv", [["xyzzy"], ["serve", "--colour"]])
def test_parser_suggests_nothing_far(run: Run, argv: list[str]) -> None:
    assert "did you mean" not in run(*argv).err


@pytest.mark.parametrize("level", ["debug", "Debug", "DEBUG"])
def test_parser_reads_the_log_level_in_any_case(level: str) -> None:
    assert parser().read(["serve", "--log-level", level]).log_level == "DEBUG"


@pytest.mark.parametrize("name", sorted(parser().commands))
def test_parser_abbreviates_no_command(name: str) -> None:
    """A script that uses ``brea`` would break with the next command of that beginning."""
    with pytest.raises(SystemExit):
        parser().read([name[:-1]])


def test_parser_knows_the_commands_that_people_are_told() -> None:
    """In alarms and dashboards, too, where an operator reads them at night."""
    texts = [*(ROOT / "conf").rglob("*"), *(ROOT / "docs").rglob("*.rst"), *ROOT.glob("*.rst")]
    told = {
        name
        for path in texts
        if path.is_file()
        for name in re.findall(r"esl-apps ([a-z][a-z-]*)(?![\w/-])", path.read_text())
    }
    assert {"serve", "hash-pin"} <= told <= parser().commands.keys()
