"""The systemd unit, judged by systemd."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from esl_apps.cli.exit_status import Exit
from tests.support import ROOT

UNIT = ROOT / "conf/systemd/esl-apps.service"
PROGRAM = "/opt/esl_apps/venv/bin/esl-apps"

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that is there, as ``verify`` looks for it."""
    file = tmp_path / "esl-apps.service"
    file.write_text(UNIT.read_text().replace(PROGRAM, "/bin/true"))
    return file


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def test_unit_is_understood_by_systemd(unit: Path) -> None:
    done = analyze("verify", "--man=no", str(unit))
    assert [line for line in done.stdout.splitlines() if unit.name in line] == []


def test_unit_exposes_little(unit: Path) -> None:
    done = analyze("security", "--offline=true", "--threshold=15", str(unit))
    assert done.returncode == 0, done.stdout.splitlines()[-1]
    level = re.search(r"exposure level for esl-apps.service: (\d+\.\d)", done.stdout)
    assert level is not None
    assert float(level[1]) <= 1.5


def test_unit_is_not_restarted_for_a_wrong_configuration() -> None:
    assert f"\nRestartPreventExitStatus={Exit.WRONG:d}\n" in UNIT.read_text()
