"""The budget of one call, wake-up by wake-up: what woke the node, what it read and wrote, its system calls and CPU."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import process, table
from benchmarks.load import node_bench, wakeups
from benchmarks.load.node_bench import NodeBench, port_of
from benchmarks.load.wakeups import WakeUp
from benchmarks.suites.applications import APPS, AT_ONCE

TICK, RATE = 0.02, 50
#: Calls that are traced, one at a time; calls in a measurement at ``RATE``; seconds of a trace without calls.
TRACED, PACED, IDLE = 5, 400, 4.0
CARDS = 100
#: Lines of the profile.
TOP = 25
NOTES = """\
A wake-up is all that the node does between two waits of its event loop. "call" is the call's own socket, "switch" the
inbound event socket, which all calls share, "timer" none. Read and written: bytes, then frames or commands; scripts
of Redis are in small letters. "sys" counts system calls. "us" is the CPU time of the loop's thread under strace, less
{overhead:.1f} us for each system call: so much strace adds to a getppid. Wake-ups that no call caused are left out.
Of {traced} calls, one at a time, this is the one with the median number of wake-ups. The load generator answers each
command, and reports each event, with the next 20 ms tick."""
SUMMARY = """\
Untraced. "CPU" is user plus system time of the whole process, less that of a node without calls. "switches":
how often the process gave the core up because it had nothing to do. One at a time, a call has its wake-ups for itself;
at {rate} calls a second some wake-ups bring news of several."""
BY_SOURCE = """\
The traced calls, by what woke the node. When several did, the first that is listed above counts."""
SYSTEM_CALLS = """\
Counted by strace -c at {rate} calls a second, of all threads, less those of a node without calls."""
PROFILE = """\
perf record (cpu-clock, 997 times a second) at {rate} calls a second. Python's own functions are in its interpreter
loop (_PyEval_EvalFrameDefault)."""


def run(options: argparse.Namespace) -> str:
    if shutil.which("strace") is None:
        print("budget: skipped: strace is not installed")
        return ""
    machine = table.machine(["gevent", "redis", "hiredis", "msgspec"])
    share = 10 if options.quick else 1
    apps = [name for name in APPS if not options.only or name in options.only]
    overhead = traced_overhead()
    budgets, summary = [], []
    with tempfile.TemporaryDirectory(prefix="budget-") as folder:
        with opened(Path(folder)) as bench:
            rest = idle_cost(bench)
            for app in apps:
                print(f"{app}: measuring", file=sys.stderr, flush=True)
                summary += [costs(bench, app, PACED // share, rest), costs(bench, app, max(2, 20 // share), rest, 1)]
        with opened(Path(folder), marked=True) as bench:
            for app in apps:
                print(f"{app}: tracing", file=sys.stderr, flush=True)
                budgets += budget(bench, Path(folder), app, 2 if options.quick else TRACED, overhead)
            print("system calls and profile", file=sys.stderr, flush=True)
        with opened(Path(folder)) as bench:
            tail = [system_calls(bench, Path(folder), apps, PACED // share), profile(bench, Path(folder), apps)]
    columns = ["", "CPU-us/call", "Redis us/call", "switches/call", "calls/CPU-s"]
    first = table.render(
        "A call with FreeSWITCH's 20 ms tick", columns, summary, SUMMARY.format(rate=RATE).splitlines()
    )
    return "\n\n\n".join([first, *budgets, *tail]) + f"\n\n{machine}"


@contextlib.contextmanager
def opened(folder: Path, *, marked: bool = False) -> Iterator[NodeBench]:
    """Start a node with warm calls behind it. ``marked``: it marks its wake-ups in a file."""
    with node_bench.opened() as bench:
        bench.create_cards(CARDS)
        if marked:
            bench.node.command = [
                *process.python("benchmarks.load.marked_node", marks_of(folder)),
                *bench.node.command[3:],
            ]
            bench.node.environment = {"PYTHONPATH": str(process.ROOT)}
        bench.start(callers=CARDS, tick=TICK)
        for app in APPS:
            bench.measure_calls({app: 1}, 50, rate=RATE, concurrency=AT_ONCE)
        yield bench


def marks_of(folder: Path) -> Path:
    return folder / "marks"


# Without strace ---------------------------------------------------------------------------------------------


def switches(pid: int) -> int:
    """Return how often a process has waited, with all its threads."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/task/{task}/status").read_text()
            total += int(text.partition("\nvoluntary_ctxt_switches:")[2].split("\n")[0])
    return total


def idle_cost(bench: NodeBench) -> tuple[float, float]:
    """Return CPU seconds per second, and waits per second, of a node without calls."""
    cpu, waits, began = bench.cpu(), switches(bench.pid), time.monotonic()
    time.sleep(IDLE)
    took = time.monotonic() - began
    return (bench.cpu() - cpu) / took, (switches(bench.pid) - waits) / took


def costs(bench: NodeBench, app: str, calls: int, rest: tuple[float, float], at_once: int = 0) -> tuple[str, ...]:
    """Return a row of the summary. ``at_once``: calls at a time; 0: ``RATE`` a second."""
    load = {"concurrency": at_once} if at_once else {"rate": RATE, "concurrency": AT_ONCE}
    waits, began = switches(bench.pid), time.monotonic()
    figure = bench.measure_calls({app: 1}, calls, **load)
    took = time.monotonic() - began
    cpu = (figure["node"] - rest[0] * took) / calls
    waited = (switches(bench.pid) - waits - rest[1] * took) / calls
    how = "one at a time" if at_once else f"{RATE} a second"
    return (
        f"{APPS[app]}, {how}",
        f"{cpu * 1e6:,.0f}",
        f"{figure['redis'] / calls * 1e6:,.0f}",
        f"{waited:.0f}",
        f"{1 / cpu:,.0f}",
    )


# By wake-up -------------------------------------------------------------------------------------------------


def traced_overhead() -> float:
    """Return the microseconds of CPU that strace adds to a system call, as the traced process counts its own."""
    code = "import os, time; a = time.thread_time(); [os.getppid() for _ in range(5000)]; print(time.thread_time() - a)"
    command = [sys.executable, "-c", code]

    def seconds(command: list[str]) -> float:
        runs = [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(3)]
        return min(runs)

    return (seconds(["strace", "-f", "-o", "/dev/null", *command]) - seconds(command)) / 5000 * 1e6


@contextlib.contextmanager
def strace(pid: int, *options: str) -> Iterator[None]:
    """Trace a process during the block."""
    with subprocess.Popen(["strace", "-f", "-p", str(pid), *options], stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        if "attached" not in child.stderr.readline():
            raise RuntimeError("strace may not attach to the node: run as root")
        try:
            yield
        finally:
            child.terminate()
            child.communicate()


def budget(bench: NodeBench, folder: Path, app: str, calls: int, overhead: float) -> list[str]:
    """Return the tables of an application: one call by wake-up, and all of them by what woke the node."""
    trace = folder / "trace"
    config = bench.node.config
    peers = wakeups.Peers(
        {
            port_of(config["node"]["listen"]): "call",
            port_of(config["integrators"][0]["listen"]): "HTTP",
            port_of(config["admin"]["listen"]): "HTTP",
        },
        {bench.switch_port: "switch", bench.redis_port: "Redis"},
        str(marks_of(folder)),
    )
    with strace(bench.pid, "-ttt", "-yy", "-s", "65536", "-o", str(trace)):
        time.sleep(IDLE)
    background = wakeups.all_forms(wakeups.parsed(trace.read_text().splitlines()), peers)
    traces = []
    for _ in range(calls):
        with strace(bench.pid, "-ttt", "-yy", "-s", "65536", "-o", str(trace)):
            time.sleep(0.5)  # until what strace delayed is done
            bench.measure_calls({app: 1}, 1, concurrency=1)
        reader = wakeups.Reader(bench.pid, peers, background)
        lines = trace.read_text(errors="replace").splitlines()
        woken = [one for one in reader.wakeups(wakeups.parsed(lines)) if one.of_call]
        for one in woken:
            one.cpu = max(0.0, one.cpu - overhead * sum(one.calls.values()))
        traces.append(woken)
    traces.sort(key=len)
    return [by_wakeup(app, traces[len(traces) // 2], calls, overhead), by_source(app, traces)]


def by_wakeup(app: str, woken: Sequence[WakeUp], calls: int, overhead: float) -> str:
    first = woken[0].at
    rows = [
        (
            f"{number:>2} {', '.join(one.by) or 'timer'}",
            f"{(one.at - first) * 1000:,.0f}",
            f"{one.cpu:.0f}",
            sum(one.calls.values()),
            wakeups.merged(one.read),
            wakeups.merged(one.written),
        )
        for number, one in enumerate(woken, 1)
    ]
    total = sum(one.cpu for one in woken)
    rows.append(("all", "", f"{total:,.0f}", sum(sum(one.calls.values()) for one in woken), "", ""))
    notes = NOTES.format(overhead=overhead, traced=calls).splitlines()
    columns = ["woken by", "at ms", "us", "sys", "read", "written"]
    return table.render(f"One {APPS[app]} call by wake-up", columns, rows, notes, left=("read", "written"))


def by_source(app: str, traces: Sequence[Sequence[WakeUp]]) -> str:
    count: Counter[str] = Counter()
    cpu: Counter[str] = Counter()
    for one in (one for woken in traces for one in woken):
        source = one.by[0] if one.by else "timer"
        count[source] += 1
        cpu[source] += round(one.cpu)
    calls = len(traces)
    rows = [
        (name, f"{times / calls:.1f}", f"{cpu[name] / calls:,.0f}", f"{cpu[name] / times:.0f}")
        for name, times in count.most_common()
    ]
    title = f"The wake-ups of a {APPS[app]} call"
    return table.render(title, ["woken by", "times", "us/call", "us each"], rows, BY_SOURCE.splitlines())


# System calls and profile -----------------------------------------------------------------------------------


def system_calls(bench: NodeBench, folder: Path, apps: Sequence[str], calls: int) -> str:
    """Return the table of system calls per call."""
    out = folder / "counts"
    with strace(bench.pid, "-c", "-o", str(out)):
        time.sleep(IDLE)
    resting = {name: count / IDLE for name, count in counted(out.read_text()).items()}
    found: dict[str, dict[str, float]] = {}
    for app in apps:
        with strace(bench.pid, "-c", "-o", str(out)):
            began = time.monotonic()
            bench.measure_calls({app: 1}, calls, rate=RATE, concurrency=AT_ONCE)
            took = time.monotonic() - began
        found[app] = {
            name: max(0.0, count - resting.get(name, 0.0) * took) / calls
            for name, count in counted(out.read_text()).items()
        }
    most = {name: max(each.get(name, 0.0) for each in found.values()) for each in found.values() for name in each}
    rows = [
        (name, *(f"{found[app].get(name, 0.0):.1f}" for app in apps))
        for name in sorted(most, key=lambda name: -most[name])
        if most[name] >= 0.05
    ]
    sums = [f"{sum(found[app].values()):.1f}" for app in apps]
    columns = ["", *(APPS[app] for app in apps)]
    return table.render(
        "System calls per call", columns, [*rows, ("all", *sums)], SYSTEM_CALLS.format(rate=RATE).splitlines()
    )


def counted(text: str) -> dict[str, int]:
    """Return the number of each system call, from the output of ``strace -c``."""
    result = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 5 and re.fullmatch(r"[0-9.]+", words[0]) and words[-1] not in {"total", "syscall"}:
            result[words[-1]] = int(words[3])
    return result


def profile(bench: NodeBench, folder: Path, apps: Sequence[str]) -> str:
    """Return where the node's CPU goes, as perf sees it."""
    title = "Where the CPU goes"
    if shutil.which("perf") is None:
        return f"{title}\n\nNot measured: perf is not installed."
    data = folder / "perf.data"
    command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "997", "-p", str(bench.pid), "-o", str(data)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        time.sleep(0.5)
        bench.measure_calls(dict.fromkeys(apps, 1), PACED, rate=RATE, concurrency=AT_ONCE)
        child.terminate()
        _, errors = child.communicate()
    if not data.exists():
        return f"{title}\n\nNot measured: perf: {errors.strip().splitlines()[-1:]}."
    tables = []
    for what, keys, most in (("part", "dso", 8), ("function", "symbol,dso", TOP)):
        report = ["perf", "report", "-i", str(data), "--stdio", "-q", "--sort", keys, "--percent-limit", "0.4"]
        text = subprocess.run(report, capture_output=True, text=True, check=True).stdout
        rows = [line.split(None, 1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
        shares = [(" ".join(re.sub(r"\[[.k]\]| -(?= |$)", " ", name).split()), share) for share, name in rows[:most]]
        tables.append((what, shares))
    notes = PROFILE.format(rate=RATE).splitlines()
    first = table.render(title, [tables[0][0], "share"], tables[0][1], notes)
    second = table.render(f"{title}, by function", [tables[1][0], "share"], tables[1][1])
    return f"{first}\n\n\n{second}"
