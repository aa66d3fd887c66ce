"""Reading a configuration while the node goes on."""

from __future__ import annotations

import os
from pathlib import Path

import gevent
import pytest

from esl_apps.config import load
from esl_apps.config.problems import ConfigError
from esl_apps.node import config_process
from esl_apps.node.config_process import load_apart
from tests.support.configurations import LEAST


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "f.yml"
    path.write_text(LEAST)
    return path


def many(accounts: int) -> str:
    disa = 'disa: {front: {pin: "4821907356", numbers: ["2711%07d"]}}'
    lines = [f"  account{n}: {{token: token-{n}, {disa % n}}}" for n in range(accounts)]
    return "\n".join([f"{LEAST}pin_key: key", "accounts:", *lines, ""])


def test_load_apart_is_the_same_as_load(file: Path) -> None:
    file.write_text(many(150))
    assert load_apart(str(file)) == load(str(file))


def test_load_apart_sees_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(LEAST + "pin_key: ${A_KEY_FOR_TESTS}\n")
    monkeypatch.setenv("A_KEY_FOR_TESTS", "the-key")
    assert load_apart(str(file)).pin_key == "the-key"


def test_load_apart_problems_have_their_lines(file: Path) -> None:
    file.write_text(LEAST + "colour: red\n")
    with pytest.raises(ConfigError, match=f"{file}:6: colour"):
        load_apart(str(file))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_load_apart_of_no_regular_file_is_refused(tmp_path: Path, make: object) -> None:
    make(tmp_path / "f.yml")  # type: ignore[operator]
    with pytest.raises(ConfigError, match="isn't a regular file"):
        load_apart(str(tmp_path / "f.yml"))


def test_load_apart_lets_others_run(file: Path) -> None:
    """Reading 2,000 accounts held the event loop for seconds."""
    file.write_text(many(2000))
    longest, reading = 0.0, gevent.spawn(load_apart, str(file))
    clock = gevent.get_hub().loop.now
    while not reading.ready():
        before = clock()
        gevent.sleep(0.001)
        longest = max(longest, clock() - before)
    assert len(reading.get().accounts) == 2000
    # The old way took 4.9 s.
    assert longest < 2.0


def test_load_apart_that_takes_too_long_is_given_up(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_process, "_CODE", "import time; time.sleep(60) # {path}")
    monkeypatch.setattr(config_process, "PATIENCE", 0.05)
    with pytest.raises(ConfigError, match=r"can't be read within 0\.05 s"):
        load_apart(str(file))


def test_load_apart_without_a_process_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esl_apps.node.config_process.sys.executable", "/nowhere")
    with pytest.raises(ConfigError, match="no process can be started: No such file"):
        load_apart(str(file))


def test_load_apart_whose_process_dies_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_process, "_CODE", "import os; os.abort() # {path}")
    with pytest.raises(ConfigError, match="has ended"):
        load_apart(str(file))
