"""HTTP: requests a second of ``POST /click2dial/calls``, and the effect of slow clients and huge bodies on others."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from benchmarks import process, table
from benchmarks.load import clients
from tests.support.node import TOKEN, Node, RedisServer, configuration

SECONDS, ROUNDS, CLIENTS = 3.0, 5, 100
#: While slow or huge clients are connected: requests a second, clients, seconds.
RATE, FEW, LONG = 50.0, 10, 5.0
SLOW, HUGE = 50, 10
POST, GET = "POST /click2dial/calls", "GET /click2dial/calls/REF"
FALCON, PYWSGI = "peer: pywsgi, falcon, one SET", "peer: pywsgi, one SET"
ALONE = "no other clients"
BESIDE: dict[str, dict[str, int]] = {
    ALONE: {},
    f"{SLOW} clients that send a byte a second": {"slow": SLOW},
    f"{HUGE} clients that send bodies of 100 MB": {"huge": HUGE},
}
NOTES = """\
{clients} clients on keep-alive connections; each sends its next request as soon as it has an answer. {rounds} rounds of
{seconds:g} s, each in a new random order. The server has one core; clients, Redis and the switch share the other. The
node authorises the request, checks its fields, creates a call and its originate string, logs it, and tells Redis and
the switch. The switch is a stub that reports busy at once, so each call also ends within the run, and its record is
pushed. "peer" only decodes the body and SETs one key: no token, no checks, no call. "us CPU" is the server's CPU time
per request. Each figure is the median over the rounds."""
BESIDE_NOTES = """\
{few} clients send {rate:g} POSTs a second together, at random intervals, while other clients are connected. Figures are
the median of {rounds} rounds of {long:g} s, each in a new random order. The server cuts slow clients off, and they
connect again. So do those with a body of 100 MB (sent as fast as the port reads, at most 64 KB per millisecond); the
server refuses it as soon as it knows the length."""


@dataclass
class Times:
    """The figures of one kind of request, by round."""

    rounds: list[list[float]] = field(default_factory=list)
    """Seconds that each request took."""
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """CPU seconds of the server per request."""


def run(options: argparse.Namespace) -> str:
    machine = table.machine(["gevent", "falcon", "redis", "hiredis"])
    share = 10 if options.quick else 1
    rounds = 1 if options.quick else ROUNDS
    with set_up() as servers:
        names = [name for name in servers if not options.only or name in options.only]
        times: dict[str, Times] = {name: Times() for name in names}
        for name in names:
            load(servers[name], 1.0, Times())
        for _ in range(rounds):
            for name in random.sample(names, len(names)):
                load(servers[name], SECONDS / share, times[name])
        disturbed_times: dict[str, Times] = {name: Times() for name in BESIDE}
        for _ in range(rounds):
            for name in random.sample(list(BESIDE), len(BESIDE)):
                with disturbed(servers[POST], BESIDE[name]):
                    plan = dataclasses.replace(servers[POST].plan, clients=FEW, rate=RATE)
                    load(dataclasses.replace(servers[POST], plan=plan), LONG / share, disturbed_times[name])
    rows = [
        (
            name,
            int(statistics.median(figures.rates)),
            *spread(figures),
            f"{statistics.median(figures.cpu) * 1e6:,.0f}",
            table.ratio(statistics.median(figures.rates), statistics.median(times[FALCON].rates))
            if FALCON in times
            else "-",
        )
        for name, figures in times.items()
    ]
    columns = ["", "requests/s", "median ms", "p99 ms", "us CPU", "of peer"]
    notes = [machine, "", *NOTES.format(clients=CLIENTS, rounds=rounds, seconds=SECONDS / share).splitlines()]
    first = table.render(f"HTTP: {CLIENTS} clients", columns, rows, notes)
    undisturbed = percentile(disturbed_times[ALONE], 99)
    rows_beside = [
        (name, sum(map(len, figures.rounds)), *spread(figures), table.ratio(percentile(figures, 99), undisturbed))
        for name, figures in disturbed_times.items()
    ]
    columns = ["other clients", "requests", "median ms", "p99 ms", "p99 of none"]
    notes = BESIDE_NOTES.format(few=FEW, rate=RATE, rounds=rounds, long=LONG / share).splitlines()
    second = table.render("HTTP: response times while other clients are connected", columns, rows_beside, notes)
    return f"{first}\n\n\n{second}"


def spread(times: Times) -> tuple[str, str]:
    """Return the median and the 99th percentile, in milliseconds."""
    return f"{percentile(times, 50) * 1000:.1f}", f"{percentile(times, 99) * 1000:.1f}"


def percentile(times: Times, percent: int) -> float:
    """Return the median of the rounds' percentiles, so that a disturbance of the machine in one round has no effect."""
    return statistics.median(
        statistics.quantiles(seconds, n=100, method="inclusive")[percent - 1] for seconds in times.rounds
    )


@dataclass(frozen=True)
class Server:
    pid: int
    plan: clients.Plan


def load(server: Server, seconds: float, result: Times) -> None:
    """Run the server's clients in a process on the other core, and add their figures to ``into``."""
    plan = dataclasses.replace(server.plan, seconds=seconds)
    command = process.python("benchmarks.load.clients", json.dumps(dataclasses.asdict(plan)))
    before = process.cpu(server.pid)
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=process.ROOT) as child:
        process.pin(child.pid, 1)
        assert child.stdout is not None
        out = child.stdout.read()
    if child.returncode != 0:
        raise RuntimeError("the HTTP clients failed; see their traceback above")
    seconds_taken = json.loads(out)
    result.rounds.append(seconds_taken)
    result.rates.append(len(seconds_taken) / seconds)
    result.cpu.append((process.cpu(server.pid) - before) / len(seconds_taken))


@contextlib.contextmanager
def disturbed(server: Server, others: dict[str, int]) -> Iterator[None]:
    """Keep slow or huge clients connected during the block, in a process of their own."""
    plan = dataclasses.replace(
        server.plan, clients=0, seconds=600.0, slow=others.get("slow", 0), huge=others.get("huge", 0)
    )
    command = process.python("benchmarks.load.clients", json.dumps(dataclasses.asdict(plan)))
    with subprocess.Popen(command, cwd=process.ROOT) as child:
        try:
            process.pin(child.pid, 1)
            time.sleep(2)  # until all of them are connected
            yield
        finally:
            child.kill()


@contextlib.contextmanager
def set_up() -> Iterator[dict[str, Server]]:
    """Start the servers under test. Yields them by name."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="http-")))
        redis = RedisServer()
        stack.callback(redis.close)
        assert redis.process is not None
        process.pin(redis.process.pid, 1)
        switch = process.free_port()
        stack.enter_context(process.running(process.python("benchmarks.peers.busy_switch", switch), switch, core=1))
        address = f"127.0.0.1:{switch}"
        rig = SimpleNamespace(
            esl_address=address, esl_password="not-the-stock-one", dial={}, recordings=folder, spool=folder
        )
        node = Node(configuration(rig, redis))
        stack.callback(node.stop)
        assert node.process is not None
        process.pin(node.process.pid, 0)
        port = int(node.api.rpartition(":")[2])
        body = json.dumps({"agent": "1000", "callee": "0820001234", "outbound_id": "27115550000"})
        post = request("POST", "/click2dial/calls", body)
        ref = node.call("1000", "0820001234")
        result = {
            POST: Server(node.process.pid, clients.Plan(port, [post], SECONDS, CLIENTS)),
            GET: Server(
                node.process.pid,
                clients.Plan(port, [request("GET", f"/click2dial/calls/{ref}")], SECONDS, CLIENTS, status=200),
            ),
        }
        for name, options in ((FALCON, ["falcon"]), (PYWSGI, [])):
            port = process.free_port()
            command = process.python("benchmarks.peers.http_peer", port, redis.port, *options)
            peer = stack.enter_context(process.running(command, port))
            result[name] = Server(peer.pid, clients.Plan(port, [post], SECONDS, CLIENTS))
        yield result


def request(method: str, path: str, body: str = "") -> str:
    lines = [f"{method} {path} HTTP/1.1", "Host: bench", f"Authorization: Bearer {TOKEN}"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", body])
