"""The event-socket layer: one scripted call, the same for every library, beside a hand-written floor."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass

from benchmarks import process, table

ROUNDS = 3
HELD = 1000


@dataclass(frozen=True)
class App:
    name: str
    module: str
    arguments: tuple[str, ...] = ()
    calls: int = 3000  # fewer for a slow one: a run is then still some seconds of CPU
    rate: int = 300  # calls a second with the tick, where nothing is saturated


APPS = [
    App("floor", "floor"),
    App("floor, myevents", "floor", ("myevents",)),
    App("esl_apps", "esl_apps_app"),
    App("greenswitch", "greenswitch_app"),
    App("genesis", "genesis_app", calls=600, rate=60),
]
PACKAGES = ["gevent", "greenlet", "greenswitch", "genesis"]
NOTES = """\
One call: connect, linger, own events, answer, playback, a second playback with four digits and uuid_break,
bridge until the callee ends it, hangup, wait for its completion, exit. A call that is not performed wholly and
in order fails the run. {concurrency} calls at a time from a generator on the other core, after a warm-up; CPU
user and system of the application's process; each figure is the median of {rounds} runs, taken in turns.
"floor" only splits frames (no Event-UUID, no hang-up, no time-out): no application can be written on it; with
myevents it reads half as many bytes again with one command less. "busy" is the share of a core that the
application used while calls ran: near 100 %, it did not wait for the generator (greenswitch waits for its own
0.1 s accept poll). Memory: growth of the resident set over {held:,} calls held in a bridge, by call."""


def run(options: argparse.Namespace) -> str:
    machine = table.machine(PACKAGES)
    apps = [app for app in APPS if not options.only or app.name in options.only]
    rounds = 1 if options.quick else ROUNDS
    concurrency = 1000 if options.tick else 50  # with the tick a call lasts some 0.4 s
    runs: dict[str, list[dict[str, float]]] = {app.name: [] for app in apps}
    for _ in range(rounds):
        for app in apps:
            calls = app.calls // 10 if options.quick else app.calls
            load = ["--calls", calls, "--concurrency", concurrency, "--tick", options.tick]
            load += ["--rate", app.rate] if options.tick else []
            runs[app.name].append(measure(app, [*load, "--warmup", max(300, concurrency)]))
    held = HELD // 10 if options.quick else HELD
    memory = {app.name: measure(app, ["--hold", held, "--warmup", 100])["kb_per_call"] for app in apps}

    def median(app: App, field: str) -> float:
        return statistics.median(run[field] for run in runs[app.name])

    base = median(apps[0], "calls_per_cpu_second")
    peer = next((median(app, "calls_per_cpu_second") for app in apps if app.name == "greenswitch"), 0.0)
    rows = [
        (
            app.name,
            round(median(app, "calls_per_cpu_second")),
            table.ratio(median(app, "calls_per_cpu_second"), base),
            table.ratio(median(app, "calls_per_cpu_second"), peer),
            round(median(app, "app_cpu_per_call_us")),
            round(median(app, "calls_per_second")),
            f"{100 * median(app, 'cpu') / median(app, 'wall'):.0f} %",
            f"{median(app, 'rss_kb') / 1024:.0f}",
            f"{memory[app.name]:.1f}",
            round(median(app, "generator_cpu_per_call_us")),
        )
        for app in apps
    ]
    columns = [
        "application", "calls/CPU-s", "of floor", "of greenswitch", "us CPU/call", "calls/s", "busy",
        "RSS MB", "held KB/call", "generator us",
    ]  # fmt: skip
    tick = f", FreeSWITCH's tick {options.tick:g} ms, 300 calls a second (genesis 60)" if options.tick else ""
    title = f"Event socket: calls handled per CPU-second of the application{tick}"
    notes = [machine, "", *NOTES.format(rounds=rounds, held=held, concurrency=concurrency).splitlines()]
    return table.render(title, columns, rows, notes)


def measure(app: App, arguments: list[object]) -> dict[str, float]:
    """One run: the application on core 0, the generator on core 1."""
    port = process.free_port()
    with process.running(process.python(f"benchmarks.apps.{app.module}", port, *app.arguments), port) as child:
        command = process.python("benchmarks.generator", "--port", port, "--pid", child.pid, "--core", 1, *arguments)
        done = subprocess.run(command, stdout=subprocess.PIPE, cwd=process.ROOT, check=False)
        result = json.loads(done.stdout or b'{"failures": "it printed nothing"}')
        if done.returncode:
            sys.exit(f"{app.name}: the script was not performed: {result['failures']}")
        return dict(result)
