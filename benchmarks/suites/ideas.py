"""Ideas for a cheaper call with FreeSWITCH's tick, each next to the node as it is."""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks import process, table
from benchmarks.load import node_bench
from benchmarks.load.node_bench import NodeBench
from benchmarks.suites.applications import APPS, AT_ONCE

TICK, RATE = 0.02, 50
ROUNDS, CALLS, CARDS = 3, 210, 100
NOTES = """\
A node with the idea and the node as it is take turns, {rounds} rounds of {calls} calls each, {rate} a second with
FreeSWITCH's 20 ms tick: DISA, dialthrough and click-to-dial in turn. "of base" is the median of the rounds' ratios of
CPU per call, "least" and "most" are the rounds' extremes: an idea whose range includes 1 gives nothing. Lines that
begin with "no" take something away that is needed: they say what it costs at most."""


@dataclass(frozen=True)
class Idea:
    name: str
    patch: str = "nothing"
    """Its name in ``load.tried_node``."""
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    """More of them for ``serve``."""

    def missing(self) -> str:
        """Return why it can't be tried on this machine, or an empty string."""
        if "libuv" in self.environment.get("GEVENT_LOOP", "") and importlib.util.find_spec("cffi") is None:
            return "gevent's libuv loop needs cffi"
        backend = self.environment.get("GEVENT_BACKEND")
        if backend is not None:
            from gevent.libev import corecext

            if backend not in corecext.supported_backends():
                return "this gevent was built without it"
        return ""


IDEAS = (
    Idea("nothing changed"),
    Idea("GEVENT_BACKEND=poll", environment={"GEVENT_BACKEND": "poll"}),
    Idea("GEVENT_BACKEND=select", environment={"GEVENT_BACKEND": "select"}),
    Idea("GEVENT_BACKEND=linux_iouring", environment={"GEVENT_BACKEND": "linux_iouring"}),
    Idea("GEVENT_BACKEND=linux_aio", environment={"GEVENT_BACKEND": "linux_aio"}),
    Idea("GEVENT_LOOP=libuv", environment={"GEVENT_LOOP": "libuv"}),
    Idea("PYTHONOPTIMIZE=2 (no asserts)", environment={"PYTHONOPTIMIZE": "2"}),
    Idea("PYTHONMALLOC=malloc", environment={"PYTHONMALLOC": "malloc"}),
    Idea("watchers stay started between reads", patch="watchers"),
    Idea("the loop rests 1 ms before each wait", patch="rest_1_ms"),
    Idea("the loop rests 4 ms before each wait", patch="rest_4_ms"),
    Idea("states written every 200 ms, not 20", patch="states_200_ms"),
    Idea("no states on the switch (CUSTOM events)", patch="no_states"),
    Idea("no look at a Redis connection before use", patch="no_look"),
    Idea("no collector of cycles", patch="no_collector"),
    Idea("no log lines but errors", arguments=("--log-level", "error")),
)


def run(options: argparse.Namespace) -> str:
    machine = table.machine(["gevent", "redis", "hiredis"])
    rounds = 1 if options.quick else ROUNDS
    calls = CALLS // (10 if options.quick else 1)
    ideas = [idea for idea in IDEAS if not options.only or idea.name in options.only]
    rows: list[tuple[str, ...]] = []
    for idea in ideas:
        reason = idea.missing()
        if reason:
            rows.append((idea.name, "-", "-", "-", "-", f"skipped: {reason}"))
            print(f"{idea.name}: skipped: {reason}", file=sys.stderr, flush=True)
        else:
            rows.append(tried(idea, rounds, calls))
    columns = ["idea", "of base", "least", "most", "us CPU/call", ""]
    notes = NOTES.format(rounds=rounds, calls=calls, rate=RATE).splitlines()
    return table.render("Ideas for a call with the tick", columns, rows, [*notes, "", machine], left=("",))


def opened(bench: NodeBench, idea: Idea) -> None:
    """Start a node with an idea, and warm it up."""
    bench.create_cards(CARDS)
    command = process.python("benchmarks.load.tried_node", idea.patch)
    bench.node.command = [*command, *bench.node.command[3:], *idea.arguments]
    bench.node.environment = {"PYTHONPATH": str(process.ROOT), **idea.environment}
    bench.start(callers=CARDS, tick=TICK)
    measured(bench, 90)


def measured(bench: NodeBench, calls: int) -> float:
    """Return CPU seconds per call."""
    figure = bench.measure_calls(dict.fromkeys(APPS, 1), calls, rate=RATE, concurrency=AT_ONCE)
    return figure["node"] / calls


def tried(idea: Idea, rounds: int, calls: int) -> tuple[str, ...]:
    """Return the row of an idea."""
    ratios, costs = [], []
    try:
        with node_bench.opened() as base, node_bench.opened() as bench:
            opened(base, Idea("base"))
            opened(bench, idea)
            for _ in range(rounds):
                before = measured(base, calls)
                costs.append(measured(bench, calls))
                # The machine's speed changes: the base is measured on both sides.
                ratios.append(costs[-1] / statistics.mean([before, measured(base, calls)]))
    except (RuntimeError, OSError) as error:
        print(f"{idea.name}: {error}", file=sys.stderr, flush=True)
        return idea.name, "-", "-", "-", "-", f"failed: {type(error).__name__}"
    row = (
        idea.name,
        f"{statistics.median(ratios):.2f}x",
        f"{min(ratios):.2f}",
        f"{max(ratios):.2f}",
        f"{statistics.median(costs) * 1e6:,.0f}",
        "",
    )
    print(*row, file=sys.stderr, flush=True)
    return row
