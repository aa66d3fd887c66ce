"""HTTP: requests a second of ``POST /click2dial/calls``, and what slow and huge clients do to the others' times."""

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

from benchmarks import clients, process, table
from tests.support.node import TOKEN, Node, RedisServer, configuration

SECONDS, ROUNDS, CLIENTS = 3.0, 5, 100
#: Of the measurement with others beside: requests a second, of so many clients, for so long.
RATE, FEW, LONG = 50.0, 10, 5.0
SLOW, HUGE = 50, 10
POST, GET = "POST /click2dial/calls", "GET /click2dial/calls/REF"
FALCON, PYWSGI = "peer: pywsgi, falcon, one SET", "peer: pywsgi, one SET"
ALONE = "nobody else"
BESIDE: dict[str, dict[str, int]] = {
    ALONE: {},
    f"{SLOW} that send a byte a second": {"slow": SLOW},
    f"{HUGE} that send bodies of 100 MB": {"huge": HUGE},
}
NOTES = """\
{clients} clients on keep-alive connections, each with its next request as soon as it has its answer; {rounds} rounds of
{seconds:g} s, in a new order in each. The server has one core, clients, Redis and the switch the other. The node
authorises, checks the fields, makes a call and its originate string, writes it down and tells Redis and the switch; the
switch is a stub that says busy at once, so each call also ends and has its record pushed within the run. "peer" does
nothing but decode the body and SET one key: no token, no check, no call. "us CPU" is the server's, for each request.
Each figure is the median of the rounds'."""
BESIDE_NOTES = """\
{few} clients with {rate:g} POSTs a second together, at random, while others are connected; {rounds} rounds of
{long:g} s each, in a new order in each, and of their figures the median. The slow ones are cut off and come again; so
do those with a body of 100 MB (as fast as the port takes it, 64 KB a millisecond at the most), which is refused once
its length is known."""


@dataclass
class Times:
    """Of one kind of request, over the rounds."""

    rounds: list[list[float]] = field(default_factory=list)
    """Seconds of each request."""
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """CPU seconds of the server for each request."""


def run(options: argparse.Namespace) -> str:
    machine = table.machine(["gevent", "falcon", "redis", "hiredis"])
    quick = 10 if options.quick else 1
    rounds = 1 if options.quick else ROUNDS
    with set_up() as servers:
        names = [name for name in servers if not options.only or name in options.only]
        times: dict[str, Times] = {name: Times() for name in names}
        for name in names:
            load(servers[name], 1.0, Times())
        for _ in range(rounds):
            for name in random.sample(names, len(names)):
                load(servers[name], SECONDS / quick, times[name])
        beside: dict[str, Times] = {name: Times() for name in BESIDE}
        for _ in range(rounds):
            for name in random.sample(list(BESIDE), len(BESIDE)):
                with disturbed(servers[POST], BESIDE[name]):
                    plan = dataclasses.replace(servers[POST].plan, clients=FEW, rate=RATE)
                    load(dataclasses.replace(servers[POST], plan=plan), LONG / quick, beside[name])
    rows = [
        (
            name,
            int(statistics.median(one.rates)),
            *spread(one),
            f"{statistics.median(one.cpu) * 1e6:,.0f}",
            table.ratio(statistics.median(one.rates), statistics.median(times[FALCON].rates))
            if FALCON in times
            else "-",
        )
        for name, one in times.items()
    ]
    columns = ["", "requests/s", "median ms", "p99 ms", "us CPU", "of peer"]
    notes = [machine, "", *NOTES.format(clients=CLIENTS, rounds=rounds, seconds=SECONDS / quick).splitlines()]
    first = table.render(f"HTTP: {CLIENTS} clients", columns, rows, notes)
    base = percentile(beside[ALONE], 99)
    rows_beside = [
        (name, sum(map(len, one.rounds)), *spread(one), table.ratio(percentile(one, 99), base))
        for name, one in beside.items()
    ]
    columns = ["beside", "requests", "median ms", "p99 ms", "p99 of alone"]
    notes = BESIDE_NOTES.format(few=FEW, rate=RATE, rounds=rounds, long=LONG / quick).splitlines()
    second = table.render("HTTP: a client's times while others are connected", columns, rows_beside, notes)
    return f"{first}\n\n\n{second}"


def spread(one: Times) -> tuple[str, str]:
    """Milliseconds: the median, and the 99th percentile."""
    return f"{percentile(one, 50) * 1000:.1f}", f"{percentile(one, 99) * 1000:.1f}"


def percentile(one: Times, percent: int) -> float:
    """The median of the rounds': what else a machine did in one of them is not the server's."""
    return statistics.median(statistics.quantiles(each, n=100, method="inclusive")[percent - 1] for each in one.rounds)


@dataclass(frozen=True)
class Server:
    pid: int
    plan: clients.Plan


def load(server: Server, seconds: float, into: Times) -> None:
    """Run its clients, in a process of their own on the other core."""
    plan = dataclasses.replace(server.plan, seconds=seconds)
    command = process.python("benchmarks.clients", json.dumps(dataclasses.asdict(plan)))
    before = process.cpu(server.pid)
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=process.ROOT) as child:
        process.pin(child.pid, 1)
        assert child.stdout is not None
        out = child.stdout.read()
    if child.returncode != 0:
        raise RuntimeError("the clients failed")
    found = json.loads(out)
    into.rounds.append(found)
    into.rates.append(len(found) / seconds)
    into.cpu.append((process.cpu(server.pid) - before) / len(found))


@contextlib.contextmanager
def disturbed(server: Server, by: dict[str, int]) -> Iterator[None]:
    """With those clients connected, in a process of their own."""
    plan = dataclasses.replace(server.plan, clients=0, seconds=600.0, slow=by.get("slow", 0), huge=by.get("huge", 0))
    command = process.python("benchmarks.clients", json.dumps(dataclasses.asdict(plan)))
    with subprocess.Popen(command, cwd=process.ROOT) as child:
        try:
            process.pin(child.pid, 1)
            time.sleep(2)  # until they are all there
            yield
        finally:
            child.kill()


@contextlib.contextmanager
def set_up() -> Iterator[dict[str, Server]]:
    """The servers under test, by what is asked of them."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="http-")))
        redis = RedisServer()
        stack.callback(redis.close)
        assert redis.process is not None
        process.pin(redis.process.pid, 1)
        switch = process.free_port()
        stack.enter_context(process.running(process.python("benchmarks.apps.busy_switch", switch), switch, core=1))
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
        for name, more in ((FALCON, ["falcon"]), (PYWSGI, [])):
            port = process.free_port()
            command = process.python("benchmarks.apps.http_peer", port, redis.port, *more)
            peer = stack.enter_context(process.running(command, port))
            result[name] = Server(peer.pid, clients.Plan(port, [post], SECONDS, CLIENTS))
        yield result


def request(method: str, path: str, body: str = "") -> str:
    lines = [f"{method} {path} HTTP/1.1", "Host: bench", f"Authorization: Bearer {TOKEN}"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", body])
