"""A complete node under measurement: its configuration, its Redis, its process and its records."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import process
from benchmarks.load.bulk_client import BulkClient
from esl_apps.cli.embedded_redis import redis_server
from esl_apps.core.numbers import NumberPlan
from esl_apps.store import keys, redis_py
from esl_apps.store.cards import CardStore
from esl_apps.store.fast_client import TIMEOUT
from tests.chaos.parts import NodeProcess, stop
from tests.support.ports import free_port

HOST = "127.0.0.1"
TOKEN, ADMIN_TOKEN, PIN, ESL_PASSWORD = "acme-token-of-bench", "admin-token-of-bench", "4821907356", "bench"
PIN_KEY = "key-of-bench"
OWN = "27115550000"
MOST = "max_concurrent_calls_per_user"
DISA, CARD, INBOUND = "27115550002", "27115550003", "27115550010"
CDRS = "enigma:notifications:cdr"
#: Too high to be reached; the node still counts them.
PLENTY = 1_000_000_000
_LIMITS = dict.fromkeys(("calls_per_hour", "calls_per_day", "minutes_per_hour", "minutes_per_day"), PLENTY)
_RATE = {"per_token": 1_000_000, "per_address": 1_000_000, "failed": 10, "connections": 500}


def configuration(folder: Path, redis: str, switch: str, *, name: str = "bench", **more: Any) -> dict[str, Any]:
    """Return a node's configuration, with all checks and counters of calls enabled.

    :param switch: ``host:port`` of the switch's event socket. :param more: sections that replace those here.
    """
    return {
        "node": {
            "name": name,
            "listen": f"{HOST}:{free_port()}",
            "drain_timeout": 5,
            "max_calls": 20_000,
            "state_dir": str(folder / "state"),
        },
        "redis": {"url": redis},
        "pin_key": PIN_KEY,
        "switches": [{"name": "fs1", "address": switch, "password": ESL_PASSWORD}],
        "dial": {"region": "ZA", "extension": "user/{number}@127.0.0.1", "external": ["sofia/gateway/pstn/{number}"]},
        "admin": {"listen": f"{HOST}:{free_port()}", "token": ADMIN_TOKEN, "rate": _RATE},
        "recordings": {"dir": str(folder / "recordings")},
        "spool": {"dir": str(folder / "spool")},
        "integrators": [integrator("acme", TOKEN)],
        "cccp": {"cccp_cc_number": CARD, "cccp_cb_number": "27115550004"},
        "spending": {"limits": _LIMITS, "breaker": {"high_risk_calls_per_hour": 10}},
        "accounts": {
            "acme": {
                "integrator": "acme",
                "caller_id": {"number": f"+{OWN}", "name": "Acme"},
                "disa": {"front": {"pin": PIN}},
                "call_restriction": {"premium": {"action": "deny"}, "international": {"action": "deny"}},
                "limits": _LIMITS,
            }
        },
        "inbound": {INBOUND: {"integrator": "acme", "agents": ["1001"]}},
        **more,
    }


def integrator(name: str, token: str) -> dict[str, Any]:
    return {
        "name": name,
        "listen": f"{HOST}:{free_port()}",
        "token": token,
        "caller_ids": [OWN],
        "rate": _RATE,
        "limits": _LIMITS,
    }


class NotPerformed(RuntimeError):
    """A call or its record was not as it should have been."""


class NodeBench:
    """A node on one core, with its Redis and the load generator on the other."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack, **more: Any) -> None:
        """:param more: sections of the configuration that replace the defaults."""
        redis_port, self.switch_port = free_port(), free_port()
        # In memory if possible: this doesn't measure how Redis waits for a busy disk.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else folder
        data = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-redis-", dir=memory))
        command = [
            redis_server(),
            "--port",
            str(redis_port),
            "--bind",
            HOST,
            "--save",
            "",
            "--dir",
            data,
            "--appendonly",
            "yes",
            "--appendfsync",
            "everysec",
        ]
        self.redis = stack.enter_context(process.running(command, redis_port, 1))
        self.redis_port = redis_port
        self.redis_url = url = f"redis://{HOST}:{redis_port}/0"
        self.client: Any = redis_py.single(url, TIMEOUT)
        config = configuration(folder, url, f"{HOST}:{self.switch_port}", **more)
        self.node = NodeProcess(config, folder, [redis_port])
        self._stack = stack
        self._exchange: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self.node.pid

    def create_cards(self, count: int) -> None:
        """Create a card for each of the caller numbers that the generator calls from."""
        bulk = BulkClient(self.client)
        store = CardStore(bulk, PIN_KEY, NumberPlan("ZA", r"\d{3,4}"), {})
        for i in range(count):
            # With few cards, several calls at a time use the same one: don't run into its limit.
            card = {"cid": f"+2782{i:07d}", "active": True, "user_id": f"{i:032x}", MOST: 10_000}
            store.create("acme", card)
        bulk.flush()

    def start(self, **dial: Any) -> None:
        """Start the generator, then the node. :param dial: arguments of ``Exchange.dial``."""
        self._exchange = self._generator([self.node.config])
        process.pin(self._exchange.pid, 1)
        self._stack.callback(stop, self.node)
        with process.pinned(0):
            self.node.start()
        self.order("ready", ports=[port_of(self.node.config["node"]["listen"])], connections=1)
        self.order("dial", **dial)

    def _generator(self, configs: list[dict[str, Any]]) -> subprocess.Popen[bytes]:
        """Start the load generator for nodes with these configurations."""
        integrators = [integrator for config in configs for integrator in config["integrators"]]
        apis = [{"port": port_of(integrator["listen"]), "token": integrator["token"]} for integrator in integrators]
        admin = {"port": port_of(configs[0]["admin"]["listen"]), "token": ADMIN_TOKEN}
        command = process.python(
            "benchmarks.load.exchange",
            "--port",
            self.switch_port,
            "--password",
            ESL_PASSWORD,
            "--apis",
            json.dumps(apis),
            "--admin",
            json.dumps(admin),
        )
        environment = dict(os.environ, PYTHONPATH=str(process.ROOT))
        child = subprocess.Popen(
            command, cwd=process.ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._stack.callback(_stop, child)
        return child

    def cpu(self) -> float:
        """Return the CPU seconds of the node."""
        return process.cpu(self.pid)

    def order(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Send the generator an order and return its report. :raises NotPerformed: a call was not as it should be."""
        assert self._exchange is not None
        pipes = self._exchange.stdin, self._exchange.stdout
        assert pipes[0] is not None
        assert pipes[1] is not None
        pipes[0].write(json.dumps({"do": name, **arguments}).encode() + b"\n")
        pipes[0].flush()
        line = pipes[1].readline()
        if not line:
            raise NotPerformed(f"{name} {arguments}: the load generator died")
        result = json.loads(line)
        if result["failures"]:
            lines = [line for line in self.node.log.read_text().splitlines() if '"level":"info"' not in line]
            raise NotPerformed(
                "\n".join([f"{name} {arguments}: {result['failures']}", *lines[-20:], *self._decisions()])
            )
        return dict(result)

    def _decisions(self) -> list[str]:
        """Return records and decisions of calls that didn't end as they should, five at most."""
        settle()
        lines = []
        for key in self.client.scan_iter(keys.call("*"), 1000):
            call = json.loads(self.client.get(key))
            if call.get("record", {}).get("end_reason", "answered") != "answered":
                lines.append(json.dumps({**call["record"], "decisions": call["decisions"]}))
        return lines[:5]

    def measure_calls(self, mix: dict[str, int], calls: int, **arguments: Any) -> dict[str, float]:
        """Perform calls and check their records. Returns CPU and wall seconds; ``running`` is the node's CPU time while
        calls ran, ``window`` the seconds for which the others are counted."""
        began = time.monotonic()
        node, redis = self.cpu(), process.cpu(self.redis.pid)
        report = self.order("run", mix=mix, calls=calls, **arguments)
        running = self.cpu() - node
        settle()  # a node's clean-up after a call is part of its cost
        node, redis = self.cpu() - node, process.cpu(self.redis.pid) - redis
        window = time.monotonic() - began
        self.check_records(report["refs"])
        return {
            "calls": calls,
            "window": window,
            "node": node,
            "running": running,
            "redis": redis,
            "wall": report["wall"],
            "exchange": report["cpu"],
            "commands": report["commands"],
            "bytes": report["bytes"],
        }

    def check_records(self, refs: list[str]) -> None:
        """Take the records from Redis: exactly one for each call, of an answered call.

        :raises NotPerformed: any other record is there, or one is missing.
        """
        records: Counter[str] = Counter()
        until = time.monotonic() + 15
        while sum(records.values()) < len(refs) and time.monotonic() < until:
            while bodies := self._take_records():
                for body in bodies:
                    payload = json.loads(body)["payload"]
                    if payload["end_reason"] != "answered":
                        raise NotPerformed(f"a call was not answered: {payload}")
                    records[payload["call_ref"]] += 1
            time.sleep(0.02)
        expected = Counter(refs)
        if records != expected:
            missing, surplus = expected - records, records - expected
            raise NotPerformed(
                f"records: {sum(missing.values())} missing, {sum(surplus.values())} duplicate or unknown"
            )

    def _take_records(self) -> list[bytes]:
        """Take records from the list, or from the stream if the integrator has ``push: stream``."""
        if self.node.config["integrators"][0].get("push") != "stream":
            return self.client.rpop(CDRS, 1000) or []
        entries = self.client.xrange(f"{CDRS}:stream", count=1000)
        if entries:
            self.client.xdel(f"{CDRS}:stream", *(id for id, _ in entries))
        return [fields[b"json"] for _, fields in entries]


def settle() -> None:
    """Wait until delayed writes are done and freed memory is returned."""
    time.sleep(1.2)


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


@contextlib.contextmanager
def opened(**more: Any) -> Iterator[NodeBench]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, contextlib.ExitStack() as stack:
        yield NodeBench(Path(folder), stack, **more)
