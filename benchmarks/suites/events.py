"""Live events (``GET /click2dial/events``): how soon many readers have them, and what that costs."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks import process, table
from benchmarks.load import event_readers, node_bench
from benchmarks.load.event_plan import EACH, Written
from benchmarks.load.node_bench import TOKEN, NodeBench, NotPerformed, port_of
from esl_apps.store import keys

ROUNDS, SECONDS, READERS = 3, 10, 100
#: Events a second that the readers should get, all together.
TARGET = 10_000
NODE, PEER = "esl_apps", "peer: pywsgi, a queue each"
NOTES = """\
{readers} clients of GET /click2dial/events have one core with Redis and another node, whose calls change state; the
node under test has the other core. The other node's events are written by this project's own writer, at most 50 times a
second, and read by the node under test 20 times a second: half of each interval is in the delay, which counts from the
time of the state (in whole milliseconds) until the client has read the event. "writing" is p99 until Redis has it.
"sent/s": events that all readers got in a second, together (target: {target:,}). "an agent's": each reader asks for the
calls of one of 100 agents. "CPU" and "us/sent" are the node's; "MB more" is the most that its memory grew by. "lost":
events that a reader didn't get, got twice or out of order. "cut": readers whose stream ended. Medians of {rounds}
rounds of {seconds:g} s; the most of memory, the sum of what was lost and cut. "peer" is what is usually written: the
same Redis stream, a queue for each reader, a part of the answer for each event, no token and no filter. In the last
line the readers have 600 MB a second to read on the core that they share."""


@dataclass(frozen=True)
class Load:
    server: str
    rate: int
    """Events a second."""
    agents: int = 0
    """Each reader asks for one of so many agents. 0: for all."""

    @property
    def name(self) -> str:
        return f"{self.server}, an agent's" if self.agents else self.server


LOADS = (
    Load(NODE, 100),
    Load(PEER, 100),
    Load(NODE, 1000),
    Load(PEER, 1000),
    Load(NODE, 10_000, agents=100),
    Load(NODE, 10_000),
)


@dataclass
class Figures:
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    writing: list[float] = field(default_factory=list)
    """The 99th percentile of the part until Redis has the event."""
    cpu: list[float] = field(default_factory=list)
    """CPU seconds of the server per second."""
    redis: list[float] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)
    """Events to all readers in a second."""
    each: list[float] = field(default_factory=list)
    """CPU seconds per event and reader."""
    memory: int = 0
    """Most KB more than before."""
    lost: int = 0
    cut: int = 0


def run(options: argparse.Namespace) -> str:
    machine = table.machine(["gevent", "falcon", "redis", "hiredis"])
    rounds = 1 if options.quick else ROUNDS
    seconds = 1.0 if options.quick else SECONDS
    loads = [load for load in LOADS if not options.only or load.server in options.only]
    figures = {load: Figures() for load in loads}
    with node_bench.opened() as bench:
        bench.start()
        for _ in range(rounds):
            for load in loads:
                with server(bench, load.server) as (pid, port):
                    measure(bench, pid, port, load, seconds, figures[load])
    rows = [
        (
            load.name,
            load.rate,
            f"{statistics.median(each.sent):,.0f}",
            f"{statistics.median(each.p50):.0f}",
            f"{statistics.median(each.p99):.0f}",
            f"{statistics.median(each.writing):.0f}",
            f"{100 * statistics.median(each.cpu):.0f} %",
            f"{1e6 * statistics.median(each.each):.1f}",
            f"{100 * statistics.median(each.redis):.0f} %",
            f"{each.memory / 1024:.0f}",
            each.lost,
            each.cut,
        )
        for load, each in figures.items()
    ]
    columns = [
        "",
        "events/s",
        "sent/s",
        "p50 ms",
        "p99 ms",
        "writing",
        "CPU",
        "us/sent",
        "Redis",
        "MB more",
        "lost",
        "cut",
    ]
    notes = NOTES.format(readers=READERS, target=TARGET, rounds=rounds, seconds=seconds).splitlines()
    return table.render(f"Live events to {READERS} readers", columns, rows, [*notes, "", machine])


@contextlib.contextmanager
def server(bench: NodeBench, name: str) -> Iterator[tuple[int, int]]:
    """Yield the pid and the port of a server of events."""
    if name == NODE:
        yield bench.pid, port_of(bench.node.config["integrators"][0]["listen"])
        return
    port = process.free_port()
    stream = keys.events(keys.history("acme"))
    command = process.python("benchmarks.peers.sse_peer", port, bench.redis_port, stream)
    with process.running(command, port) as child:
        yield child.pid, port


def measure(bench: NodeBench, pid: int, port: int, load: Load, seconds: float, figures: Figures) -> None:
    """Have the events of a load written and read, and add what came of it to ``figures``."""
    count = int(load.rate * seconds) // EACH * EACH
    wanted = count if load.agents else count * READERS
    readers = start_python("event_readers", event_readers.Plan(port, TOKEN, READERS, wanted, load.agents))
    assert readers.stdout is not None
    try:
        if readers.stdout.readline() != b"ready\n":
            raise NotPerformed(f"{load.name}: the readers got no stream")
        before = process.memory(pid)
        cpu, redis = process.cpu(pid), process.cpu(bench.redis.pid)
        with highest(pid) as memory:
            source = start_python("event_source", Written(bench.redis_url, "acme", load.rate, count))
            report = json.loads(source.communicate()[0])
            written, took = report["written"], report["seconds"]
            result = json.loads(readers.communicate(timeout=120)[0])
        cpu, redis = process.cpu(pid) - cpu, process.cpu(bench.redis.pid) - redis
    finally:
        readers.kill()
    if written != count:
        raise NotPerformed(f"{load.name}: {written} of {count} events were written")
    got = result["events"]
    figures.p50.append(result["p50"])
    figures.p99.append(result["p99"])
    figures.writing.append(result["writing_p99"])
    figures.cpu.append(cpu / took)
    figures.redis.append(redis / took)
    figures.sent.append(sum(got) / took)
    figures.each.append(cpu / max(1, sum(got)))
    figures.memory = max(figures.memory, memory[0] - before)
    figures.lost += abs(wanted - sum(got)) + result["disordered"]
    figures.cut += result["dropped"]
    print(
        f"{load.name}, {load.rate:,} a second: p50 {result['p50']:.0f} ms, p99 {result['p99']:.0f} ms "
        f"({result['writing_p99']:.0f} in Redis), "
        f"{100 * cpu / took:.0f} % CPU, {wanted - sum(got)} lost, {result['dropped']} cut {result['ends'][:1]}; "
        f"clients {100 * result['cpu'] / took:.0f} %, writer {100 * report['cpu'] / took:.0f} %",
        file=sys.stderr,
        flush=True,
    )


def start_python(module: str, plan: event_readers.Plan | Written) -> subprocess.Popen[bytes]:
    command = process.python(f"benchmarks.load.{module}", json.dumps(dataclasses.asdict(plan)))
    child = subprocess.Popen(command, cwd=process.ROOT, stdout=subprocess.PIPE)
    process.pin(child.pid, 1)
    return child


@contextlib.contextmanager
def highest(pid: int) -> Iterator[list[int]]:
    """Look at a process's memory ten times a second; yields a list of the most KB that it had."""
    most, over = [process.memory(pid)], threading.Event()

    def look() -> None:
        while not over.wait(0.1):
            most[0] = max(most[0], process.memory(pid))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()
