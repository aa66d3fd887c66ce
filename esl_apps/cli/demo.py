"""``esl-apps demo``: a Redis, a switch and a node of its own, and one call through each application.

Everything is real but the switch and its phones: the node is ``esl-apps serve``, asked over HTTP and called
through the event socket, and each record comes out of a real Redis with BRPOP, as a client would take it.
"""

from __future__ import annotations

import http.client
import json
import random
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esl_apps.cli.embedded_redis import redis_server
from esl_apps.core.notification import CDR_LIST, INBOUND_LIST
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.node.snapshot import timeline
from esl_apps.store.calls import Store
from esl_apps.store.redis_client import Client, connect

_HOST = "127.0.0.1"
_START = 15.0
_DID, _DISA_DID, _CC_DID, _CB_DID = "27115550000", "27115550002", "27115550003", "27115550004"
_CALLEE, _E164 = "0820001234", "27820001234"
_CALLER, _CALLER_E164 = "0835550001", "27835550001"


class DemoFailed(Exception):
    """Something did not come out as it should."""


@dataclass
class Stage:
    """What the demo runs against."""

    api: str
    token: str
    admin: str
    admin_token: str
    pin: str
    control: str
    node: str
    redis: Client
    store: Store

    def request(self, method: str, path: str, body: object = None) -> Any:
        return _http(self.api, method, path, body, {"Authorization": f"Bearer {self.token}"})

    def phone(self, number: str, *, outside: bool = False, **script: object) -> None:
        _http(self.control, "POST", f"/phones/{number}", {"script": script, "outside": outside})

    def dial(self, phone: str, number: str) -> None:
        _http(self.control, "POST", f"/phones/{phone}/dial", {"number": number})

    def hang_up(self, phone: str) -> None:
        for call in _http(self.control, "GET", f"/phones/{phone}")["calls"]:
            if call["leg"]["ended_at"] is None:
                _http(self.control, "POST", f"/calls/{call['call']}/hangup")

    def crossbar(self, method: str, path: str, data: object) -> Any:
        return _http(self.admin, method, path, {"data": data}, {"X-Auth-Token": self.admin_token})

    def card(self, **fields: object) -> None:
        self.crossbar("PUT", "/v2/accounts/acme/cccps", {"active": True, **fields})

    def route(self, number: str, path: str) -> None:
        _http(self.control, "POST", "/routes", {"number": number, "path": path, "node": self.node})

    def pop(self, key: str) -> dict[str, Any]:
        got: Any = self.redis.brpop([key], timeout=15)
        if got is None:
            raise DemoFailed(f"nothing came into {key}")
        _, body = got
        print(f"  BRPOP {key}\n    {body.decode()}")
        payload: dict[str, Any] = json.loads(body)["payload"]
        return payload

    def trace(self, ref: str) -> None:
        # The store is written behind the call, a few hundredths of a second at most.
        end = time.monotonic() + 5
        while (call := self.store.call(ref)) is None or call["state"] != "ended":
            if time.monotonic() > end:
                raise DemoFailed(f"call {ref} did not end")
            time.sleep(0.02)
        for line in timeline(call):
            print(f"  {line}")


def run() -> int:
    """0 only if all calls came out as they should."""
    try:
        with _stage() as stage:
            for name, call in CALLS.values():
                print(f"\n{name}")
                call(stage)
    except (DemoFailed, OSError, StoreUnavailable) as error:
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


def _disa(stage: Stage) -> None:
    stage.route(_DISA_DID, "disa/acme/front")
    stage.phone(_CALLER, outside=True, digits=f"{stage.pin}{_CALLEE}#", digits_after=0.5)
    stage.phone(_E164, outside=True, answer_after=0.3, hangup_after=0.8, tone=900)
    print(f"  {_CALLER} calls {_DISA_DID} and keys the PIN and {_CALLEE}#")
    stage.dial(_CALLER, _DISA_DID)
    record = stage.pop(CDR_LIST)
    stage.trace(record["call_ref"])
    _expect(record, ref="disa", end_reason="answered", number=f"+{_E164}", dial_number=f"+{_DID}", hung_up_by="callee")
    stage.hang_up(_CALLER)


def _dialthrough(stage: Stage) -> None:
    stage.card(cid=_CALLER)
    stage.route(_CC_DID, "dialthrough")
    stage.phone(_CALLER, outside=True, digits=f"{_CALLEE}#", digits_after=0.5)
    print(f"  {_CALLER}, enrolled, calls {_CC_DID} and keys {_CALLEE}#")
    stage.dial(_CALLER, _CC_DID)
    record = stage.pop(CDR_LIST)
    stage.trace(record["call_ref"])
    _expect(record, ref="dialthrough", end_reason="answered", extension=_CALLER, number=f"+{_E164}")
    stage.hang_up(_CALLER)


def _callback(stage: Stage) -> None:
    stage.route(_CB_DID, "callback")
    stage.phone(_CALLER, outside=True)
    stage.phone(_CALLER_E164, outside=True, answer_after=0.3, digits=f"{_CALLEE}#", digits_after=0.8)
    print(f"  {_CALLER} calls {_CB_DID}, is refused with 486 and rung back")
    stage.dial(_CALLER, _CB_DID)
    record = stage.pop(CDR_LIST)
    stage.trace(record["call_ref"])
    _expect(record, ref="callback", end_reason="answered", extension=f"+{_CALLER_E164}", number=f"+{_E164}")
    stage.hang_up(_CALLER_E164)


def _autodial(stage: Stage) -> None:
    stage.phone(_CALLER_E164, outside=True, answer_after=0.3, tone=500)
    body = {"a_leg_number": _CALLER, "b_leg_number": _CALLEE, "media_id": "beep", "callback_delay": 0}
    print(f"  PUT /v2/accounts/acme/cccps/autodial {json.dumps(body)}")
    stage.crossbar("PUT", "/v2/accounts/acme/cccps/autodial", body)
    record = stage.pop(CDR_LIST)
    stage.trace(record["call_ref"])
    _expect(record, ref="autodial", end_reason="answered", hung_up_by="callee")


def _expect(payload: dict[str, Any], **wanted: object) -> None:
    for field, value in wanted.items():
        if payload.get(field) != value:
            raise DemoFailed(f"{field} is {payload.get(field)!r}, expected {value!r}")


#: One call through each application, by its ``ref``, in the order of the demo.
CALLS: dict[str, tuple[str, Callable[[Stage], None]]] = {
    "click-dial": ("click2dial over HTTP", _click2dial),
    "inbound": ("inbound", _inbound),
    "disa": ("DISA, by PIN", _disa),
    "dialthrough": ("dialthrough, known by its number", _dialthrough),
    "callback": ("callback, after a missed call", _callback),
    "autodial": ("autodial", _autodial),
}


@contextmanager
def _stage() -> Iterator[Stage]:
    """Redis, sandbox and node on free ports, gone afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="esl-apps-demo-")))
        ports = dict(zip(("redis", "esl", "control", "node", "api", "admin"), _free_ports(6), strict=True))
        at = {name: f"{_HOST}:{port}" for name, port in ports.items()}
        password, token, admin_token = (secrets.token_hex(8) for _ in range(3))
        pin = f"{secrets.randbelow(10**10):010d}"
        (folder / "recordings").mkdir()
        config = {
            "node": {"name": "demo", "listen": at["node"], "state_dir": str(folder), "drain_timeout": 2},
            "redis": {"url": f"redis://{at['redis']}/0"},
            "switches": [{"name": "sandbox", "address": at["esl"], "password": password}],
            "admin": {"listen": at["admin"], "token": admin_token},
            "pin_key": secrets.token_hex(16),
            "recordings": {"dir": str(folder / "recordings")},
            "integrators": [
                {"name": "acme", "listen": at["api"], "token": token, "record": True, "caller_ids": [_DID]}
            ],
            "cccp": {"cccp_cc_number": _CC_DID, "cccp_cb_number": _CB_DID, "callback_delay": 0.5, "prompt_delay": 0.2},
            "accounts": {
                "acme": {"integrator": "acme", "caller_id": {"number": f"+{_DID}"}, "disa": {"front": {"pin": pin}}}
            },
            "inbound": {_DID: {"integrator": "acme", "agents": ["1000", "1001"]}},
        }
        file = folder / "esl_apps.yml"
        file.write_text(json.dumps(config))
        # Longer than the longest wait for a record.
        client = connect(f"redis://{at['redis']}/0", timeout=20.0)
        _start(
            stack,
            "redis-server",
            [redis_server(), "--port", str(ports["redis"]), "--bind", _HOST, "--save", "", "--dir", str(folder)],
            lambda: bool(client.ping()),
        )
        _start(
            stack,
            "sandbox",
            [
                sys.executable,
                "-m",
                "esl_apps.sandbox",
                "--listen",
                at["esl"],
                "--password",
                password,
                "--control",
                at["control"],
                "--recordings",
                str(folder / "recordings"),
            ],
            lambda: bool(_http(at["control"], "GET", "/status")),
        )
        _start(
            stack,
            "node",
            [sys.executable, "-m", "esl_apps", "serve", "-c", str(file), "--log-level", "WARNING"],
            lambda: bool(_http(at["admin"], "GET", "/readyz")),
        )
        yield Stage(at["api"], token, at["admin"], admin_token, pin, at["control"], at["node"], client, Store(client))


def _start(stack: ExitStack, name: str, command: list[str], ready: Callable[[], bool]) -> None:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    stack.callback(_end, process)
    deadline = time.monotonic() + _START
    while True:
        try:
            if ready():
                print(f"{name} is up")
                return
        except (OSError, DemoFailed, StoreUnavailable):
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


def _http(address: str, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Any:
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
    """Below the range that the kernel gives to outgoing connections: none of those takes one before its server."""
    found: set[int] = set()
    while len(found) < count:
        port = random.SystemRandom().randrange(10000, 32000)
        with socket.socket() as sock, suppress(OSError):
            sock.bind((_HOST, port))
            found.add(port)
    return list(found)
