"""The folder of a node's files, and who ran with it last."""

from __future__ import annotations

from pathlib import Path

import pytest

from esl_apps.node.state_folder import read_boot, write_boot


def test_boot_of_the_last_run_is_read(tmp_path: Path) -> None:
    assert read_boot(tmp_path) == ""
    write_boot(tmp_path, "0123456789abcdef")
    assert read_boot(tmp_path) == "0123456789abcdef"


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"x" * 65, b"a b", b"../etc"])
def test_boot_that_is_unreadable_is_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "boot").write_bytes(text)
    assert read_boot(tmp_path) == ""


def test_boot_that_cant_be_written_stops_no_start(tmp_path: Path) -> None:
    write_boot(tmp_path / "missing", "0123456789abcdef")
