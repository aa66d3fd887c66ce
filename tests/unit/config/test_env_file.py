"""The file of secrets next to a configuration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from esl_apps.config import env_file, load
from esl_apps.config.env_file import environment, read, variables
from esl_apps.config.problems import ConfigError


def test_variables_are_read_as_systemd_does() -> None:
    text = '# a comment\n; another\n\n A = b=c \nB="x y"\nC=\'z\'\nD=\nnothing\nE="\n'
    assert variables(text) == {"A": "b=c", "B": "x y", "C": "z", "D": "", "E": '"'}


@pytest.mark.parametrize("content", [None, b"A=\xff"])
def test_file_that_cannot_be_read_is_empty(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "x.env").write_bytes(content)
    assert read(tmp_path / "x.env") == {}


def test_error_names_the_file_that_this_user_may_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIN_KEY", raising=False)
    (tmp_path / "x.yml").write_text("pin_key: '${PIN_KEY}'")

    def refuse(_file: Path) -> dict[str, str]:
        raise PermissionError(13, "Permission denied")  # as for a user; root may read all

    monkeypatch.setattr(env_file, "read", refuse)
    with pytest.raises(ConfigError, match=re.escape(f"not set, or is empty; this user may not read {tmp_path}/x.env")):
        load(str(tmp_path / "x.yml"))


def test_environment_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "esl_apps.env").write_text("ONE=file\nTWO=file\n")
    monkeypatch.setenv("ONE", "process")
    monkeypatch.delenv("TWO", raising=False)
    found = environment(str(tmp_path / "esl_apps.yml"))
    assert (found["ONE"], found["TWO"]) == ("process", "file")


def test_load_reads_secrets_next_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FS_PASSWORD_OF_A_TEST", raising=False)
    file = tmp_path / "esl_apps.yml"
    file.write_text(
        "{switches: [{name: fs1, address: 127.0.0.1:8021, password: '${FS_PASSWORD_OF_A_TEST}'}], admin: {token: t}}"
    )
    with pytest.raises(ConfigError, match="FS_PASSWORD_OF_A_TEST is not set"):
        load(str(file))
    (tmp_path / "esl_apps.env").write_text("FS_PASSWORD_OF_A_TEST=from-the-file\n")
    assert load(str(file)).switches[0].password == "from-the-file"
