"""The bill of materials: the parts that no package names."""

from __future__ import annotations

import tomllib
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT
from tools import sbom


def test_sbom_names_the_scripts_of_others_and_versions() -> None:
    scripts = {one["purl"]: one["licenses"][0]["license"]["id"] for one in sbom.bundled(ROOT / "esl_apps")}
    assert scripts == {"pkg:npm/htmx.org@2.0.11": "0BSD", "pkg:npm/sip.js@0.21.2": "MIT"}


def test_sbom_is_refused_if_a_script_names_no_version(tmp_path: Path) -> None:
    for file, *_ in sbom.BUNDLED:
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text("var a;")
    with pytest.raises(SystemExit, match=r"htmx\.min\.js: names no version"):
        sbom.bundled(tmp_path)


def test_sbom_of_the_whole_depends_on_every_part() -> None:
    bom: dict[str, Any] = {
        "metadata": {"component": {"bom-ref": "root"}},
        "components": [{"bom-ref": "redis==8"}],
        "dependencies": [{"ref": "root", "dependsOn": ["redis==8"]}, {"ref": "redis==8"}],
    }
    sbom.add(bom, [{"bom-ref": "htmx==2"}])
    assert [part["bom-ref"] for part in bom["components"]] == ["redis==8", "htmx==2"]
    assert bom["dependencies"][0]["dependsOn"] == ["htmx==2", "redis==8"]


def test_sbom_names_a_version_and_only_what_is_installed() -> None:
    said = tomllib.loads(sbom.project_table(distribution("esl_apps")))["project"]
    assert said["version"] == distribution("esl_apps").version
    assert said["license"] == "MIT"
    assert any(need.startswith("redis") for need in said["dependencies"])
    assert not any(need.startswith("pytest") for need in said["dependencies"])
