"""Thousands of malformed frames and requests for a real node, and what the node holds before and after.

Frames go both ways: a peer connects to the node's outbound listener as a switch would, and a hostile switch accepts
the node's own connection and its password, then sends nonsense. Requests go to both HTTP ports. A seed decides all.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import gevent
from gevent import socket
from gevent.pool import Pool
from gevent.server import StreamServer

from tests.attack.forgeries import PAYLOADS
from tests.rig.base import Script
from tests.rig.sandbox import SandboxRig
from tests.support.commands import split
from tests.support.descriptors import connections, descriptors
from tests.support.node import ADMIN_TOKEN, TOKEN, Node, RedisServer, configuration, request
from tests.support.peer import api_response, channel_data, complete, event, goodbye, linger_notice, raw_event, reply

UUID = "eb43d895-1f07-4a4e-93fc-ba8febf183b8"
PATHS = ("disa/acme/front", "dialthrough", "callback", "inbound", "click2dial", "click2dial/acme", "nowhere", "")
_AT_ONCE = 40


class WatchedNode(Node):
    def _spawn(self, log: BinaryIO) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.attack.watched", "serve", "-c", str(self.file)]
        return subprocess.Popen(command, stderr=log, stdout=log)

    def held(self) -> dict[str, int]:
        """Greenlets and objects, as the node itself counts them."""
        assert self.process is not None
        before = sum("held" in line for line in self.lines())
        self.process.send_signal(signal.SIGUSR2)
        end = time.monotonic() + 30
        while True:
            found = [line["held"] for line in self.lines() if "held" in line]
            if len(found) > before:
                return dict(found[-1])
            assert time.monotonic() < end, "the node does not say what it holds"
            gevent.sleep(0.05)


@dataclass
class Figures:
    """The resources that a node holds at a moment."""

    rss_kb: int
    fds: int
    """Descriptors, without the bounded pool of connections to Redis."""
    greenlets: int
    objects: int
    calls: int
    sockets: int

    def __str__(self) -> str:
        return (
            f"RSS {self.rss_kb / 1024:6.1f} MB   descriptors {self.fds:4}   greenlets {self.greenlets:4}   "
            f"objects {self.objects:7}   live calls {self.calls:3}   event sockets {self.sockets:3}"
        )


def metric(node: Node, name: str) -> int:
    text = request(node.admin, "GET", "/metrics", token=None).body.decode()
    return int(sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name)))


def figures(node: WatchedNode) -> Figures:
    assert node.process is not None
    held = node.held()
    with open(f"/proc/{node.process.pid}/status") as status:
        rss = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    names, redis_port = descriptors(node.process.pid), urlsplit(node.config["redis"]["url"]).port
    fds = len(names) - sum(one.there == redis_port for one in connections(names))
    calls, sockets = metric(node, "esl_apps_live_calls"), metric(node, "esl_apps_outbound_sockets")
    return Figures(rss, fds, held["greenlets"], held["objects"], calls, sockets)


# Frames --------------------------------------------------------------------------------------------------


def valid_frames(chance: random.Random) -> list[bytes]:
    number = str(chance.randint(1, 20))
    leg = {"Caller-Channel-Answered-Time": 1_700_000_000_000_000, "variable_esl_call_ref": "x", "Hangup-Cause": "X"}
    return [
        *(reply(text) for text in ("+OK", "-ERR no")),
        *(api_response(text) for text in ("true", "-ERR x\n")),
        *(complete(app, number, uuid=UUID) for app in ("playback", "bridge", "answer")),
        *(event(name, leg, uuid="b") for name in ("CHANNEL_ANSWER", "CHANNEL_HANGUP_COMPLETE", "CHANNEL_PROGRESS")),
        *(event(name, uuid=UUID) for name in ("CHANNEL_HANGUP", "CHANNEL_HANGUP_COMPLETE")),
        event("BACKGROUND_JOB", body="x"),
        event("CUSTOM", {"Event-Subclass": "a::b"}),
        raw_event(b"key: x\ndigits: 4\n\n"),
        linger_notice(UUID),
        goodbye(),
    ]


#: Bytes that aren't frames, or frames with a wrong length. They rightly end a connection.
BROKEN = (
    b"\n\n",
    b"Content-Length: -1\n\n",
    b"Content-Length: 999999999999999999999\nContent-Type: x\n\n",
    b"Content-Type: text/event-plain\nContent-Length: 0x10\n\n",
    b"Content-Length: 5\n\nhello",
    b"\xff\xfe\xfd\n\n",
    b"Content-Type: command/reply\n\n" * 30,
    b"Content-Length: 900000000\nContent-Type: text/event-plain\n\n",
    b"A" * 70000,
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"Content-Type: text/rude-rejection\nContent-Length: 3\n\nno\n",
)
#: Frames that a session survives: each is complete, and nothing in it is as it should be.
ODD = (
    b"Content-Type: x\n\n",
    b"Content-Type: text/disconnect-notice\n\n",
    b"Content-Type: log/data\nContent-Length: 4\n\n\0\0\0\0",
    *(
        raw_event(block)
        for block in (
            b"",
            b"\n",
            b"\n\n",
            b"a" * 9000,
            b"Event-Name: \n\n",
            b"\xff\xfe: \xfd\n\n",
            b"Event-Name: CHANNEL_EXECUTE_COMPLETE\n\n",
            b"Event-Name: CHANNEL_ANSWER\nUnique-ID: %FF%00\n\n",
            b"Event-Name: CHANNEL_HANGUP_COMPLETE\nUnique-ID: c\nCaller-Channel-Hangup-Time: " + b"9" * 3000 + b"\n\n",
            b"Event-Name: CHANNEL_BRIDGE\nOther-Leg-Unique-ID\n\n",
            b"Event-Name: CHANNEL_PROGRESS\nvariable_esl_call_ref: %0a%0d\nUnique-ID: \n\n",
            b"Event-Name: BACKGROUND_JOB\nJob-UUID: %00\n\n-ERR",
            b"Event-Name: CUSTOM\nEvent-Subclass: %\n\n",
            b"digits: \nkey\n\n",
            b"key: x\ndigits: \xe2\x82\n\n",
            b"digits: 4\n\n" * 20,
        )
    ),
)


def damage(chance: random.Random, frame: bytes) -> bytes:
    """Change, drop or double a few bytes."""
    data = bytearray(frame)
    for _ in range(chance.randint(1, 3)):
        start = chance.randrange(len(data) + 1)
        end = min(len(data), start + chance.randint(0, 6))
        data[start:end] = chance.choice([b"", chance.randbytes(2), bytes(data[start:end]) * 2, b"\n", b"%", b": "])
    return bytes(data)


class Source:
    """A stock of damaged frames, made once: the node is under test, not the speed of damaging frames."""

    def __init__(self, seed: int, count: int = 3000) -> None:
        chance = random.Random(seed)
        self._frames = [self._frame(chance) for _ in range(count)]
        self._ends = [self._end(chance) for _ in range(count // 10)]
        self._requests = [[http_request(chance, port) for _ in range(count)] for port in (0, 1)]

    @staticmethod
    def _frame(chance: random.Random) -> bytes:
        if chance.random() < 0.5:
            return chance.choice(ODD)
        # The damage leaves the length alone, so the next frame is found all the same.
        return raw_event(damage(chance, chance.choice(valid_frames(chance)).partition(b"\n\n")[2]))

    @staticmethod
    def _end(chance: random.Random) -> bytes:
        return chance.choice([chance.choice(BROKEN), damage(chance, chance.choice(valid_frames(chance)))])

    def stream(self, chance: random.Random, count: int) -> tuple[bytes, int]:
        """Make one connection's bytes and count the malformed frames in them. The last one ends the connection."""
        return b"".join([*chance.choices(self._frames, k=count), chance.choice(self._ends)]), count + 1

    def request(self, chance: random.Random, port: int) -> bytes:
        return chance.choice(self._requests[port])


def as_a_switch(address: str, source: Source, chance: random.Random, count: int) -> int:
    """Talk on one connection to the outbound listener; return how many frames were sent."""
    host, _, port = address.rpartition(":")
    said = 0
    with suppress(OSError):
        sock = socket.create_connection((host, int(port)), timeout=10)
        try:
            sock.recv(100)
            if chance.random() < 0.05:
                data, said = source.stream(chance, 3)
                sock.sendall(data)
                return said
            caller = chance.choice([*PAYLOADS.values(), "27825556666"]).encode("utf-8", "replace").decode()
            head = {
                "variable_socket_path": chance.choice(PATHS),
                "variable_sip_from_user": caller,
                "variable_sip_from_uri": caller,
                "Caller-Destination-Number": chance.choice(["27115550000", caller]),
                "Channel-Name": f"sofia/external/{caller}@x",
                "variable_sip_h_X-Teleforge-Contact-Ref": caller,
            }
            hello = channel_data(head, uuid=UUID) + reply("+OK will linger 5 seconds")
            sock.sendall(damage(chance, hello) if chance.random() < 0.1 else hello)
            # A few proper replies keep the flow going; the malformed stream follows.
            sock.sendall(b"".join(reply() for _ in range(chance.randint(0, 8))))
            sock.sendall(complete("answer", "2", uuid=UUID) if chance.random() < 0.5 else b"")
            data, said = source.stream(chance, count)
            sock.sendall(data)
            if chance.random() < 0.5:
                sock.settimeout(0.05)
                with suppress(OSError):
                    while sock.recv(65536):
                        pass
        finally:
            sock.close()
    return said


class HostileSwitch:
    """A switch that accepts a node's inbound connection and, after the subscription, sends nonsense."""

    def __init__(self, source: Source, seed: int, count: int) -> None:
        self._source = source
        self._chance = random.Random(seed)
        self._count = count
        self.said = 0
        self.connections = 0
        self.server = StreamServer(("127.0.0.1", 0), self._serve)
        self.server.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    def _serve(self, sock: socket.socket, _address: object) -> None:
        chance = self._chance
        self.connections += 1
        with suppress(OSError):
            if chance.random() < 0.1:
                data, said = self._source.stream(chance, 20)
                sock.sendall(data)
                self.said += said
                return
            sock.sendall(b"Content-Type: auth/request\n\n")
            unread = b""
            while b"event plain" not in unread:
                got = sock.recv(65536)
                if not got:
                    return
                unread += got
                sock.sendall(b"".join(self._obey(command) for command in split(got)[0]))
            # Ends of jobs and events that the node may mistake for those of its calls.
            data, said = self._source.stream(chance, self._count)
            sock.sendall(data)
            self.said += said
            sock.settimeout(0.2)
            while sock.recv(65536):
                pass

    @staticmethod
    def _obey(command: bytes) -> bytes:
        return api_response("core-of-nobody") if command.startswith(b"api") else reply("+OK accepted")

    def close(self) -> None:
        self.server.stop()


# Requests ------------------------------------------------------------------------------------------------

_NAMES = ("agent", "callee", "outbound_id", "contact_ref", "call_ref", "data", "pin", "cid", "a_leg_number", "\0", "é")
_PATHS = (
    (
        "/click2dial/calls",
        "/click2dial/calls",
        "/click2dial/calls?dry_run=1",
        "/click2dial/calls/x",
        "/openapi.json",
        "/click2dial/recordings/..%2f..%2fetc",
        "/call.php?agent=1000",
        "/%ff%fe",
        "//",
        "*",
    ),
    (
        "/v2/accounts/acme/cccps",
        "/v2/accounts/acme/cccps/autodial",
        "/v2/accounts/acme/cccps/" + "a" * 32,
        "/v2/accounts/%00/cccps",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/click2dial/calls",
    ),
)
_TOKENS = (TOKEN, ADMIN_TOKEN)


def text_of(chance: random.Random) -> Any:
    hostile = chance.choice(list(PAYLOADS.values())).encode("utf-8", "replace").decode()
    return chance.choice([hostile, None, -1, 1e300, True, [], {}, "1000", "0900123456", "\ud83d"])


def http_request(chance: random.Random, port: int) -> bytes:
    """Almost a request: most of it is right. ``port``: 0 for the integrator's, 1 for the admin port."""

    def one(usual: list[bytes], else_: list[bytes]) -> bytes:
        return chance.choice(usual if chance.random() < 0.75 else else_)

    method = one([b"GET", b"POST", b"PUT"], [b"DELETE", b"PATCH", b"OPTIONS", b"get", b"X" * 50, b"POST POST"])
    path = chance.choice(_PATHS[port]).encode()
    fields = {chance.choice(_NAMES): text_of(chance) for _ in range(chance.randint(0, 4))}
    body = json.dumps({"data": fields} if chance.random() < 0.4 else fields).encode()
    if chance.random() < 0.3:
        body = damage(chance, body)
    lines = [
        method + b" " + path + b" HTTP/1.1",
        b"Host: x",
        b"Connection: close",
        b"Authorization: Bearer " + one([_TOKENS[port].encode()], [b"wrong", b"", b"\xff", b"a" * 9000]),
        one([b"Content-Type: application/json"], [b"Content-Type: text/plain", b"X-A: \xff", b"Range: bytes=9-1"]),
        one([b"Content-Length: %d" % len(body)], [b"Content-Length: -5", b"Transfer-Encoding: chunked", b"A", b"X: y"]),
    ]
    if chance.random() < 0.3:
        lines.append(b"Idempotency-Key: " + chance.randbytes(chance.randint(0, 30)).replace(b"\n", b""))
    data = b"\r\n".join(lines) + b"\r\n\r\n" + body
    return damage(chance, data) if chance.random() < 0.3 else data


def send_requests(address: str, requests: Callable[[], bytes], count: int, statuses: Counter[str]) -> None:
    host, _, port = address.rpartition(":")
    for _ in range(count):
        with suppress(OSError):
            sock = socket.create_connection((host, int(port)), timeout=10)
            try:
                sock.sendall(requests())
                # A port that waits for more input has had its chance.
                sock.shutdown(socket.SHUT_WR)
                answer = b""
                while got := sock.recv(65536):
                    answer += got
                for line in answer.split(b"HTTP/1.1 ")[1:]:
                    statuses[line[:3].decode("latin-1")] += 1
            finally:
                sock.close()


# All of it -----------------------------------------------------------------------------------------------


class Field:
    """A node between a proper switch, a hostile one, and hostile peers and clients."""

    def __init__(self, seed: int = 1, burst: int = 400) -> None:
        self.seed = seed
        self.turn = 0
        self.source = Source(seed)
        self.rig = SandboxRig()
        self.redis = RedisServer()
        self.hostile = HostileSwitch(self.source, seed, burst)
        config = configuration(self.rig, self.redis)
        config["switches"].append({"name": "hostile", "address": self.hostile.address, "password": "whatever"})
        config["pin_key"] = "key-for-tests"
        # The test is about what requests do, not about how many are allowed.
        for port in (config["admin"], config["integrators"][0]):
            port["rate"] = {"per_token": None, "per_address": None}
        disa = {"front": {"pin": "4821907356"}}
        config["accounts"] = {"acme": {"caller_id": {"number": "+27115550000"}, "disa": disa}}
        config["inbound"] = {"27115550000": {"integrator": "acme", "agents": ["1000"]}}
        self.phone = self.rig.phone("1000", Script(answer_after=None))
        self.node = WatchedNode(config)

    def close(self) -> int:
        self.hostile.close()
        status = self.node.stop()
        self.rig.close()
        self.redis.close()
        return status

    def frames(self, count: int, burst: int = 40) -> int:
        """Send so many frames to the listener while the hostile switch sends its own; return how many both sent."""
        pool, said = Pool(_AT_ONCE), 0
        address = self.node.config["node"]["listen"]

        def one(seed: str) -> None:
            nonlocal said
            said += as_a_switch(address, self.source, random.Random(seed), burst)

        before = self.hostile.said
        while said + self.hostile.said - before < count:
            self.turn += 1
            pool.spawn(one, f"{self.seed}-{self.turn}")
        pool.join()
        return said + self.hostile.said - before

    def requests(self, count: int) -> Counter[str]:
        statuses: Counter[str] = Counter()
        share = count // _AT_ONCE
        self.turn += 1
        clients = []
        for n in range(_AT_ONCE):
            address = (self.node.api, self.node.admin)[n % 2]
            chance = random.Random(f"{self.seed}-{self.turn}-{n}")
            draw = partial(self.source.request, chance, n % 2)
            clients.append(gevent.spawn(send_requests, address, draw, share, statuses))
        gevent.joinall(clients, raise_error=True)
        return statuses

    def dialled(self) -> int:
        """Calls that rang the only phone, and live channels."""
        return len(self.phone.calls) + self.rig.live_channels()

    def settle(self, within: float = 60.0) -> None:
        """Wait until every call that began has its record."""
        end = time.monotonic() + within
        while metric(self.node, "esl_apps_live_calls") or metric(self.node, "esl_apps_outbound_sockets"):
            assert time.monotonic() < end, "calls that do not end"
            gevent.sleep(0.2)

    def serves(self) -> bool:
        """Whether a proper request dials; the call is hung up again."""
        ref = self.node.call("1000", "0820001234")
        end = time.monotonic() + 10
        while not self.phone.calls and time.monotonic() < end:
            gevent.sleep(0.05)
        rang = len(self.phone.calls)
        self.node.delete(ref)
        while self.node.get(ref)["state"] != "ended" and time.monotonic() < end:
            gevent.sleep(0.05)
        self.phone = self.rig.phone("1000", Script(answer_after=None))
        return rang == 1
