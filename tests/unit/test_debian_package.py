"""The scripts of the Debian package, on a machine whose programs only note that they were called."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT

CHECK = "esl-apps check --offline -c /etc/esl_apps/esl_apps.yml"
RESTART = "systemctl try-restart esl-apps.service"


class Machine:
    """A machine with systemd. ``failing`` lists commands that fail on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        self.failing: list[str] = []

    def configure(self, before: str) -> subprocess.CompletedProcess[str]:
        """Run ``postinst``. ``before``: the version that was configured last."""
        for name in ("systemctl", "systemd-sysusers", "systemd-tmpfiles", "esl-apps"):
            cases = "".join(f"'{command}') exit 1;; " for command in self.failing)
            program = self.folder / name
            program.write_text(
                f'#!/bin/sh\nline="{name} $*"\necho "$line" >> {self.calls}\ncase $line in {cases} esac\n'
            )
            program.chmod(0o755)
        script = (ROOT / "packaging/deb/postinst").read_text().replace("/run/systemd/system", str(self.folder))
        environment = {"PATH": f"{self.folder}:/usr/bin:/bin"}
        command = ["sh", "-c", script, "postinst", "configure", before]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    @property
    def called(self) -> list[str]:
        return self.calls.read_text().splitlines()[3:]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_package_upgrade_checks_then_restarts(machine: Machine) -> None:
    assert machine.configure("0.1.0").returncode == 0
    assert machine.called == ["systemctl is-active --quiet esl-apps.service", CHECK, RESTART]


def test_package_upgrade_keeps_the_node_if_the_check_fails(machine: Machine) -> None:
    machine.failing = [CHECK]
    done = machine.configure("0.1.0")
    assert done.returncode == 1
    assert "the version before goes on" in done.stderr
    assert RESTART not in machine.called


def test_package_upgrade_starts_no_stopped_node(machine: Machine) -> None:
    machine.failing = ["systemctl is-active --quiet esl-apps.service"]
    assert machine.configure("0.1.0").returncode == 0
    assert machine.called == machine.failing


def test_package_first_installed_is_enabled(machine: Machine) -> None:
    assert machine.configure("").returncode == 0
    assert machine.called == ["systemctl enable --now esl-apps.service"]
