"""The whole way: a phone on the sandbox dials, the node is killed, another run of it rings back."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import redis

from esl_apps.cli.embedded_redis import redis_server

DID, PHONE = "0115553000", "1000"
CDRS = "enigma:notifications:cdr"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(done: Callable[[], Any], within: float = 30.0) -> Any:
    deadline = time.monotonic() + within
    while True:
        try:
            if result := done():
                return result
        except (OSError, redis.RedisError):
            pass
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


class Stage:
    """A Redis, a sandbox and a node with the application switched on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.at = {name: f"127.0.0.1:{free_port()}" for name in ("redis", "esl", "control", "node", "admin")}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.redis = redis.Redis.from_url(f"redis://{self.at['redis']}/0")
        port = self.at["redis"].partition(":")[2]
        self.run("redis", [redis_server(), "--port", port, "--save", "", "--dir", str(folder)])
        sandbox = ["sandbox", "--listen", self.at["esl"], "--password", "secret", "--control", self.at["control"]]
        self.run("sandbox", [sys.executable, "-m", "esl_apps", *sandbox])
        eventually(self.redis.ping)
        eventually(lambda: self.control("GET", "/status"))
        config = {
            "node": {"name": "app1", "listen": self.at["node"], "state_dir": str(folder), "drain_timeout": 0},
            "redis": {"url": f"redis://{self.at['redis']}/0"},
            "switches": [{"name": "fs1", "address": self.at["esl"], "password": "secret"}],
            "admin": {"listen": self.at["admin"], "token": "a-token-for-tests"},
            "accounts": {"acme": {"caller_id": {"number": "+27115550000"}}},
            "applications": {"wakeup": {"number": DID, "account": "acme"}},
        }
        (folder / "esl_apps.yml").write_text(json.dumps(config))
        self.start_node()
        self.control("POST", "/routes", {"number": DID, "path": "wakeup", "node": self.at["node"]})

    def run(self, name: str, command: list[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def start_node(self) -> None:
        self.run("node", [sys.executable, "-m", "esl_apps", "serve", "-c", str(self.folder / "esl_apps.yml")])
        eventually(lambda: urlopen(f"http://{self.at['admin']}/readyz").status == 200)

    def kill_node(self) -> None:
        self.processes["node"].kill()
        self.processes["node"].wait()

    def control(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(
            f"http://{self.at['control']}{path}", data, {"Content-Type": "application/json"}, method=method
        )
        with urlopen(request) as answer:
            return json.load(answer)

    def calls(self) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = self.control("GET", f"/phones/{PHONE}")["calls"]
        return calls

    def ask_to_be_woken(self, minutes: str) -> None:
        self.control("POST", f"/phones/{PHONE}", {"script": {"answer_after": None}})
        self.control("POST", f"/phones/{PHONE}/dial", {"number": DID})
        call = eventually(lambda: next((call for call in self.calls() if call["leg"]["answered_at"]), None))
        self.control("POST", f"/calls/{call['call']}/digits", {"digits": f",{minutes}#"})
        eventually(lambda: self.redis.zcard("esl_apps:{wakeups}:due"))
        assert self.record()["ref"] == "wakeup"

    def let_it_be_due(self) -> None:
        """The minutes are over."""
        self.redis.zadd("esl_apps:{wakeups}:due", {PHONE: time.time()})

    def record(self) -> dict[str, Any]:
        popped: Any = self.redis.brpop([CDRS], timeout=30)
        assert popped is not None
        return dict(json.loads(popped[1])["payload"])

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.close()
    assert "Traceback" not in (tmp_path / "node.log").read_text()


def test_a_node_that_died_meanwhile_loses_no_wakeup_call(stage: Stage) -> None:
    stage.ask_to_be_woken("30")
    due_in = float(stage.redis.zscore("esl_apps:{wakeups}:due", PHONE) or 0) - time.time()
    assert due_in == pytest.approx(1800, abs=30)
    stage.kill_node()
    stage.start_node()
    stage.let_it_be_due()
    ringing = eventually(lambda: next((call for call in stage.calls() if call["leg"]["direction"] == "in"), None))
    # The node dies again, while the phone rings; the phone then answers into the node's next run.
    stage.kill_node()
    stage.start_node()
    stage.control("POST", f"/calls/{ringing['call']}/answer")
    record = stage.record()
    assert (record["ref"], record["end_reason"], record["extension"]) == ("wakeup", "answered", PHONE), record
    eventually(lambda: not stage.redis.zcard("esl_apps:{wakeups}:due"))
    assert stage.redis.llen(CDRS) == 0
