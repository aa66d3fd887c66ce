"""The client examples do what they say: Python, Node.js, PHP and curl, each with a list and with a stream."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
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
        self.network.to = self.apis[records]
        self.network.streams = 0
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
        ran = subprocess.run(
            command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout.splitlines()

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


class BadNetwork:
    """A proxy in front of a node. It cuts the first stream of events, refuses the second and drops the third."""

    def __init__(self) -> None:
        self.to = ""
        self.streams = 0
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
            first = client.recv(65536)
            if b" /click2dial/events" in first:
                self.streams += 1
                if self.streams == 2:
                    client.sendall(b"HTTP/1.1 503 Not Now\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
                if self.streams in (2, 3):
                    return
            node.sendall(first)
            threading.Thread(target=self._pass_on, args=(client, node), daemon=True).start()
            while part := node.recv(65536):
                client.sendall(part)
                if self.streams == 1 and b'"state":"agent_ringing"' in part:
                    break
            for sock in (client, node):
                sock.shutdown(socket.SHUT_RDWR)

    def _pass_on(self, client: socket.socket, node: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while part := client.recv(65536):
                node.sendall(part)

    def close(self) -> None:
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
    command, needed = COMMANDS[example]
    if missing := [program for program in needed if shutil.which(program) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
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
    webhook = [] if example == "curl" else ["webhook cdr answered"]
    assert [line for line in lines if line.startswith(("ended", "webhook"))] == ["ended answered", *webhook]
    assert any(line.startswith("record answered seq ") for line in lines)
    audio = (tmp_path / "recording.wav").read_bytes()
    assert audio[:4] == b"RIFF"
    assert lines[-1] == f"recording {len(audio)} bytes"


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
