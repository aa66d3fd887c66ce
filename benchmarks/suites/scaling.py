"""Measure how a deployment scales: one process and two workers; one, two and four nodes compared with the model."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import process, table
from benchmarks.load import node_bench
from benchmarks.load.node_bench import HOST, NodeBench
from tests.chaos.parts import NodeProcess, stop
from tests.support.ports import free_ports

ROUNDS = 3
CALLS = 2000
MIX = {"click2dial": 2, "disa": 1, "dialthrough": 1}
CARDS = 10_000
TARGET = 1.8
WORKERS = """\
Half of the calls are click-to-dial, a quarter DISA, a quarter dialthrough, 60 at a time. Records are checked as in the
benchmark of complete applications. "one core" runs everything, including the load generator and Redis, and so do "two
cores": the gain of the second core is the gain of a second worker (target: {target}).
Each figure is the median of {rounds} runs."""
MODEL = """\
Everything runs on two cores. The model: however many nodes there are, a call costs the nodes, Redis and the generator
what it costs them in the first row, and two cores have 2 s of CPU per second. "of model" compares the measured rate
with it. Each node has its own connection to the switch, with only the events of its own calls."""


class Group(NodeBench):
    """``nodes`` nodes with ``workers`` processes each, their Redis and the generator, all sharing ``cores`` cores."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack, nodes: int, workers: int, cores: int) -> None:
        self._cores = set(range(cores))
        self._workers = workers
        with self._pinned():
            super().__init__(folder, stack)
        os.sched_setaffinity(self.redis.pid, self._cores)
        self.nodes = [self.node]
        for number in range(2, nodes + 1):
            config = node_bench.configuration(
                folder, self.node.config["redis"]["url"], f"{HOST}:{self.switch_port}", name=f"bench{number}"
            )
            self.nodes.append(NodeProcess(config, folder, self.node.redis_ports))
        if workers > 1:
            for node in self.nodes:
                node.config["node"]["worker_ports"] = free_ports(workers)
                node.file.write_text(json.dumps(node.config))
                node.command += ["--workers", str(workers)]

    def start(self, **dial: Any) -> None:
        self._exchange = self._generator([node.config for node in self.nodes])
        os.sched_setaffinity(self._exchange.pid, self._cores)
        for node in self.nodes:
            self._stack.callback(stop, node)
            with self._pinned():
                node.start()
        ports = [node_bench.port_of(node.config["node"]["listen"]) for node in self.nodes]
        self.order("ready", ports=ports, connections=len(self.nodes) * self._workers)
        self.order("dial", **dial)

    @contextlib.contextmanager
    def _pinned(self) -> Iterator[None]:
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._cores)
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)

    def cpu(self) -> float:
        """Return the CPU seconds of all nodes together."""
        return sum(process.cpu(pid) for node in self.nodes for pid in (node.pid, *process.children(node.pid)))


def run(options: argparse.Namespace) -> str:
    machine = table.machine(["gevent", "redis"])
    calls = CALLS // (10 if options.quick else 1)
    rounds = 1 if options.quick else ROUNDS
    one = measure("one core, one process", calls, rounds, nodes=1, workers=1, cores=1)
    two = measure("two cores, two workers", calls, rounds, nodes=1, workers=2, cores=2)
    first = table.render(
        "Workers: the gain of a second core",
        ["", "calls/s", "of one core", "us CPU/call", "Redis us/call", "generator us/call"],
        [
            line("one core, one process", one, one["calls/s"]),
            line("two cores, --workers 2", two, one["calls/s"]),
        ],
        WORKERS.format(target=f"{TARGET:.1f}x", rounds=rounds).splitlines(),
    )
    rows = []
    expected = 0.0
    for nodes in (1, 2, 4):
        figures = measure(f"{nodes} nodes", calls, rounds, nodes=nodes, workers=2 if nodes == 1 else 1, cores=2)
        expected = expected or 2e6 / (figures["node"] + figures["redis"] + figures["exchange"])
        label = "1 node, --workers 2" if nodes == 1 else f"{nodes} nodes"
        rows.append((*line(label, figures, expected),))
    second = table.render(
        "The model, and 1, 2 and 4 nodes",
        ["", "calls/s", "of model", "us CPU/call", "Redis us/call", "generator us/call"],
        rows,
        [f"The model predicts {expected:,.0f} calls a second.", *MODEL.splitlines()],
    )
    return f"{first}\n\n\n{second}\n\n{machine}"


def line(label: str, figures: dict[str, float], base: float) -> tuple[str, ...]:
    costs = [f"{figures[name]:,.0f}" for name in ("node", "redis", "exchange")]
    return (label, f"{figures['calls/s']:,.0f}", table.ratio(figures["calls/s"], base), *costs)


def measure(label: str, calls: int, rounds: int, **size: int) -> dict[str, float]:
    """Return calls a second, and microseconds of CPU per call."""
    runs: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, contextlib.ExitStack() as stack:
        group = Group(Path(folder), stack, **size)
        group.create_cards(CARDS)
        group.start()
        group.measure_calls(MIX, calls // 4)
        for _ in range(rounds):
            report = group.measure_calls(MIX, calls, concurrency=60)
            costs = {name: report[name] / calls * 1e6 for name in ("node", "redis", "exchange")}
            runs.append({"calls/s": calls / report["wall"], **costs})
    result = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    print(f"{label}: {result['calls/s']:,.0f} calls/s", file=sys.stderr, flush=True)
    return result
