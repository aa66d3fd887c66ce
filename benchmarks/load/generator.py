"""Play FreeSWITCH to the application under test, from a process on another core.

Many calls at a time connect to the application's outbound event socket. Each command gets the answer of FreeSWITCH
1.11.1 (``recordings/frames``) in the same way: the reply at once, then the events of an application in one burst, and
only those that were subscribed to. Digits arrive one by one during the second playback, which ends with ``uuid_break``.
The callee ends the bridge. A call counts only if the application performed the whole script, in order.

One thread with epoll. Frames are rendered once per kind of subscription, so that a burst only has to be joined around
the call's UUID. Two thirds of the time are spent in the kernel.

::

    python -m benchmarks.load.generator --port 9000 --pid 4711 --calls 3000

prints one JSON object. The exit code is 1 if a call failed.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import itertools
import json
import pathlib
import re
import socket
import sys
import time
import urllib.parse
from collections import deque

from benchmarks import process
from benchmarks.load.loop import Failed, Loop, Peer

FRAMES = process.ROOT / "benchmarks" / "recordings" / "frames"
REST = b"-5e55-4e55-8e55-5e5510005e55"  # the part that the UUIDs of both legs share; it identifies the call
A_LEG = b"0a0a0a0a"
APP_UUID = b"eeeeeeee-eeee-4eee-8eee-eeeeeeeeeeee"  # FreeSWITCH's own UUID, if the client sent no Event-UUID

# The events after an `execute`, by burst: FreeSWITCH writes all events of one tick together.
BURSTS: dict[str, list[list[str]]] = {
    "answer": [["park", "execute.answer", "callstate.answer", "answer", "complete.answer"]],
    "playback": [["execute.playback", "playback_start"], ["playback_stop", "complete.playback"]],
    "collect": [["execute.playback", "playback_start"], ["dtmf.4"], ["dtmf.8"], ["dtmf.2"], ["dtmf.1"]],
    "break": [["playback_stop", "complete.playback"]],
    "bridge": [
        ["execute.bridge", "b.answer", "bridge"],
        ["b.hangup_complete", "unbridge", "complete.bridge"],
    ],
    "hangup": [
        [
            "execute.hangup",
            "hangup",
            "complete.hangup",
            "unpark",
            "complete.socket",
            "state.hangup",
            "callstate.hangup",
            "state.reporting",
            "hangup_complete",
            "linger",
        ]
    ],
    "other": [["execute.answer", "complete.answer"]],
}
SCRIPT = ["answer", "playback", "collect", "break", "bridge", "hangup", "exit"]
NOT_IN_MYEVENTS = {"CHANNEL_CALLSTATE", "PLAYBACK_START", "PLAYBACK_STOP"}

OK = b"Content-Type: command/reply\nReply-Text: +OK\n\n"
LINGER = b"Content-Type: command/reply\nReply-Text: +OK will linger\n\n"
LINGER_FOR = b"Content-Type: command/reply\nReply-Text: +OK will linger %s seconds\n\n"
MYEVENTS = b"Content-Type: command/reply\nReply-Text: +OK Events Enabled\n\n"
EVENTS = b"Content-Type: command/reply\nReply-Text: +OK event listener enabled plain\n\n"
FILTER = b"Content-Type: command/reply\nReply-Text: +OK filter added. [%s]=[%s]\n\n"
NOT_FOUND = b"Content-Type: command/reply\nReply-Text: -ERR command not found\n\n"
API = b"Content-Type: api/response\nContent-Length: 4\n\n+OK\n"
BYE = (
    b"Content-Type: command/reply\nReply-Text: +OK bye\n\n"
    b"Content-Type: text/disconnect-notice\nContent-Length: 67\n\n"
    b"Disconnected, goodbye.\nSee you at ClueCon! http://www.cluecon.com/\n"
)


class Frame:
    """A recorded frame: its bytes, its event's name, and whether it is the A-leg's."""

    def __init__(self, path: pathlib.Path) -> None:
        self.raw = path.read_bytes()
        name = re.search(rb"^Event-Name: (.+)$", self.raw, re.M)
        self.name = name[1].decode() if name else ""
        self.a_leg = b"\nUnique-ID: " + A_LEG in self.raw or not name

    def as_json(self) -> Frame:
        """Return the event as FreeSWITCH writes it after ``event json``; other frames are the same."""
        head, _, body = self.raw.partition(b"\n\n")
        if b"text/event-plain" not in head:
            return self
        fields, _, rest = body.partition(b"\n\n")
        event = {
            name: urllib.parse.unquote(value)
            for name, _, value in (line.partition(": ") for line in fields.decode().splitlines())
        }
        text = json.dumps({**event, "_body": rest.decode()} if rest else event, separators=(",", ":")).encode()
        frame = copy.copy(self)
        frame.raw = b"Content-Length: %d\nContent-Type: text/event-json\n\n%s" % (len(text), text)
        return frame

    def for_app_uuid(self, length: int) -> bytes:
        """Return the frame with its Content-Length adjusted for an Application-UUID of this length."""
        extra = self.raw.count(APP_UUID) * (length - len(APP_UUID))
        if not extra:
            return self.raw
        return re.sub(rb"(?<=^Content-Length: )\d+", lambda m: b"%d" % (int(m[0]) + extra), self.raw, count=1)


#: Names of events, whether the B-leg's come, seconds to linger, whether as JSON.
Key = tuple[frozenset[str], bool, str, bool]


class Subscription:
    """The events that a set of `event`, `myevents` and `filter` commands lets through, and its compiled bursts."""

    def __init__(self, frames: dict[str, Frame], key: Key) -> None:
        self.frames, (self.names, self.b_leg, self.linger, as_json) = frames, key
        if as_json:
            self.frames = {name: frame.as_json() for name, frame in frames.items()}
        self.compiled: dict[tuple[str, int], list[list[list[bytes]]]] = {}

    def wants(self, frame: Frame) -> bool:
        if frame.name in {"", "CHANNEL_DATA"}:
            return True
        if not frame.a_leg and not self.b_leg:
            return False
        if "MYEVENTS" in self.names and frame.name not in NOT_IN_MYEVENTS:
            return True
        return "ALL" in self.names or frame.name in self.names

    def bursts(self, step: str, app_uuid: bytes) -> list[list[list[bytes]]]:
        """Return each burst split at the Application-UUID, with each piece split at the call's UUID."""
        key = (step, len(app_uuid))
        compiled = self.compiled.get(key)
        if compiled is None:
            compiled = []
            for names in BURSTS[step]:
                frames = [self.frames[n].for_app_uuid(len(app_uuid)) for n in names if self.wants(self.frames[n])]
                burst = b"".join(frames).replace(b"Linger-Time: -1", b"Linger-Time: " + self.linger.encode())
                compiled.append([piece.split(REST) for piece in burst.split(APP_UUID)] if burst else [])
            self.compiled[key] = compiled
        return compiled


class Call(Peer):
    """The switch's end of an outbound connection."""

    __slots__ = (
        "app_uuid",
        "b_leg",
        "busy",
        "connected",
        "done",
        "events",
        "filters",
        "json",
        "linger",
        "names",
        "queue",
        "rest",
        "started",
        "subscription",
    )

    def __init__(self, sock: socket.socket, rest: bytes, now: float) -> None:
        super().__init__(sock)
        self.rest, self.started = rest, now
        self.connected = self.events = self.filters = self.b_leg = self.json = False
        self.busy = ""  # the application running on the channel
        self.names: frozenset[str] = frozenset()
        self.linger = ""
        self.subscription: Subscription | None = None
        self.app_uuid = b""
        self.done: list[str] = []
        self.queue: deque[tuple[str, bytes]] = deque()  # executes that wait for the running one


class Generator(Loop[Call]):
    def __init__(
        self, port: int, concurrency: int, tick: float = 0.0, rate: float = 0.0, timeout: float = 30.0
    ) -> None:
        super().__init__(tick)
        self.port, self.concurrency, self.timeout = port, concurrency, timeout
        self.interval = 1 / rate if rate else 0.0
        self.frames = {path.stem: Frame(path) for path in FRAMES.glob("*.esl")}
        self.connect_frame = self.frames["connect"].raw.split(REST)
        self.subscriptions: dict[Key, Subscription] = {}
        self.serial = itertools.count(1)
        self.finished = 0
        self.holding = False
        self.held: list[Call] = []

    # running

    def run(self, calls: int) -> float:
        """Place `calls` calls, `concurrency` at a time. Returns the wall time in seconds."""
        began = time.perf_counter()
        target = self.finished + calls
        placed = 0
        swept = began
        while self.finished < target and not self.failures:
            while placed < calls and len(self.peers) < self.concurrency:
                if self.interval and time.perf_counter() < began + placed * self.interval:
                    break
                self.place()
                placed += 1
            self.turn()
            now = time.perf_counter()
            if now - swept > 1:
                swept = now
                self.sweep(now)
        return time.perf_counter() - began

    def hold(self, calls: int) -> None:
        """Bring `calls` calls into a bridge and keep them there."""
        self.holding = True
        placed = 0
        swept = time.perf_counter()
        while len(self.held) < calls:
            while placed < calls and len(self.peers) - len(self.held) < self.concurrency:
                self.place()
                placed += 1
            self.turn()
            now = time.perf_counter()
            if now - swept > 1:
                swept = now
                self.sweep(now)
            if self.failures:
                return

    def release(self) -> None:
        """Let the callees of the held calls hang up, and wait until the calls have ended."""
        self.holding = False
        now = time.perf_counter()
        held, self.held = self.held, []
        target = self.finished + len(held)
        for call in held:
            call.started = now
            self.pending.append((now, call, "bridge", 1))
        while self.finished < target and not self.failures:
            self.turn()
            self.sweep(time.perf_counter())

    def sweep(self, now: float) -> None:
        held = set(map(id, self.held))
        for call in [c for c in self.peers.values() if now - c.started > self.timeout and id(c) not in held]:
            self.end(call, f"not over after {self.timeout:.0f} s; did {call.done}, running {call.busy or 'nothing'}")

    # a call

    def place(self) -> None:
        rest = b"-%04x-4e55-8e55-%012x" % (self.port & 0xFFFF, next(self.serial))
        self.add(Call(self.opened(self.port), rest, time.perf_counter()))

    def closed(self, call: Call) -> str:
        return f"closed by the application after {call.done}"

    def end(self, call: Call, failure: str = "") -> None:
        if self.drop(call):
            self.finished += 1
            if failure:
                self.failures[failure] += 1

    def command(self, call: Call, text: bytes) -> None:
        if text.startswith(b"sendmsg"):
            self.sendmsg(call, text)
            return
        verb, _, rest = text.partition(b" ")
        if verb == b"api":
            self.send(call, API)
            if rest.startswith(b"uuid_break "):
                if call.busy != "collect" or rest.split()[1] != A_LEG + call.rest:
                    raise Failed(f"uuid_break while {call.busy or 'nothing'} runs")
                call.done.append("break")
                self.schedule(call, "break", 0)
        elif verb == b"connect":
            call.connected = True
            self.send(call, call.rest.join(self.connect_frame))
        elif verb == b"exit":
            call.done.append("exit")
            with contextlib.suppress(ConnectionError):  # after exit a client may close without waiting for the answer
                self.send(call, BYE)
            problem = self.deviation(call)
            if call.out:
                problem = problem or "the application stopped reading"
            self.end(call, problem)
        elif verb == b"linger":
            call.linger = rest.decode() or "-1"
            self.send(call, LINGER_FOR % rest if rest else LINGER)
        elif verb == b"myevents":
            call.events, call.names = True, call.names | {"MYEVENTS"}
            self.send(call, MYEVENTS)
        elif verb == b"event":
            kind, *names = rest.decode().upper().split()
            if kind not in {"PLAIN", "JSON"}:
                raise Failed(f"event {kind}: only plain and json are supported")
            call.json = kind == "JSON"
            call.events, call.names = True, call.names.union(names)
            self.send(call, EVENTS)
        elif verb == b"filter":
            name, _, value = rest.partition(b" ")
            call.filters = True
            # Other-Leg-Unique-ID or an exported variable: the B-leg, too.
            call.b_leg |= name.lower() not in {b"unique-id", b"job-owner-uuid"}
            self.send(call, FILTER % (name, value))
        elif verb in {b"divert_events", b"noevents", b"nixevent", b"nolinger"}:
            self.send(call, OK)
        else:
            self.send(call, NOT_FOUND)
            raise Failed(f"command not found: {text[:60]!r}")

    def sendmsg(self, call: Call, text: bytes) -> None:
        headers = {}
        for line in text.split(b"\n")[1:]:
            name, _, value = line.partition(b": ")
            headers[name.lower()] = value
        self.send(call, OK)
        kind = headers.get(b"call-command")
        if kind == b"hangup":
            app = "hangup"
        elif kind == b"execute":
            app = headers[b"execute-app-name"].decode()
        else:
            raise Failed(f"sendmsg {kind!r}")
        app_uuid = headers.get(b"event-uuid", APP_UUID)
        if call.busy:
            if app in BURSTS:
                raise Failed(f"{app} while {call.busy} runs")
            call.queue.append((app, app_uuid))
            return
        self.execute(call, app, app_uuid)

    def execute(self, call: Call, app: str, app_uuid: bytes) -> None:
        if call.subscription is None:
            key = (call.names, call.b_leg and "MYEVENTS" not in call.names, call.linger, call.json)
            call.subscription = self.subscriptions.get(key)
            if call.subscription is None:
                call.subscription = self.subscriptions[key] = Subscription(self.frames, key)
        call.app_uuid = app_uuid
        if app == "playback" and "playback" in call.done:
            app = "collect"
        if app in BURSTS:
            call.done.append(app)
        call.busy = app
        self.schedule(call, app, 0)

    def burst(self, call: Call, step: str, index: int) -> None:
        assert call.subscription is not None
        if step in BURSTS:
            bursts = call.subscription.bursts(step, call.app_uuid)
            pieces = bursts[index]
            last = index + 1 == len(bursts)
        else:
            pieces, last = self.any_app(call, step), True
        if pieces:
            join = call.rest.join
            self.send(call, call.app_uuid.join(map(join, pieces)) if len(pieces) > 1 else join(pieces[0]))
        if step == "bridge" and not last and self.holding:
            self.held.append(call)
        elif not last:
            self.schedule(call, step, index + 1)
        elif step != "collect":  # which goes on until uuid_break
            call.busy = ""
            if call.queue:
                self.execute(call, *call.queue.popleft())

    def any_app(self, call: Call, app: str) -> list[list[bytes]]:
        """Return the events of an application that isn't in the script (set, multiset, export …)."""
        assert call.subscription is not None
        burst = b""
        for name in BURSTS["other"][0]:
            if call.subscription.wants(self.frames[name]):
                body = self.frames[name].raw.partition(b"\n\n")[2]
                body = body.replace(b"pplication: answer\n", b"pplication: %s\n" % app.encode())
                body = body.replace(APP_UUID, call.app_uuid)
                burst += b"Content-Length: %d\nContent-Type: text/event-plain\n\n%s" % (len(body), body)
        return [burst.split(REST)] if burst else []

    def deviation(self, call: Call) -> str:
        """Return how this call deviates from the script, or an empty string."""
        if call.done != SCRIPT:
            return f"did {call.done}"
        if call.busy:
            return f"exit while {call.busy} runs"
        if not call.connected or not call.linger or not call.events:
            return "no connect, linger or events"
        if "MYEVENTS" not in call.names and not call.filters:
            return "no filter: this call would get other calls' events"
        return ""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load.generator", description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pid", type=int, required=True, help="process of the application, whose CPU time is measured")
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--warmup", type=int, default=300)
    parser.add_argument("--concurrency", type=int, default=50)
    parser.add_argument("--hold", type=int, default=0, help="measure memory instead, with this many bridged calls")
    parser.add_argument("--tick", type=float, default=0.0, metavar="MS", help="FreeSWITCH's tick (a real one: 20)")
    parser.add_argument("--rate", type=float, default=0.0, help="calls a second; 0 (default): no limit")
    parser.add_argument("--settle", type=float, default=1.2, help="seconds without calls before each reading")
    parser.add_argument("--core", type=int, default=None)
    options = parser.parse_args(argv)
    if options.core is not None:
        process.pin(0, options.core)
    generator = Generator(options.port, options.concurrency, options.tick / 1000, options.rate)
    generator.run(options.warmup)
    time.sleep(options.settle)
    result: dict[str, object] = {}
    if generator.failures:
        pass
    elif options.hold:
        before = process.memory(options.pid)
        generator.hold(options.hold)
        time.sleep(options.settle)
        after = process.memory(options.pid)
        generator.release()
        result = {"held": options.hold, "idle_kb": before, "held_kb": after}
        result["kb_per_call"] = (after - before) / options.hold
    else:
        app, own = process.cpu(options.pid), time.process_time()
        bytes_before, commands_before = generator.sent_bytes, generator.received
        wall = generator.run(options.calls)
        own = time.process_time() - own
        time.sleep(options.settle)  # a library's clean-up after a call is part of its cost
        app = process.cpu(options.pid) - app
        result = {
            "calls": options.calls,
            "cpu": app,
            "wall": wall,
            "calls_per_cpu_second": options.calls / app,
            "calls_per_second": options.calls / wall,
            "generator_cpu_per_call_us": own / options.calls * 1e6,
            "app_cpu_per_call_us": app / options.calls * 1e6,
            "kb_sent_per_call": (generator.sent_bytes - bytes_before) / options.calls / 1024,
            "commands_per_call": (generator.received - commands_before) / options.calls,
            "rss_kb": process.memory(options.pid),
        }
    result["failures"] = dict(generator.failures)
    print(json.dumps(result))
    return 1 if generator.failures else 0


if __name__ == "__main__":
    sys.exit(main())
