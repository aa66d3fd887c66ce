"""Processes of PJSIP phones, as seen by the test's process, and the proxy that spreads calls over them."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import queue
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.rig.base import HOST, Leg, RigError, eventually
from tests.support import ROOT
from tests.support.ports import free_ports, give_back, media_ports

PASSWORD = "rig-phone-1234"
_RTP_PORTS = 64
LEG_FIELDS = {field.name for field in dataclasses.fields(Leg)}


class RigLeg:
    """A call of a phone (``PhoneLeg``), and its recording."""

    def __init__(self, bank: PhoneBank, ref: str, leg: Leg) -> None:
        self.bank = bank
        self.ref = ref
        self.recorded_at = 0.0
        """When the recording starts. It has silence while there are no media."""
        self.placed = False
        """Whether it is in its phone's list of calls."""
        self._leg = leg

    @property
    def leg(self) -> Leg:
        with self.bank.lock:
            return dataclasses.replace(self._leg, headers={k: list(v) for k, v in self._leg.headers.items()})

    @property
    def ended(self) -> bool:
        return self._leg.ended_at is not None

    @property
    def recording(self) -> Path:
        """The audio that this phone received, as WAV. During the call it is a quarter of a second late."""
        path = self.bank.folder / f"{self.ref}.wav"
        if self.ended:  # PJSIP writes the length when it closes the file, in its media thread

            def closed() -> bool:
                return path.exists() and len(head := path.read_bytes()[:44]) == 44 and any(head[40:44])

            with contextlib.suppress(AssertionError):
                eventually(closed, within=1.0)
        return path

    @property
    def received(self) -> str:
        return str(self.bank.ask("received", call=self.ref)["digits"])

    def hangup(self) -> None:
        self.bank.ask("hangup", call=self.ref)

    def answer(self) -> None:
        self.bank.ask("answer", call=self.ref)

    def reject(self, status: int) -> None:
        self.bank.ask("reject", call=self.ref, status=status)

    def digits(self, digits: str, method: str = "rfc2833") -> None:
        """``method``: ``rfc2833``, ``info`` (SIP INFO) or ``inband`` (tones)."""
        self.bank.ask("digits", call=self.ref, digits=digits, method=method)

    def hold(self) -> None:
        self.bank.ask("hold", call=self.ref, on=True)

    def unhold(self) -> None:
        self.bank.ask("hold", call=self.ref, on=False)

    def transfer(self, to: str) -> None:
        """Send a REFER that asks the far side to call ``to`` (the whole Refer-To)."""
        self.bank.ask("transfer", call=self.ref, to=to)

    def attend(self, other: Any) -> None:
        """Send a REFER with Replaces of another call of this phone."""
        self.bank.ask("attend", call=self.ref, other=other.ref)

    def hears(self, *hz: int, within: float = 20.0) -> bool:
        reply = self.bank.ask("hears", timeout=within + 5, call=self.ref, hz=hz, within=within)
        return bool(reply["heard"])

    def __repr__(self) -> str:
        return f"<{self.ref} {self._leg}>"


class PhoneBank:
    """One process of PJSIP phones, as seen by this process."""

    names = itertools.count(1)

    def __init__(
        self, kind: str, folder: Path, digit_ms: int, on_leg: Callable[[PhoneBank, RigLeg, str], None]
    ) -> None:
        self.name = f"{kind}{next(self.names)}"
        self.folder = folder
        self.on_leg = on_leg
        self.lock = threading.RLock()
        self.legs: dict[str, RigLeg] = {}
        self.busy: set[str] = set()
        """Live calls: the Call-ID of incoming ones, the rig's own reference of outgoing ones."""
        self.accounts: set[str] = set()
        self.faults: list[str] = []
        self.port = free_ports(1)
        self.rtp = media_ports(_RTP_PORTS)
        self.replies: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self.ids = itertools.count(1)
        self.ready = threading.Event()
        ours, theirs = socket.socketpair()
        self.control = ours
        with theirs, (folder / f"{self.name}.log").open("wb") as log:
            options = {"fd": theirs.fileno(), "name": self.name, "port": self.port, "rtp": self.rtp}
            options |= {"folder": folder, "digit-ms": digit_ms}
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.rig.pjsip_phones", *(f"--{k}={v}" for k, v in options.items())],
                pass_fds=[theirs.fileno()],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def wait_ready(self) -> PhoneBank:
        if not self.ready.wait(15):
            raise RigError(f"{self.name} did not start: {(self.folder / f'{self.name}.log').read_text()}")
        return self

    def _read(self) -> None:
        with self.control.makefile("rb") as lines, contextlib.suppress(OSError):
            for line in lines:
                message = json.loads(line)
                if "re" in message:
                    waiting = self.replies.pop(message["re"], None)
                    if waiting:
                        waiting.put(message)
                elif message["ev"] == "leg":
                    self._leg(message)
                elif message["ev"] == "ready":
                    self.ready.set()
                else:
                    self.faults.append(message["text"])
        for waiting in list(self.replies.values()):
            waiting.put({"error": f"{self.name} is gone"})

    def _leg(self, message: dict[str, Any]) -> None:
        values = {name: value for name, value in message["leg"].items() if name in LEG_FIELDS}
        with self.lock:
            known = self.legs.get(message["call"])
            if known is None:
                known = self.legs[message["call"]] = RigLeg(self, message["call"], Leg("in", ""))
            for name, value in values.items():
                setattr(known._leg, name, value)
            known.recorded_at = message["recorded_at"]
            if known.ended:
                self.busy.discard(known.ref)
                self.busy.difference_update(known._leg.headers.get("call-id", []))
        self.on_leg(self, known, message["key"])

    def ask(self, what: str, *, timeout: float = 10.0, **arguments: Any) -> dict[str, Any]:
        return self.send(what, **arguments)(timeout)

    def send(self, what: str, **arguments: Any) -> Callable[..., dict[str, Any]]:
        """Send a command, and return a function that waits for the answer, so that several banks can work at once."""
        ref = next(self.ids)
        waiting = self.replies[ref] = queue.SimpleQueue()
        message = json.dumps({"id": ref, "do": what, **arguments}).encode() + b"\n"
        with self.lock:
            try:
                self.control.sendall(message)
            except OSError:
                raise RigError(f"{self.name} is gone, exit status {self.process.poll()}") from None

        def answer(timeout: float = 10.0) -> dict[str, Any]:
            try:
                reply = waiting.get(timeout=timeout)
            except queue.Empty:
                self.replies.pop(ref, None)
                raise RigError(f"{self.name} does not answer: {what}") from None
            if "error" in reply:
                raise RigError(f"{self.name}: {what}: {reply['error']}")
            return reply

        return answer

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.control.shutdown(socket.SHUT_RDWR)  # its reader sees the end and returns
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.thread.join(2)
        self.control.close()
        give_back(self.rtp, _RTP_PORTS)


class Trunk:
    """The far side of the gateways: a stateless SIP proxy that spreads calls over the outside banks."""

    def __init__(self, choose: Callable[[str], PhoneBank | None]) -> None:
        self.choose = choose
        first = free_ports(2)
        self.ports = (first, first + 1)
        # Bound, so that no ICMP error comes back, and never read.
        self.silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.silent.bind((HOST, 0))
        self.silent_port: int = self.silent.getsockname()[1]
        self.sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in self.ports]
        self.banks: dict[str, PhoneBank] = {}
        self.waiting: dict[str, tuple[socket.socket, int, bytes]] = {}
        self.closing = False
        self.threads: list[threading.Thread] = []
        for sock, port in zip(self.sockets, self.ports, strict=True):
            sock.bind((HOST, port))
            self.threads.append(threading.Thread(target=self._run, args=(sock, port), daemon=True))
            self.threads[-1].start()

    def _run(self, sock: socket.socket, port: int) -> None:
        while not self.closing:
            data, _ = sock.recvfrom(65536)
            with contextlib.suppress(OSError, ValueError, TypeError, IndexError):  # drop what isn't SIP
                self._pass(sock, port, data)

    def _pass(self, sock: socket.socket, port: int, data: bytes) -> None:
        start, _, rest = data.partition(b"\r\n")
        if start.startswith(b"SIP/2.0 "):
            # a response: remove our Via and pass it to the next one
            head, _, body = rest.partition(b"\r\n\r\n")
            lines = head.split(b"\r\n")
            vias = [n for n, line in enumerate(lines) if re.match(rb"(?i)(via|v)\s*:", line)]
            then = re.match(rb"(?i)(?:via|v)\s*:\s*\S+\s+([^:;\s,]+)(?::(\d+))?", lines[vias[1]])
            if then:
                del lines[vias[0]]
                passed = b"\r\n".join([start, *lines]) + b"\r\n\r\n" + body
                sock.sendto(passed, (then[1].decode(), int(then[2] or 5060)))
            return
        ref = re.search(rb"(?im)^(?:call-id|i)\s*:\s*(\S+)", rest)[1].decode()  # type: ignore[index]
        bank = self.banks.get(ref)
        if bank is None or not bank.alive:
            if not start.startswith(b"INVITE "):
                return
            bank = self.choose(ref)
            if bank is None:
                self.waiting[ref] = (sock, port, data)  # hold it until the next bank is up
                return
            self.waiting.pop(ref, None)
            self.banks[ref] = bank
        above = re.search(rb"(?im)^(?:via|v)\s*:[^\r]*?branch=([^;,\s]+)", rest)[1]  # type: ignore[index]
        branch = hashlib.sha1(above).hexdigest()[:20]
        via = f"Via: SIP/2.0/UDP {HOST}:{port};branch=z9hG4bK{branch}\r\n".encode()
        sock.sendto(start + b"\r\n" + via + rest, (HOST, bank.port))

    def retry(self) -> None:
        for held in list(self.waiting.values()):
            self._pass(*held)

    def close(self) -> None:
        self.closing = True
        for sock, port in zip(self.sockets, self.ports, strict=True):
            sock.sendto(b"", (HOST, port))
        for thread in self.threads:
            thread.join(2)
        for sock in (*self.sockets, self.silent):
            sock.close()
