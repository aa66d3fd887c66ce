"""The client examples do what they say: Python, Node.js, PHP and curl, each with a list and with a stream."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.rig.base import Script, eventually
from tests.rig.sandbox import SandboxRig
from tests.support import ROOT
from tests.support.callers import AGENT, CALLEE
from tests.support.node import TOKEN, Node, RedisServer, configuration, request
from tests.support.ports import free_port

CLIENTS = ROOT / "examples" / "clients"
SECRET = "whsec_" + base64.b64encode(b"a secret of 32 bytes, for tests.").decode()
#: Each example's command, and the programs that it needs.
COMMANDS = {
    "python": ([sys.executable, str(CLIENTS / "client.py")], []),
    "node": (["node", str(CLIENTS / "client.mjs")], ["node"]),
    "php": (["php", str(CLIENTS / "client.php")], ["php"]),
    "curl": ([str(CLIENTS / "client.sh")], ["curl", "jq", "redis-cli"]),
}
STATES = ["queued", "agent_ringing", "agent_answered", "callee_ringing", "bridged", "ended"]


def command_of(example: str) -> list[str]:
    """Return an example's command; skip the test if a program that it needs isn't installed."""
    command, needed = COMMANDS[example]
    if missing := [program for program in needed if shutil.which(program) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    return command


class Stage:
    """A node with two integrators on one Redis: ``list`` has a list, ``stream`` a stream. Both have a webhook."""

    def __init__(self, redis: RedisServer) -> None:
        self.redis = redis
        self.sandbox = SandboxRig()
        self.webhook = f"127.0.0.1:{free_port()}"
        config = configuration(self.sandbox, redis, record=True)
        (integrator,) = config["integrators"]
        options = {"secrets": [SECRET], "allow_http": True, "allow_private": True}
        config["integrators"] = [
            {
                **integrator,
                "name": name,
                "listen": f"127.0.0.1:{free_port()}",
                "push": push,
                # They come between the records, and have no call_ref.
                "session_records": True,
                "webhooks": [{"name": name, "url": f"http://{self.webhook}/webhook", **options}],
            }
            for name, push in (("list", "left"), ("stream", "stream"))
        ]
        self.network = BadNetwork()
        self.apis = {integrator["name"]: integrator["listen"] for integrator in config["integrators"]}
        self.node = Node(config)
        self.sandbox.phone(AGENT, Script(answer_after=0.05))
        self.sandbox.outside(CALLEE, Script(answer_after=0.05, hangup_after=0.3))

    def run(self, command: list[str], records: str, folder: Path) -> list[str]:
        """Run a client against an integrator, over a bad network, and return what it prints."""
        ran = self.start(command, records, folder)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout.splitlines()

    def start_refused(
        self, command: list[str], answer: tuple[str, str], folder: Path
    ) -> subprocess.CompletedProcess[str]:
        """Run a client whose orders all get this answer: a status and a body."""
        self.network.refuses = answer
        try:
            return self.start(command, "list", folder)
        finally:
            self.network.refuses = None

    def start(self, command: list[str], records: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run a client to its end, whatever that is."""
        self.network.to = self.apis[records]
        self.network.streams = self.network.orders = 0
        settings = {
            "API_URL": f"http://{self.network.address}",
            "API_TOKEN": TOKEN,
            "AGENT": AGENT,
            "CALLEE": CALLEE,
            "OUTBOUND_ID": "27115550000",
            "REDIS_URL": self.redis.url,
            "RECORDS": records,
            "WEBHOOK_LISTEN": self.webhook,
            "WEBHOOK_SECRET": SECRET,
            "RECORDING": str(folder / "recording.wav"),
        }
        return subprocess.run(
            command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=60, check=False
        )

    def forge(self) -> int:
        """Post a webhook with a wrong signature to a client that listens, or will soon; return its answer."""
        eventually(self._listens, 20)
        headers = {"webhook_id": "msg-1", "webhook_timestamp": str(int(time.time())), "webhook_signature": "v1,AAAA"}
        return request(self.webhook, "POST", "/webhook", {"payload": {}}, None, **headers).status

    def torment(self) -> None:
        """Post what no sender should."""
        eventually(self._listens, 20)
        now = str(int(time.time()))
        for timestamp, signature in ((now, "v1,\xe9"), ("\xb2", "v1,AAAA"), (now, "")):
            self._send(f"webhook-id: x\r\nwebhook-timestamp: {timestamp}\r\nwebhook-signature: {signature}\r\n", "{}")
        self._send("no header\r\n", "{}")
        # One that ends in the middle of its body.
        self._send("", "{}", length=1000)

    def _listens(self) -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            self._send("", "")
            return True
        return False

    def _send(self, headers: str, body: str, length: int | None = None) -> None:
        host, _, port = self.webhook.rpartition(":")
        length = len(body) if length is None else length
        with socket.create_connection((host, int(port)), 5) as sock:
            sock.sendall(
                f"POST / HTTP/1.1\r\nhost: x\r\n{headers}content-length: {length}\r\n\r\n{body}".encode("latin-1")
            )
            sock.settimeout(0.2)
            with contextlib.suppress(OSError):
                sock.recv(100)

    def close(self) -> None:
        self.node.stop()
        assert "Traceback" not in self.node.log.read_text(), self.node.log.read_text()
        self.sandbox.close()
        self.network.close()


#: A node that died has the key of its last request for up to a minute.
RUNS = "409 Conflict", '{"errors":[{"field":"Idempotency-Key","code":"in_progress","message":"it runs"}]}'
#: Orders that the proxy answers by itself, by number. The others go to the node.
ORDERS = {2: ("503 Not Now", "{}"), **dict.fromkeys(range(3, 11), RUNS)}


class BadNetwork:
    """A proxy in front of a node. It cuts the first stream of events, refuses the second and drops the third. It cuts
    the answer to the first order, and refuses the next ones."""

    def __init__(self) -> None:
        self.to = ""
        self.streams = 0
        self.orders = 0
        self.silent = False
        """The first stream isn't cut, but brings nothing more."""
        self.refuses: tuple[str, str] | None = None
        """The answer to each order, instead of the node's."""
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:{1}".format(*self._listener.getsockname())
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _address = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        host, _, port = self.to.rpartition(":")
        with contextlib.suppress(OSError), client, socket.create_connection((host, int(port))) as node:
            first = self._request(client)
            if b" /click2dial/events" in first:
                self.streams += 1
                if self.streams == 2:
                    self._refuse(client, "503 Not Now", "{}")
                if self.streams in (2, 3):
                    return
            if is_order := first.startswith(b"POST /click2dial/calls "):
                self.orders += 1
                if refusal := self.refuses or ORDERS.get(self.orders):
                    self._refuse(client, *refusal)
                    return
            node.sendall(first)
            threading.Thread(target=self._pass_on, args=(client, node), daemon=True).start()
            while part := node.recv(65536):
                if is_order:
                    # The client must not send its next request on this connection.
                    client.sendall(part[:-10] if self.orders == 1 else part)
                    break
                client.sendall(part)
                if self.streams == 1 and b'"state":"agent_ringing"' in part:
                    if self.silent:
                        self._ended.wait(30)
                    break
            for sock in (client, node):
                sock.shutdown(socket.SHUT_RDWR)

    def _request(self, client: socket.socket) -> bytes:
        """Return a whole request."""
        request = client.recv(65536)
        while b"\r\n\r\n" not in request:
            request += client.recv(65536)
        length = re.search(rb"(?i)content-length: (\d+)", request)
        end = request.index(b"\r\n\r\n") + 4 + (int(length[1]) if length else 0)
        while len(request) < end:
            request += client.recv(65536)
        return request

    def _refuse(self, client: socket.socket, status: str, body: str) -> None:
        head = f"HTTP/1.1 {status}\r\nretry-after: 0\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        client.sendall((head + body).encode())

    def _pass_on(self, client: socket.socket, node: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while part := client.recv(65536):
                node.sendall(part)

    def close(self) -> None:
        self._ended.set()
        self._listener.close()


@pytest.fixture(scope="module")
def stage(redis: RedisServer) -> Iterator[Stage]:
    redis.client.flushdb()
    made = Stage(redis)
    yield made
    made.close()


@pytest.mark.parametrize("records", ["list", "stream"])
@pytest.mark.parametrize("example", COMMANDS)
def test_client_example_follows_its_call(stage: Stage, example: str, records: str, tmp_path: Path) -> None:
    command = command_of(example)
    with ThreadPoolExecutor(2) as threads:
        # PHP takes one after the other, and only once its call has ended: the forged one is the first.
        forged, tormented = (None, None) if example == "curl" else map(threads.submit, (stage.forge, stage.torment))
        placed, *lines = stage.run(command, records, tmp_path)
        assert forged is None or forged.result() == 401
        if tormented is not None:
            tormented.result()
    assert placed.startswith("placed ")
    states = [line.removeprefix("event ") for line in lines if line.startswith("event ")]
    assert states == STATES
    assert stage.network.streams >= 4
    assert stage.network.orders == len(ORDERS) + 2
    webhook = [] if example == "curl" else ["webhook cdr answered"]
    assert [line for line in lines if line.startswith(("ended", "webhook"))] == ["ended answered", *webhook]
    assert any(line.startswith("record answered seq ") for line in lines)
    audio = (tmp_path / "recording.wav").read_bytes()
    assert audio[:4] == b"RIFF"
    assert lines[-1] == f"recording {len(audio)} bytes"


#: How each example says for how long it waits for an event, and a shorter time.
SILENCE = {
    "python": ("timeout=40", "timeout=2"),
    "node": ("40_000", "2_000"),
    "php": ("$headers, 40)", "$headers, 2)"),
    "curl": ("--speed-time 40", "--speed-time 2"),
}


@pytest.mark.parametrize("example", COMMANDS)
def test_client_example_leaves_a_silent_stream(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, example: str, tmp_path: Path
) -> None:
    command = command_of(example)
    source = Path(command[-1])
    text, changed = source.read_text(), tmp_path / source.name
    assert SILENCE[example][0] in text
    changed.write_text(text.replace(*SILENCE[example]))
    changed.chmod(0o755)
    monkeypatch.setattr(stage.network, "silent", True)
    lines = stage.run([*command[:-1], str(changed)], "list", tmp_path)
    assert [line.removeprefix("event ") for line in lines if line.startswith("event ")] == STATES


@pytest.mark.parametrize("example", COMMANDS)
def test_client_example_does_not_repeat_a_refusal(stage: Stage, example: str, tmp_path: Path) -> None:
    """A call that is placed half a minute later is worse than none."""
    command = command_of(example)
    busy = '{"errors":[{"field":"agent","code":"agent_unavailable","message":"busy"}]}'
    ran = stage.start_refused(command, ("409 Conflict", busy), tmp_path)
    assert ran.returncode != 0
    assert "agent_unavailable" in ran.stdout + ran.stderr
    assert stage.network.orders == 1


@pytest.mark.parametrize("example", COMMANDS)
def test_client_example_says_that_a_call_may_be_placed(stage: Stage, example: str, tmp_path: Path) -> None:
    command = command_of(example)
    ran = stage.start_refused(command, ("503 Not Now", "{}"), tmp_path)
    assert ran.returncode != 0
    assert "no answer; the call may have been placed" in ran.stdout + ran.stderr
    assert stage.network.orders == 5


def verify(body: bytes, age: float = 0, *, id: str = "msg-1", secret: str = SECRET, more: str = "") -> Any:
    timestamp = str(int(time.time() - age))
    digest = hmac.digest(base64.b64decode(secret[6:]), f"msg-1.{timestamp}.".encode() + body, hashlib.sha256)
    signature = f"{more} v1,{base64.b64encode(digest).decode()}".strip()
    command = [str(CLIENTS / "verify.sh"), id, timestamp, signature]
    environ = {**os.environ, "WEBHOOK_SECRET": SECRET}
    return subprocess.run(command, input=body, env=environ, capture_output=True, timeout=10, check=False)


@pytest.mark.skipif(shutil.which("xxd") is None, reason="not installed: xxd")
def test_client_example_verifies_a_webhook_in_a_shell() -> None:
    body = b'{"type":"cdr"}\n\n'
    assert verify(body).stdout == body
    assert verify(body, more="v1,AAAA").stdout == body
    for refused in (
        verify(body, age=400),
        verify(body, id="msg-2"),
        verify(body, secret="whsec_" + base64.b64encode(b"another secret of 32 bytes......").decode()),
    ):
        assert (refused.returncode, refused.stdout) == (1, b"")
