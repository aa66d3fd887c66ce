"""Files that others may have put there: only regular ones are opened, and only so much is read."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from esl_apps.process.files import NotRegular, TooLarge, open_regular, read_regular


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def link_to_zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_a_file(path: Path) -> None:
    target = path.with_suffix(".target")
    target.write_bytes(b"secret")
    path.symlink_to(target)


def dangling_link(path: Path) -> None:
    path.symlink_to("/nowhere")


@pytest.mark.parametrize("make", [fifo, folder, unix_socket, link_to_zero, link_to_a_file, dangling_link])
def test_open_of_anything_but_a_file_is_refused(tmp_path: Path, make: object) -> None:
    make(tmp_path / "x")  # type: ignore[operator]
    with pytest.raises(OSError):
        open_regular(tmp_path / "x")


@pytest.mark.parametrize("make", [fifo, folder, link_to_zero])
def test_open_that_follows_links_takes_files_only(tmp_path: Path, make: object) -> None:
    make(tmp_path / "x")  # type: ignore[operator]
    with pytest.raises(NotRegular):
        open_regular(tmp_path / "x", follow=True)


def test_open_that_follows_links_reads_their_target(tmp_path: Path) -> None:
    link_to_a_file(tmp_path / "x")
    assert read_regular(tmp_path / "x", 6, follow=True) == b"secret"


def test_open_descriptor_isnt_inherited(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    fd = open_regular(tmp_path / "x")
    assert not os.get_inheritable(fd)
    os.close(fd)


@pytest.mark.parametrize("size", [0, 1, 3 << 20])
def test_read_returns_the_whole_file(tmp_path: Path, size: int) -> None:
    (tmp_path / "x").write_bytes(b"x" * size)
    assert read_regular(tmp_path / "x", max(1, size)) == b"x" * size


def test_read_of_a_larger_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * 11)
    with pytest.raises(TooLarge):
        read_regular(tmp_path / "x", 10)


def test_read_leaves_no_descriptor_open(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * 11)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(TooLarge):
            read_regular(tmp_path / "x", 10)
        with pytest.raises(NotRegular):
            read_regular("/dev/zero", 10)
    assert len(os.listdir("/proc/self/fd")) == before
