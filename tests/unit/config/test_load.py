"""Files: what can't be opened or decoded is refused in words that say what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from esl_apps.config import load, text_file
from esl_apps.config.problems import ConfigError
from tests.support.configurations import LEAST, SECRETS, SHIPPED


def refusal_of(file: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(str(file), {})
    return str(caught.value)


def test_load_without_environ_reads_the_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    assert load(str(SHIPPED)) == load(str(SHIPPED), SECRETS)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_load_windows_text_is_read(tmp_path: Path, mark: bytes, newline: bytes) -> None:
    file = tmp_path / "f.yml"
    file.write_bytes(mark + LEAST.encode().replace(b"\n", newline) + "pin_key: ké".encode())
    assert load(str(file), {}).pin_key == "ké"


def test_load_missing_file_is_refused(tmp_path: Path) -> None:
    assert refusal_of(tmp_path / "none.yml") == f"{tmp_path}/none.yml: can't be read: No such file or directory"


def test_load_folder_is_refused(tmp_path: Path) -> None:
    assert refusal_of(tmp_path) == f"{tmp_path}: is a folder; expected a file"


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_load_fifo_or_device_is_refused(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "f.yml")
    assert refusal_of(tmp_path / "f.yml") == f"{tmp_path}/f.yml: isn't a regular file; expected a file"


def test_load_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.yml").write_text(LEAST)
    (tmp_path / "f.yml").symlink_to("real.yml")
    assert load(str(tmp_path / "f.yml"), {}).node.name == "app1"


def test_load_file_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_file, "MOST", 10)
    (tmp_path / "f.yml").write_text(LEAST)
    assert refusal_of(tmp_path / "f.yml") == f"{tmp_path}/f.yml: expected at most 10 bytes"


def test_load_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "f.yml"
    file.write_text(LEAST)

    def closed(path: str, *_more: object, **_named: object) -> bytes:
        # Not by its mode: root reads everything.
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(text_file, "read_regular", closed)
    assert refusal_of(file) == f"{file}: can't be read: Permission denied"


def test_load_failing_disk_is_refused() -> None:
    # Reading there fails for every user.
    assert refusal_of(Path("/proc/self/mem")) == "/proc/self/mem: can't be read: Input/output error"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"node:\n  name: caf\xe9\n", ":2: the byte 0xe9 isn't UTF-8 (in Latin-1 it is é); save the file as UTF-8"),
        ("node: {}\n".encode("utf-16"), ":1: is in UTF-16; save it as UTF-8"),
        ("node: {}\n".encode("utf-16-be"), ":1: not YAML: the character U+0000 can't be printed; remove it"),
        (b"", ":1: the file is empty; expected a configuration"),
    ],
)
def test_load_other_encoding_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "f.yml"
    file.write_bytes(content)
    assert refusal_of(file) == f"{file}{told}"
