"""``esl-apps dialplan``: where its files go."""

from __future__ import annotations

from pathlib import Path

import pytest

from esl_apps.cli.dialplan import DEFAULT, PROOF, PUBLIC, TRANSFERS
from tests.unit.cli.conftest import Run, Settings


@pytest.fixture
def numbered(settings: Settings) -> Settings:
    settings["cccp"] = {"cccp_cb_number": "+27115551111", "cccp_cc_number": "+27115552222"}
    return settings


def test_dialplan_prints_this_configurations_numbers(run: Run, numbered: Settings) -> None:
    ran = run("dialplan", "-c", numbered.written())
    assert (ran.status, ran.err) == (0, "")
    for text in (f"<!-- dialplan/{PUBLIC} -->", "27115551111", "27115552222", "127.0.0.1:8084", "esl_apps_unavailable"):
        assert text in ran.out


def test_dialplan_json_is_one_object_of_files(run: Run, numbered: Settings) -> None:
    (files,) = run("dialplan", "-c", numbered.written(), "--json").json
    assert files.keys() == {PUBLIC, DEFAULT, TRANSFERS}
    assert "27115551111" in files[PUBLIC]


def test_dialplan_writes_the_secret_for_the_switch_alone(run: Run, numbered: Settings, tmp_path: Path) -> None:
    numbered["node"]["secret"] = "a-secret-for-the-tests"
    assert run("dialplan", "-c", numbered.written(), "-o", str(tmp_path)).status == 0
    line = '<X-PRE-PROCESS cmd="set" data="esl_apps_secret=a-secret-for-the-tests"/>'
    assert [file.name for file in tmp_path.glob("*.xml") if "a-secret" in file.read_text()] == [PROOF]
    assert line in (tmp_path / PROOF).read_text()
    assert (tmp_path / PROOF).stat().st_mode & 0o777 == 0o600


def test_dialplan_output_makes_the_folder(run: Run, numbered: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    ran = run("dialplan", "-c", numbered.written(), "-o", str(folder))
    assert (ran.status, ran.out, ran.err) == (0, "", "")
    assert "27115551111" in (folder / PUBLIC).read_text()
    assert (folder / DEFAULT).exists()


@pytest.mark.parametrize(
    ("folder", "told"),
    [
        ("/etc/passwd", "/etc/passwd: is a file; expected a folder"),
        ("/dev/null", "/dev/null: is a file; expected a folder"),
        ("/etc/passwd/x", "/etc/passwd/x: Not a directory"),
        ("/proc/none/x", "/proc/none: No such file or directory"),
        ("/tmp/" + "x" * 300, f"/tmp/{'x' * 300}: File name too long"),
    ],
)
def test_dialplan_output_names_the_folder_at_fault(run: Run, numbered: Settings, folder: str, told: str) -> None:
    ran = run("dialplan", "-c", numbered.written(), "-o", folder)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == f"esl-apps: {told}\n"


def test_dialplan_number_that_reaches_two_is_refused(run: Run, numbered: Settings) -> None:
    numbered["inbound"] = {"27115551111": {"integrator": "acme", "agents": ["1000"]}}
    ran = run("dialplan", "-c", numbered.written())
    assert (ran.status, ran.out) == (2, "")
    assert "27115551111" in ran.err
