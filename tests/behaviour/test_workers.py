"""``serve --workers N``: several processes that look like one node from outside."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from esl_apps.config import parse
from esl_apps.node.workers import Share
from tests.rig.base import Script, eventually
from tests.rig.sandbox import SandboxRig
from tests.support import zygote
from tests.support.node import ADMIN_TOKEN, CDRS, Node, RedisServer, configuration, request
from tests.support.ports import free_ports

CALLEE = "0820001234"
COUNT = 2


class Workers(Node):
    """A node of several processes, started by its command line."""

    def _spawn(self, log: Any) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "esl_apps", "serve", "--workers", str(COUNT), "-c", str(self.file)]
        return subprocess.Popen(command, stdout=log, stderr=log)

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        assert self.process is not None
        return children(self.process.pid)

    def up(self) -> int:
        return int(sum(self.metric("esl_apps_worker_up{")))

    def live(self) -> list[float]:
        """How many calls each worker placed."""
        return self.metric('esl_apps_live_calls{app="click-dial"')

    def metric(self, begin: str) -> list[float]:
        text = request(self.admin, "GET", "/metrics", token=None).body.decode()
        return [float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(begin)]


def children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def settings(rig: SandboxRig, redis: RedisServer) -> dict[str, Any]:
    config = configuration(rig, redis, agent_timeout=10, callee_timeout=10)
    config["node"]["worker_ports"] = free_ports(COUNT)
    config["admin"]["console"] = True
    config["inbound"] = {"27115550009": {"integrator": "acme", "agents": ["1000"], "ring_timeout": 10}}
    return config


@pytest.fixture(scope="module")
def rig() -> Iterator[SandboxRig]:
    made = SandboxRig()
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared(rig: SandboxRig, redis: RedisServer) -> Iterator[Workers]:
    node = Workers(settings(rig, redis))
    yield node
    node.end()


@pytest.fixture
def node(shared: Workers, rig: SandboxRig, redis: RedisServer) -> Iterator[Workers]:
    rig.reset()
    redis.flush()
    eventually(lambda: shared.up() == COUNT)
    yield shared
    rig.reset()


def records(redis: RedisServer, refs: list[str]) -> dict[str, Any]:
    """Check that each call has one record and that there are no others."""
    found = [redis.pop(timeout=30) for _ in refs]
    assert not redis.client.llen(CDRS)
    by_ref = {record["call_ref"]: record for record in found}
    assert sorted(by_ref) == sorted(refs)
    return by_ref


def bridged(node: Node, ref: str) -> None:
    eventually(lambda: node.get(ref)["state"] == "bridged")


def test_workers_any_of_them_knows_all_calls(node: Workers, rig: SandboxRig, redis: RedisServer) -> None:
    rig.phone("1000")
    rig.outside(CALLEE, Script(answer_after=0.0))
    refs = []
    for _ in range(12):
        refs.append(node.call("1000", CALLEE))
        # Each request has its own connection, which either worker may take.
        assert {request(node.api, "GET", f"/click2dial/calls/{refs[-1]}").status for _ in range(4)} == {200}
    for ref in refs:
        bridged(node, ref)
    listed = request(node.api, "GET", "/click2dial/calls").json["calls"]
    assert {call["call_ref"] for call in listed} == set(refs)
    holders = {leg["variable_esl_node"] for leg in legs(rig)}
    assert holders == {f"{node.config['node']['name']}-{number}" for number in (1, 2)}
    for ref in refs:
        assert node.delete(ref).status == 202
    found = records(redis, refs)
    assert {(record["end_reason"], record["hung_up_by"]) for record in found.values()} == {("answered", "api")}


def legs(rig: SandboxRig) -> list[dict[str, str]]:
    """The variables of all live legs."""
    rows = json.loads(rig.api("show channels as json")).get("rows", [])
    names = ("variable_esl_node", "variable_esl_call_ref")
    return [
        {name: rig.api(f"uuid_getvar {row['uuid']} {name.removeprefix('variable_')}") for name in names} for row in rows
    ]


def test_workers_incoming_call_goes_to_one(node: Workers, rig: SandboxRig, redis: RedisServer) -> None:
    rig.phone("1000", Script(hangup_after=0.5))
    rig.route("27115550009", "inbound", node.config["node"]["listen"])
    callers = [rig.outside(f"08200055{n:02}") for n in range(6)]
    for caller in callers:
        caller.dial("27115550009")
    found = [redis.pop(timeout=30) for _ in callers]
    assert {record["ref"] for record in found} == {"inbound"}
    assert {record["end_reason"] for record in found} <= {"answered", "agent_busy"}


def test_workers_killed_one_is_restarted_alone(node: Workers, rig: SandboxRig, redis: RedisServer) -> None:
    rig.phone("1000")
    rig.outside(CALLEE, Script(answer_after=0.0))
    refs = [node.call("1000", CALLEE) for _ in range(8)]
    for ref in refs:
        bridged(node, ref)
    first, second = node.workers()
    os.kill(first, signal.SIGKILL)
    # At once, and every time: a connection in the port's queue is taken by the live worker.
    for _ in range(20):
        assert request(node.admin, "GET", "/healthz", token=None).status == 200
    eventually(lambda: node.up() == COUNT and sum(node.live()) == 8)
    assert second in node.workers()
    assert first not in node.workers()
    assert len(node.workers()) == COUNT
    assert rig.live_channels() == 16
    assert [line["worker"] for line in node.lines() if line["event"] == "worker_ended"] == [1]
    eventually(lambda: node.metric("esl_apps_worker_restarts_total{") == [1.0, 0.0])
    for ref in refs:
        assert node.delete(ref).status == 202
    found = records(redis, refs)
    assert {(record["end_reason"], record["hung_up_by"]) for record in found.values()} == {("answered", "api")}


def test_workers_reload_reaches_all(node: Workers) -> None:
    before = json.loads(json.dumps(node.config))
    node.config["integrators"][0]["caller_ids"] = ["27115550000", "27115550077"]
    node.file.write_text(json.dumps(node.config))
    assert node.process is not None
    node.process.send_signal(signal.SIGHUP)
    seen = len([line for line in node.lines() if line["event"] == "config_reloaded"])
    eventually(lambda: sum(line["event"] == "config_reloaded" for line in node.lines()) >= max(COUNT, seen))
    answers = [node.post("1000", CALLEE, "27115550077", query="?dry_run=true").status for _ in range(10)]
    assert set(answers) == {200}
    node.config = before
    node.file.write_text(json.dumps(before))
    node.process.send_signal(signal.SIGHUP)
    eventually(lambda: sum(line["event"] == "config_reloaded" for line in node.lines()) >= 2 * COUNT)


def test_workers_metrics_are_merged(node: Workers, rig: SandboxRig) -> None:
    rig.phone("1000")
    rig.outside(CALLEE, Script(answer_after=0.0))
    refs = [node.call("1000", CALLEE) for _ in range(6)]
    for ref in refs:
        bridged(node, ref)

    for _ in range(6):
        assert len(node.live()) == COUNT
        assert sum(node.live()) == 6
    assert sum(node.metric('esl_apps_http_request_seconds_count{method="POST"')) >= 6
    for name in ("esl_apps_build_info{", 'esl_apps_redis_round_trip_seconds_count{redis="main"', "esl_apps_ready{"):
        assert len(node.metric(name)) == COUNT
    one = node.workers()[1]
    os.kill(one, signal.SIGSTOP)
    try:
        answer = None
        while answer is None:
            # The stopped worker may have accepted the connection: the other takes the next.
            try:
                answer = request(node.admin, "GET", "/metrics", token=None)
            except OSError:
                continue
        assert answer.body.decode().count("esl_apps_worker_up{") == COUNT
    finally:
        os.kill(one, signal.SIGCONT)


def test_workers_any_of_them_knows_a_session_and_the_charts(node: Workers, rig: SandboxRig, redis: RedisServer) -> None:
    rig.phone("1000", Script(answer_after=0.1))
    rig.outside(CALLEE, Script(answer_after=0.1))
    refs: list[str] = []

    def each_has_one() -> bool:
        # Either worker may take a request.
        refs.append(node.call("1000", CALLEE))
        return all(count > 0 for count in node.live())

    eventually(each_has_one)
    form = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
    login = request(node.admin, "POST", "/console/login", f"token={ADMIN_TOKEN}".encode(), token=None, **form)
    cookie = login.headers["set-cookie"].partition(";")[0]

    def charted() -> set[str]:
        # Each request is a connection of its own, which either worker may take.
        pages = [request(node.admin, "GET", "/console/", token=None, Cookie=cookie) for _ in range(20)]
        assert {page.status for page in pages} == {200}
        return set(re.findall(r"in the last hour: (\d+) now", " ".join(page.body.decode() for page in pages)))

    eventually(lambda: charted() == {f"{len(refs)}"}, within=40)
    for ref in refs:
        node.delete(ref)
        redis.pop()


# Start and end -------------------------------------------------------------------------------------------


def test_workers_sigterm_ends_all_and_refuses_the_switch(rig: SandboxRig, redis: RedisServer) -> None:
    redis.flush()
    node = Workers(settings(rig, redis))
    rig.phone("1000")
    rig.outside(CALLEE, Script(answer_after=0.0))
    refs = [node.call("1000", CALLEE) for _ in range(4)]
    for ref in refs:
        bridged(node, ref)
    assert node.process is not None
    node.process.send_signal(signal.SIGTERM)

    def refused() -> bool:
        return not listens(node.config["node"]["listen"])

    eventually(refused)
    assert rig.live_channels() == 8, "a call ended with its node's listener"
    workers = node.workers()
    rig.api("hupall")
    assert node.process.wait(20) == 0
    assert not any(runs(pid) for pid in workers)
    assert not listens(node.api)
    assert {record["end_reason"] for record in records(redis, refs).values()} == {"answered"}


def listens(address: str) -> bool:
    """Whether the kernel has a listening socket there. Ask the kernel: connecting would place a call."""
    wanted = f":{int(address.rpartition(':')[2]):04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(wanted) and line.split()[3] == "0A" for line in lines)


def test_workers_whose_supervisor_is_killed_drain_and_end(rig: SandboxRig, redis: RedisServer) -> None:
    node = Workers(settings(rig, redis))
    workers = node.workers()
    assert node.stop(signal.SIGKILL) == -signal.SIGKILL
    eventually(lambda: not any(runs(pid) for pid in workers))
    assert not listens(node.config["node"]["listen"])
    assert sum(line["event"] == "node_draining" for line in node.lines()) == COUNT


@pytest.mark.parametrize("key", ["node.listen", "admin.listen", "node.worker_ports"])
def test_workers_port_in_use_stops_the_start(rig: SandboxRig, redis: RedisServer, key: str) -> None:
    config = settings(rig, redis)
    taken = rig.esl_address
    if key == "node.worker_ports":
        config["node"]["worker_ports"] = int(taken.rpartition(":")[2])
    else:
        config[key.partition(".")[0]]["listen"] = taken
    # It printed why it did not start; the process and all that it started are gone.
    with pytest.raises(AssertionError, match=re.escape(f"{key}: can't listen on {taken}")):
        Workers(config)
    assert not listens(config["integrators"][0]["listen"])


@pytest.mark.parametrize("count", ["0", "-1", "two", "1.5", "257", ""])
def test_workers_wrong_count_is_refused(count: str, tmp_path: Path) -> None:
    done = zygote.run(["serve", "--workers", count, "-c", str(tmp_path / "none.yml")])
    assert done.returncode == 2
    assert "--workers: expected a number from 1 to 256" in done.stderr


# A worker's share ----------------------------------------------------------------------------------------


def share(number: int) -> Share:
    return Share(number, {}, -1, -1, [])


def document(**node: Any) -> str:
    return json.dumps(
        {
            "node": {"name": "app1", **node},
            "switches": [{"name": "fs1", "address": "127.0.0.1:8021", "password": "x"}],
            "admin": {"listen": "127.0.0.1:0", "token": ADMIN_TOKEN},
            "dial": {"region": "ZA", "extension": "user/{number}", "external": ["sofia/gateway/pstn/{number}"]},
        }
    )


@pytest.mark.parametrize(
    ("node", "own", "advertised"),
    [
        ({"listen": "127.0.0.1:8084"}, ("127.0.0.1", 8086), "127.0.0.1:8086"),
        ({"listen": "0.0.0.0:8084", "advertise": "10.0.0.5:8084"}, ("0.0.0.0", 8086), "10.0.0.5:8086"),
        ({"listen": "0.0.0.0:8084", "advertise": "fs.example.org:18084"}, ("0.0.0.0", 8086), "fs.example.org:18086"),
        ({"listen": "[::1]:8084"}, ("::1", 8086), "[::1]:8086"),
        ({"listen": "127.0.0.1:8084", "worker_ports": 9000}, ("127.0.0.1", 9001), "127.0.0.1:9001"),
        ({"listen": "0.0.0.0:8084", "advertise": "a.b:18084", "worker_ports": 9000}, ("0.0.0.0", 9001), "a.b:19001"),
    ],
)
def test_workers_each_has_its_own_name_and_port(node: dict[str, Any], own: tuple[str, int], advertised: str) -> None:
    config = parse(document(**node), {})
    second = share(2)
    assert second.own_address(config) == own
    assert second.of(config).advertise == advertised
    assert second.of(config).node.name == "app1-2"
    assert share(1).of(config).node.name == "app1-1"
