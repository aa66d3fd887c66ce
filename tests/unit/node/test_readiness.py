"""Whether a node takes calls, and why not."""

from __future__ import annotations

import pytest

from tests.support.bench import Bench, Build, placed
from tests.support.peer import eventually


def test_readiness_node_with_all_its_parts_takes_calls(bench: Bench) -> None:
    assert bench.services.readiness.reasons() == []
    assert not bench.services.readiness.full


def test_readiness_names_every_reason(build: Build) -> None:
    bench = build(switches=("fs1", "fs2"))
    bench.services.readiness.draining = True
    bench.services.store.healthy = False
    assert bench.services.readiness.reasons() == [
        "draining",
        "switch fs1: not connected yet",
        "switch fs2: not connected yet",
        "redis: no answer",
    ]


def test_readiness_one_switch_of_two_is_enough(build: Build) -> None:
    bench = build(switches=("fs1", "fs2")).connect()
    bench.switches["fs2"].server.stop()
    bench.switches["fs2"].drop()
    eventually(lambda: not bench.services.switches[1].connected)
    assert bench.services.readiness.reasons() == []


@pytest.mark.parametrize(("calls", "sockets", "full"), [(1, 2, False), (2, 0, True), (0, 3, True)])
def test_readiness_counts_calls_and_sockets(build: Build, calls: int, sockets: int, full: bool) -> None:
    """A call whose first leg still rings has no socket yet."""
    bench = build(max_calls=2)
    for _ in range(calls):
        bench.services.calls.begin(placed().attempt, bench.services.switches[0])
    bench.services.readiness.sockets = sockets
    assert bench.services.readiness.full is full
