"""The compose file: what the switch's container gets is what `esl-apps init` makes and the node's container has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from esl_apps.cli.init.answers import Answers
from esl_apps.cli.init.templates import make
from esl_apps.cli.init.this_machine import Machine
from tests.support import ROOT

ANSWERS = Answers("127.0.0.1:8021", "", "ZA", "192.0.2.2", "", "acme", "redis://127.0.0.1:6379/0")


@pytest.fixture(scope="module")
def mounts() -> dict[str, str]:
    """The files and folders of this machine in the switch's container."""
    services = yaml.safe_load((ROOT / "compose.yml").read_text())["services"]
    bound = [volume.split(":") for volume in services["freeswitch"]["volumes"] if volume.startswith("./")]
    return {here: there for here, there, _read_only in bound}


def test_compose_mounts_all_that_init_makes_for_freeswitch(mounts: dict[str, str]) -> None:
    made = make(ANSWERS, Machine(), Path("/etc/esl_apps"))
    wanted = {f"./etc/{name}" for name in made if name.startswith(("dialplan/", "freeswitch/"))}
    assert wanted <= mounts.keys()
    assert all(Path(here).name == Path(there).name for here, there in mounts.items())


def test_compose_mounts_prompts_where_the_node_has_them(mounts: dict[str, str]) -> None:
    text = (ROOT / "Containerfile").read_text()
    (python,) = set(re.findall(r"FROM docker.io/library/(python):([\d.]+)-slim", text))
    packages = f"/opt/esl_apps/lib/{''.join(python)}/site-packages"
    assert "COPY --from=build /opt/esl_apps /opt/esl_apps" in text
    assert mounts["./esl_apps/prompts"] == f"{packages}/esl_apps/prompts"
