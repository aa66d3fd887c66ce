"""The cost of a webhook: click-to-dial calls per CPU-second of a node without one and with one."""

from __future__ import annotations

import argparse
import statistics
import sys

from benchmarks import process, table
from benchmarks.load import node_bench
from benchmarks.load.node_bench import TOKEN, integrator
from esl_apps.store import keys
from esl_apps.store.webhook_queue import WebhookQueue
from tests.support.ports import free_port

ROUNDS, CALLS = 5, 1500
TARGET = 0.9
NOTES = """\
The click-to-dial calls of docs/benchmarks/applications.txt, on a node whose integrator has no webhook, and on one that
posts each record to a receiver on the other core, signed, over one connection without TLS. The run fails if a
record was not taken. CPU is user plus system time of the node. Target: {target:.2f} of the first line.
"""


def run(options: argparse.Namespace) -> str:
    rounds, calls = (1, CALLS // 10) if options.quick else (ROUNDS, CALLS)
    port = free_port()
    hook = {
        "name": "bench",
        "url": f"http://127.0.0.1:{port}/",
        "secrets": ["whsec_" + "QUJD" * 8],
        "allow_http": True,
        "allow_private": True,
    }
    with process.running(process.python("benchmarks.load.receiver", port), port, 1):
        costs = {"without": measured([], rounds, calls), "with": measured([hook], rounds, calls)}
    without = costs["without"]
    return table.render(
        "Webhooks: click-to-dial calls handled per CPU-second of the node",
        ["webhook", "calls/CPU-s", "us CPU/call", "of without"],
        [(name, f"{1 / cost:,.0f}", f"{cost * 1e6:,.0f}", table.ratio(without, cost)) for name, cost in costs.items()],
        NOTES.format(target=TARGET).splitlines(),
    )


def measured(hooks: list[dict[str, object]], rounds: int, calls: int) -> float:
    """Return CPU seconds of a node per call, the median of all rounds."""
    costs = []
    acme = {**integrator("acme", TOKEN), "webhooks": hooks}
    with node_bench.opened(integrators=[acme]) as bench:
        bench.create_cards(10)
        bench.start()
        bench.measure_calls({"click2dial": 1}, calls // 5)
        for _ in range(rounds):
            figure = bench.measure_calls({"click2dial": 1}, calls)
            costs.append(figure["node"] / figure["calls"])
            print(f"{len(hooks)} webhooks: {costs[-1] * 1e6:,.0f} us a call", file=sys.stderr, flush=True)
        if hooks:
            (view,) = WebhookQueue(bench.client).describe([keys.webhook("acme", "bench")])
            if view["depth"] or int(view["seq"]) != calls * rounds + calls // 5:
                raise node_bench.NotPerformed(f"not all records were taken: {view}")
    return statistics.median(costs)
