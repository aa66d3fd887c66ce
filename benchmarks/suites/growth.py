"""Measure the cost of a call as the numbers of live calls, cards, integrators and recent calls grow."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import http.client
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from benchmarks import process, table
from benchmarks.load import node_bench
from benchmarks.load.node_bench import OWN, TOKEN, NodeBench
from esl_apps.apps import click2dial
from esl_apps.core import terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.status import document
from esl_apps.store import keys, usage
from esl_apps.store.calls import CallStore

HELD = (10, 100, 1000, 10_000)
CARDS = (10, 1000, 100_000, 1_000_000)
INTEGRATORS = (1, 10, 50, 200)
RECENT = (100, 1000, 10_000, 100_000)
CALLS, ROUNDS, REQUESTS = 400, 5, 200
#: Seconds without a call that begins or ends: a few rounds of what a node does for those that are up.
QUIET = 3 * usage.BEAT
PLOT = process.ROOT / "docs" / "benchmarks" / "growth.svg"
NOTES = """\
Each row is a fresh node with its own Redis, as in the first table of applications.txt. Calls are complete, 50 at a time
under full load, and each has its record. "us CPU" is the node's CPU time per call: the median of {rounds} runs of
{calls} calls. "x" compares it with the first row of the same kind. "Redis us" is redis-server's CPU time per call or
request.
Calls up: click-to-dial calls held in a bridge while others begin and end; KB is the node's memory per held call, and
"held us/s", from 1,000 on, what each costs the node in a second in which no other begins or ends. "us CPU" is without
that.
Cards: dialthrough by caller number, with cards in turn; KB is the memory of a card in Redis.
Integrators: click-to-dial over one connection to the port of each; KB is what each port adds to an idle node.
Recent calls: the calls of one integrator in the last 24 hours, in Redis. GET /click2dial/calls lists 50 of them, GET
/click2dial/calls/REF returns one; "ms" is the client's time (median of {requests} requests in sequence); KB is the
memory of a call in Redis."""


@dataclasses.dataclass
class Point:
    """A row of the table."""

    kind: str
    count: int
    cpu: float
    """Microseconds of the node's CPU per call or request."""
    redis: float
    kb: float
    ms: float | None = None
    up: float | None = None
    """Microseconds of CPU per held call and second."""


def run(options: argparse.Namespace) -> str:
    machine = table.machine(["gevent", "redis", "hiredis"])
    share = 10 if options.quick else 1
    points: list[Point] = []
    for measure, counts in ((held, HELD), (cards, CARDS), (integrators, INTEGRATORS), (recent, RECENT)):
        for count in counts:
            for point in measure(max(1, count // share), max(50, CALLS // share), 1 if options.quick else ROUNDS):
                points.append(point)
                print(f"{point.kind}, {point.count:,}: {point.cpu:,.0f} us", file=sys.stderr, flush=True)
    if not options.quick:
        plot(points)
    first = {point.kind: point for point in reversed(points)}
    rows = [
        (
            point.kind,
            point.count,
            f"{point.cpu:,.0f}",
            table.ratio(point.cpu, first[point.kind].cpu),
            f"{point.redis:,.0f}",
            "-" if point.ms is None else f"{point.ms:.1f}",
            f"{point.kb:.2f}",
            f"{point.up:.1f}" if point.up is not None and point.count >= 1000 else "-",
        )
        for point in points
    ]
    notes = NOTES.format(rounds=ROUNDS, calls=CALLS, requests=REQUESTS).splitlines()
    columns = ["growing number of", "number", "us CPU", "x", "Redis us", "ms", "KB each", "held us/s"]
    return table.render("Cost of a call as the load grows", columns, rows, [*notes, "", machine])


def costs(bench: NodeBench, mix: dict[str, int], calls: int, rounds: int, others: float = 0.0) -> tuple[float, float]:
    """Return microseconds of CPU per call, of the node and of Redis. ``others``: CPU seconds a second of the node for
    other calls, which don't count."""
    runs = [bench.measure_calls(mix, calls) for _ in range(rounds)]
    node = statistics.median((run["node"] - others * run["window"]) / calls * 1e6 for run in runs)
    return node, statistics.median(run["redis"] / calls * 1e6 for run in runs)


def cpu_share(bench: NodeBench) -> float:
    """Return the node's CPU seconds a second while nothing happens."""
    began, before = time.monotonic(), bench.cpu()
    time.sleep(QUIET)
    return (bench.cpu() - before) / (time.monotonic() - began)


def held(count: int, calls: int, rounds: int) -> Iterator[Point]:
    with node_bench.opened() as bench:
        bench.start()
        mix = {"click2dial": 1}
        bench.measure_calls(mix, 200, concurrency=10)
        idle = cpu_share(bench)
        before = process.memory(bench.pid)
        bench.order("hold", mix=mix, calls=count, concurrency=10)
        node_bench.settle()
        kb = (process.memory(bench.pid) - before) / count
        others = max(0.0, cpu_share(bench) - idle)
        node, redis = costs(bench, mix, calls, rounds, others)
        yield Point("calls up", count, node, redis, kb, up=others / count * 1e6)
        bench.check_records(bench.order("release")["refs"])


def cards(count: int, calls: int, rounds: int) -> Iterator[Point]:
    with node_bench.opened() as bench:
        before = bench.client.info("memory")["used_memory"]
        bench.create_cards(count)
        kb = (bench.client.info("memory")["used_memory"] - before) / 1024 / count
        bench.start(callers=count)
        mix = {"dialthrough": 1}
        bench.measure_calls(mix, 200)
        node, redis = costs(bench, mix, calls, rounds)
        yield Point("cards", count, node, redis, kb)


def integrators(count: int, calls: int, rounds: int) -> Iterator[Point]:
    clients = [node_bench.integrator("acme", TOKEN)]
    clients += [node_bench.integrator(f"client{i}", f"{TOKEN}-{i}") for i in range(1, count)]
    with node_bench.opened() as smallest:
        smallest.start()
        baseline = process.memory(smallest.pid)
    with node_bench.opened(integrators=clients) as bench:
        bench.start()
        kb = (process.memory(bench.pid) - baseline) / (count - 1) if count > 1 else 0.0
        mix = {"click2dial": 1}
        bench.measure_calls(mix, max(200, 2 * count))
        node, redis = costs(bench, mix, calls, rounds)
        yield Point("integrators", count, node, redis, kb)


def recent(count: int, _calls: int, rounds: int) -> Iterator[Point]:
    with node_bench.opened() as bench:
        before = bench.client.info("memory")["used_memory"]
        refs = write_calls(bench, count)
        kb = (bench.client.info("memory")["used_memory"] - before) / 1024 / count
        bench.start()
        host = bench.node.config["integrators"][0]["listen"]
        turns = itertools.count()
        for kind, path in (
            ("recent calls, listed", lambda: "/click2dial/calls"),
            ("recent calls, one", lambda: f"/click2dial/calls/{refs[next(turns) * 7919 % count]}"),
        ):
            runs = [request_costs(bench, host, path) for _ in range(rounds)]
            node, redis, ms = (statistics.median(values) for values in zip(*runs, strict=True))
            yield Point(kind, count, node, redis, kb, ms)


def write_calls(bench: NodeBench, count: int) -> list[str]:
    """Write `count` ended calls to Redis, as a node would. Returns their references."""
    store = CallStore(bench.client)
    refs = []
    for i in range(count):
        now = time.time()
        attempt = Attempt(
            app=click2dial.REF,
            integrator="acme",
            extension="1000",
            number="0820001234",
            dial_number=OWN,
            call_dir="outbound",
            contact_ref=f"contact-{i}",
        )
        attempt.switch = "fs1"
        attempt.dialled(now)
        for state in (terms.AGENT_RINGING, terms.AGENT_ANSWERED, terms.CALLEE_RINGING, terms.BRIDGED):
            attempt.enter(state, now)
        attempt.end(terms.ANSWERED, 16, terms.CALLEE, now)
        store.save(attempt.call_ref, functools.partial(document, attempt), None)
        refs.append(attempt.call_ref)
        if i % 1000 == 999 or i + 1 == count:
            store.stop()
    assert bench.client.zcard(keys.calls("acme")) == count
    return refs


def request_costs(bench: NodeBench, address: str, path: Callable[[], str]) -> tuple[float, float, float]:
    """Return microseconds of the node's and of Redis's CPU per request, and the median time in ms."""
    connection = http.client.HTTPConnection(address, timeout=30)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    node, redis = process.cpu(bench.pid), process.cpu(bench.redis.pid)
    times = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        connection.request("GET", path(), headers=headers)
        response = connection.getresponse()
        body = response.read()
        times.append(time.perf_counter() - began)
        assert response.status == 200, body
    node, redis = process.cpu(bench.pid) - node, process.cpu(bench.redis.pid) - redis
    connection.close()
    return node / REQUESTS * 1e6, redis / REQUESTS * 1e6, statistics.median(times) * 1e3


def plot(points: Sequence[Point]) -> None:
    """Draw the CPU time per call or request, relative to the first point of each kind."""
    import matplotlib

    matplotlib.use("svg")
    # The same figures have to give the same file.
    matplotlib.rcParams["svg.hashsalt"] = "esl_apps"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for kind in dict.fromkeys(point.kind for point in points):
        line = [point for point in points if point.kind == kind]
        axes.plot([point.count for point in line], [point.cpu / line[0].cpu for point in line], marker="o", label=kind)
    axes.set_xscale("log")
    axes.set_ylim(0, None)
    axes.axhline(1.0, color="grey", linewidth=0.5)
    axes.set_xlabel("number")
    axes.set_ylabel("CPU per call or request, relative to the first")
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(PLOT, metadata={"Date": None})
    pyplot.close(figure)
