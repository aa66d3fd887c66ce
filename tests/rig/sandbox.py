"""The sandbox as a `Rig`: a subprocess, controlled over HTTP.

It is a process of its own, so that it can be paused and killed like a real switch.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.rig.base import HOST, Leg, Script, eventually
from tests.support import zygote
from tests.support.ports import free_port

PASSWORD = "ClueCon"


class SandboxError(Exception):
    """The sandbox refused a request, or doesn't run."""


class SandboxCall:
    """A call of a sandbox phone."""

    def __init__(self, rig: SandboxRig, ref: str, leg: dict[str, Any]) -> None:
        self._rig = rig
        self.ref = ref
        self._leg = Leg(**leg)

    @property
    def leg(self) -> Leg:
        if self._leg.ended_at is None:
            # After a kill, keep the last state.
            with contextlib.suppress(SandboxError):
                self._leg = Leg(**self._rig.control("GET", f"/calls/{self.ref}")["leg"])
        return self._leg

    @property
    def received(self) -> str:
        """The digits that the other party sent."""
        return str(self._rig.control("GET", f"/calls/{self.ref}")["received"])

    def seen(self, leg: dict[str, Any]) -> None:
        """Take the state that another answer contained."""
        self._leg = Leg(**leg)

    def hangup(self) -> None:
        self._rig.control("POST", f"/calls/{self.ref}/hangup")

    def answer(self) -> None:
        self._rig.control("POST", f"/calls/{self.ref}/answer")

    def reject(self, status: int) -> None:
        self._rig.control("POST", f"/calls/{self.ref}/reject", {"status": status})

    def digits(self, digits: str, method: str = "rfc2833") -> None:
        """``method``: ``rfc2833``, ``info`` or ``inband``."""
        self._rig.control("POST", f"/calls/{self.ref}/digits", {"digits": digits, "method": method})

    def transfer(self, to: str) -> None:
        self._rig.control("POST", f"/calls/{self.ref}/transfer", {"to": to})

    def attend(self, other: Any) -> None:
        self._rig.control("POST", f"/calls/{self.ref}/attend", {"other": other.ref})

    def hold(self) -> None:
        self._rig.control("POST", f"/calls/{self.ref}/hold")

    def unhold(self) -> None:
        self._rig.control("POST", f"/calls/{self.ref}/unhold")

    def hears(self, *hz: int, within: float = 20.0) -> bool:
        tones = ",".join(map(str, hz))
        answer = self._rig.control("GET", f"/calls/{self.ref}/hears?hz={tones}&within={within}", timeout=within + 5)
        return bool(answer["heard"])


def _script(script: Script) -> dict[str, Any]:
    values = asdict(script)
    # The sandbox's answers have no headers of their own.
    del values["headers"]
    return values


class SandboxPhone:
    """A phone of the sandbox, an extension or outside number. It outlives the switch, as a real phone does."""

    def __init__(self, rig: SandboxRig, number: str, *, outside: bool) -> None:
        self._rig = rig
        self.number = number
        self.outside = outside
        self.current = Script()
        self.registrations = 0 if outside else 1
        self._calls: dict[str, SandboxCall] = {}

    def define(self, script: Script | None, registrations: int = 0) -> None:
        """Set the script and forget the calls."""
        self.current, self.registrations = script or Script(), registrations
        self._calls.clear()
        self.restore()

    def restore(self) -> None:
        """Define the phone in a restarted sandbox."""
        body = {"script": _script(self.current), "registrations": self.registrations, "outside": self.outside}
        self._rig.control("POST", self._path, body)

    @property
    def _path(self) -> str:
        return f"/phones/{quote(self.number)}"

    @property
    def calls(self) -> list[SandboxCall]:
        with contextlib.suppress(SandboxError):
            for call in self._rig.control("GET", self._path)["calls"]:
                known = self._calls.get(call["call"])
                if known is None:
                    self._calls[call["call"]] = SandboxCall(self._rig, call["call"], call["leg"])
                else:
                    known.seen(call["leg"])
        return sorted(self._calls.values(), key=lambda call: call._leg.started_at)

    def script(self, script: Script) -> None:
        self.current = script
        self._rig.control("PATCH", self._path, {"script": _script(script)})

    def dial(self, number: str, headers: Mapping[str, str] | None = None) -> SandboxCall:
        shown = self._rig.control("POST", f"{self._path}/dial", {"number": number, "headers": dict(headers or {})})
        call = self._calls[shown["call"]] = SandboxCall(self._rig, shown["call"], shown["leg"])
        return call

    def unregister(self) -> None:
        self.registrations = 0
        self._rig.control("DELETE", self._path)


class SandboxRig:
    """See ``base.Rig``."""

    name = "sandbox"

    def __init__(
        self, *, tick: float = 20.0, arguments: Iterable[str] = (), start: bool = True, cdrs: bool = True
    ) -> None:
        """``cdrs``: write a JSON CDR per leg. They have about 25 KB each, so a load run's would fill a disk."""
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
        self._arguments = [*arguments, *([f"--spool={self.spool}"] if cdrs else [])]
        self._process: zygote.Forked | None = None
        self._phones: dict[str, SandboxPhone] = {}
        self._routes: list[dict[str, object]] = []
        self._gateways: dict[str, dict[str, object]] = {}
        self._http = threading.local()
        self._paused = False
        self.log = self.folder / "sandbox.log"
        if start:
            self.start()

    # the process

    def start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        with self.log.open("ab") as log:
            self._process = zygote.start(
                [
                    "sandbox",
                    "--empty",
                    f"--listen={self.esl_address}",
                    f"--password={self.esl_password}",
                    f"--control={HOST}:{self.control_port}",
                    f"--tick={self.tick}",
                    f"--recordings={self.recordings}",
                    *self._arguments,
                ],
                log,
            )
        self._paused = False
        eventually(self._is_up, within=40, message="the sandbox did not start; see " + str(self.log))
        # Phones, routes and gateways survive a restart, as with a real switch.
        for phone in list(self._phones.values()):
            phone.restore()
        for route in self._routes:
            self.control("POST", "/routes", route)
        for name, state in self._gateways.items():
            self.control("POST", f"/gateways/{name}", state)

    def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise SandboxError(f"the sandbox ended: {self.log.read_text()}")
        try:
            self.control("GET", "/status")
        except SandboxError:
            return False
        return True

    def kill(self) -> None:
        assert self._process is not None
        if not self._paused:
            for phone in list(self._phones.values()):
                _ = phone.calls  # read their calls, which the sandbox is about to forget
        if self._paused:
            self._process.kill()
        else:
            # It writes its live legs first, if --legs asks for that.
            with contextlib.suppress(SandboxError):
                self.control("POST", "/die")
        self._process.wait()
        self._paused = False

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
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> SandboxRig:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # the control port

    def control(self, method: str, path: str, body: object = None, *, timeout: float = 10.0) -> dict[str, Any]:
        """Send one request. :raises SandboxError: with the sandbox's own message if it refuses."""
        data = None if body is None else json.dumps(body).encode()
        answer, status = b"", 0
        for attempt in (1, 2):
            connection = getattr(self._http, "connection", None)
            if connection is None:
                connection = self._http.connection = http.client.HTTPConnection(HOST, self.control_port)
            connection.timeout = timeout
            try:
                if connection.sock is not None:
                    connection.sock.settimeout(timeout)
                connection.request(method, path, data, {"Content-Type": "application/json"})
                response = connection.getresponse()
                status, answer = response.status, response.read()
                break
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self._http.connection = None
                # A kept connection may have died with a killed sandbox, so try once more with a new one.
                if attempt == 2 or isinstance(error, TimeoutError):
                    raise SandboxError(f"no answer to {method} {path}: {error!r}") from None
        if status != 200:
            raise SandboxError(f"{method} {path}: {answer.decode()}")
        result: dict[str, Any] = json.loads(answer)
        return result

    # phones and routes

    def _phone(self, number: str, *, outside: bool) -> SandboxPhone:
        phone = self._phones.get(number)
        if phone is None or phone.outside != outside:
            phone = self._phones[number] = SandboxPhone(self, number, outside=outside)
        return phone

    def phone(self, number: str, script: Script | None = None, *, registrations: int = 1) -> SandboxPhone:
        phone = self._phone(number, outside=False)
        phone.define(script, registrations)
        return phone

    def outside(self, number: str, script: Script | None = None) -> SandboxPhone:
        phone = self._phone(number, outside=True)
        phone.define(script)
        return phone

    def dead_registration(self, number: str) -> None:
        self.control("POST", f"/phones/{number}/dead")

    def offer(self, number: str, codecs: Sequence[str]) -> int:
        phone = self.outside("0825550009")
        shown = self.control("POST", f"{phone._path}/dial", {"number": number, "codecs": list(codecs)})
        call = SandboxCall(self, shown["call"], shown["leg"])
        eventually(lambda: call.leg.status is not None)
        if call.leg.ended_at is None:
            call.hangup()
        return int(call.leg.status or 0)

    def route(self, number: str, path: str, node: str) -> None:
        self._route({"number": number, "path": path, "node": node})

    def extension(self, context: str, number: str, actions: Iterable[tuple[str, str]]) -> None:
        """Add a dialplan extension until ``reset``."""
        listed = [list(action) for action in actions]
        self._route({"number": number, "actions": listed, "contexts": [context]})

    def route_refers(self, node: str) -> None:
        self._route({"refers": node})

    def _route(self, route: dict[str, object]) -> None:
        self._routes.append(route)
        self.control("POST", "/routes", route)

    def gateway(self, name: str, *, fails: str | int | None = None, down: bool = False, silent: bool = False) -> None:
        """Make a gateway fail every call with a cause, be down, or take calls and never respond."""
        self._gateways[name] = {"fails": fails, "down": down, "silent": silent}
        self.control("POST", f"/gateways/{name}", self._gateways[name])

    def api(self, command: str) -> str:
        return str(self.control("POST", "/api", {"command": command}, timeout=70)["response"])

    def live_channels(self) -> int:
        return int(self.control("GET", "/status")["channels"])

    def drop_sockets(self) -> None:
        self.control("POST", "/drop-sockets")

    def reset(self) -> None:
        if self._paused:
            self.resume()
        self._routes.clear()
        self._gateways.clear()
        self._phones = {number: phone for number, phone in self._phones.items() if not phone.outside}
        self.start()
        self.control("POST", "/reset")
