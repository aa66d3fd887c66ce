"""The systemd unit and its drop-ins, as far as a node depends on them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from esl_apps.cli import service_unit

Write = Callable[..., None]
STRICT = "[Service]\nProtectSystem=strict\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a unit and drop-ins, each ``folder/name``."""
    folders = [tmp_path / name for name in ("etc", "lib")]
    monkeypatch.setattr(service_unit, "FOLDERS", tuple(map(str, folders)))

    def write(unit: str, **drop_ins: str) -> None:
        for folder in folders:
            (folder / "esl-apps.service.d").mkdir(parents=True, exist_ok=True)
        (folders[1] / "esl-apps.service").write_text(unit)
        for name, text in drop_ins.items():
            place, _, file = name.partition("_")
            (tmp_path / place / "esl-apps.service.d" / f"{file}.conf").write_text(text)

    return write


@pytest.mark.parametrize(
    "lines",
    [
        "ReadWritePaths=/a /srv/rec",
        "ReadWritePaths = -/srv/",
        "ReadWritePaths=/a \\\n  /srv/rec",
        "ReadWritePaths=/a \\\n# the recordings\n  /srv/rec",
        "# as it was: \\\nReadWritePaths=/srv/rec",
        'ReadWritePaths="/srv/rec"',
        "ReadWriteDirectories=/srv/rec",
        "BindPaths=/srv/rec",
        "BindPaths=-/disk/rec:/srv/rec:rbind",
        "ReadWritePaths=/a\nReadWritePaths=\nReadWritePaths=/srv/rec",
        "ProtectSystem=full",
        "ProtectSystem=",
    ],
)
def test_service_unit_opens_a_folder(write: Write, lines: str) -> None:
    write(STRICT + lines + "\n")
    assert not service_unit.forbids("/srv/rec")


@pytest.mark.parametrize(
    "lines",
    [
        "",
        "ReadWritePaths=/srv/re /srv/recordings",
        "ReadWritePaths=/srv/rec\nReadWritePaths=",
        "ReadWriteDirectories=/srv/rec\nReadWritePaths=",
        "BindPaths=/srv/rec:/other",
        "BindPaths=/srv/rec\nBindPaths=",
        "#ReadWritePaths=/srv/rec",
        "ReadWritePaths=/a\n/srv/rec",
    ],
)
def test_service_unit_closes_a_folder(write: Write, lines: str) -> None:
    write(STRICT + lines + "\n")
    assert service_unit.forbids("/srv/rec")


def test_service_unit_drop_ins_are_read_by_name(write: Write) -> None:
    write(STRICT, etc_10="ReadWritePaths=/srv/rec\n", lib_20="ReadWritePaths=\n")
    assert service_unit.forbids("/srv/rec")
    # The first folder hides a file of the same name in the second.
    write(STRICT, etc_20="ReadWritePaths=/b\n")
    assert not service_unit.forbids("/srv/rec")


@pytest.mark.parametrize(
    ("lines", "limit"),
    [
        ("", None),
        ("LimitNOFILE=65536", 65536),
        ("LimitNOFILE=65536\nLimitNOFILE=4096", 4096),
        ("LimitNOFILE=65536\nLimitNOFILE=", None),
        ("LimitNOFILE=1024:65536", 1024),
        ("LimitNOFILE=infinity", sys.maxsize),
    ],
)
def test_service_unit_limits_descriptors(write: Write, lines: str, limit: int | None) -> None:
    write(STRICT + lines + "\n")
    assert service_unit.descriptors() == limit
