"""The whole applications: a node with authorisation, limits, Redis and records, beside the bare layers of the peers."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence

from benchmarks import esl, process, stand, table
from benchmarks.stand import Stand

ROUNDS = 5
HELD = 5000
CARDS = 10_000
#: With the tick, calls a second: one where the node mostly sleeps, and one where it has little time to.
RATES = 50, 200
AT_ONCE = 1000
APPS = {"disa": "DISA", "dialthrough": "dialthrough", "click2dial": "click-to-dial"}
CALLS = 1500
TARGET = 500
#: The event-socket layers that stand beside, each with its own line of ``esl``'s table.
BARE = ("esl_apps", "greenswitch", "genesis")
NOTES = """\
A node as "esl-apps serve" runs it on one core; the load generator and a redis-server (appendonly, fsync every second,
its file in memory) on the other. Each call is the recorded one of a real FreeSWITCH 1.11.1 with this node
(benchmarks/calls), performed whole: its commands, the events of both legs with all their headers on the outbound
socket, and on the inbound one; its log lines and its state, in Redis and on the switch, as it goes. Checked and
counted: PIN or card, the caller's lock, class restrictions, the installation's and the account's or integrator's
calls and minutes an hour and a day (high limits, none reached), concurrent calls of the card. At the end of each run
the CDRs are taken out of the Redis list: exactly one of each call, "answered", or the run fails.
DISA: PIN, dial tone, number, bridge, the callee ends, dial tone, the caller ends. Dialthrough: known by number, one of
{cards:,} cards. Click-to-dial: POST over 16 keep-alive connections, the agent's leg, the callee, record.
{saturated}
CPU is user and system of the process. "busy" is the share of a core that the node used while calls ran: where it
is near 100 %, the node did not wait for the generator.
"held" is the growth of the resident set over {held:,} calls held in a bridge, by call (target: 25 KB at the most).
A node with no call: {idle:.0f} MB resident (target: less than 60)."""
SATURATED = "50 calls at a time, after a warm-up; each figure is the median of {rounds} runs, taken in turns."
TICKING = """\
The same calls as a FreeSWITCH with its 20 ms tick sends them, at a rate that the node can take: replies and events
no longer come together, keys come one by one, and each wakes a process that slept."""
BUSY = "The same, at a rate that leaves the node less time to sleep."
PEERS = """\
Bare layers: the scripted call of the first benchmark (docs/benchmarks/esl.txt), with no authorisation, no limits, no
Redis and no record. The peers are those that are on PyPI and run on this Python. eslgo is Go's, for which there is no
toolchain here; modesl and esl (Node.js) ask for events as JSON, and the recorded ones are plain."""


def run(options: argparse.Namespace) -> str:
    machine = table.machine(["gevent", "redis", "hiredis", "falcon", "msgspec"])
    share = 10 if options.quick else 1
    rounds = 1 if options.quick else ROUNDS
    apps = [name for name in APPS if not options.only or name in options.only]
    saturated: dict[str, list[dict[str, float]]] = {name: [] for name in apps}
    ticking: dict[int, dict[str, list[dict[str, float]]]] = {rate: {name: [] for name in apps} for rate in RATES}
    with stand.standing() as one:
        one.cards(CARDS)
        one.start()
        idle = process.memory(one.pid)
        for name in apps:
            one.measured({name: 1}, CALLS // 5)
        for _ in range(rounds):
            for name in apps:
                saturated[name].append(said(name, one.measured({name: 1}, CALLS // share)))
        one.order("dial", tick=0.02)
        for _ in range(rounds):
            for rate in RATES:
                for name in apps:
                    how = {"rate": rate, "concurrency": AT_ONCE}
                    what = f"{name}, tick, {rate} a second"
                    ticking[rate][name].append(said(what, one.measured({name: 1}, 8 * rate // share, **how)))
    memory = {name: held(name, HELD // share) for name in apps}
    peers = bare(options)
    columns = ["application", "calls/CPU-s", "of target", "us CPU/call", "Redis us/call", "calls/s", "busy"]
    greenswitch = peers.get("greenswitch", 0.0)
    notes = NOTES.format(cards=CARDS, held=HELD // share, idle=idle / 1024, saturated=SATURATED.format(rounds=rounds))
    first = table.render(
        "Whole applications: calls handled per CPU-second of the node",
        [*columns, "of greenswitch, bare", "held KB/call"],
        [
            (*figures(name, saturated[name]), table.ratio(median(saturated[name]), greenswitch), f"{memory[name]:.1f}")
            for name in apps
        ],
        notes.splitlines(),
    )
    with_tick = [
        table.render(
            f"With FreeSWITCH's tick, {rate} calls a second",
            columns,
            [figures(name, ticking[rate][name]) for name in apps],
            text.splitlines(),
        )
        for rate, text in zip(RATES, (TICKING, BUSY), strict=True)
    ]
    third = table.render(
        "Beside them, of the same run: bare event-socket layers, one scripted call",
        ["library", "calls/CPU-s"],
        [(name, f"{value:,.0f}") for name, value in peers.items()],
        PEERS.splitlines(),
    )
    return "\n\n\n".join([first, *with_tick, third]) + f"\n\n{machine}"


def said(what: str, figure: dict[str, float]) -> dict[str, float]:
    rate = figure["calls"] / figure["node"]
    print(f"{what}: {rate:,.0f} calls per CPU-second of the node", file=sys.stderr, flush=True)
    return figure


def median(runs: Sequence[dict[str, float]]) -> float:
    """Calls per CPU-second of the node."""
    return statistics.median(one["calls"] / one["node"] for one in runs)


def figures(name: str, runs: Sequence[dict[str, float]]) -> tuple[str, ...]:
    def each(field: str) -> float:
        return statistics.median(one[field] / one["calls"] for one in runs)

    rate = median(runs)
    return (
        APPS[name],
        f"{rate:,.0f}",
        table.ratio(rate, TARGET),
        f"{each('node') * 1e6:,.0f}",
        f"{each('redis') * 1e6:,.0f}",
        f"{1 / each('wall'):,.0f}",
        f"{100 * statistics.median(one['running'] / one['wall'] for one in runs):.0f} %",
    )


def held(name: str, calls: int) -> float:
    """KB of resident memory by held call, of a node of its own: what other calls left free would be taken for
    nothing."""
    with stand.standing() as one:
        one.cards(CARDS)
        one.start()
        growth = hold(one, name, calls)
        done = one.order("release")
        one.judge(done["refs"])
    print(f"{name}: {growth:.1f} KB a held call", file=sys.stderr, flush=True)
    return growth


def hold(one: Stand, name: str, calls: int) -> float:
    # Few at a time, or what they leave free would be taken for nothing.
    one.measured({name: 1}, 200, concurrency=10)
    before = process.memory(one.pid)
    one.order("hold", mix={name: 1}, calls=calls, concurrency=10)
    stand.rest()
    return (process.memory(one.pid) - before) / calls


def bare(options: argparse.Namespace) -> dict[str, float]:
    """Calls per CPU-second of the event-socket layers alone, saturated: our own and the peers'."""
    rounds = 1 if options.quick else 3
    found = {}
    for app in esl.APPS:
        if app.name in BARE:
            runs = [esl.measure(app, ["--calls", app.calls // (10 if options.quick else 1)]) for _ in range(rounds)]
            found[app.name] = statistics.median(one["calls_per_cpu_second"] for one in runs)
    return found
