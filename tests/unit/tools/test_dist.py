"""An sdist has the same bytes on every machine, at any time."""

from __future__ import annotations

import io
import tarfile

import pytest

from tools import dist


def sdist(order: list[str], mtime: int, owner: str) -> bytes:
    """An archive as setuptools makes it."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name in order:
            member = tarfile.TarInfo(name)
            member.mtime, member.uname, member.uid = mtime, owner, mtime % 1000
            if name == "p":
                member.type = tarfile.DIRTYPE
                tar.addfile(member)
            else:
                member.size, member.mode = len(name), 0o775 if name.endswith(".sh") else 0o664
                tar.addfile(member, io.BytesIO(name.encode()))
    return made.getvalue()


def test_sdist_depends_on_its_files_alone() -> None:
    one = dist.repacked(sdist(["p", "p/a", "p/b.sh"], 1_700_000_000, "ann"), 5)
    other = dist.repacked(sdist(["p/b.sh", "p", "p/a"], 1_800_000_000, "bob"), 5)
    assert one == other
    with tarfile.open(fileobj=io.BytesIO(one)) as tar:
        members = {member.name: (member.mode, member.mtime, member.uname) for member in tar}
        assert members == {"p": (0o755, 5, ""), "p/a": (0o644, 5, ""), "p/b.sh": (0o755, 5, "")}
        read = tar.extractfile("p/a")
        assert read is not None
        assert read.read() == b"p/a"


def test_commit_time_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "12")
    assert dist.commit_time() == 12
