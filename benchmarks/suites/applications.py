"""Complete applications on a node with authorisation, limits, Redis and records, next to bare event-socket layers."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence

from benchmarks import process, table
from benchmarks.load import node_bench
from benchmarks.load.node_bench import NodeBench
from benchmarks.suites import esl

ROUNDS = 5
HELD = 5000
CARDS = 10_000
#: Calls a second with the tick: at the first rate the node mostly sleeps, at the second it rarely does.
RATES = 50, 200
AT_ONCE = 1000
APPS = {"disa": "DISA", "dialthrough": "dialthrough", "click2dial": "click-to-dial"}
CALLS = 1500
TARGET = 500
#: The bare event-socket layers to compare with; each also has a line in ``esl``'s table. The first is this project's.
BARE = ("esl_apps", "greenswitch", "genesis")
#: The share of it that applications should reach: saturated, and with the tick at the lower rate.
OF_BARE, OF_BARE_TICKING = 0.4, 0.5
NOTES = """\
A node, run as "esl-apps serve" runs it, has one core. The load generator and a redis-server (appendonly, fsync every
second, its file in memory) share the other. Every call replays the recording of a call between a real FreeSWITCH 1.11.1
and this node (benchmarks/recordings), complete: its commands, the events of both legs with all headers on the outbound
and the inbound socket, its log lines, and its state in Redis and on the switch. The node checks and counts: PIN or
card, lock-out of the caller, class restrictions, calls and minutes per hour and per day of the installation and of the
account or integrator (limits too high to be reached), concurrent calls of the card. After each run the CDRs are taken
from the Redis list; the run fails unless there is exactly one per call, "answered".
DISA: PIN, dial tone, number, bridge, callee hangs up, dial tone, caller hangs up. Dialthrough: the caller is recognised
by number, among {cards:,} cards. Click-to-dial: POST over 16 keep-alive connections, agent's leg, callee, record.
{saturated}
CPU is user plus system time of the process. "busy" is the share of a core that the node used while calls ran; near
100 %, it did not wait for the generator.
"held" is the growth of the resident set per call, over {held:,} calls held in a bridge (target: at most 15 KB).
A node without calls: {idle:.0f} MB resident (target: less than 60)."""
SATURATED = """\
50 calls at a time, after a warm-up; each figure is the median of {rounds} runs. Applications take turns. "of bare": of
the calls per CPU-second of this project's bare event-socket layer in the same rounds (last table; target: {target})."""
TICKING = """\
The same calls, paced by FreeSWITCH's 20 ms tick, at a rate the node can handle. Replies and events no longer arrive
together, and keys arrive one by one; each of them wakes a sleeping process. "of bare": of the bare layer with the same
tick at the same rate (target: {target})."""
BUSY = "The same at a rate that leaves the node less time to sleep."
PEERS = """\
Bare layers: the scripted call of the event-socket benchmark (docs/benchmarks/esl.txt), without authorisation, limits,
Redis or a record. docs/benchmarks/esl.txt has more of them."""


def run(options: argparse.Namespace) -> str:
    machine = table.machine(["gevent", "redis", "hiredis", "falcon", "msgspec"])
    share = 10 if options.quick else 1
    rounds = 1 if options.quick else ROUNDS
    apps = [name for name in APPS if not options.only or name in options.only]
    saturated: dict[str, list[dict[str, float]]] = {name: [] for name in apps}
    ticking: dict[int, dict[str, list[dict[str, float]]]] = {rate: {name: [] for name in apps} for rate in RATES}
    layer = Layer(share)
    with node_bench.opened() as bench:
        bench.create_cards(CARDS)
        bench.start()
        idle = process.memory(bench.pid)
        for name in apps:
            bench.measure_calls({name: 1}, CALLS // 5)
        for _ in range(rounds):
            for name in apps:
                saturated[name].append(reported(name, bench.measure_calls({name: 1}, CALLS // share)))
            layer.saturate()
        bench.order("dial", tick=0.02)
        for _ in range(rounds):
            for rate in RATES:
                for name in apps:
                    load = {"rate": rate, "concurrency": AT_ONCE}
                    label = f"{name}, tick, {rate} a second"
                    ticking[rate][name].append(
                        reported(label, bench.measure_calls({name: 1}, 8 * rate // share, **load))
                    )
                layer.tick(rate)
    memory = {name: held(name, HELD // share) for name in apps}
    peers = {BARE[0]: layer.saturated(), **bare(options)}
    columns = ["application", "calls/CPU-s", "of target", "of bare", "us CPU/call", "Redis us/call", "calls/s", "busy"]
    greenswitch = peers.get("greenswitch", 0.0)
    text = SATURATED.format(rounds=rounds, target=f"{OF_BARE:.2f}")
    notes = NOTES.format(cards=CARDS, held=HELD // share, idle=idle / 1024, saturated=text)
    first = table.render(
        "Whole applications: calls handled per CPU-second of the node",
        [*columns, "of greenswitch, bare", "held KB/call"],
        [
            (
                *figures(name, saturated[name], layer.saturated()),
                table.ratio(median(saturated[name]), greenswitch),
                f"{memory[name]:.1f}",
            )
            for name in apps
        ],
        notes.splitlines(),
    )
    with_tick = [
        table.render(
            f"With FreeSWITCH's tick, {rate} calls a second",
            columns,
            [figures(name, ticking[rate][name], layer.ticking(rate)) for name in apps],
            text.splitlines(),
        )
        for rate, text in zip(RATES, (TICKING.format(target=f"{OF_BARE_TICKING:.2f}"), BUSY), strict=True)
    ]
    third = table.render(
        "For comparison, from the same run: bare event-socket layers, one scripted call",
        ["library", "calls/CPU-s", *(f"tick, {rate} a second" for rate in RATES)],
        [
            (name, f"{value:,.0f}", *(f"{layer.ticking(rate):,.0f}" if name == BARE[0] else "-" for rate in RATES))
            for name, value in peers.items()
        ],
        PEERS.splitlines(),
    )
    return "\n\n\n".join([first, *with_tick, third]) + f"\n\n{machine}"


def reported(label: str, figure: dict[str, float]) -> dict[str, float]:
    rate = figure["calls"] / figure["node"]
    print(f"{label}: {rate:,.0f} calls per CPU-second of the node", file=sys.stderr, flush=True)
    return figure


def median(runs: Sequence[dict[str, float]]) -> float:
    """Return the median of calls per CPU-second of the node."""
    return statistics.median(run["calls"] / run["node"] for run in runs)


def figures(name: str, runs: Sequence[dict[str, float]], bare: float) -> tuple[str, ...]:
    """Return a row. ``bare``: calls per CPU-second of the bare layer under the same load."""

    def per_call(field: str) -> float:
        return statistics.median(run[field] / run["calls"] for run in runs)

    rate = median(runs)
    return (
        APPS[name],
        f"{rate:,.0f}",
        table.ratio(rate, TARGET),
        table.ratio(rate, bare),
        f"{per_call('node') * 1e6:,.0f}",
        f"{per_call('redis') * 1e6:,.0f}",
        f"{1 / per_call('wall'):,.0f}",
        f"{100 * statistics.median(run['running'] / run['wall'] for run in runs):.0f} %",
    )


def held(name: str, calls: int) -> float:
    """Return KB of resident memory per held call. Uses a fresh node: held calls would fill memory that earlier calls
    have freed, and the growth would not show."""
    with node_bench.opened() as bench:
        bench.create_cards(CARDS)
        bench.start()
        growth = hold(bench, name, calls)
        report = bench.order("release")
        bench.check_records(report["refs"])
    print(f"{name}: {growth:.1f} KB a held call", file=sys.stderr, flush=True)
    return growth


def hold(bench: NodeBench, name: str, calls: int) -> float:
    # Few at a time, or the memory they free would hide the growth.
    bench.measure_calls({name: 1}, 200, concurrency=10)
    before = process.memory(bench.pid)
    bench.order("hold", mix={name: 1}, calls=calls, concurrency=10)
    node_bench.settle()
    return (process.memory(bench.pid) - before) / calls


class Layer:
    """This project's bare event-socket layer, measured between the applications: what they could cost at the least."""

    def __init__(self, share: int) -> None:
        self._share = share
        self._app = next(app for app in esl.APPS if app.name == BARE[0])
        self._saturated: list[float] = []
        self._ticking: dict[int, list[float]] = {}

    def saturate(self) -> None:
        self._saturated.append(self._measure(["--calls", self._app.calls // self._share]))

    def tick(self, rate: int) -> None:
        self._ticking.setdefault(rate, []).append(self._measure(esl.with_tick(rate, self._share)))

    def saturated(self) -> float:
        """Return calls per CPU-second under full load: the median."""
        return statistics.median(self._saturated)

    def ticking(self, rate: int) -> float:
        """Return calls per CPU-second with the tick, at so many calls a second."""
        return statistics.median(self._ticking[rate])

    def _measure(self, load: list[object]) -> float:
        return esl.measure(self._app, load)["calls_per_cpu_second"]


def bare(options: argparse.Namespace) -> dict[str, float]:
    """Return calls per CPU-second of the peers' bare event-socket layers under full load."""
    rounds = 1 if options.quick else 3
    rates = {}
    for app in esl.APPS:
        if app.name in BARE[1:] and not app.missing():
            runs = [esl.measure(app, ["--calls", app.calls // (10 if options.quick else 1)]) for _ in range(rounds)]
            rates[app.name] = statistics.median(run["calls_per_cpu_second"] for run in runs)
    return rates
