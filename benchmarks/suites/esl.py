"""Compare event-socket layers: every library performs the same scripted call, and so does a hand-written floor."""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import process, table
from benchmarks.peers import foreign

ROUNDS = 3
HELD = 1000
TICK = 20.0  # ms: how often FreeSWITCH serves a channel
SELDOM = 50  # calls a second with the tick; an application mostly sleeps
MOST = 1200  # and little

Runs = dict[str, list[dict[str, float]]]


@dataclass(frozen=True)
class App:
    name: str
    module: str  # in benchmarks.peers, or a name of peers.foreign
    arguments: tuple[str, ...] = ()
    calls: int = 3000  # fewer for a slow library; enough for some seconds of CPU
    rate: int = 300  # calls a second with the tick; below what the library can handle
    many: bool = False  # can handle MOST
    foreign: bool = False  # written in another language
    needs: str = ""  # a package of the extra "bench"

    def missing(self) -> str:
        """Return why it can't be measured on this machine, or an empty string if it can."""
        if self.foreign and isinstance(reason := foreign.command(self.module), foreign.Missing):
            return str(reason)
        if self.needs and importlib.util.find_spec(self.needs) is None:
            return f"{self.needs} is not installed (pip install -e '.[bench]')"
        return ""

    def command(self, port: int) -> list[str]:
        if self.foreign:
            command = foreign.command(self.module)
            assert not isinstance(command, foreign.Missing)
            return [*command, str(port)]
        return process.python(f"benchmarks.peers.{self.module}", port, *self.arguments)


APPS = [
    App("floor", "floor", many=True),
    App("floor, myevents", "floor", ("myevents",), many=True),
    App("floor, uvloop", "asyncio_floor", many=True, needs="uvloop"),
    App("esl_apps", "esl_apps_app", many=True),
    App("greenswitch", "greenswitch_app"),
    App("genesis", "genesis_app", calls=600, rate=60, needs="genesis"),
    App("eslgo (Go)", "eslgo", many=True, foreign=True),
    App("esl (Node.js)", "shimaore", foreign=True),
]
PACKAGES = ["gevent", "greenlet", "greenswitch", "genesis"]
SATURATED = """\
One call: connect, linger, subscribe to its own events, answer, playback, a second playback with four digits and
uuid_break, bridge until the callee hangs up, hangup, wait for its completion, exit. A call that is incomplete or out of
order fails the run. A generator on the other core keeps 50 calls up, after a warm-up. CPU is user plus system time of
the application's process; each figure is the median of {rounds} runs, with the libraries in turns. "floor" only splits
frames: no Event-UUID, no hang-ups, no time-outs, so no application could be built on it. With myevents it sends one
command less and reads half as many bytes again. "busy" is the share of a core that the application used while calls
ran; near 100 %, it did not wait for the generator (greenswitch waits for its own accept poll of 0.1 s). "held" is the
growth of the resident set per call, over {held:,} calls held in a bridge."""
SLEEPING = """\
The same calls, paced by FreeSWITCH's 20 ms tick, at the rate of a busy switch. Replies and events no longer arrive
together, and each of them wakes a process that slept, on a core that is nearly idle."""
TICKING = "The same at a higher rate that all of these can handle."
BUSY = """\
The same at a rate that leaves an application little time to sleep: the cost of a call under load. The other libraries
can't handle this rate."""


def run(options: argparse.Namespace) -> str:
    apps, skipped = available(options)
    machine = table.machine([name for name in PACKAGES if importlib.util.find_spec(name) is not None])
    rounds = 1 if options.quick else ROUNDS
    share = 10 if options.quick else 1
    saturated: Runs = {app.name: [] for app in apps}
    for _ in range(rounds):
        for app in apps:
            saturated[app.name].append(measure(app, ["--calls", app.calls // share]))
    held = HELD // share
    # Few at a time in the warm-up, or the memory they free would hide the growth.
    load = ["--hold", held, "--warmup", 100, "--concurrency", 10]
    memory = {app.name: measure(app, load)["kb_per_call"] for app in apps}
    seldom: Runs = {app.name: [] for app in apps}
    ticking: Runs = {app.name: [] for app in apps}
    busy: Runs = {app.name: [] for app in apps if app.many}
    for _ in range(rounds):
        for app in apps:
            seldom[app.name].append(measure(app, with_tick(SELDOM, share)))
            ticking[app.name].append(measure(app, with_tick(app.rate, share)))
            if app.many:
                busy[app.name].append(measure(app, with_tick(MOST, share)))

    columns = ["application", "calls/CPU-s", "of floor", "of greenswitch", "us CPU/call", "calls/s", "busy"]
    first = table.render(
        "Event socket: calls handled per CPU-second of the application",
        [*columns, "RSS MB", "held KB/call", "generator us"],
        [
            (
                *figures(saturated, name),
                f"{median(saturated, name, 'rss_kb') / 1024:.0f}",
                f"{memory[name]:.1f}",
                f"{median(saturated, name, 'generator_cpu_per_call_us'):.0f}",
            )
            for name in saturated
        ],
        [*SATURATED.format(rounds=rounds, held=held).splitlines(), *skipped],
    )
    at_few = table.render(
        f"With FreeSWITCH's tick, {SELDOM} calls a second",
        columns,
        [figures(seldom, name) for name in seldom],
        SLEEPING.splitlines(),
    )
    rates = "; ".join(f"{app.name} {app.rate}" for app in apps if app.rate != App.rate)
    second = table.render(
        f"With FreeSWITCH's tick, {App.rate} calls a second" + (f" ({rates})" if rates else ""),
        columns,
        [figures(ticking, name) for name in ticking],
        TICKING.splitlines(),
    )
    third = table.render(
        f"With FreeSWITCH's tick, {MOST:,} calls a second",
        [column for column in columns if column != "of greenswitch"],
        [(*line[:3], *line[4:]) for line in (figures(busy, name) for name in busy)],
        BUSY.splitlines(),
    )
    return "\n\n\n".join([first, at_few, second, third]) + f"\n\n{machine}"


def available(options: argparse.Namespace) -> tuple[list[App], list[str]]:
    """Return the applications to measure, and a line for each that can't be measured here."""
    wanted = [app for app in APPS if not options.only or app.name in options.only]
    skipped = [f"Not measured: {app.name}: {reason}." for app in wanted if (reason := app.missing())]
    for line in skipped:
        print(line, file=sys.stderr, flush=True)
    return [app for app in wanted if not app.missing()], skipped


def with_tick(rate: int, share: int) -> list[object]:
    """Return the generator's options for five seconds of calls with the tick."""
    load = ["--tick", TICK, "--rate", rate, "--concurrency", 2000, "--calls", 5 * rate // share]
    return [*load, "--warmup", 300]


def figures(runs: Runs, name: str) -> Sequence[str]:
    """Return an application's row: its medians, and their ratios to the floor's and greenswitch's."""
    own = median(runs, name, "calls_per_cpu_second")
    floor = median(runs, APPS[0].name, "calls_per_cpu_second")
    greenswitch = median(runs, "greenswitch", "calls_per_cpu_second")
    return (
        name,
        f"{own:,.0f}",
        table.ratio(own, floor),
        table.ratio(own, greenswitch),
        f"{median(runs, name, 'app_cpu_per_call_us'):,.0f}",
        f"{median(runs, name, 'calls_per_second'):,.0f}",
        f"{100 * median(runs, name, 'cpu') / median(runs, name, 'wall'):.0f} %",
    )


def median(runs: Runs, name: str, field: str) -> float:
    return statistics.median(run[field] for run in runs[name]) if name in runs else 0.0


def measure(app: App, arguments: list[object]) -> dict[str, float]:
    """Run the application on core 0 and the generator on core 1, once."""
    port = process.free_port()
    with process.running(app.command(port), port) as child:
        command = process.python(
            "benchmarks.load.generator", "--port", port, "--pid", child.pid, "--core", 1, *arguments
        )
        generator = subprocess.run(command, stdout=subprocess.PIPE, cwd=process.ROOT, check=False)
        result = json.loads(generator.stdout or b'{"failures": "the generator printed nothing"}')
        if generator.returncode:
            sys.exit(f"{app.name} did not perform the call: {result['failures']}")
        figure = f"{result['kb_per_call']:.1f} KB per held call" if "held" in result else ""
        figure = figure or f"{result['calls_per_cpu_second']:,.0f} calls per CPU-second"
        print(f"{app.name}: {figure}", file=sys.stderr, flush=True)
        return dict(result)
