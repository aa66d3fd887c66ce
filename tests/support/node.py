"""A node, a Redis and an HTTP client for tests: real processes, as an operator would run them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

import redis as redispy

from esl_apps.store import keys
from tests.rig.base import eventually
from tests.support import short_prompts, temporary, zygote
from tests.support.ports import free_port

TOKEN, ADMIN_TOKEN = "acme-token-for-tests", "admin-token-for-tests"
#: The suite sends more requests than a busy client; tests of the rate limits set their own.
UNBOUNDED = {"per_token": None, "per_address": None, "failed": None}
CDRS = "enigma:notifications:cdr"
#: Seconds in which a line of the log reaches its file, on a busy machine too.
LOG_LAG = 0.1


class RedisServer:
    """A real redis-server, on a port of its own, that can be killed and brought back with its data."""

    def __init__(self, *options: str, persistent: bool = False, port: int = 0, program: str = "") -> None:
        """Start it. ``options``: more of its command line. ``program``: the server's, if not the one of the machine."""
        from esl_apps.cli.embedded_redis import redis_server

        self.port = port or free_port()
        self.folder = tempfile.TemporaryDirectory(prefix="redis-")
        self._command = [
            program or redis_server(),
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            self.folder.name,
            "--save",
            "",
            "--appendonly",
            "yes" if persistent else "no",
            "--appendfsync",
            "always",
            "--daemonize",
            "no",
            *options,
        ]
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        # No time-out of its own: a BRPOP waits for its own.
        self.client: Any = redispy.Redis(port=self.port, decode_responses=True, socket_timeout=None)
        end = time.monotonic() + 10
        while True:
            try:
                self.client.ping()
                return
            except redispy.RedisError:
                assert time.monotonic() < end, "redis-server did not start"
                time.sleep(0.02)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def flush(self) -> None:
        """Empty it for the next test, but keep what tells which records were pushed. A node that sees Redis come back
        asks for that, and would push its latest records again."""
        left = [key for key in self.client.scan_iter(count=1000) if ":done:" not in key and not key.endswith("}:seq")]
        if left:
            self.client.delete(*left)

    def live(self) -> list[str]:
        """Return what Redis has of the live calls of all nodes, as JSON."""
        return [raw for key in self.client.scan_iter(keys.live("*")) for raw in self.client.hvals(key)]

    def pop(self, key: str = CDRS, timeout: float = 30.0) -> dict[str, Any]:
        """Return the oldest notification's payload. :raises AssertionError: none comes."""
        got = self.client.brpop([key], timeout=timeout)
        assert got is not None, f"nothing in {key} within {timeout} s"
        body: dict[str, Any] = json.loads(got[1])
        payload: dict[str, Any] = body.get("payload", body)
        return payload

    def close(self) -> None:
        self.kill()
        self.folder.cleanup()


def asks(rig: Any, prompt: str) -> bool:
    """Whether a caller hears this prompt. Their keys are read from then on: they are bound before it is played."""
    channels = json.loads(rig.api("show channels as json")).get("rows", [])
    playing = (rig.api(f"uuid_getvar {channel['uuid']} current_application_data") for channel in channels)
    return any(f"/{prompt}." in audio for audio in playing)


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def request(
    address: str, method: str, path: str, body: object = None, token: str | None = TOKEN, **headers: str
) -> Answer:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    with contextlib.closing(connection):
        send = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            send.setdefault("Authorization", f"Bearer {token}")
        data: bytes | None = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            send.setdefault("Content-Type", "application/json")
        connection.request(method, path, data, send)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


class Node:
    """``esl-apps serve`` in a process of its own."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.folder = temporary.make_folder("node-")
        self.file = self.folder / "esl_apps.yml"
        self.log = self.folder / "node.log"
        self.api = config["integrators"][0]["listen"]
        self.admin = config["admin"]["listen"]
        self.process: zygote.Forked | subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self.file.write_text(json.dumps(self.config))
        with self.log.open("ab") as log:
            before = self.log.stat().st_size
            self.process = self._spawn(log)
        end = time.monotonic() + 60
        while b" ready\n" not in self.log.read_bytes()[before:]:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)

    def _spawn(self, log: BinaryIO) -> zygote.Forked | subprocess.Popen[bytes]:
        return zygote.start(["serve", "-c", str(self.file)], log)

    def live_calls(self) -> float:
        text = request(self.admin, "GET", "/metrics", token=None).body.decode()
        return sum(float(x.rsplit(" ", 1)[1]) for x in text.splitlines() if x.startswith("esl_apps_live_calls"))

    def settle(self, redis: RedisServer) -> None:
        """Wait a little for the records of the calls that were hung up. Calls of nodes that died, or of a test's own
        switch, may stay."""
        end = time.monotonic() + 3
        while redis.live() and self.live_calls() and time.monotonic() < end:
            time.sleep(0.02)

    def cpu_seconds(self) -> float:
        """The CPU time that its process has used."""
        assert self.process is not None
        return time.clock_gettime((~self.process.pid << 3) | 2)  # as clock_getcpuclockid(3) makes it

    def reload(self, text: str) -> str:
        """Send SIGHUP with this file; return the log's line about it: the event, and the reason of a refusal."""

        def told() -> list[dict[str, Any]]:
            return [line for line in self.lines() if line["event"] in ("config_reloaded", "config_reload_refused")]

        seen = len(told())
        self.file.write_text(text)
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)
        eventually(lambda: len(told()) > seen)
        (line,) = told()[seen:]
        return str(line["event"]) + (": " + line["reason"] if "reason" in line else "")

    def stop(self, sig: int = signal.SIGTERM, timeout: float = 20) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(sig)
        return self.process.wait(timeout)

    def end(self) -> None:
        """Stop it, and check that it exited with 0 and logged no traceback."""
        assert self.stop() == 0
        log = self.log.read_text()
        assert "Traceback" not in log, log

    def post(self, agent: str, callee: str, outbound_id: str = "27115550000", **more: Any) -> Answer:
        headers = more.pop("headers", {})
        query = more.pop("query", "")
        body = {"agent": agent, "callee": callee, "outbound_id": outbound_id, **more}
        return request(self.api, "POST", f"/click2dial/calls{query}", body, **headers)

    def call(self, agent: str, callee: str, outbound_id: str = "27115550000", **more: Any) -> str:
        """Place a call that must be accepted; its call_ref."""
        answer = self.post(agent, callee, outbound_id, **more)
        assert answer.status == 202, (answer.status, answer.body)
        return str(answer.json["call_ref"])

    def get(self, ref: str) -> dict[str, Any]:
        return dict(request(self.api, "GET", f"/click2dial/calls/{ref}").json)

    def delete(self, ref: str) -> Answer:
        return request(self.api, "DELETE", f"/click2dial/calls/{ref}")

    def lines(self) -> Iterator[dict[str, Any]]:
        """The lines of its log. It writes them from a thread, some milliseconds later."""
        time.sleep(LOG_LAG)
        for line in self.log.read_text().splitlines():
            if line.startswith("{"):
                yield json.loads(line)


def configuration(rig: Any, redis: RedisServer, **integrator: Any) -> dict[str, Any]:
    """Return a node's configuration for a rig. ``integrator``: further keys of its only integrator."""
    port = free_port
    return {
        "node": {
            "name": f"test{os.getpid()}-{port()}",
            "listen": f"127.0.0.1:{port()}",
            "drain_timeout": 5,
            "state_dir": str(temporary.make_folder("state-")),
        },
        "redis": {"url": redis.url},
        "switches": [{"name": "fs1", "address": rig.esl_address, "password": rig.esl_password}],
        "dial": {"region": "ZA", **rig.dial},
        "admin": {"listen": f"127.0.0.1:{port()}", "token": ADMIN_TOKEN, "rate": UNBOUNDED},
        "recordings": {"dir": str(rig.recordings)},
        "spool": {"dir": str(rig.spool)},
        "prompts": {"dir": short_prompts.folder()},
        "integrators": [
            {
                "name": "acme",
                "listen": f"127.0.0.1:{port()}",
                "token": TOKEN,
                "rate": UNBOUNDED,
                "caller_ids": ["27115550000"],
                "campaigns": {"spring": "27115550001"},
                "agent_timeout": 5,
                "callee_timeout": 5,
                **integrator,
            }
        ],
    }
