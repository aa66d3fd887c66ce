"""The stand-in switch as a `Rig`: a subprocess, and its control port asked over plain HTTP.

A process of its own, so that pausing and killing it are what they are with the real one.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .base import Leg, Script, eventually

HOST = "127.0.0.1"
PASSWORD = "ClueCon"


class SandboxError(Exception):
    """The sandbox refused, or is not there."""


def free_port() -> int:
    """A free port below the range that the kernel gives to outgoing connections.

    The sandbox must find its ports free again when it comes back after a kill.
    """
    for _ in range(200):
        port = random.randrange(10000, 32000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind((HOST, port))
            return port
    raise SandboxError("no free port")


class SandboxCall:
    """A call of a sandbox phone."""

    def __init__(self, rig: SandboxRig, ref: str, leg: dict[str, Any]) -> None:
        self._rig = rig
        self.ref = ref
        self._leg = Leg(**leg)

    @property
    def leg(self) -> Leg:
        if self._leg.ended_at is None:
            # After a kill the last that was seen is all there is.
            with contextlib.suppress(SandboxError, OSError):
                self._leg = Leg(**self._rig.control("GET", f"/calls/{self.ref}")["leg"])
        return self._leg

    def hangup(self) -> None:
        self._rig.control("POST", f"/calls/{self.ref}/hangup")

    def digits(self, digits: str, method: str = "rfc2833") -> None:
        """``method``: ``rfc2833``, ``info`` or ``inband``."""
        self._rig.control("POST", f"/calls/{self.ref}/digits", {"digits": digits, "method": method})

    def hold(self) -> None:
        self._rig.control("POST", f"/calls/{self.ref}/hold")

    def unhold(self) -> None:
        self._rig.control("POST", f"/calls/{self.ref}/unhold")

    def hears(self, hz: int, within: float = 3.0) -> bool:
        answer = self._rig.control(
            "GET", f"/calls/{self.ref}/hears?hz={hz}&within={within}", timeout=within + 5
        )
        return bool(answer["heard"])


class SandboxPhone:
    """A phone of the sandbox, extension or outside number."""

    def __init__(self, rig: SandboxRig, number: str) -> None:
        self._rig = rig
        self.number = number
        self._calls: dict[str, SandboxCall] = {}

    @property
    def calls(self) -> list[SandboxCall]:
        try:
            shown = self._rig.control("GET", f"/phones/{quote(self.number)}")["calls"]
        except (SandboxError, OSError):
            return list(self._calls.values())
        for call in shown:
            if call["call"] not in self._calls:
                self._calls[call["call"]] = SandboxCall(self._rig, call["call"], call["leg"])
        return [self._calls[call["call"]] for call in shown]

    def script(self, script: Script) -> None:
        self._rig.control("PATCH", f"/phones/{quote(self.number)}", {"script": asdict(script)})

    def dial(self, number: str, headers: Mapping[str, str] | None = None) -> SandboxCall:
        body = {"number": number, "headers": dict(headers or {})}
        shown = self._rig.control("POST", f"/phones/{quote(self.number)}/dial", body)
        call = SandboxCall(self._rig, shown["call"], shown["leg"])
        self._calls[call.ref] = call
        return call

    def unregister(self) -> None:
        self._rig.control("DELETE", f"/phones/{quote(self.number)}")


class SandboxRig:
    """See ``base.Rig``."""

    name = "sandbox"

    def __init__(self, *, tick: float = 20.0, arguments: Iterable[str] = (), start: bool = True) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="esl-sandbox-"))
        self.recordings = self.folder / "recordings"
        self.spool = self.folder / "json_cdr"
        for folder in (self.recordings, self.spool):
            folder.mkdir()
        self.esl_port, self.control_port = free_port(), free_port()
        self.esl_address = f"{HOST}:{self.esl_port}"
        self.esl_password = PASSWORD
        self.dial: dict[str, object] = {
            "extension": f"user/{{number}}@{HOST}",
            "external": ["sofia/gateway/pstn/{number}"],
        }
        self.tick = tick
        self._arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._registered: dict[str, tuple[Script | None, int]] = {}
        self._http: http.client.HTTPConnection | None = None
        self._paused = False
        self.log = self.folder / "sandbox.log"
        if start:
            self.start()

    # the process

    def start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-m", "esl_apps.sandbox", "--empty", f"--listen={self.esl_address}",
                    f"--password={self.esl_password}", f"--control={HOST}:{self.control_port}",
                    f"--tick={self.tick}", f"--recordings={self.recordings}", f"--spool={self.spool}",
                    *self._arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=Path(__file__).resolve().parents[2],
            )  # fmt: skip
        self._paused = False
        eventually(self._is_up, within=10, message="the sandbox did not start; see " + str(self.log))
        for number, (script, registrations) in self._registered.items():
            self._define(number, script, registrations)

    def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise SandboxError(f"the sandbox ended: {self.log.read_text()}")
        try:
            self.control("GET", "/status")
        except (OSError, SandboxError):
            return False
        return True

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._forget_connection()

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self._paused = False

    def close(self) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            if self._paused:
                self.resume()
            process.terminate()
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._forget_connection()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> SandboxRig:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # the control port

    def control(self, method: str, path: str, body: object = None, *, timeout: float = 10.0) -> dict[str, Any]:
        """One request; SandboxError with the sandbox's own words if it refuses."""
        data = None if body is None else json.dumps(body).encode()
        for attempt in (1, 2):
            if self._http is None:
                self._http = http.client.HTTPConnection(HOST, self.control_port, timeout=timeout)
            connection = self._http
            try:
                if connection.sock is not None:
                    connection.sock.settimeout(timeout)
                connection.request(method, path, data, {"Content-Type": "application/json"})
                response = connection.getresponse()
                answer = response.read()
                break
            except (OSError, http.client.HTTPException):
                self._forget_connection()
                if attempt == 2:
                    raise SandboxError(f"no answer to {method} {path}") from None
        if response.status != 200:
            raise SandboxError(f"{method} {path}: {answer.decode()}")
        return json.loads(answer)

    def _forget_connection(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None

    # phones and routes

    def _define(self, number: str, script: Script | None, registrations: int) -> None:
        body: dict[str, object] = {"registrations": registrations}
        if script is not None:
            body["script"] = asdict(script)
        self.control("POST", f"/phones/{quote(number)}", body)

    def phone(self, number: str, script: Script | None = None, *, registrations: int = 1) -> SandboxPhone:
        self._registered[number] = (script, registrations)
        self._define(number, script, registrations)
        return SandboxPhone(self, number)

    def outside(self, number: str, script: Script | None = None) -> SandboxPhone:
        body: dict[str, object] = {"outside": True}
        if script is not None:
            body["script"] = asdict(script)
        self.control("POST", f"/phones/{quote(number)}", body)
        return SandboxPhone(self, number)

    def route(self, number: str, path: str, node: str) -> None:
        self.control("POST", "/routes", {"number": number, "path": path, "node": node})

    def extension(self, context: str, number: str, actions: Iterable[tuple[str, str]]) -> None:
        """A dialplan extension of the test's own, until ``reset``."""
        listed = [list(action) for action in actions]
        self.control("POST", "/routes", {"number": number, "actions": listed, "contexts": [context]})

    def gateway(self, name: str, *, fails: str | int | None = None, down: bool = False) -> None:
        """Make a gateway fail every call with a cause."""
        self.control("POST", f"/gateways/{name}", {"fails": fails, "down": down})

    def api(self, command: str) -> str:
        return str(self.control("POST", "/api", {"command": command}, timeout=70)["response"])

    def live_channels(self) -> int:
        return int(self.control("GET", "/status")["channels"])

    def drop_sockets(self) -> None:
        self.control("POST", "/drop-sockets")

    def reset(self) -> None:
        if self._paused:
            self.resume()
        self.start()
        self.control("POST", "/reset")


def process_age(pid: int) -> float:
    """Seconds since a process began; for tests of the start's speed."""
    with open(f"/proc/{pid}/stat") as file:
        ticks = int(file.read().rsplit(")", 1)[1].split()[19])
    with open("/proc/uptime") as file:
        up = float(file.read().split()[0])
    return up - ticks / os.sysconf("SC_CLK_TCK")


def wait_until(moment: float) -> None:
    """Sleep until an instant of ``time.time()``."""
    time.sleep(max(0.0, moment - time.time()))
