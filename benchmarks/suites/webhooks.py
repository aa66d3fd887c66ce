"""The cost of where else a record goes: calls per CPU-second with a webhook, a stream, and a reader of live events."""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from benchmarks import process, table
from benchmarks.load import event_readers, node_bench
from benchmarks.load.node_bench import TOKEN, NodeBench, NotPerformed, integrator, port_of
from benchmarks.suites.applications import AT_ONCE
from benchmarks.suites.events import start_python
from esl_apps.store import keys
from esl_apps.store.webhook_queue import WebhookQueue

ROUNDS, CALLS = 5, 1500
#: With the tick: calls a second, and in a round.
RATE, PACED = 50, 300
TARGET = 0.9
APP = {"click2dial": 1}
SATURATED = """\
The click-to-dial calls of docs/benchmarks/applications.txt on five nodes, which differ in where a call's record goes.
They take turns: each round measures each node once, in an order that moves on. "webhook": each record is also posted to
a receiver on the other core, signed, over one connection without TLS. "stream": it goes into a Redis stream instead of
a list. "reader": a client of GET /click2dial/events, so that each state is written as it happens and sent to it. The
run fails if a record, a post or an event is missing. CPU is user plus system time of the node; "of none" is the median
of each round's ratio (target: {target:.2f}). Medians of {rounds} rounds of {calls:,} calls, 50 at a time."""
TICKING = """\
The same with FreeSWITCH's 20 ms tick, {calls} calls a round."""


@dataclass(frozen=True)
class Variant:
    name: str
    webhook: bool = False
    stream: bool = False
    reader: bool = False


VARIANTS = (
    Variant("none: a list"),
    Variant("webhook", webhook=True),
    Variant("stream", stream=True),
    Variant("reader", reader=True),
    Variant("webhook, stream, reader", webhook=True, stream=True, reader=True),
)


@dataclass
class Measured:
    """A node, and what its calls cost."""

    variant: Variant
    bench: NodeBench
    readers: subprocess.Popen[bytes] | None = None
    costs: dict[str, list[float]] = field(default_factory=dict)
    """CPU seconds of the node per call, by kind of load and round."""
    redis: dict[str, list[float]] = field(default_factory=dict)
    calls: int = 0

    def measure(self, kind: str, calls: int, **load: Any) -> None:
        figure = self.bench.measure_calls(APP, calls, **load)
        self.calls += calls
        self.costs.setdefault(kind, []).append(figure["node"] / calls)
        self.redis.setdefault(kind, []).append(figure["redis"] / calls)
        print(f"{self.variant.name}, {kind}: {self.costs[kind][-1] * 1e6:,.0f} us a call", file=sys.stderr, flush=True)


def run(options: argparse.Namespace) -> str:
    machine = table.machine(["gevent", "redis", "hiredis"])
    share = 10 if options.quick else 1
    rounds = 1 if options.quick else ROUNDS
    calls, paced = CALLS // share, PACED // share
    warm = calls // 5
    with opened() as nodes:
        for node in nodes:
            node.bench.measure_calls(APP, warm)
            node.calls += warm
        for number in range(rounds):
            for node in turned(nodes, number):
                node.measure("saturated", calls)
        for node in nodes:
            node.bench.order("dial", tick=0.02)
        for number in range(rounds):
            for node in turned(nodes, number):
                node.measure("tick", paced, rate=RATE, concurrency=AT_ONCE)
        for node in nodes:
            check(node)
        first = section(
            "Click-to-dial calls handled per CPU-second of the node",
            nodes,
            "saturated",
            SATURATED.format(target=TARGET, rounds=rounds, calls=calls),
        )
        second = section(f"With FreeSWITCH's tick, {RATE} calls a second", nodes, "tick", TICKING.format(calls=paced))
    return f"{first}\n\n\n{second}\n\n{machine}"


def turned(nodes: list[Measured], number: int) -> list[Measured]:
    first = number % len(nodes)
    return nodes[first:] + nodes[:first]


def section(title: str, nodes: list[Measured], kind: str, notes: str) -> str:
    none = nodes[0].costs[kind]
    rows = []
    for node in nodes:
        cost = statistics.median(node.costs[kind])
        ratio = statistics.median(base / own for base, own in zip(none, node.costs[kind], strict=True))
        redis = statistics.median(node.redis[kind])
        rows.append(
            (node.variant.name, f"{1 / cost:,.0f}", f"{cost * 1e6:,.0f}", f"{redis * 1e6:,.0f}", f"{ratio:.2f}x")
        )
    columns = ["a record goes to", "calls/CPU-s", "us CPU/call", "Redis us/call", "of none"]
    return table.render(title, columns, rows, notes.splitlines())


@contextlib.contextmanager
def opened() -> Iterator[list[Measured]]:
    """Start a node for each variant; each has its own Redis and load generator."""
    port = process.free_port()
    hook = {
        "name": "bench",
        "url": f"http://127.0.0.1:{port}/",
        "secrets": ["whsec_" + "QUJD" * 8],
        "allow_http": True,
        "allow_private": True,
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(process.running(process.python("benchmarks.load.receiver", port), port, 1))
        nodes = []
        for variant in VARIANTS:
            acme = integrator("acme", TOKEN)
            acme["webhooks"] = [hook] if variant.webhook else []
            acme["push"] = "stream" if variant.stream else "left"
            bench = stack.enter_context(node_bench.opened(integrators=[acme]))
            bench.create_cards(10)
            bench.start()
            nodes.append(Measured(variant, bench))
            if variant.reader:
                plan = event_readers.Plan(port_of(acme["listen"]), TOKEN, 1)
                nodes[-1].readers = child = start_python("event_readers", plan)
                stack.callback(child.kill)
                assert child.stdout is not None
                if child.stdout.readline() != b"ready\n":
                    raise NotPerformed("the reader got no stream")
        yield nodes


def check(node: Measured) -> None:
    """:raises NotPerformed: something didn't reach its webhook or its reader."""
    if node.variant.webhook:
        (view,) = WebhookQueue(node.bench.client).describe([keys.webhook("acme", "bench")])
        if view["depth"] or int(view["seq"]) != node.calls:
            raise NotPerformed(f"not all records were taken: {view}, {node.calls} calls")
    if node.readers is not None:
        node.readers.terminate()
        report = json.loads(node.readers.communicate(timeout=30)[0])
        written = node.bench.client.xlen(keys.events(keys.history("acme")))
        # At least the first and the last state, and the record.
        if report["events"] != [written] or written < 3 * node.calls or report["disordered"] or report["dropped"]:
            raise NotPerformed(f"not all events came: {report}; {written} of {node.calls} calls were written")
