"""A real FreeSWITCH of one's own on loopback, and PJSIP phones around it.

``FreeswitchRig`` writes a configuration in the stock layout (``fsconf/``), starts the switch on free
ports, and keeps *banks* of phones (``pjsip_phones.py``, one process each): registered extensions on the
internal profile, and outside numbers behind the gateways ``pstn`` and ``pstn2``. Calls from a gateway
pass a small SIP proxy here, which gives each new call to the bank that has the fewest: the switch sees
one trunk, whatever number of calls it carries.

Nothing here imports esl_apps: what is measured must not be the measure.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import dataclasses
import errno
import hashlib
import itertools
import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.sax.saxutils import escape, quoteattr

from tests.rig import pjsip_phones
from tests.rig.base import Leg, Script, eventually
from tests.support.ports import free_ports, give_back, media_ports

HOST = "127.0.0.1"
CONTEXTS = ("public", "default")
USERS = range(1000, 1020)
PASSWORD = "rig-phone-1234"
ESL_PASSWORD = "rig-not-the-stock-one"
MOH_HZ = 333
"""What a held party hears."""
UNAVAILABLE_HZ = 620
"""What the rig's own ``esl_apps_unavailable`` plays, where no shipped dialplan brings one."""
USUAL_PATHS = (
    "/usr/local/freeswitch/bin/freeswitch",
    "/opt/freeswitch/bin/freeswitch",
    "/usr/local/bin/freeswitch",
    "/usr/bin/freeswitch",
)
DEAD_PORT = 9
"""Where the gateway ``dead`` points: nobody takes this one by chance."""
OUTSIDE_BANKS = 2
MAX_OUTSIDE_BANKS = 24
EXTENSION_BANKS = 8
_RTP_PORTS, _SWITCH_RTP_PORTS = 64, 400
LEG_FIELDS = {field.name for field in dataclasses.fields(Leg)}


class RigError(Exception):
    """The rig itself is at fault or was asked for what it cannot do; not the thing under test."""


def find_freeswitch() -> Path | None:
    """``$FREESWITCH`` (the binary), else the usual places."""
    named = os.environ.get("FREESWITCH")
    for path in [named] if named else USUAL_PATHS:
        if os.access(path, os.X_OK) and Path(path).is_file():
            return Path(path)
    on_path = None if named else shutil.which("freeswitch")
    return Path(on_path) if on_path else None


# The event socket, as plain as it can be.


@dataclasses.dataclass(frozen=True)
class Frame:
    headers: dict[str, str]
    body: bytes
    raw: bytes

    @property
    def event(self) -> dict[str, str]:
        """A plain event's headers, decoded."""
        lines = self.body.decode("utf-8", "replace").split("\n\n")[0].split("\n")
        pairs = (line.partition(": ") for line in lines)
        return {name: unquote(value) for name, _, value in pairs}


class EslClient:
    """One inbound event-socket connection, one thread at a time."""

    def __init__(self, port: int, password: str, timeout: float) -> None:
        self.socket = socket.create_connection((HOST, port), timeout)
        self.local_port: int = self.socket.getsockname()[1]
        self.file = self.socket.makefile("rb")
        try:
            if self.read().headers.get("Content-Type") != "auth/request":
                raise RigError("this is no event socket")
            reply = self.command(f"auth {password}").headers.get("Reply-Text", "")
            if not reply.startswith("+OK"):
                raise RigError(f"event socket: {reply}")
        except BaseException:
            self.close()
            raise

    def read(self) -> Frame:
        """The next frame; OSError of some kind when there is none to come."""
        headers: dict[str, str] = {}
        raw = b""
        while (line := self.file.readline()) != b"\n":
            if not line:
                raise ConnectionError("the event socket closed")
            raw += line
            name, _, value = line.decode("utf-8", "replace").rstrip("\n").partition(": ")
            headers[name] = unquote(value)
        body = self.file.read(int(headers.get("Content-Length", 0)))
        return Frame(headers, body, raw + b"\n" + body)

    def command(self, text: str) -> Frame:
        self.socket.sendall(text.encode() + b"\n\n")
        while True:
            frame = self.read()
            if frame.headers.get("Content-Type") in ("command/reply", "api/response"):
                return frame

    def close(self) -> None:
        self.file.close()
        self.socket.close()


class EventTap:
    """Another client's view: every event that it is sent, from ``listen_events`` until ``close``."""

    def __init__(self, client: EslClient, names: str) -> None:
        self.client = client
        self.local_port = client.local_port
        self.frames: list[Frame] = []
        client.command(f"event plain {names}")
        client.socket.settimeout(None)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while True:
                self.frames.append(self.client.read())

    @property
    def events(self) -> list[dict[str, str]]:
        frames = list(self.frames)
        return [frame.event for frame in frames if frame.headers.get("Content-Type") == "text/event-plain"]

    @property
    def raw(self) -> bytes:
        """All that came, as it came."""
        return b"".join(frame.raw for frame in list(self.frames))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.client.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join(2)
        self.client.close()

    def __enter__(self) -> EventTap:
        return self

    def __exit__(self, *how: object) -> None:
        self.close()


# What a recording holds.


def read_wav(path: Path) -> tuple[int, list[array[int]]]:
    """Rate and channels of a 16-bit PCM file, also of one that is still being written."""
    data = path.read_bytes()
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise ValueError(f"{path} is no WAV file")
    at, channels, rate, bits, kind = 12, 0, 0, 0, 0
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8
        if name == b"fmt ":
            kind = int.from_bytes(data[at : at + 2], "little")
            channels = int.from_bytes(data[at + 2 : at + 4], "little")
            rate = int.from_bytes(data[at + 4 : at + 8], "little")
            bits = int.from_bytes(data[at + 14 : at + 16], "little")
        elif name == b"data":
            if kind not in (1, 0xFFFE) or bits != 16:
                raise ValueError(f"{path}: 16-bit PCM only, not format {kind} with {bits} bits")
            pcm = data[at : at + size] if 0 < size <= len(data) - at else data[at:]  # 0: not yet closed
            samples = array("h", pcm[: len(pcm) // (2 * channels) * 2 * channels])
            if sys.byteorder == "big":
                samples.byteswap()
            return rate, [samples[n::channels] for n in range(channels)]
        at += size + (size & 1)
    return rate, [array("h") for _ in range(max(channels, 1))]


def tones(path: Path, hz: int, channel: int = 0, *, step: float = 0.05) -> list[tuple[float, bool]]:
    """Whether the sine is there, at each ``step`` of the file: ``[(seconds from its start, present), …]``."""
    rate, channels = read_wav(path)
    pcm = channels[channel]
    size, hop = int(rate * max(0.1, step)), int(rate * step)
    starts = range(0, len(pcm) - size + 1, hop)
    return [(at / rate, pjsip_phones.has_tone(pcm[at : at + size], hz, rate)) for at in starts]


def tone_timeline(
    path: Path, frequencies: Iterable[int], channel: int = 0, *, step: float = 0.05
) -> list[tuple[float, set[int]]]:
    """What is heard from when on: ``[(0.0, set()), (1.2, {440, 480}), (3.2, set()), …]``."""
    presence = {hz: tones(path, hz, channel, step=step) for hz in frequencies}
    line: list[tuple[float, set[int]]] = []
    for index, (at, _) in enumerate(next(iter(presence.values()))):
        heard = {hz for hz, points in presence.items() if points[index][1]}
        if not line or line[-1][1] != heard:
            line.append((round(at, 3), heard))
    return line


# Phones.


class RigLeg:
    """A call of a phone (``PhoneLeg``), and its recording."""

    def __init__(self, bank: PhoneBank, ref: str, leg: Leg) -> None:
        self.bank = bank
        self.ref = ref
        self.recorded_at = 0.0
        """When the recording begins; silence stands for the time without media."""
        self.placed = False
        """Whether it stands in its phone's list of calls."""
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
        """What this phone received, as WAV. While the call is up, it is a quarter of a second behind."""
        path = self.bank.folder / f"{self.ref}.wav"
        if self.ended:  # PJSIP fills in the length when it closes the file, in its media thread

            def closed() -> bool:
                return path.exists() and len(head := path.read_bytes()[:44]) == 44 and any(head[40:44])

            with contextlib.suppress(AssertionError):
                eventually(closed, within=1.0)
        return path

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
        """Ask the far side by REFER to call ``to`` (all of Refer-To)."""
        self.bank.ask("transfer", call=self.ref, to=to)

    def hears(self, *hz: int, within: float = 3.0) -> bool:
        reply = self.bank.ask("hears", timeout=within + 5, call=self.ref, hz=hz, within=within)
        return bool(reply["heard"])

    def __repr__(self) -> str:
        return f"<{self.ref} {self._leg}>"


class PhoneBank:
    """One process of PJSIP phones, as this process sees it."""

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
        """Live calls: the Call-ID of those that came, our name of those that went."""
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
                [sys.executable, pjsip_phones.__file__, *(f"--{k}={v}" for k, v in options.items())],
                pass_fds=[theirs.fileno()],
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
        """Ask now; what comes back waits for the answer, so that several banks work at once."""
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
            self.control.shutdown(socket.SHUT_RDWR)  # its reader sees the end and leaves
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.thread.join(2)
        self.control.close()
        give_back(self.rtp, _RTP_PORTS)


class RigPhone:
    """An extension (its registrations are one phone), or an outside number."""

    def __init__(self, rig: FreeswitchRig, number: str, *, outside: bool) -> None:
        self.rig = rig
        self.number = number
        self.outside = outside
        self.banks: list[PhoneBank] = []
        """Where it is registered, one bank a registration."""
        self._calls: list[RigLeg] = []
        self._script = Script()

    @property
    def calls(self) -> list[RigLeg]:
        return sorted(self._calls, key=lambda call: call._leg.started_at)

    def script(self, script: Script) -> None:
        self._script = script
        banks = self.rig.outside_banks if self.outside else self.banks
        plain = self.rig.plain(script)
        answers = [bank.send("script", key=self.number, script=plain) for bank in list(banks)]
        for answer in answers:
            answer()

    def dial(self, number: str, headers: Mapping[str, str] | None = None, *, from_uri: str | None = None) -> RigLeg:
        """``from_uri``: all of From (``sip:…`` or ``"name" <sip:…>``), for who claims to be somebody else."""
        return self.rig.dial_from(self, number, headers or {}, from_uri)

    def unregister(self) -> None:
        for bank in self.banks:
            bank.ask("unregister", account=self.number)
        self.banks = []


class Trunk:
    """The far side of the gateways: a stateless SIP proxy that spreads calls over the outside banks."""

    def __init__(self, choose: Callable[[str], PhoneBank | None]) -> None:
        self.choose = choose
        first = free_ports(2)
        self.ports = (first, first + 1)
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
            with contextlib.suppress(OSError, ValueError, TypeError, IndexError):  # what is no SIP is dropped
                self._pass(sock, port, data)

    def _pass(self, sock: socket.socket, port: int, data: bytes) -> None:
        start, _, rest = data.partition(b"\r\n")
        if start.startswith(b"SIP/2.0 "):
            # back: our Via off, on to the next one
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
                self.waiting[ref] = (sock, port, data)  # until the next bank is up
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
        for sock in self.sockets:
            sock.close()


class RawCall:
    """An INVITE written by hand, for what PJSIP would refuse to send or put right on its way.

    ``number`` stands in the request line and ``sender`` after ``From: `` as they are; ``headers`` are added,
    also twice the same. ``instead`` has what stands in place of a line that every INVITE has (``To``,
    ``Contact``, ``Call-ID``, ``Via``'s parameters, ``Content-Type``), ``payload`` in place of the offer of PCMU at a
    port where nobody listens. Bytes that are no UTF-8 are written as surrogate escapes.
    """

    content_type = "application/sdp"

    def body(self, sdp: str) -> str:
        """The INVITE's, of ``content_type``."""
        return sdp

    def __init__(
        self,
        port: int,
        number: str,
        headers: Iterable[tuple[str, str]],
        sender: str,
        *,
        instead: Mapping[str, str] | None = None,
        payload: str | None = None,
    ) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((HOST, 0))
        self.socket.connect((HOST, port))
        self.here = f"{HOST}:{self.socket.getsockname()[1]}"
        self.uri = f"sip:{number}@{HOST}:{port}"
        self.instead = dict(instead or {})
        self.ref = hashlib.sha1(os.urandom(8)).hexdigest()
        self.sender = f"{sender};tag={self.ref[:8]}"
        self.to = f"<{self.uri}>"
        self.sent = 1
        self.responses: list[tuple[int, dict[str, list[str]]]] = []
        self.text = ""
        """All that came, as it came."""
        offer = [f"v=0\r\no=- 1 1 IN IP4 {HOST}\r\ns=-\r\nc=IN IP4 {HOST}\r\nt=0 0\r\n"]
        offer += ["m=audio 9 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n"]
        self._send("INVITE", 1, headers, self.body("".join(offer)) if payload is None else payload)

    def _send(
        self,
        method: str,
        number: int,
        headers: Iterable[tuple[str, str]] = (),
        body: str = "",
        content_type: str = "",
    ) -> None:
        branch = 1 if method in ("ACK", "CANCEL") and self.status != 200 else number
        first = method == "INVITE" and number == 1
        own = self.instead
        kind = content_type or self.content_type
        encoded = body.encode("utf-8", "surrogateescape")
        lines = [
            f"{method} {self.uri} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.here};rport;branch=z9hG4bK{self.ref[:12]}{branch}{own.get('Via', '')}",
            "Max-Forwards: 70",
            f"From: {self.sender}",
            f"To: {own.get('To', self.to) if first else self.to}",
            f"Call-ID: {own.get('Call-ID', self.ref)}",
            f"CSeq: {number} {method}",
            f"Contact: {own.get('Contact', f'<sip:raw@{self.here}>')}",
            *(f"{name}: {value}" for name, value in headers),
            *([f"Content-Type: {own.get('Content-Type', kind) if first else kind}"] if body else []),
            f"Content-Length: {len(encoded)}",
        ]
        self.socket.send(("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape") + encoded)

    @property
    def status(self) -> int | None:
        """The last one that came."""
        return self.responses[-1][0] if self.responses else None

    def wait(self, within: float = 5.0) -> int | None:
        """The final status, acknowledged; None where none comes. What came before is in ``responses``."""
        until = time.monotonic() + within
        while self.status is None or self.status < 200:
            self.socket.settimeout(max(0.001, until - time.monotonic()))
            try:
                message = self.socket.recv(65536).decode("utf-8", "replace")
            except (TimeoutError, ConnectionError):
                return None
            self.text += message
            headers = pjsip_phones.headers_of(message)
            if message.startswith("SIP/2.0 ") and headers.get("cseq") == ["1 INVITE"]:
                self.responses.append((int(message[8:11]), headers))
                self.to = headers.get("to", [self.to])[0]
        self._send("ACK", 1)
        return self.status

    def request(self, method: str, headers: Iterable[tuple[str, str]] = (), body: str = "", kind: str = "") -> None:
        """One more request in the answered call, its answer not waited for. ``kind``: the body's Content-Type."""
        self.sent += 1
        self._send(method, self.sent, headers, body, kind)

    def answer(self, within: float = 5.0) -> int | None:
        """The final status of the last ``request``; None where none comes."""
        until = time.monotonic() + within
        while True:
            self.socket.settimeout(max(0.001, until - time.monotonic()))
            try:
                message = self.socket.recv(65536).decode("utf-8", "replace")
            except (TimeoutError, ConnectionError):
                return None
            self.text += message
            number = pjsip_phones.headers_of(message).get("cseq", [""])[0].partition(" ")[0]
            if re.match(r"SIP/2\.0 [2-6]", message) and number == str(self.sent):
                return int(message[8:11])

    def hangup(self) -> None:
        if self.status is None or self.status < 200:
            self._send("CANCEL", 1)
            if self.status is not None:
                # An answer that crosses it is acknowledged, or the switch would wait for that for half a minute.
                self.wait()
        if self.status == 200:
            self._send("BYE", self.sent + 1)
        self.socket.close()


# The rig.


class FreeswitchRig:
    """The switch and its phones (``Rig``).

    ``dialplan_files``: XML to be dropped in. A path goes to the context that its folder's or its own
    name contains (``public``, ``default``), else to both; ``(context, path)`` says it.
    ``conf_files``: files that replace those of the same name in ``autoload_configs``, their ports,
    passwords and folders made this switch's.
    ``rewrite_timestamps``: the profiles' ``rtp-rewrite-timestamps``. Stock FreeSWITCH (False) begins a
    bridge with the other leg's RTP timestamps, which may jump *back*: PJSIP then takes the first packets
    for late ones, and its user hears nothing for as long as a short ringing before it lasted (measured:
    0.45 s after 0.5 s of it, 0.95 s after 1 s, nothing lost after 1.8 s and more).
    ``digit_ms``: how long the phones press a key.
    """

    name = "freeswitch"

    def __init__(
        self,
        *,
        dialplan_files: Iterable[Path | tuple[str, Path]] = (),
        conf_files: Iterable[Path] = (),
        rewrite_timestamps: bool = True,
        digit_ms: int = 60,
        start: bool = True,
    ) -> None:
        binary = find_freeswitch()
        if binary is None:
            raise RigError("no FreeSWITCH: set $FREESWITCH to its binary")
        self.binary = binary
        self.digit_ms = digit_ms
        self.folder = Path(tempfile.mkdtemp(prefix="esl-apps-fs-"))
        self.conf = self.folder / "conf"
        self.recordings = self.folder / "recordings"
        self.log = self.folder / "log" / "freeswitch.log"
        self.spool = self.folder / "log" / "json_cdr"
        self.phones_folder = self.folder / "phones"
        ports = free_ports(3)
        self.esl_port, self.internal_port, self.external_port = range(ports, ports + 3)
        self.rtp_start = media_ports(_SWITCH_RTP_PORTS)
        self.esl_address = f"{HOST}:{self.esl_port}"
        self.esl_password = ESL_PASSWORD
        self.dial: dict[str, object] = {
            "extension": f"user/{{number}}@{HOST}",
            "external": ["sofia/gateway/pstn/{number}"],
        }
        self.extensions: dict[str, RigPhone] = {}
        self.outsiders: dict[str, RigPhone] = {}
        self.extension_banks: list[PhoneBank] = []
        self.outside_banks: list[PhoneBank] = []
        self.stray_calls: list[RigLeg] = []
        """Calls to outside numbers that no test asked for: refused with 404."""
        self.routes: dict[str, tuple[str, str]] = {}
        self.extra: dict[str, list[str]] = {context: [] for context in CONTEXTS}
        self.users: set[str] = {str(user) for user in USERS}
        self.log_mark = 0
        self.names = itertools.count(1)
        self.taps: list[EventTap] = []
        self._lock = threading.RLock()
        """For phones and banks; never held while the switch is asked something."""
        self._esl_lock = threading.RLock()
        self._growing = False
        self._esl: EslClient | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: subprocess.Popen[bytes] | None = None
        self._paused = False
        self._closed = False
        for folder in ("db", "run", "recordings", "log/json_cdr", "phones", "storage", "cache", "tmp"):
            (self.folder / folder).mkdir(parents=True)
        self.trunk = Trunk(self._bank_for_call)
        self._write_conf(dialplan_files, conf_files, rewrite_timestamps)
        atexit.register(self.close)
        if start:
            self.start()

    # configuration

    def _write_conf(
        self,
        dialplan_files: Iterable[Path | tuple[str, Path]],
        conf_files: Iterable[Path],
        rewrite_timestamps: bool,
    ) -> None:
        shutil.copytree(Path(__file__).parent / "fsconf", self.conf)
        values = {
            "local_ip_v4": HOST,
            "domain": HOST,
            "domain_name": HOST,
            "internal_sip_port": self.internal_port,
            "external_sip_port": self.external_port,
            "rig_esl_port": self.esl_port,
            "rig_esl_password": self.esl_password,
            "rig_trunk_port": self.trunk.ports[0],
            "rig_trunk2_port": self.trunk.ports[1],
            "rig_dead_port": DEAD_PORT,
            "rig_rtp_start": self.rtp_start,
            "rig_rtp_end": self.rtp_start + 398,
            "rig_log": self.log,
            "rig_spool": self.spool,
            "recordings_dir": self.recordings,
            "default_password": PASSWORD,
            "hold_music": f"tone_stream://%(10000,0,{MOH_HZ});loops=-1",
            "global_codec_prefs": "OPUS,G722,PCMU,PCMA",
            "outbound_codec_prefs": "OPUS,G722,PCMU,PCMA",
            "unroll_loops": "true",
            "outbound_caller_name": "FreeSWITCH",
            "outbound_caller_id": "0000000000",
            "call_debug": "false",
            "console_loglevel": "err",
            "default_areacode": "918",
            "default_country": "US",
            "default_provider": "pstn",
            "presence_privacy": "false",
            "us-ring": "%(2000,4000,440,480)",
            "rtp_liberal_dtmf": "true",
            "rig_rewrite_timestamps": str(rewrite_timestamps).lower(),
            "suppress_cng": "true",
        }
        lines = [f'  <X-PRE-PROCESS cmd="set" data={quoteattr(f"{k}={v}")}/>' for k, v in values.items()]
        (self.conf / "vars.xml").write_text("\n".join(["<include>", *lines, "</include>", ""]))
        loaded = self.conf / "autoload_configs"
        for path in conf_files:
            (loaded / path.name).write_text(self._in_this_place(path.read_text()))
        if (loaded / "post_load_modules.conf.xml").exists():  # where a stock switch gets it from
            modules = loaded / "modules.conf.xml"
            modules.write_text(modules.read_text().replace('<load module="mod_json_cdr"/>', ""))
        shipped = dict.fromkeys(CONTEXTS, "")
        for context in CONTEXTS:
            (self.conf / "dialplan" / context).mkdir()
        for item in dialplan_files:
            named, path = item if isinstance(item, tuple) else ("", Path(item))
            where = named or f"{path.parent.name} {path.stem}"
            for context in [c for c in CONTEXTS if c in where] or CONTEXTS:
                shutil.copy(path, self.conf / "dialplan" / context / path.name)
                shipped[context] += path.read_text()
        self.has_unavailable = {c: 'name="esl_apps_unavailable"' in text for c, text in shipped.items()}
        (self.conf / "directory" / "default").mkdir()
        for user in self.users:
            self._write_user(user)
        self._write_routes()

    def _in_this_place(self, text: str) -> str:
        """A shipped configuration file with this switch's folder, port and password in it."""
        for name, value in {
            "log-dir": self.spool,
            "listen-port": self.esl_port,
            "password": self.esl_password,
        }.items():
            text = re.sub(rf'(<param name="{name}" value=)"[^"]*"', rf'\1"{value}"', text)
        return text

    def _write_user(self, number: str) -> None:
        (self.conf / "directory" / "default" / f"{number}.xml").write_text(
            f"""<include>
  <user id="{number}">
    <params>
      <param name="password" value="$${{default_password}}"/>
      <param name="vm-password" value="{number}"/>
    </params>
    <variables>
      <variable name="toll_allow" value="domestic,international,local"/>
      <variable name="accountcode" value="{number}"/>
      <variable name="user_context" value="default"/>
      <variable name="effective_caller_id_name" value="Extension {number}"/>
      <variable name="effective_caller_id_number" value="{number}"/>
      <variable name="outbound_caller_id_name" value="$${{outbound_caller_name}}"/>
      <variable name="outbound_caller_id_number" value="$${{outbound_caller_id}}"/>
      <variable name="callgroup" value="techsupport"/>
    </variables>
  </user>
</include>
"""
        )

    def _write_routes(self) -> None:
        for context in CONTEXTS:
            parts = [
                extension(
                    f"rig_{number}",
                    number,
                    [
                        ("sched_transfer", f"+8 esl_apps_unavailable XML {context}"),
                        ("socket", socket_list(path, node) + " async full"),
                        ("sched_cancel", ""),
                        ("transfer", f"esl_apps_unavailable XML {context}"),
                    ],
                )
                for number, (path, node) in self.routes.items()
            ]
            parts += self.extra[context]
            if not self.has_unavailable[context]:
                parts.append(
                    extension(
                        "esl_apps_unavailable",
                        "esl_apps_unavailable",
                        [
                            ("pre_answer", ""),
                            ("playback", f"tone_stream://%(1500,0,{UNAVAILABLE_HZ})"),
                            ("hangup", "NORMAL_TEMPORARY_FAILURE"),
                        ],
                    )
                )
            text = "\n".join(["<include>", *parts, "</include>", ""])
            # first of its folder: a test's route goes before what is shipped
            (self.conf / "dialplan" / context / "000_rig.xml").write_text(text)

    def route(self, number: str, path: str, node: str) -> None:
        """``node`` may be a list, ``host:port|host:port``: the switch's own failover."""
        self.routes[number] = (path, node)
        self._write_routes()
        self.reload_xml()

    def extension(self, context: str, number: str, actions: Iterable[tuple[str, str]]) -> None:
        """A dialplan extension of the test's own, until ``reset``. ``number`` is taken literally."""
        self.extra[context].append(extension(f"rig_test_{number}", number, actions))
        self._write_routes()
        self.reload_xml()

    def reload_xml(self) -> None:
        reply = self.api("reloadxml")
        if not reply.startswith("+OK"):
            raise RigError(f"reloadxml: {reply}")

    # phones

    def plain(self, script: Script) -> dict[str, Any]:
        values = dataclasses.asdict(script)
        if script.redirect and not script.redirect.startswith("sip"):
            values["redirect"] = f"sip:{script.redirect}@{HOST}:{self.trunk.ports[0]}"
        return values

    def _new_bank(self, kind: str) -> PhoneBank:
        return PhoneBank(kind, self.phones_folder, self.digit_ms, self._on_leg)

    def _on_leg(self, bank: PhoneBank, leg: RigLeg, key: str) -> None:
        with self._lock:
            if leg._leg.direction == "out" or leg.placed:
                return
            leg.placed = True
            phones = self.outsiders if bank.name.startswith("outside") else self.extensions
            phone = phones.get(key)
            (phone._calls if phone else self.stray_calls).append(leg)

    def _bank_for_call(self, ref: str) -> PhoneBank | None:
        """The outside bank for one more call; one more bank before the last place is taken."""
        with self._lock:
            banks = [bank for bank in self.outside_banks if bank.alive and bank.ready.is_set()]
            free = sum(pjsip_phones.MAX_CALLS - len(bank.busy) for bank in banks)
            if free <= 2 and not self._growing and len(banks) < MAX_OUTSIDE_BANKS:
                self._growing = True
                threading.Thread(target=self._grow, daemon=True).start()
            bank = min(banks, key=lambda b: len(b.busy), default=None)
            if bank is None or len(bank.busy) >= pjsip_phones.MAX_CALLS:
                return None
            bank.busy.add(ref)
            return bank

    def _outside_bank(self, ref: str) -> PhoneBank:
        """As ``_bank_for_call``, and waits for the bank that is being started where all are full."""
        banks: list[PhoneBank] = []

        def found() -> bool:
            bank = self._bank_for_call(ref)
            if bank:
                banks.append(bank)
            return bool(bank)

        eventually(found, within=5, message="all outside banks are full")
        return banks[0]

    def _grow(self) -> None:
        try:
            while True:
                bank = self._new_bank("outside").wait_ready()
                with self._lock:
                    phones = list(self.outsiders.items())
                    for answer in [bank.send("script", key=n, script=self.plain(p._script)) for n, p in phones]:
                        answer()
                    self.outside_banks.append(bank)
                self.trunk.retry()
                if not self.trunk.waiting or len(self.outside_banks) >= MAX_OUTSIDE_BANKS or self._closed:
                    return
        finally:
            self._growing = False

    def _extension_bank(self, number: str) -> PhoneBank:
        """A bank for one more registration: another than those that ring for this number already."""
        banks = [bank for bank in self.extension_banks if bank.alive and number not in bank.accounts]
        emptiest = min(banks, key=lambda b: len(b.accounts), default=None)
        if emptiest is None or (emptiest.accounts and len(self.extension_banks) < EXTENSION_BANKS):
            emptiest = self._new_bank("extension").wait_ready()
            self.extension_banks.append(emptiest)
        if len(emptiest.accounts) >= pjsip_phones.MAX_ACCOUNTS - 1:  # one is the bank's own
            raise RigError("too many extensions")
        emptiest.accounts.add(number)
        return emptiest

    def phone(self, number: str, script: Script | None = None, *, registrations: int = 1) -> RigPhone:
        if not re.fullmatch(r"\d{3,4}", number):
            raise RigError(f"{number!r} is no extension")
        if number not in self.users:
            self.users.add(number)
            self._write_user(number)
            self.reload_xml()
        with self._lock:
            phone = self.extensions.setdefault(number, RigPhone(self, number, outside=False))
        phone._calls = []
        for bank in phone.banks[registrations:]:
            bank.ask("unregister", account=number)
        known = [bank for bank in phone.banks if bank.alive][:registrations]
        # a bank that had it before has its account still
        known += [b for b in self.extension_banks if b.alive and number in b.accounts and b not in known]
        phone.banks = known[:registrations]
        while len(phone.banks) < registrations:
            phone.banks.append(self._extension_bank(number))
        phone.script(script or Script())
        registrar = f"{HOST}:{self.internal_port}"
        answers = [
            bank.send("register", account=number, registrar=registrar, user=number, password=PASSWORD)
            for bank in phone.banks
            if not self._is_registered(bank, number)
        ]
        for answer in answers:
            code = answer()["code"]
            if code != 200:
                raise RigError(f"{number} could not register: {code}")
        return phone

    def _is_registered(self, bank: PhoneBank, number: str) -> bool:
        contact = self.api(f"sofia_contact */{number}@{HOST}")
        return f":{bank.port}" in contact

    def outside(self, number: str, script: Script | None = None) -> RigPhone:
        with self._lock:
            phone = self.outsiders.setdefault(number, RigPhone(self, number, outside=True))
            phone._calls = []
        phone.script(script or Script())
        return phone

    def dial_from(self, phone: RigPhone, number: str, headers: Mapping[str, str], from_uri: str | None) -> RigLeg:
        ref = f"out-{next(self.names)}"
        if phone.outside:
            bank = self._outside_bank(ref)
            from_uri = from_uri or f"sip:{phone.number}@{HOST}"
            target = f"sip:{number}@{HOST}:{self.external_port}"
        else:
            if not phone.banks:
                raise RigError(f"{phone.number} is not registered")
            bank = phone.banks[0]
            target = f"sip:{number}@{HOST}:{self.internal_port}"
            bank.busy.add(ref)
        leg = RigLeg(bank, ref, Leg("out", number, started_at=time.time()))
        with bank.lock:
            bank.legs[ref] = leg
        with self._lock:
            phone._calls.append(leg)
        try:
            bank.ask(
                "dial",
                call=ref,
                account=None if phone.outside else phone.number,
                uri=target,
                number=number,
                key=phone.number,
                sender=from_uri,
                headers=dict(headers),
                script=self.plain(phone._script),
            )
        except RigError:
            phone._calls.remove(leg)
            bank.busy.discard(ref)
            raise
        return leg

    # the switch

    def api(self, command: str) -> str:
        with self._esl_lock:
            try:
                return self._api(command)
            except TimeoutError:
                raise
            except OSError:  # it was cut, or the switch is another since
                return self._api(command)

    def _api(self, command: str) -> str:
        try:
            if self._esl is None:
                self._esl = EslClient(self.esl_port, self.esl_password, 10)
            return self._esl.command(f"api {command}").body.decode("utf-8", "replace")
        except OSError:
            if self._esl:
                self._esl.close()
            self._esl = None
            raise

    def listen_events(self, names: str = "all") -> EventTap:
        """A second client that asked for ``event plain NAMES``; closed by the test, or by ``reset``."""
        tap = EventTap(EslClient(self.esl_port, self.esl_password, 5), names)
        self.taps.append(tap)
        return tap

    def live_channels(self) -> int:
        """Sessions, which the core counts at once; ``show channels`` lags behind by its database."""
        match = re.search(r"(\d+) session\(s\) - peak", self.api("status"))
        if not match:
            raise RigError("status has no sessions")
        return int(match[1])

    def raw_call(self, number: str, headers: Iterable[tuple[str, str]], *, sender: str, **more: Any) -> RawCall:
        """A call into the public context whose bytes are the test's: see ``RawCall``."""
        return RawCall(self.external_port, number, headers, sender, **more)

    def log_text(self, *, all_of_it: bool = False) -> str:
        """The switch's log at debug level, since the last ``reset``."""
        with self.log.open("rb") as log:
            log.seek(0 if all_of_it else self.log_mark)
            return log.read().decode("utf-8", "replace")

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        if self.running:
            return
        if not self.outside_banks:  # they come up while the switch does
            self.outside_banks = [self._new_bank("outside") for _ in range(OUTSIDE_BANKS)]
        folders = {"log": "log", "run": "run", "db": "db", "recordings": "recordings"}
        folders |= {"storage": "storage", "cache": "cache", "temp": "tmp", "conf": "conf"}
        command = [str(self.binary), "-nonat", "-nf", "-nc"]
        for option, folder in folders.items():
            command += [f"-{option}", str(self.folder / folder)]
        with (self.folder / "log" / "console.log").open("ab") as console:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT
            )
        # kills the switch when this process is gone, however it went: its pipe closes
        self._keeper = subprocess.Popen(
            ["/bin/sh", "-c", 'cat > /dev/null; kill -9 "$0"', str(self._process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        eventually(self._is_up, within=20, message=f"FreeSWITCH did not start, see {self.folder}/log")
        for bank in self.outside_banks:
            bank.wait_ready()
        self._register_again()

    def _is_up(self) -> bool:
        if not self.running:
            raise RigError(f"FreeSWITCH ended at its start, see {self.folder}/log")
        try:
            return " is ready" in self.api("status") and self.api("sofia status").count("RUNNING") == 2
        except (OSError, RigError):
            return False

    def _register_again(self) -> None:
        answers: list[Callable[..., dict[str, Any]]] = []
        for bank in self.extension_banks:
            accounts = [p.number for p in self.extensions.values() if bank in p.banks]
            if accounts and bank.alive:
                answers.append(bank.send("register_again", accounts=accounts))
        for answer in answers:
            code = answer()["code"]
            if code != 200:
                raise RigError(f"phones could not register again: {code}")

    def kill(self) -> None:
        if self._process is None:
            return
        if self._keeper:
            self._keeper.kill()  # first: it knows the switch by its number, which may be another's soon
            self._keeper.wait()
            if self._keeper.stdin:
                self._keeper.stdin.close()
            self._keeper = None
        self._process.kill()
        self._process.wait()
        self._process = None
        self._paused = False
        with self._esl_lock:
            if self._esl:
                self._esl.close()
                self._esl = None

    def pause(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGSTOP)
            self._paused = True

    def resume(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGCONT)
            self._paused = False

    def drop_sockets(self) -> None:
        """Shut down the switch's own ends of its event-socket connections, in both directions.

        The switch cannot be asked to (``reload mod_event_socket`` is refused while an outbound session
        lives), but the kernel hands a process's descriptors to whoever may trace it.
        """
        if self._process is None:
            return
        ours = {tap.local_port for tap in self.taps} | ({self._esl.local_port} if self._esl else set())
        sip = {self.internal_port, self.external_port}
        pid = self._process.pid
        pidfd = os.pidfd_open(pid)
        try:
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                        continue
                    with socket.socket(fileno=pidfd_getfd(pidfd, int(name))) as theirs:
                        if theirs.family != socket.AF_INET or theirs.type != socket.SOCK_STREAM:
                            continue
                        far, near = theirs.getpeername()[1], theirs.getsockname()[1]
                        if far not in ours and near not in sip and far not in sip:
                            theirs.shutdown(socket.SHUT_RDWR)
        finally:
            os.close(pidfd)

    def reset(self) -> None:
        if self._paused:
            self.resume()
        self.start()
        for tap in self.taps:
            tap.close()
        self.taps = []
        banks = [bank for bank in self.extension_banks + self.outside_banks if bank.alive]
        for answer in [bank.send("clear") for bank in banks]:
            answer()
        self.api("hupall")
        if self.routes or any(self.extra.values()):
            self.routes = {}
            self.extra = {context: [] for context in CONTEXTS}
            self._write_routes()
            self.reload_xml()
        eventually(lambda: self.live_channels() == 0, within=10, message="channels that do not end")
        self._retire_hung_banks()
        forgotten = [(bank, number) for bank in self.outside_banks for number in self.outsiders]
        for answer in [bank.send("script", key=number, script=None) for bank, number in forgotten]:
            answer()
        with self._lock:
            self.trunk.banks.clear()
            self.trunk.waiting.clear()
            self.outsiders = {}
            self.stray_calls = []
            for phone in self.extensions.values():
                phone._calls = []
            for bank in banks:
                with bank.lock:
                    bank.legs = {ref: leg for ref, leg in bank.legs.items() if not leg.ended}
        for path in self.spool.iterdir():
            path.unlink(missing_ok=True)
        self.log_mark = self.log.stat().st_size

    def _retire_hung_banks(self) -> None:
        """All calls are over for the switch: a phone that does not see it is replaced, not waited for."""
        banks = self.extension_banks + self.outside_banks

        def live(bank: PhoneBank) -> bool:
            with bank.lock:
                return not bank.alive or any(not leg.ended for leg in bank.legs.values())

        with contextlib.suppress(AssertionError):
            eventually(lambda: not any(map(live, banks)), within=2)
        for bank in filter(live, banks):
            bank.close()
            for phone in self.extensions.values():
                phone.banks = [other for other in phone.banks if other is not bank]
            if bank in self.extension_banks:
                self.extension_banks.remove(bank)
            else:
                with self._lock:
                    self.outside_banks[self.outside_banks.index(bank)] = self._new_bank("outside").wait_ready()
        for bank in self.outside_banks:
            bank.busy.clear()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        for tap in self.taps:
            tap.close()
        self.kill()  # a private switch with nothing to save; its own shutdown takes seconds
        self.trunk.close()
        for bank in self.extension_banks + self.outside_banks:
            bank.close()
        give_back(self.rtp_start, _SWITCH_RTP_PORTS)
        if not os.environ.get("ESL_APPS_KEEP_RIG"):
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> FreeswitchRig:
        return self

    def __exit__(self, *how: object) -> None:
        self.close()


def socket_list(path: str, node: str) -> str:
    return "|".join(f"{one}/{path.lstrip('/')}" for one in node.split("|"))


def extension(name: str, number: str, actions: Iterable[tuple[str, str]]) -> str:
    lines = [
        f"    <action application={quoteattr(app)}" + (f" data={quoteattr(data)}" if data else "") + "/>"
        for app, data in actions
    ]
    pattern = escape(f"^{re.escape(number)}$", {'"': "&quot;"})
    return "\n".join(
        [
            f"<extension name={quoteattr(name)}>",
            f'  <condition field="destination_number" expression="{pattern}">',
            *lines,
            "  </condition>",
            "</extension>",
        ]
    )


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """``pidfd_getfd(2)``: this process's copy of another's descriptor."""
    libc = ctypes.CDLL(None, use_errno=True)
    copied = libc.syscall(438, pidfd, fd, 0)
    if copied < 0:
        number = ctypes.get_errno() or errno.EPERM
        raise OSError(number, os.strerror(number))
    return int(copied)
