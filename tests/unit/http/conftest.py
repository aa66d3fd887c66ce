"""Fixtures: a node's two ports on doubles of its services."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.http_services import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(str(tmp_path))
