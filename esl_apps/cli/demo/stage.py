"""The demo's own Redis, sandbox and node, on free ports, and what the demo asks of them.

All of it is real but the switch and its phones: the node is ``esl-apps serve``, and each record comes out of Redis with
BRPOP, as a client would take it.
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
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store.calls import CallStore
from esl_apps.store.redis_client import Client, connect

HOST = "127.0.0.1"
#: The numbers of the node: of the integrator, a DISA, the calling cards and the callback.
DID, DISA_DID, CARD_DID, CALLBACK_DID = "27115550000", "27115550002", "27115550003", "27115550004"
_START = 15.0
_NOTIFIED = 15


class DemoFailed(Exception):
    """Something did not come out as it should; the text is for a person."""


@dataclass
class Stage:
    api: str
    token: str
    admin: str
    admin_token: str
    pin: str
    control: str
    event_socket: str
    password: str
    node: str
    redis: Client
    redis_url: str
    store: CallStore
    node_log: Path
    on_notification: Callable[[str, bytes], None]
    """Called with the list and the JSON of each notification that is popped."""

    def request(self, method: str, path: str, body: object = None) -> Any:
        return request(self.api, method, path, body, {"Authorization": f"Bearer {self.token}"})

    def phone(self, number: str, *, outside: bool = False, **script: object) -> None:
        request(self.control, "POST", f"/phones/{number}", {"script": script, "outside": outside})

    def dial(self, phone: str, number: str) -> None:
        request(self.control, "POST", f"/phones/{phone}/dial", {"number": number})

    def hang_up(self, phone: str) -> None:
        for call in request(self.control, "GET", f"/phones/{phone}")["calls"]:
            if call["leg"]["ended_at"] is None:
                request(self.control, "POST", f"/calls/{call['call']}/hangup")

    def crossbar(self, method: str, path: str, data: object) -> Any:
        return request(self.admin, method, path, {"data": data}, {"X-Auth-Token": self.admin_token})

    def card(self, **fields: object) -> None:
        self.crossbar("PUT", "/v2/accounts/acme/cccps", {"active": True, **fields})

    def route(self, number: str, path: str) -> None:
        request(self.control, "POST", "/routes", {"number": number, "path": path, "node": self.node})

    def pop(self, key: str) -> dict[str, Any]:
        """Return the payload of the oldest notification of a list. :raises DemoFailed: none comes."""
        popped: Any = self.redis.brpop([key], timeout=_NOTIFIED)
        if popped is None:
            raise DemoFailed(f"nothing was pushed to {key} within {_NOTIFIED} s")
        self.on_notification(key, popped[1])
        payload: dict[str, Any] = json.loads(popped[1])["payload"]
        return payload

    def until(self, ref: str, state: str) -> None:
        """Wait until a call is in a state. :raises DemoFailed: it isn't within five seconds."""
        deadline = time.monotonic() + 5
        while self.request("GET", f"/click2dial/calls/{ref}")["state"] != state:
            if time.monotonic() > deadline:
                raise DemoFailed(f"call {ref} is not {state}")
            time.sleep(0.02)

    def ended_call(self, ref: str) -> dict[str, Any]:
        """Return a call as ``esl-apps trace`` reads it. The store is written a moment after the record is pushed."""
        deadline = time.monotonic() + 5
        while (call := self.store.call(ref)) is None or call["state"] != "ended":
            if time.monotonic() > deadline:
                raise DemoFailed(f"call {ref} did not end")
            time.sleep(0.02)
        return call


@contextmanager
def open_stage(say: Callable[[str], None], on_notification: Callable[[str, bytes], None]) -> Iterator[Stage]:
    """Start all three, and end them and remove their files afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="esl-apps-demo-")))
        ports = dict(zip(("redis", "esl", "control", "node", "api", "admin"), _free_ports(6), strict=True))
        at = {name: f"{HOST}:{port}" for name, port in ports.items()}
        # Longer than the longest wait for a notification.
        client = connect(f"redis://{at['redis']}/0", timeout=_NOTIFIED + 5.0)
        stage = Stage(
            api=at["api"],
            token=secrets.token_hex(8),
            admin=at["admin"],
            admin_token=secrets.token_hex(8),
            pin=f"{secrets.randbelow(10**10):010d}",
            control=at["control"],
            event_socket=at["esl"],
            password=secrets.token_hex(8),
            node=at["node"],
            redis=client,
            redis_url=f"redis://{at['redis']}/0",
            store=CallStore(client),
            node_log=folder / "node.log",
            on_notification=on_notification,
        )
        file = folder / "esl_apps.yml"
        file.write_text(json.dumps(_config(stage, folder)))
        parts = _Parts(stack, folder, say)
        parts.start("redis", "Redis", _redis(ports["redis"], folder), at["redis"], lambda: bool(client.ping()))
        parts.start(
            "sandbox",
            "sandbox (FreeSWITCH)",
            _sandbox(stage, folder),
            at["esl"],
            lambda: bool(request(at["control"], "GET", "/status")),
        )
        parts.start(
            "node",
            "esl-apps node",
            [sys.executable, "-m", "esl_apps", "serve", "-c", str(file), "--log-level", "WARNING"],
            at["api"],
            lambda: bool(request(at["admin"], "GET", "/readyz")),
        )
        yield stage


def _config(stage: Stage, folder: Path) -> dict[str, Any]:
    (folder / "recordings").mkdir()
    return {
        "node": {"name": "demo", "listen": stage.node, "state_dir": str(folder), "drain_timeout": 2},
        "redis": {"url": stage.redis_url},
        "switches": [{"name": "sandbox", "address": stage.event_socket, "password": stage.password}],
        "admin": {"listen": stage.admin, "token": stage.admin_token, "console": True},
        "pin_key": secrets.token_hex(16),
        "recordings": {"dir": str(folder / "recordings")},
        "integrators": [
            {
                "name": "acme",
                "listen": stage.api,
                "token": stage.token,
                "record": True,
                "phone": True,
                "caller_ids": [DID],
            }
        ],
        "cccp": {
            "cccp_cc_number": CARD_DID,
            "cccp_cb_number": CALLBACK_DID,
            "callback_delay": 0.5,
            "prompt_delay": 0.2,
        },
        "accounts": {
            "acme": {"integrator": "acme", "caller_id": {"number": f"+{DID}"}, "disa": {"front": {"pin": stage.pin}}}
        },
        "inbound": {DID: {"integrator": "acme", "agents": ["1000", "1001"]}},
    }


def _redis(port: int, folder: Path) -> list[str]:
    return [redis_server(), "--port", str(port), "--bind", HOST, "--save", "", "--dir", str(folder)]


def _sandbox(stage: Stage, folder: Path) -> list[str]:
    options = {
        "--listen": stage.event_socket,
        "--password": stage.password,
        "--control": stage.control,
        "--recordings": str(folder / "recordings"),
    }
    return [sys.executable, "-m", "esl_apps.sandbox", *(text for option in options.items() for text in option)]


class _Parts:
    """Processes with a log each, ended in the reverse order of their start."""

    def __init__(self, stack: ExitStack, folder: Path, say: Callable[[str], None]) -> None:
        self._stack = stack
        self._folder = folder
        self._say = say

    def start(self, name: str, title: str, command: list[str], address: str, ready: Callable[[], bool]) -> None:
        """:raises DemoFailed: it ended, or was not ready in time."""
        began = time.monotonic()
        log = self._folder / f"{name}.log"
        with log.open("wb") as output:
            # A session of its own: Ctrl-C is for the demo, which then ends its parts in order.
            process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        self._stack.callback(_end, process)
        while not _is_ready(ready):
            if process.poll() is not None or time.monotonic() > began + _START:
                raise DemoFailed(f"{title} did not start: {last_lines(log) or 'it said nothing'}")
            time.sleep(0.05)
        self._say(f"  {title:<22} {address:<17} up in {time.monotonic() - began:.1f} s")


def _is_ready(ask: Callable[[], bool]) -> bool:
    try:
        return ask()
    except (OSError, DemoFailed, StoreUnavailable):
        return False


def last_lines(log: Path) -> str:
    """Return the end of a part's log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-5:])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def request(address: str, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Any:
    """Return the JSON that an HTTP request answers. :raises DemoFailed: the answer is an error."""
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
    """Return ports below the range that the kernel takes for outgoing connections, one of which could take a port
    before its server does."""
    ports: set[int] = set()
    while len(ports) < count:
        port = random.SystemRandom().randrange(10000, 32000)
        with socket.socket() as sock, suppress(OSError):
            sock.bind((HOST, port))
            ports.add(port)
    return list(ports)
