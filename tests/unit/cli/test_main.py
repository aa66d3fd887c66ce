"""The command line: its parser, and what it says when the person or the machine is at fault."""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from esl_apps import __main__, __version__
from esl_apps.cli import calls, main
from esl_apps.cli.parser import parser
from tests.support import zygote
from tests.support.interpreter import run_fresh
from tests.unit.cli.conftest import Run, Settings


def commands() -> dict[str, argparse.ArgumentParser]:
    return dict(parser().commands)


def test_each_command_names_a_function_that_exists() -> None:
    names = [command.get_default("run").split(":") for command in commands().values()]
    # In its own process: some modules import what only a patched process may.
    run_fresh("\n".join(f"from esl_apps.cli.{module} import {function}" for module, function in names))


@pytest.mark.parametrize(
    "argv",
    [
        ["nothing"],
        ["serve", "--colour"],
        ["serve", "--workers", "0"],
        ["serve", "--workers", "-1"],
        ["serve", "--workers", "9" * 5000],
        ["serve", "--workers", "٣"],
        ["serve", "--log-level", "LOUD"],
        ["serve", "--log-format", "xml"],
        ["trace"],
        ["trace", ""],
        ["trace", "a\x1b[2J"],
        ["trace", "\udcff"],
        ["locks", "--lift", "a\n"],
        ["breaker", "--trip", ""],
        ["breaker", "--trip", "system\n"],
        ["breaker", "--trip", "system", "--reset", "system"],
        ["dialplan", "-o", ""],
        ["import"],
        ["demo", "extra"],
    ],
)
def test_main_wrong_arguments_show_the_usage(run: Run, argv: list[str]) -> None:
    ran = run(*argv)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("usage: esl-apps")


def test_main_alone_prints_all_commands(run: Run) -> None:
    ran = run()
    assert (ran.status, ran.err) == (0, "")
    assert [name for name in commands() if f"\n    {name}" not in ran.out] == []


def test_main_version(run: Run) -> None:
    ran = run("--version")
    assert (ran.status, ran.out) == (0, f"{__version__}\n")


NEEDS_CONFIG = [
    ["serve"],
    ["calls"],
    ["trace", "x"],
    ["locks"],
    ["breaker"],
    ["import", "x.json"],
    ["dialplan"],
    ["hash-pin"],
]


@pytest.mark.parametrize("argv", NEEDS_CONFIG, ids=lambda argv: argv[0])
@pytest.mark.parametrize("file", ["none.yml", ".", "/dev/null/x", "\udcff", "x" * 300])
def test_main_names_a_configuration_that_cannot_be_read(run: Run, argv: list[str], file: str) -> None:
    ran = run(argv[0], "-c", file, *argv[1:])
    assert (ran.status, ran.out) == (2, "")
    (line,) = ran.err.splitlines()
    assert line.startswith("esl-apps: ")
    assert "Redis" not in line
    assert "Errno" not in line


def test_main_prints_each_problem_of_a_configuration(run: Run, settings: Settings) -> None:
    settings["dial"] = {"region": "XX"}
    settings["integrators"][0]["tokn"] = "x"
    ran = run("calls", "-c", settings.written())
    assert (ran.status, ran.out) == (2, "")
    assert [line.partition(":")[0] for line in ran.err.splitlines()] == ["esl-apps"] * len(ran.err.splitlines())
    assert "integrators[0].tokn: unknown key; did you mean token?" in ran.err
    assert "dial.region" in ran.err


@pytest.mark.parametrize(
    "argv",
    [
        ["calls"],
        ["trace", "x"],
        ["locks"],
        ["locks", "--lift", "number:1"],
        ["breaker"],
        ["breaker", "--trip", "system"],
        ["breaker", "--reset", "system"],
    ],
    ids=" ".join,
)
def test_main_blames_redis_when_it_is_down(run: Run, no_redis: Settings, argv: list[str]) -> None:
    ran = run(argv[0], "-c", no_redis.written(), *argv[1:])
    assert (ran.status, ran.out) == (1, "")
    (line,) = ran.err.splitlines()
    assert line.startswith("esl-apps: Redis: ")
    assert no_redis["redis"]["url"].split("/")[2] in line


@pytest.mark.parametrize("scheme", ["redis+cluster", "redis+sentinel"])
def test_main_blames_redis_when_all_its_nodes_are_down(run: Run, no_redis: Settings, scheme: str) -> None:
    address = no_redis["redis"]["url"].split("/")[2]
    no_redis["redis"]["url"] = f"{scheme}://{address}/" + ("mymaster/0" if "sentinel" in scheme else "")
    ran = run("calls", "-c", no_redis.written())
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("esl-apps: Redis: ")


def failing(error: BaseException) -> Callable[..., int]:
    def run(*_: object) -> int:
        raise error

    return run


def test_main_interrupted_says_so(run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "run_calls", failing(KeyboardInterrupt()))
    ran = run("calls", "-c", settings.written())
    assert (ran.status, ran.err) == (130, "esl-apps: interrupted\n")


class Output(io.StringIO):
    """A standard output on a real file, so that its descriptor can be replaced."""

    def __init__(self, file: Path, error: OSError) -> None:
        super().__init__()
        self._stream = file.open("w")
        self._error = error

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, _text: str) -> int:
        raise self._error

    def flush(self) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 0, ""),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "esl-apps: No space left on device\n"),
    ],
)
def test_main_output_that_cannot_be_written(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: OSError,
    status: int,
    said: str,
) -> None:
    file = settings.written()
    monkeypatch.setattr(sys, "stdout", Output(tmp_path / "out", error))
    assert main.main(["dialplan", "-c", file]) == status
    assert capsys.readouterr().err == said


def unread(*argv: str) -> tuple[int, str]:
    """Run a command whose output has no reader; return its status and its standard error."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as output:
        done = subprocess.run(
            [sys.executable, "-m", "esl_apps", *argv], stdout=output, stderr=subprocess.PIPE, text=True, check=False
        )
    return done.returncode, done.stderr


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_check_whose_output_is_not_read_keeps_its_status(no_redis: Settings, form: list[str]) -> None:
    assert unread("check", *form, "-c", no_redis.written()) == (1, "")


def test_import_whose_output_is_not_read_goes_on(settings: Settings, tmp_path: Path) -> None:
    config = settings.written()
    names = [str(tmp_path / f"{number}.json") for number in range(3)]
    accounts = [{"_id": f"{number:032x}", "pvt_type": "account", "name": f"Account {number}"} for number in range(3)]
    for name, account in zip(names, accounts, strict=True):
        Path(name).write_text(json.dumps(account))
    status, told = unread("import", *names, "-c", config)
    assert (status, told.splitlines()[-1].partition(",")[0]) == (0, "3 took")


def test_main_work_whose_output_is_not_read_keeps_its_status(settings: Settings, tmp_path: Path) -> None:
    name = "systemd/esl-apps.service"
    assert unread("files", name, "-o", str(tmp_path / "new")) == (0, "")
    assert (tmp_path / "new" / name).is_file()
    config = settings.written()
    assert unread("breaker", "--trip", "integrator:acme", "--json", "-c", config) == (0, "")
    assert unread("breaker", "--trip", "integrator:acme", "--json", "-c", config) == (1, "")


def test_main_output_that_is_full_has_no_traceback(settings: Settings) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "esl_apps", "dialplan", "-c", settings.written()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "esl-apps: No space left on device\n")


def test_main_output_without_a_letter_shows_its_code(settings: Settings) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "esl_apps", "import", "-c", settings.written(), "é.json"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "FAILED \\xe9.json: No such file or directory\n")


def test_main_without_standard_streams_has_no_traceback(settings: Settings) -> None:
    command = f"exec {sys.executable} -m esl_apps hash-pin -c {settings.written()} <&- >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "esl-apps: expected a PIN: digits\n")


# sandbox -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv",
    [
        ["--listen", "127.0.0.1:99999"],
        ["--listen", "127.0.0.1"],
        ["--listen", "nowhere.invalid:8021"],
        ["--listen", "192.0.2.1:8021"],
        ["--listen", "127.0.0.1:0", "--control", "127.0.0.1:99999"],
        ["--listen", "127.0.0.1:0", "--control", "192.0.2.1:1"],
        ["--listen", "127.0.0.1:0", "--recordings", "/dev/null/x"],
        ["--listen", "127.0.0.1:0", "--spool", "/dev/null/x"],
        ["--listen", "127.0.0.1:0", "--legs", "/dev/null/x"],
        ["--listen", "127.0.0.1:0", "--tick", "soon"],
        ["--listen", "127.0.0.1:0", "--tick", "-1"],
        ["--listen", "127.0.0.1:0", "--tick", "nan"],
        ["--listen", "127.0.0.1:0", "--dialplan", "public"],
        ["--listen", "127.0.0.1:0", "--dialplan", "public=/none.xml"],
        ["--listen", "127.0.0.1:0", "--dialplan", "public=/etc/passwd"],
    ],
    ids=" ".join,
)
def test_sandbox_refuses_what_it_cannot_use(argv: list[str]) -> None:
    done = zygote.run(["sandbox", *argv], timeout=40)
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("esl-apps sandbox: ")


def test_sandbox_refuses_an_address_where_something_listens(switch: Any) -> None:
    address = "{}:{}".format(*switch.address)
    done = zygote.run(["sandbox", "--listen", address])
    assert done.returncode == 1
    assert done.stderr == f"esl-apps sandbox: {address}: something listens there already\n"


# The environment ---------------------------------------------------------------------------------------


def test_config_is_taken_from_the_environment(run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESL_APPS_CONFIG", settings.written())
    names = ("public", "default", "refer")
    assert json.loads(run("dialplan", "--json").out).keys() == {f"00_esl_apps_{name}.xml" for name in names}


def test_config_of_an_empty_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESL_APPS_CONFIG", "")
    assert parser().parse_args(["calls"]).config == "/etc/esl_apps/esl_apps.yml"


def test_main_interrupted_at_its_imports_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["esl-apps", "calls"])
    monkeypatch.setattr(sys, "stdout", None)  # which a process of its own may reconfigure
    monkeypatch.setattr(__main__, "patch", interrupt)
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "esl-apps: interrupted\n"
