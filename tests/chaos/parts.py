"""The victims: nodes and Redis, as processes that can be killed and restarted."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from esl_apps.cli.embedded_redis import redis_server
from esl_apps.store import redis_client
from tests.support.descriptors import connections, descriptors
from tests.support.ports import free_port

HOST = "127.0.0.1"
#: The folder with the module that gives a process a clock of its own.
SKEWED = Path(__file__).parent / "skewed"
#: The Redis password of every node's user.
PASSWORD = "chaos"


def until(condition: Any, seconds: float, what: str) -> None:
    """Wait until a condition holds. :raises RuntimeError: it took longer than ``seconds``."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(what)
        time.sleep(0.02)


class Process:
    """A process that is killed and started again. Hold ``lock`` while disturbing it."""

    def __init__(self, name: str, command: list[str], log: Path) -> None:
        self.name = name
        self.command = command
        self.log = log
        self.lock = threading.Lock()
        self.environment: dict[str, str] = {}
        self.code: Path | None = None
        """The directory whose package it runs; None: this process's."""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def spawn(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                cwd=self.code,
            )

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def terminate(self, patience: float) -> bool:
        """Send SIGTERM. Return False if it did not end in time and was killed."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        return True


class NodeProcess(Process):
    """``esl-apps serve``."""

    def __init__(self, config: dict[str, Any], folder: Path, redis_ports: list[int]) -> None:
        name = config["node"]["name"]
        self.config = config
        self.redis_ports = redis_ports
        self.file = folder / f"{name}.yml"
        self.file.write_text(json.dumps(config))
        command = [sys.executable, "-m", "esl_apps", "serve", "-c", str(self.file)]
        super().__init__(name, command, folder / f"{name}.log")
        self.api: str = config["integrators"][0]["listen"]
        self.admin: str = config["admin"]["listen"]
        self.lives = 0
        self.drain: float = config["node"]["drain_timeout"]

    def start(self) -> None:
        """Wait until it is ready to serve or, with Redis down, until its ports are open."""
        self.spawn()
        self.lives += 1

        def alive() -> bool:
            if not self.runs:
                raise RuntimeError(f"{self.name} did not start: {self.log}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                return request(self.admin, "GET", "/healthz", timeout=2)[0] == 200
            return False

        until(alive, 60, f"{self.name} did not start: {self.log}")

    def metrics(self) -> dict[str, float]:
        """Each metric, summed over its labels."""
        found: dict[str, float] = {}
        for name, value in self._samples():
            name = name.partition("{")[0]
            found[name] = found.get(name, 0.0) + value
        return found

    def greenlets(self) -> Counter[str]:
        """How many greenlets there are of each task."""
        start, end = 'esl_apps_greenlets{task="', '"}'
        found = {name: int(count) for name, count in self._samples() if name.startswith(start)}
        return Counter({name.removeprefix(start).removesuffix(end): count for name, count in found.items()})

    def _samples(self) -> Iterator[tuple[str, float]]:
        text = request(self.admin, "GET", "/metrics", timeout=10)[1].decode()
        for line in text.splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                yield name, float(value)

    def paths(self) -> list[str]:
        return [name for name in descriptors(self.pid) if not name.startswith("socket:")]

    def peers(self) -> list[str]:
        """Its connections that aren't to Redis and don't listen: state, own port and the peer's."""
        return [
            f"{one.state}:{one.here}-{one.there}"
            for one in connections(descriptors(self.pid))
            if one.there not in self.redis_ports
        ]

    def figures(self) -> dict[str, float]:
        """Its metrics, and figures from ``/proc``: ``files`` (not sockets), ``connections`` to its event socket,
        ``rss_kb``, and ``sockets`` except those to Redis (``pool``) and those of its HTTP ports."""
        metrics = self.metrics()
        names = descriptors(self.pid)
        sockets = sum(name.startswith("socket:[") for name in names)
        node, *http_ports = (_port(at) for at in (self.config["node"]["listen"], self.admin, self.api))
        tcp = connections(names)
        pool = sum(one.there in self.redis_ports for one in tcp)
        of_http = sum(one.here in http_ports for one in tcp)
        status = Path(f"/proc/{self.pid}/status").read_text()
        rss = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
        return {
            **metrics,
            "files": len(names) - sockets,
            "sockets": sockets - pool - of_http,
            "pool": pool,
            "connections": sum(one.here == node for one in tcp),
            "rss_kb": rss,
        }


class ClockedNode(NodeProcess):
    """A node with a clock of its own, which reads the time by a slower function. Not for benchmarks."""

    def __init__(self, config: dict[str, Any], folder: Path, redis_ports: list[int]) -> None:
        super().__init__(config, folder, redis_ports)
        self._clock = folder / f"{self.name}.clock"
        self.set_clock(0)
        paths = [str(SKEWED), os.environ.get("PYTHONPATH", "")]
        self.environment = {"CHAOS_CLOCK": str(self._clock), "PYTHONPATH": os.pathsep.join(filter(None, paths))}

    def set_clock(self, ahead: float) -> None:
        """Set its clock ``ahead`` seconds ahead of the machine's, at once."""
        fresh = self._clock.with_suffix(".new")
        fresh.write_text(str(ahead))
        fresh.replace(self._clock)


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def request(
    address: str,
    method: str,
    path: str,
    body: object = None,
    headers: dict[str, str] | None = None,
    timeout: float = 15,
) -> tuple[int, bytes]:
    """Status and body. :raises OSError, http.client.HTTPException: no answer came."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=timeout)
    try:
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


class Redis:
    """A Redis that keeps all it acknowledged: killed, it comes back with its data."""

    def __init__(self, folder: Path) -> None:
        self.servers = [self._server(folder, "redis")]
        self.url = f"redis://{HOST}:{self.servers[0].port}/0"

    def _server(self, folder: Path, name: str, *more: str) -> RedisServer:
        return RedisServer(folder, name, *more)

    def start(self) -> None:
        for server in self.servers:
            server.start()

    @property
    def ports(self) -> list[int]:
        return [server.port for server in self.servers]

    #: The configured ``min-replicas-to-write``.
    replicas_to_write = "0"

    def client(self) -> Any:
        return redis_client.connect(self.url)

    def url_of(self, user: str) -> str:
        """The URL for one node."""
        scheme, _, rest = self.url.partition("://")
        query = f"?username={user}" if scheme == "redis+sentinel" else ""
        return f"{scheme}://{user}:{PASSWORD}@{rest}{query}"

    def victims(self) -> list[RedisServer]:
        """The servers that may be killed and stopped."""
        return self.servers

    def close(self) -> None:
        for server in self.servers:
            if server.runs:
                server.kill()


#: As many nodes can have a user of their own.
_USERS = 9


class RedisServer(Process):
    def __init__(self, folder: Path, name: str, *more: str) -> None:
        self.port = free_port()
        directory = folder / name
        directory.mkdir()
        command = [
            redis_server(),
            "--port",
            str(self.port),
            "--bind",
            HOST,
            "--dir",
            str(directory),
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            *(word for i in range(_USERS) for word in self.user(f"chaos{i + 1}").split()),
            *more,
        ]
        super().__init__(name, command, folder / f"{name}.log")

    @staticmethod
    def user(name: str) -> str:
        """The command-line option that makes a node's user."""
        return f"--user {name} on >{PASSWORD} ~* &* +@all"

    def start(self) -> None:
        self.spawn()
        until(self.answers, 30, f"{self.name} did not start: {self.log}")

    def answers(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(self.direct().ping())
        return False

    def direct(self) -> Any:
        """A client of this server itself, whatever its role."""
        return redis.Redis(port=self.port, socket_timeout=5, decode_responses=True)


class Sentinels(Redis):
    """A master, a replica, three sentinels: the replica takes over, the master comes back as its replica.

    A write that the master acknowledged and the replica has not is lost with a fail-over, unless the master refuses
    writes without a replica: ``min-replicas-to-write``. Only waiting for the replica (``WAIT``) closes that gap.
    """

    def __init__(self, folder: Path) -> None:
        self.servers = [self._server(folder, "redis1"), self._server(folder, "redis2")]
        self._folder = folder
        self._sentinels: list[Process] = []
        self._ports = [free_port() for _ in range(3)]
        self.url = f"redis+sentinel://{','.join(f'{HOST}:{port}' for port in self._ports)}/chaos/0"

    def start(self) -> None:
        super().start()
        master, replica = self.servers
        replica.direct().replicaof(HOST, master.port)
        for port in self._ports:
            file = self._folder / f"sentinel{port}.conf"
            file.write_text(
                f"port {port}\nbind {HOST}\ndir {self._folder}\n"
                f"sentinel monitor chaos {HOST} {master.port} 2\n"
                "sentinel down-after-milliseconds chaos 1000\nsentinel failover-timeout chaos 5000\n"
            )
            command = [redis_server(), str(file), "--sentinel"]
            sentinel = Process(f"sentinel{port}", command, self._folder / "sentinel.log")
            sentinel.spawn()
            self._sentinels.append(sentinel)
        until(self._agreed, 30, "the sentinels did not agree")

    def _agreed(self) -> bool:
        for port in self._ports:
            try:
                about = redis.Redis(port=port, socket_timeout=5, decode_responses=True).sentinel_master("chaos")
            except redis.RedisError:
                return False
            assert isinstance(about, dict)
            if about["num-other-sentinels"] < 2 or about["num-slaves"] < 1:
                return False
        return True

    @property
    def ports(self) -> list[int]:
        return [*super().ports, *self._ports]

    def close(self) -> None:
        super().close()
        for sentinel in self._sentinels:
            sentinel.kill()


class Cluster(Redis):
    """Three masters, each with a third of the slots. A killed one's slots are down until it is back."""

    def __init__(self, folder: Path) -> None:
        self.servers = [
            self._server(
                folder,
                f"redis{i}",
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                str(free_port()),
                "--cluster-node-timeout",
                "2000",
                "--cluster-require-full-coverage",
                "no",
            )
            for i in (1, 2, 3)
        ]
        self.url = f"redis+cluster://{HOST}:{self.servers[0].port}"

    def start(self) -> None:
        super().start()
        bounds = (0, 5461, 10923, 16384)
        first = self.servers[0]
        for i, server in enumerate(self.servers):
            server.direct().execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[i], bounds[i + 1] - 1)
            bus = first.command[first.command.index("--cluster-port") + 1]
            server.direct().execute_command("CLUSTER", "MEET", HOST, first.port, bus)
        for server in self.servers:
            until(lambda server=server: self._joined(server), 30, "the cluster did not form")

    def _joined(self, server: RedisServer) -> bool:
        info = str(server.direct().execute_command("CLUSTER", "INFO"))
        return "cluster_state:ok" in info and "cluster_known_nodes:3" in info and "cluster_slots_ok:16384" in info


REDIS = {"single": Redis, "sentinel": Sentinels, "cluster": Cluster}


@contextlib.contextmanager
def running(kind: str, folder: Path) -> Iterator[Redis]:
    made = REDIS[kind](folder)
    try:
        made.start()
        yield made
    finally:
        made.close()


def stop(process: Process) -> None:
    """Stop it at the end of the run, whatever its state."""
    if process.runs:
        process.signal(signal.SIGCONT)
        if not process.terminate(process.drain + 15 if isinstance(process, NodeProcess) else 10):
            raise RuntimeError(f"{process.name} did not stop on SIGTERM: {process.log}")


def end_by_exit() -> None:
    """Let SIGTERM end this process and what it started, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
