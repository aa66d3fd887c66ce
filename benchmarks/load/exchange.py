"""Play FreeSWITCH, its callers and the API's clients to a complete node, from a process on another core.

The node connects to an inbound event socket here. Each call connects to the node's outbound socket. Requests that begin
calls go over keep-alive HTTP connections. The frames are those that a FreeSWITCH 1.11.1 sent to this node in the same
call (``benchmarks/recordings``), with the same headers and in the same order. Each frame follows as soon as the node
has sent the command that it answers. Only the call's own values are filled in: UUIDs, references, the caller's number,
and the times that go into the record.

A call counts only if the node performed all of it: it prompts the caller before they key, dials B at the recorded
endpoint, and leaves the socket after the end. A call fails if the node does anything else, such as hanging it up or
subscribing to other events.

Orders arrive as JSON lines on standard input; each gets one line of JSON on standard output::

    {"do": "run", "mix": {"disa": 1}, "calls": 3000, "concurrency": 50, "rate": 0}
    {"do": "hold", "mix": {"click2dial": 1}, "calls": 5000, "concurrency": 50}
    {"do": "release"}
"""

from __future__ import annotations

import argparse
import itertools
import json
import operator
import os
import re
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks import process
from benchmarks.load.loop import HOST, Failed, Loop, Peer
from esl_apps.core import dialstring

CALLS = process.ROOT / "benchmarks" / "recordings" / "calls"
#: Seconds within which a call must end, and the node must connect.
PATIENCE = 30.0

OK = b"Content-Type: command/reply\nReply-Text: +OK\n\n"
LINGER = b"Content-Type: command/reply\nReply-Text: +OK will linger %s seconds\n\n"
EVENTS = b"Content-Type: command/reply\nReply-Text: +OK event listener enabled plain\n\n"
DIVERTED = b"Content-Type: command/reply\nReply-Text: +OK events diverted\n\n"
FILTER = b"Content-Type: command/reply\nReply-Text: +OK filter added. [%s]=[%s]\n\n"
SENT = b"Content-Type: command/reply\nReply-Text: +OK 5e555e55-5e55-4e55-8e55-5e555e555e55\n\n"
JOB = b"Content-Type: command/reply\nReply-Text: +OK Job-UUID: %b\nJob-UUID: %b\n\n"
API = b"Content-Type: api/response\nContent-Length: %d\n\n%b"
KEY = b"Content-Length: %d\nContent-Type: text/event-plain\n\n%b"
AUTH = b"Content-Type: auth/request\n\n"
ACCEPTED = b"Content-Type: command/reply\nReply-Text: +OK accepted\n\n"
REFUSED = b"Content-Type: command/reply\nReply-Text: -ERR invalid\n\n"
NOT_FOUND = b"Content-Type: command/reply\nReply-Text: -ERR command not found\n\n"
BYE = (
    b"Content-Type: command/reply\nReply-Text: +OK bye\n\n"
    b"Content-Type: text/disconnect-notice\nContent-Length: 67\n\n"
    b"Disconnected, goodbye.\nSee you at ClueCon! http://www.cluecon.com/\n"
)

UNHEARD = dialstring.UNHEARD.encode()

_REF = re.compile(rb"esl_call_ref=([0-9a-f-]{36})")
_NODE = re.compile(rb"esl_node=([A-Za-z0-9._-]+)")
_SOCKET = re.compile(rb"'&socket\([\d.]+:(\d+)/")
_JOB_UUID = re.compile(rb"\nJob-UUID: ([0-9a-f-]{36})")
_CALL_REF = re.compile(rb'"call_ref":"([0-9a-f-]{36})"')
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)

#: The requests that begin calls: method, path, header of the token, body.
REQUESTS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "click2dial": (
        "POST",
        "/click2dial/calls",
        "Authorization: Bearer ",
        {"agent": "1000", "callee": "0820001234", "outbound_id": "27115550000"},
    ),
    "autodial": (
        "PUT",
        "/v2/accounts/acme/cccps/autodial",
        "X-Auth-Token: ",
        {"data": {"a_leg_number": "27820001235", "b_leg_number": "0820001234", "callback_delay": 0}},
    ),
}

#: The output of `status`, from a FreeSWITCH 1.11.1.
STATUS = (
    b"UP 0 years, 0 days, 0 hours, 19 minutes, 28 seconds, 276 milliseconds, 992 microseconds\n"
    b"FreeSWITCH (Version 1.11.1-release  64bit) is ready\n848 session(s) since startup\n"
    b"%d session(s) - peak 43, last 5min 4 \n0 session(s) per Sec out of max 1000, peak 41, last 5min 4 \n"
    b"50000 session(s) max\nmin idle cpu 0.00/97.00\nCurrent Stack Size/Max 240K/8192K\n"
)

# The kinds of slots in a template; also the index of each kind's value in `Values`.
REST, REF, CALLER, BEGUN, DIALLED, ENDED, APP_UUID, JOB_UUID = range(8)
Values = tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes]


class Template:
    """A recorded frame with slots in it."""

    def __init__(self, raw: bytes, slots: Callable[[bytes], Iterator[tuple[int, int, int]]]) -> None:
        """``slots`` yields begin, end and kind of each slot, in order."""
        self._raw = raw
        self._slots = list(slots(raw))
        self._by_length: dict[int, tuple[bytes, Callable[[Values], tuple[bytes, ...]]]] = {}
        # Filled with the recorded values, the template has to give the recorded frame.
        assert self._compile(0)[0] % tuple(raw[a:b] for a, b, _kind in self._slots) == raw

    def render(self, values: Values) -> bytes:
        length = len(values[APP_UUID])
        compiled = self._by_length.get(length)
        if compiled is None:
            widths = sum(length - (b - a) for a, b, kind in self._slots if kind == APP_UUID)
            compiled = self._by_length[length] = self._compile(widths)
        return compiled[0] % compiled[1](values)

    def _compile(self, wider: int) -> tuple[bytes, Callable[[Values], tuple[bytes, ...]]]:
        """Return format and values for Application-UUIDs that make the frame ``wider`` by so many bytes in all."""
        parts, at = [], 0
        for begin, end, _kind in self._slots:
            parts.append(self._raw[at:begin].replace(b"%", b"%%"))
            at = end
        parts.append(self._raw[at:].replace(b"%", b"%%"))
        text = b"%b".join(parts)
        if wider:
            text = re.sub(rb"(?<=^Content-Length: )\d+", lambda m: b"%d" % (int(m[0]) + wider), text, count=1)
        kinds = [kind for _begin, _end, kind in self._slots]
        if len(kinds) == 1:
            only = kinds[0]
            return text, lambda values: (values[only],)
        return text, operator.itemgetter(*kinds) if kinds else lambda _values: ()


def chunks(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield direction and bytes of each frame and command of a recording."""
    data = path.read_bytes()
    at = 0
    while at < len(data):
        end = data.index(b"\n", at)
        _, _, direction, length = data[at:end].decode().split(" ")
        at = end + 1 + int(length) + 1
        yield direction, data[end + 1 : at - 1]


def header(frame: bytes, name: bytes) -> bytes:
    match = re.search(rb"^" + re.escape(name) + rb": (.*)$", frame, re.M)
    return match[1] if match else b""


class Script:
    """The recorded call of an application: its frames by name, and the actions of its parties.

    A frame is named after its leg and event (``b.answer``), or ``complete.APPLICATION``. Several frames of one name are
    sent in the order of the recording; the last is repeated if the node needs more.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        outbound = list(chunks(CALLS / f"{name}.outbound.esl"))
        inbound = list(chunks(CALLS / f"{name}.inbound.esl"))
        sent = [text for direction, text in outbound if direction == ">"]
        frames = [frame for direction, frame in outbound if direction == "<"]
        #: Whether the node places the A-leg.
        self.placed = any(text.startswith(b"bgapi originate") for _direction, text in inbound)
        self.caller = header(frames[0], b"Caller-Caller-ID-Number")
        self.core_uuid = header(frames[0], b"Core-UUID")
        self._aleg = header(frames[0], b"Unique-ID")
        answers = [frame for frame in frames if header(frame, b"Event-Name") == b"CHANNEL_ANSWER"]
        answer = next(frame for frame in answers if header(frame, b"Unique-ID") != self._aleg)
        self._bleg = header(answer, b"Unique-ID")
        self._ref = header(answer, b"variable_esl_call_ref")
        self._first = int(header(answer, b"Caller-Channel-Created-Time"))
        self._answered = int(header(answer, b"Caller-Channel-Answered-Time"))
        self._slots = re.compile(
            b"|".join([self._aleg[8:], self._bleg[8:], self._ref, self.caller, rb"(?<!\d)1[67]\d{14}(?!\d)"])
            + rb"|(?<=\nApplication-UUID: )\d+(?=\n)|(?<=\nJob-UUID: )[0-9a-f-]{36}"
        )
        #: The node's subscriptions, the endpoint that it bridges to, and the keys pressed during each playback.
        self.events = {text[:-2] for text in sent if text.startswith(b"event plain")}
        self.endpoint = _endpoint(next(text for text in sent if b"execute-app-name: bridge\n" in text))
        self.keys = self._pressed(outbound)
        self.connect = self._template(frames[0])
        self.outbound = self._by_name(frames[1:])
        self.inbound = self._by_name([frame for direction, frame in inbound if direction == "<"])
        #: Whether A stays up after B has hung up, and can dial another number.
        self.session = b"hangup_after_bridge=false" in b"".join(sent)
        # The frames of a bridge, by burst, and those of the caller hanging up.
        ends = ["b.hangup", "b.hangup_complete"]
        leaves = self._recorded("complete.socket", "a.hangup_complete", "notice")
        dialled = [["b.progress"], self._recorded("b.answer", "a.progress_media", "a.answer")]
        if self.session:
            self.bridge = [*dialled, ends, ["complete.bridge"]]
        else:
            self.bridge = [*dialled, [*ends, "a.hangup", "complete.bridge", *leaves]]
        self.leaves = ["a.hangup", "complete.playback", *leaves]
        # Frames that come together with an application's completion.
        self.along_with = {"answer": self._recorded("a.progress_media", "a.answer"), "ring_ready": ["a.progress"]}
        if "a.progress_media" in dialled[1]:
            self.along_with["answer"] = []

    def _recorded(self, *names: str) -> list[str]:
        """Return those names of which the recording has a frame."""
        return [name for name in names if name in self.outbound or name in self.inbound]

    def _pressed(self, outbound: list[tuple[str, bytes]]) -> list[list[bytes]]:
        keys: list[list[bytes]] = []
        for direction, data in outbound:
            if direction == ">" and b"execute-app-name: playback\n" in data:
                keys.append([])
            elif direction == "<" and (body := data.partition(b"\n\n")[2]).startswith(b"key: "):
                keys[-1].append(KEY % (len(body), body))
        return keys

    def _by_name(self, frames: list[bytes]) -> dict[str, list[Template]]:
        templates: dict[str, list[Template]] = {}
        for frame in frames:
            event = header(frame, b"Event-Name").decode().removeprefix("CHANNEL_").lower()
            if event == "execute_complete":
                name = f"complete.{header(frame, b'Application').decode()}"
            elif event == "background_job":
                name = "job"
            elif event:
                name = f"{'a' if header(frame, b'Unique-ID') == self._aleg else 'b'}.{event}"
            elif header(frame, b"Content-Disposition") == b"linger":
                name = "notice"
            else:
                continue
            templates.setdefault(name, []).append(self._template(frame))
        return templates

    def _template(self, frame: bytes) -> Template:
        return Template(frame, self._find)

    def _find(self, raw: bytes) -> Iterator[tuple[int, int, int]]:
        kinds = {self._aleg[8:]: REST, self._bleg[8:]: REST, self._ref: REF, self.caller: CALLER}
        for match in self._slots.finditer(raw):
            text = match[0]
            kind = kinds.get(text, -1)
            if kind == CALLER and self.placed:
                continue
            if kind < 0 and len(text) == 36:
                kind = JOB_UUID
            elif kind < 0 and len(text) == 16:
                at = int(text)
                kind = BEGUN if at < self._first else DIALLED if at <= self._answered else ENDED
            elif kind < 0:
                kind = APP_UUID
            yield match.start(), match.end(), kind


def _endpoint(bridge: bytes) -> bytes:
    return bridge.rpartition(b"}")[2].rstrip(b"\n")


class Client(Peer):
    """A keep-alive connection to an HTTP port of the node, and the request that it sends there."""

    __slots__ = ("app", "asked", "port", "request")

    def __init__(self, app: str, port: int, token: str) -> None:
        super().__init__(None)
        self.app, self.port, self.request = app, port, request(app, port, token)
        self.asked = False


def request(app: str, port: int, token: str) -> bytes:
    method, path, header_, body = REQUESTS[app]
    text = json.dumps(body)
    return (
        f"{method} {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\n{header_}{token}\r\nAccept: application/json\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n{text}"
    ).encode()


def interleaved(mix: dict[str, int]) -> list[str]:
    """Return the applications of one round of `mix`, evenly interleaved."""
    positions = [((i + 0.5) / count, app) for app, count in mix.items() for i in range(count)]
    return [app for _at, app in sorted(positions)]


class Control(Peer):
    """The node's connection to the inbound event socket."""

    __slots__ = ("authenticated", "nodes", "subscribed")

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.authenticated = self.subscribed = False
        self.nodes: set[bytes] = set()


class Listener(Peer):
    """The inbound event socket itself."""

    __slots__ = ()


class Orders(Peer):
    """Standard input."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(None)
        self.fd = 0


class Call(Peer):
    """A call, from its INVITE or request to its end. As a peer, it is the socket of the A-leg."""

    __slots__ = (
        "accepted",
        "app_uuid",
        "busy",
        "counts",
        "done",
        "held",
        "job",
        "keys",
        "node",
        "playing",
        "queue",
        "ref",
        "script",
        "serial",
        "started",
        "target",
        "times",
        "values",
    )

    def __init__(self, script: Script, serial: int, caller: bytes, now: float) -> None:
        super().__init__(None)
        self.script, self.serial, self.started = script, serial, now
        self.target = 0  # the port to connect to when the leg answers
        self.ref = b""
        self.node = b""
        self.job = b""
        self.accepted = not script.placed
        self.busy = ""  # the application running on the channel
        self.app_uuid = b""
        self.playing = -1  # index of the current playback
        self.keys: deque[bytes] = deque()
        self.queue: deque[tuple[str, bytes]] = deque()  # executes that wait for the running one
        self.counts: Counter[str] = Counter()  # how many frames of each name were sent
        self.done: list[str] = []
        self.held = False
        stamp = _stamp()
        self.times = [stamp, stamp, stamp]
        rest = b"-%04x-4e55-8e55-%012x" % (os.getpid() & 0xFFFF, serial)
        self.values: Values = (rest, b"", caller, stamp, stamp, stamp, b"", b"")

    def at(self, which: int) -> None:
        """Set the time of DIALLED or ENDED, and of what follows it, to now."""
        self.times[which - BEGUN :] = [_stamp()] * (ENDED + 1 - which)


def _stamp() -> bytes:
    return b"%d" % (time.time() * 1e6)


class Exchange(Loop[Peer]):
    def __init__(self, port: int, password: str, apis: list[dict[str, Any]], admin: dict[str, Any]) -> None:
        """``apis`` has ``port`` and ``token`` of each integrator, ``admin`` those of the admin port."""
        super().__init__(0.0)
        self.password = password.encode()
        self.apis, self.admin = apis, admin
        self.scripts = {name: Script(name) for name in ("disa", "dialthrough", "click2dial", "inbound", "autodial")}
        self.node_ports = itertools.cycle([0])
        self.callers = 10_000
        self.calls: dict[int, Call] = {}
        """Calls that have not ended, by serial number."""
        self.by_ref: dict[bytes, Call] = {}
        self.serials = itertools.count(1)
        self.finished = 0
        self.refs: list[str] = []
        self.holding = False
        self.held: list[Call] = []
        self.controls: list[Control] = []
        self.unsent: dict[Control, list[bytes]] = {}
        """Frames for the inbound connections, to be sent at the end of the turn."""
        self.idle: dict[str, deque[Client]] = {}
        self.waiting: deque[Call] = deque()
        """Calls whose request waits for a connection."""
        self.without_ref: dict[str, deque[Call]] = {app: deque() for app in REQUESTS}
        """Calls that were requested, but whose call_ref the node hasn't told yet."""
        self.orders: deque[dict[str, Any]] = deque()
        sock = socket.create_server((HOST, port), backlog=128)
        sock.setblocking(False)
        self.add(Listener(sock))

    # Orders -------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Carry out orders until standard input ends."""
        while True:
            self.turn()
            while self.orders:
                order = self.orders.popleft()
                before = self.received, self.sent_bytes, time.process_time()
                began = time.perf_counter()
                getattr(self, order.pop("do"))(**order)
                result = {
                    "wall": time.perf_counter() - began,
                    "cpu": time.process_time() - before[2],
                    "commands": self.received - before[0],
                    "bytes": self.sent_bytes - before[1],
                    "refs": self.refs,
                    "failures": dict(self.failures),
                }
                self.refs = []
                self.failures.clear()
                print(json.dumps(result), flush=True)

    def ready(self, ports: list[int], connections: int) -> None:
        """Wait until `connections` inbound connections have subscribed. Callers connect to `ports` in turn."""
        self.node_ports = itertools.cycle(ports)
        until = time.perf_counter() + PATIENCE
        while sum(control.subscribed for control in self.controls) < connections:
            if time.perf_counter() > until:
                self.failures["the node did not connect"] += 1
                return
            self.turn()

    def dial(self, callers: int = 10_000, tick: float = 0.0, connections: int = 16) -> None:
        """Set how many caller numbers, which tick (in seconds) and how many HTTP connections per port to use."""
        self.callers, self.tick = callers, tick
        for clients in self.idle.values():
            for client in clients:
                self.drop(client)
        self.idle = {}
        per_integrator = connections if len(self.apis) == 1 else 1
        for app, ports, count in (("click2dial", self.apis, per_integrator), ("autodial", [self.admin], connections)):
            for api in ports * count:
                self.idle.setdefault(app, deque()).append(Client(app, **api))

    def run(self, mix: dict[str, int], calls: int, concurrency: int = 50, rate: float = 0.0) -> None:
        """Place `calls` calls, `concurrency` at a time, and wait for their ends. `mix` has each application's share."""
        self.interval = 1 / rate if rate else 0.0
        turns = itertools.cycle(interleaved(mix))
        began = sweep = time.perf_counter()
        target = self.finished + calls
        placed = 0
        while self.finished < target and not self.failures:
            while placed < calls and len(self.calls) - len(self.held) < concurrency:
                if self.interval and time.perf_counter() < began + placed * self.interval:
                    break
                self.place(next(turns))
                placed += 1
            self.turn()
            sweep = self.sweep(sweep)
        self.interval = 0.0

    def hold(self, mix: dict[str, int], calls: int, concurrency: int = 50) -> None:
        """Bring `calls` more calls into a bridge and keep them there."""
        self.holding = True
        turns = itertools.cycle(interleaved(mix))
        target = len(self.held) + calls
        sweep = time.perf_counter()
        while len(self.held) < target and not self.failures:
            while len(self.calls) < min(target, len(self.held) + concurrency):
                self.place(next(turns))
            self.turn()
            sweep = self.sweep(sweep)
        self.holding = False

    def release(self) -> None:
        """Let the callees of the held calls hang up, and wait until the calls have ended."""
        held, self.held = self.held, []
        target = self.finished + len(held)
        sweep = time.perf_counter()
        for i in range(0, len(held), 50):
            for call in held[i : i + 50]:
                call.held = False
                call.started = time.perf_counter()
                self.schedule(call, "bridge", 2)
            while self.finished < target - len(held) + min(i + 50, len(held)) and not self.failures:
                self.turn()
                sweep = self.sweep(sweep)

    def sweep(self, last: float) -> float:
        now = time.perf_counter()
        if now - last < 1:
            return last
        for call in [call for call in self.calls.values() if now - call.started > PATIENCE and not call.held]:
            self.end(call, f"not over after {PATIENCE:.0f} s; did {call.done}, running {call.busy or 'nothing'}")
        return now

    # Calls --------------------------------------------------------------------------------------------

    def place(self, app: str) -> None:
        serial = next(self.serials)
        script = self.scripts[app]
        call = Call(script, serial, b"082%07d" % (serial % self.callers), time.perf_counter())
        self.calls[serial] = call
        if script.placed:
            self.waiting.append(call)
            self.send_requests()
        else:
            call.attach(self.opened(next(self.node_ports)))
            self.add(call)

    def send_requests(self) -> None:
        """Send waiting requests, as far as there are connections."""
        for _ in range(len(self.waiting)):
            call = self.waiting.popleft()
            clients = self.idle[call.script.name]
            if not clients:
                self.waiting.append(call)
                continue
            client = clients.popleft()
            self.without_ref[call.script.name].append(call)
            if client.fd < 0:
                client.attach(self.opened(client.port))
                self.add(client)
            client.asked = True
            self.send(client, client.request)

    def end(self, peer: Peer, failure: str = "") -> None:
        if not isinstance(peer, Call):
            self.drop(peer)
            if isinstance(peer, Control):
                self.controls.remove(peer)
            self.failures[failure or "a connection was lost"] += 1
            return
        if peer.fd >= 0:
            self.drop(peer)
        if self.calls.pop(peer.serial, None) is None:
            return
        self.by_ref.pop(peer.ref, None)
        self.finished += 1
        self.refs.append(peer.ref.decode())
        if failure:
            self.failures[f"{peer.script.name}: {failure}"] += 1

    def closed(self, peer: Peer) -> str:
        if isinstance(peer, Call):
            return f"closed by the node after {peer.done}"
        return f"{type(peer).__name__.lower()}: closed by the node"

    def deviation(self, call: Call) -> str:
        """Return how this call deviates from its script, or an empty string."""
        if not call.accepted:
            return "its request got no 2xx"
        if call.counts["a.hangup_complete"] != 1 or call.counts["b.hangup_complete"] != 1:
            return f"the node left the call before its end, after {call.done}"
        if any(call.keys) or (call.script.session and call.playing + 1 != len(call.script.keys)):
            return f"the caller was prompted {call.playing + 1} times; did {call.done}"
        return ""

    # Input --------------------------------------------------------------------------------------------

    def turn(self) -> None:
        super().turn()
        if self.unsent:
            for control, frames in self.unsent.items():
                if control.fd in self.peers:
                    self.send(control, b"".join(frames))
            self.unsent.clear()

    def readable(self, peer: Peer) -> None:
        if isinstance(peer, Listener):
            sock, _ = peer.sock.accept()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            control = Control(sock)
            self.controls.append(control)
            self.add(control)
            self.send(control, AUTH)
        elif isinstance(peer, Orders):
            data = os.read(peer.fd, 65536)
            if not data:
                sys.exit(1)  # the benchmark that gives the orders is gone
            *lines, peer.buffer = (peer.buffer + data).split(b"\n")
            self.orders.extend(json.loads(line) for line in lines)
        elif isinstance(peer, Client):
            self.read_answer(peer)
        else:
            super().readable(peer)

    def read_answer(self, client: Client) -> None:
        data = client.buffer + client.sock.recv(65536)
        if not data and not client.asked:
            # The node closes idle connections after a while.
            self.drop(client)
            client.fd = -1
            return
        head = data.find(b"\r\n\r\n")
        client.buffer = data
        if head < 0 and data:
            return
        length = _CONTENT_LENGTH.search(data)
        if not client.asked or length is None:
            raise Failed("HTTP: closed by the node")
        if len(data) < head + 4 + int(length[1]):
            return
        client.buffer = b""
        client.asked = False
        self.idle[client.app].append(client)
        match = _CALL_REF.search(data, head)
        if data[9:10] != b"2" or match is None:
            first = data[:head].partition(b"\r")[0]
            raise Failed(f"HTTP: {first.decode()} {data[head + 4 :].decode()[:200]}")
        # The originate may have arrived before the HTTP answer.
        call = self.by_ref.get(match[1]) or self.call_for(client.app, match[1])
        call.accepted = True
        self.send_requests()

    def call_for(self, app: str, ref: bytes) -> Call:
        """Return the call for a new call_ref. Requests are all alike: take the oldest that has no call_ref yet."""
        calls = self.without_ref[app]
        if not calls:
            raise Failed(f"a call that was not requested: {app} {ref.decode()}")
        call = calls.popleft()
        self.assign_ref(call, ref)
        return call

    def assign_ref(self, call: Call, ref: bytes) -> None:
        call.ref = ref
        self.by_ref[ref] = call

    def command(self, peer: Peer, text: bytes) -> None:
        if isinstance(peer, Control):
            self.control(peer, text)
        else:
            assert isinstance(peer, Call)
            self.outbound(peer, text)

    # The inbound event socket -------------------------------------------------------------------------

    def control(self, peer: Control, text: bytes) -> None:
        verb, _, rest = text.partition(b" ")
        if verb == b"auth":
            peer.authenticated = rest == self.password
            self.send(peer, ACCEPTED if peer.authenticated else REFUSED)
        elif not peer.authenticated:
            raise Failed("control: a command before auth")
        elif verb == b"sendevent":
            self.send(peer, SENT)
        elif verb == b"api":
            output = self.api(rest)
            self.send(peer, API % (len(output), output))
        elif verb == b"bgapi":
            self.background(peer, rest)
        elif verb == b"filter":
            name, _, value = rest.partition(b" ")
            if name == b"variable_esl_node":
                peer.nodes.add(value)
            self.send(peer, FILTER % (name, value))
        elif verb == b"event":
            peer.subscribed = True
            self.send(peer, EVENTS)
        else:
            self.send(peer, NOT_FOUND)
            raise Failed(f"control: command not found: {text[:60]!r}")

    def background(self, peer: Control, text: bytes) -> None:
        job = _JOB_UUID.search(text)
        ref = _REF.search(text)
        if text.startswith(b"status") and job is not None:
            # Asked for its time. No answer: calls then go by the times of their own events.
            self.send(peer, JOB % (job[1], job[1]))
            return
        if not text.startswith(b"originate ") or job is None or ref is None:
            raise Failed(f"control: bgapi {text[:60]!r}")
        self.send(peer, JOB % (job[1], job[1]))
        app = "autodial" if b"esl_app=autodial" in text else "click2dial"
        call = self.by_ref.get(ref[1]) or self.call_for(app, ref[1])
        call.job = job[1]
        call.node = (_NODE.search(text) or [b"", b""])[1]
        call.done.append("originate")
        target = _SOCKET.search(text)
        if target is None:
            raise Failed(f"control: an originate to no socket: {text[-80:]!r}")
        call.target = int(target[1])
        self.schedule(peer, "a.progress", call.serial)

    def api(self, text: bytes) -> bytes:
        """Return the output of an api command."""
        verb, _, rest = text.partition(b" ")
        if verb == b"status":
            return STATUS % len(self.calls)
        if verb == b"global_getvar":
            return self.scripts["disa"].core_uuid
        if verb == b"uuid_exists":
            return b"true" if any(rest[8:] == call.values[REST] for call in self.calls.values()) else b"false"
        if verb == b"show":
            return b'{"row_count":0}' if rest.endswith(b"as json") else b"\n0 total.\n"
        if verb in (b"uuid_setvar", b"uuid_break", b"sched_del", b"global_setvar"):
            return b"+OK\n"
        # hupall and uuid_kill fail, too: these calls end without the node's help.
        raise Failed(f"api {text[:80].decode('latin-1')}")

    # The outbound event socket ------------------------------------------------------------------------

    def outbound(self, call: Call, text: bytes) -> None:
        if text.startswith(b"sendmsg"):
            self.sendmsg(call, text)
            return
        verb, _, rest = text.partition(b" ")
        if verb == b"api":
            output = self.api(rest)
            self.send(call, API % (len(output), output))
            if rest.startswith(b"uuid_break ") and call.busy == "playback":
                self.schedule(call, "complete.playback", 0)
        elif verb == b"connect":
            self.update_values(call)
            self.send(call, call.script.connect.render(call.values))
        elif verb == b"linger":
            self.send(call, LINGER % rest)
        elif verb == b"filter":
            name, _, value = rest.partition(b" ")
            if name == b"variable_esl_bleg":
                self.assign_ref(call, value)
                self.update_values(call)
            self.send(call, FILTER % (name, value))
        elif verb == b"event":
            if text not in call.script.events:
                raise Failed(f"{text.decode()}: not in the recording; make a new one: python -m benchmarks.recordings")
            self.send(call, EVENTS)
        elif verb == b"divert_events":
            self.send(call, DIVERTED)
        elif verb == b"exit":
            problem = self.deviation(call)
            with suppress(ConnectionError):  # after exit the node may close without waiting for the answer
                self.send(call, BYE)
            self.end(call, problem)
        else:
            self.send(call, NOT_FOUND)
            raise Failed(f"command not found: {text[:60]!r}")

    def sendmsg(self, call: Call, text: bytes) -> None:
        headers = dict(line.partition(b": ")[::2] for line in text.split(b"\n")[1:])
        self.send(call, OK)
        app = headers[b"execute-app-name"].decode()
        call.done.append(app)
        if app == "bridge" and _endpoint(text) != call.script.endpoint:
            raise Failed(f"bridge to {_endpoint(text).decode()}, not to {call.script.endpoint.decode()}")
        if not call.node and app == "multiset":
            call.node = (_NODE.search(text) or [b"", b""])[1]
        if call.busy:
            call.queue.append((app, headers[b"Event-UUID"]))
        else:
            self.execute(call, app, headers[b"Event-UUID"])

    def execute(self, call: Call, app: str, app_uuid: bytes) -> None:
        call.busy, call.app_uuid = app, app_uuid
        if app == "bridge":
            call.at(DIALLED)
            self.schedule(call, "bridge", 0)
        elif app == "playback":
            call.playing += 1
            keys = call.script.keys
            if call.playing < len(keys) and keys[call.playing]:
                call.keys.extend(keys[call.playing])
                self.schedule(call, "key", 0)
            elif call.script.session and call.playing == len(keys) - 1:
                self.schedule(call, "leaves", 0)
            else:
                raise Failed(f"a playback that is not in the recording, after {call.done}")
        else:
            self.schedule(call, f"complete.{app}", 0)

    def burst(self, peer: Peer, step: str, index: int) -> None:
        if isinstance(peer, Control):
            self.ring(peer, step, index)
            return
        assert isinstance(peer, Call)
        call, script = peer, peer.script
        if step == "key":
            self.send(call, call.keys.popleft())
            if call.keys:
                self.schedule(call, "key", 0)
        elif step == "leaves":
            call.busy = ""
            self.send_frames(call, script.leaves)
        elif step == "bridge":
            last = index + 1 == len(script.bridge)
            if index == 2:
                call.at(ENDED)
            self.send_frames(call, script.bridge[index])
            if last:
                self.completed(call)
            elif index == 1 and self.holding:
                call.held = True
                self.held.append(call)
            else:
                self.schedule(call, "bridge", index + 1)
        else:
            assert step.startswith("complete.")
            if call.busy != step[9:]:
                return  # a second uuid_break
            # The node asks for no completion event of an application that it doesn't wait for.
            self.send_frames(
                call, [*script.along_with.get(step[9:], ()), *([] if call.app_uuid == UNHEARD else [step])]
            )
            self.completed(call)

    def ring(self, control: Control, step: str, serial: int) -> None:
        """Let an A-leg that the node placed ring, then answer and connect to the node."""
        call = self.calls.get(serial)
        if call is None:
            return
        self.send_frames(call, [step])
        if step == "a.progress":
            self.schedule(control, "job", serial)
        else:
            call.attach(self.opened(call.target))
            self.add(call)

    def completed(self, call: Call) -> None:
        call.busy = ""
        if call.queue:
            self.execute(call, *call.queue.popleft())

    def send_frames(self, call: Call, names: list[str]) -> None:
        """Send frames to the call's socket, and to its node's inbound connection as far as that has them."""
        self.update_values(call)
        counts, script = call.counts, call.script
        frames = []
        for name in names:
            index = counts[name]
            counts[name] = index + 1
            templates = script.outbound.get(name)
            if templates is not None and call.fd >= 0:
                frames.append(templates[min(index, len(templates) - 1)].render(call.values))
            inbound = script.inbound.get(name)
            if inbound is not None:
                frame = inbound[min(index, len(inbound) - 1)].render(call.values)
                for control in self.controls:
                    if call.node in control.nodes:
                        self.unsent.setdefault(control, []).append(frame)
            if templates is None and inbound is None:
                raise Failed(f"no {name} in the recording")
        if frames:
            self.send(call, b"".join(frames))

    @staticmethod
    def update_values(call: Call) -> None:
        rest, _ref, caller = call.values[:3]
        call.values = (rest, call.ref, caller, *call.times, call.app_uuid, call.job)  # type: ignore[assignment]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load.exchange", description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, required=True, help="port of the inbound event socket")
    parser.add_argument("--password", required=True)
    parser.add_argument("--apis", type=json.loads, required=True, help="port and token of each integrator, as JSON")
    parser.add_argument("--admin", type=json.loads, required=True, help="port and token of the admin port, as JSON")
    options = parser.parse_args()
    exchange = Exchange(options.port, options.password, options.apis, options.admin)
    exchange.add(Orders())
    exchange.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
