"""The folder of a node's files, and who ran with it last."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from esl_apps.config.model import Config, Node
from esl_apps.config.problems import ConfigError
from esl_apps.core import terms
from esl_apps.core.versions import FILES
from esl_apps.node.state_folder import read_boot, state_folder, write_boot
from tests.support.bench import Build, placed


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


def test_state_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "outbox").write_text("a file")
    with pytest.raises(ConfigError, match=re.escape(f"(tried {tmp_path}/outbox/app2)")):
        state_folder(Config(node=Node(name="app2", state_dir=str(tmp_path))))


def test_every_file_of_the_state_folder_has_a_version(build: Build) -> None:
    """A new file: say in ``versions.FILES`` what is in it."""
    bench = build()
    order = placed(integrator="acme")
    bench.services.calls.begin(order.attempt, bench.services.switches[0])
    order.attempt.end(terms.ABANDONED, 16, terms.AGENT, 1.0)
    names = [path.name for path in state_folder(bench.config).rglob("*") if path.is_file()]
    assert {re.sub(r"^[0-9]{16}", "NUMBER", name) for name in names} == FILES.keys()
