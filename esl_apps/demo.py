"""``esl-apps demo``: a Redis, a switch and a node of its own, and one call through each application.

Everything is real but the switch and its phones: the node is ``esl-apps serve``, asked over HTTP and called
through the event socket, and each record comes out of a real Redis with BRPOP, as a client would take it.
"""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from esl_apps.calls import timeline
from esl_apps.core.cdr import CDR_LIST, INBOUND_LIST
from esl_apps.embedded import redis_server

_HOST = "127.0.0.1"
_START = 15.0
_DID, _CALLEE, _CALLER = "27115550000", "0820001234", "0835550001"


class DemoFailed(Exception):
    """Something did not come out as it should."""


@dataclass
class Stage:
    """What the demo runs against."""

    api: str
    token: str
    control: str
    node: str
    redis: redis.Redis

    def request(self, method: str, path: str, body: object = None) -> Any:
        return _http(self.api, method, path, body, {"Authorization": f"Bearer {self.token}"})

    def phone(self, number: str, *, outside: bool = False, **script: object) -> None:
        _http(self.control, "POST", f"/phones/{number}", {"script": script, "outside": outside})

    def dial(self, phone: str, number: str) -> None:
        _http(self.control, "POST", f"/phones/{phone}/dial", {"number": number})

    def route(self, number: str, path: str) -> None:
        _http(self.control, "POST", "/routes", {"number": number, "path": path, "node": self.node})

    def pop(self, key: str) -> dict[str, Any]:
        got = self.redis.brpop([key], timeout=15)
        if got is None:
            raise DemoFailed(f"nothing came into {key}")
        _, body = got  # type: ignore[misc]
        print(f"  BRPOP {key}\n    {body.decode()}")
        payload: dict[str, Any] = json.loads(body)["payload"]
        return payload

    def trace(self, ref: str) -> None:
        # The store is written behind the call, a few hundredths of a second at most.
        end = time.monotonic() + 5
        while (call := self.request("GET", f"/click2dial/calls/{ref}"))["state"] != "ended":
            if time.monotonic() > end:
                raise DemoFailed(f"call {ref} did not end")
            time.sleep(0.02)
        for line in timeline(call):
            print(f"  {line}")


def run() -> int:
    """0 only if all calls came out as they should."""
    try:
        with _stage() as stage:
            for name, call in (("click2dial over HTTP", _click2dial), ("inbound", _inbound)):
                print(f"\n{name}")
                call(stage)
    except (DemoFailed, OSError, redis.RedisError) as error:
        print(f"\nesl-apps demo: {error}", file=sys.stderr)
        return 1
    print("\nAll calls came out as they should.")
    return 0


def _click2dial(stage: Stage) -> None:
    stage.phone("1000", answer_after=0.4, tone=500)
    stage.phone(_CALLEE, outside=True, answer_after=0.6, hangup_after=1.2, tone=900)
    body = {"agent": "1000", "callee": _CALLEE, "outbound_id": _DID, "contact_ref": "demo-1"}
    print(f"  POST /click2dial/calls {json.dumps(body)}")
    accepted = stage.request("POST", "/click2dial/calls", body)
    print(f"  202 {json.dumps(accepted)}")
    record = stage.pop(CDR_LIST)
    stage.trace(record["call_ref"])
    _expect(record, call_ref=accepted["call_ref"], contact_ref="demo-1", end_reason="answered", hung_up_by="callee")


def _inbound(stage: Stage) -> None:
    stage.route(_DID, "inbound")
    stage.phone("1000", answer_after=None)
    stage.phone("1001", answer_after=0.5, hangup_after=1.0, tone=500)
    stage.phone(_CALLER, outside=True, tone=900)
    print(f"  {_CALLER} calls {_DID}; 1000 and 1001 ring")
    stage.dial(_CALLER, _DID)
    announced = stage.pop(INBOUND_LIST)
    record = stage.pop(CDR_LIST)
    stage.trace(record["call_ref"])
    _expect(announced, ref="1001", number=_CALLER)
    _expect(record, call_ref=announced["call_ref"], end_reason="answered", hung_up_by="agent", number=_CALLER)


def _expect(payload: dict[str, Any], **wanted: object) -> None:
    for field, value in wanted.items():
        if payload.get(field) != value:
            raise DemoFailed(f"{field} is {payload.get(field)!r}, expected {value!r}")


@contextmanager
def _stage() -> Iterator[Stage]:
    """Redis, sandbox and node on free ports, gone afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="esl-apps-demo-")))
        ports = dict(zip(("redis", "esl", "control", "node", "api", "admin"), _free_ports(6), strict=True))
        at = {name: f"{_HOST}:{port}" for name, port in ports.items()}
        password, token = secrets.token_hex(8), secrets.token_hex(8)
        (folder / "recordings").mkdir()
        config = {
            "node": {"name": "demo", "listen": at["node"], "state_dir": str(folder), "drain_timeout": 2},
            "redis": {"url": f"redis://{at['redis']}/0"},
            "switches": [{"name": "sandbox", "address": at["esl"], "password": password}],
            "admin": {"listen": at["admin"], "token": secrets.token_hex(8)},
            "recordings": {"dir": str(folder / "recordings")},
            "integrators": [
                {"name": "acme", "listen": at["api"], "token": token, "record": True, "caller_ids": [_DID]}
            ],
            "inbound": {_DID: {"integrator": "acme", "agents": ["1000", "1001"]}},
        }
        file = folder / "esl_apps.yml"
        file.write_text(json.dumps(config))
        client = redis.Redis(port=ports["redis"])
        _start(
            stack, "redis-server",
            [redis_server(), "--port", str(ports["redis"]), "--bind", _HOST, "--save", "", "--dir", str(folder)],
            lambda: bool(client.ping()),
        )  # fmt: skip
        _start(
            stack, "sandbox",
            [
                sys.executable, "-m", "esl_apps.sandbox", "--listen", at["esl"], "--password", password,
                "--control", at["control"], "--recordings", str(folder / "recordings"),
            ],
            lambda: bool(_http(at["control"], "GET", "/status")),
        )  # fmt: skip
        _start(
            stack, "node",
            [sys.executable, "-m", "esl_apps", "serve", "-c", str(file), "--log-level", "WARNING"],
            lambda: bool(_http(at["admin"], "GET", "/readyz")),
        )  # fmt: skip
        yield Stage(at["api"], token, at["control"], at["node"], client)


def _start(stack: ExitStack, name: str, command: list[str], ready: Callable[[], bool]) -> None:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    stack.callback(_end, process)
    deadline = time.monotonic() + _START
    while True:
        try:
            if ready():
                print(f"{name} is up")
                return
        except (OSError, DemoFailed, redis.RedisError):
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise DemoFailed(f"{name} did not start")
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _http(
    address: str, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
) -> Any:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
        response = connection.getresponse()
        raw = response.read()
        if response.status >= 300:
            raise DemoFailed(f"{method} {path}: {response.status} {raw.decode(errors='replace')}")
        return json.loads(raw or b"{}")
    finally:
        connection.close()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((_HOST, 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
