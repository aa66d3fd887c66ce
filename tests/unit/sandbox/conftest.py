"""Two sandboxes, as processes: one without a tick, one with a tick of 20 ms."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rig.sandbox import SandboxRig


@pytest.fixture(scope="module")
def switches() -> Iterator[tuple[SandboxRig, SandboxRig]]:
    with SandboxRig(tick=0) as quick, SandboxRig(tick=20) as paced:
        yield quick, paced


def lent(switch: SandboxRig) -> Iterator[SandboxRig]:
    switch.reset()
    yield switch
    assert "Traceback" not in switch.log.read_text()


@pytest.fixture
def rig(switches: tuple[SandboxRig, SandboxRig]) -> Iterator[SandboxRig]:
    """A sandbox without a tick."""
    yield from lent(switches[0])


@pytest.fixture
def paced(switches: tuple[SandboxRig, SandboxRig]) -> Iterator[SandboxRig]:
    """A sandbox with FreeSWITCH's tick of 20 ms."""
    yield from lent(switches[1])
