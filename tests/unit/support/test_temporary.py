"""A run of tests leaves nothing in the temporary folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

TEST = """
import os, tempfile

def test_leaves_files(tmp_path):
    tempfile.mkdtemp(prefix="left-")
    (tmp_path / "left").write_text("")
    os.system("mktemp > /dev/null")
    assert {outcome}
"""


@pytest.mark.parametrize("passes", [True, False])
def test_run_of_tests_leaves_files_only_if_it_fails(tmp_path: Path, passes: bool) -> None:
    file = tmp_path / "test_files.py"
    file.write_text(TEST.format(outcome=passes))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "xdist", "-p", "tests.conftest", "-n", "1"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), "-c", "/dev/null", str(file)],
        cwd=ROOT,
        env={**environ, "TMPDIR": str(temporary), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (0 if passes else 1), done.stdout + done.stderr
    left = list(temporary.iterdir())
    if passes:
        assert left == []
    else:
        assert f"Temporary files of the failed run: {left[0]}" in done.stdout
        assert any(path.name.startswith("left-") for path in left[0].iterdir())
