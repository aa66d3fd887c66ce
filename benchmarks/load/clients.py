"""HTTP clients in a process of their own: many at once in one thread, with each request timed.

Takes a ``Plan`` as JSON on the command line and prints the times of all requests, in seconds, as a JSON list. It uses
no HTTP library: a client as expensive as the server would measure itself.
"""

from __future__ import annotations

import dataclasses
import json
import random
import selectors
import socket
import sys
import threading
import time
from collections import deque

_LENGTH = b"content-length: "
_HOST = "127.0.0.1"
#: Written at a time by a client with a huge body.
_PART = bytes(65536)


@dataclasses.dataclass(frozen=True)
class Plan:
    port: int
    requests: list[str]
    """Complete requests as text, sent in turn."""
    seconds: float
    clients: int = 100
    status: int = 202
    rate: float = 0.0
    """Requests a second, all clients together. 0: each client sends the next as soon as it has an answer."""
    slow: int = 0
    """Clients that send one byte a second. Only without ``clients``, whose times they would disturb."""
    huge: int = 0
    """Clients that send a body of 100 MB and start over when they are cut off. Only without ``clients``."""


class Client:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((_HOST, port), 30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.began = 0.0

    def begin(self, request: bytes, at: float) -> None:
        """Send a request. Its time counts from ``at``, when it was due, even if it is sent late."""
        self.began = at
        self.socket.sendall(request)

    def read(self, status: bytes) -> float | None:
        """Read from the socket. Returns the seconds since the request began if the answer is complete, else None."""
        data = self.socket.recv(65536)
        if not data:
            raise RuntimeError(f"the server closed: {self.buffer[:300]!r}")
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = self.buffer[:end].lower()
        at = head.find(_LENGTH)
        if len(self.buffer) < end + 4 + int(head[at + len(_LENGTH) :].split(b"\r", 1)[0]):
            return None
        if not self.buffer.startswith(b"HTTP/1.1 " + status):
            raise RuntimeError(f"not {status.decode()}: {self.buffer[:300]!r}")
        self.buffer = b""
        return time.monotonic() - self.began


def run(plan: Plan) -> list[float]:
    requests = [text.encode() for text in plan.requests]
    status = str(plan.status).encode()
    clients = [Client(plan.port) for _ in range(plan.clients)]
    selector = selectors.DefaultSelector()
    for client in clients:
        selector.register(client.socket, selectors.EVENT_READ, client)
    idle: deque[Client] = deque(clients)
    times: list[float] = []
    began = due = time.monotonic()
    sent = 0
    while (now := time.monotonic()) < began + plan.seconds or len(idle) < len(clients):
        while idle and due <= now < began + plan.seconds:
            idle.popleft().begin(requests[sent % len(requests)], due if plan.rate else now)
            sent += 1
            if plan.rate:
                # At random intervals, as with clients that know nothing of each other.
                due += random.expovariate(plan.rate)
        until_due = due - now if idle and plan.rate else 0.1
        for key, _ in selector.select(max(0.0, min(until_due, 0.1))):
            took = key.data.read(status)
            if took is not None:
                times.append(took)
                idle.append(key.data)
    return times


def disturb(plan: Plan) -> None:
    """Run the slow clients and those with huge bodies for the planned time, without timing them."""
    for target, count in ((slow, plan.slow), (huge, plan.huge)):
        for _ in range(count):
            threading.Thread(target=target, args=(plan,), daemon=True).start()
    time.sleep(plan.seconds)


def slow(plan: Plan) -> None:
    request = plan.requests[0].encode()
    while True:
        with socket.create_connection((_HOST, plan.port), 30) as sock:
            try:
                for i in range(len(request)):
                    sock.sendall(request[i : i + 1])
                    time.sleep(1)
            except OSError:
                continue  # the server cut it off for taking too long


def huge(plan: Plan) -> None:
    head = plan.requests[0].partition("\r\n\r\n")[0]
    lines = [line for line in head.split("\r\n") if not line.lower().startswith("content-length")]
    start = "\r\n".join([*lines, f"Content-Length: {100 << 20}", "", ""]).encode()
    while True:
        with socket.create_connection((_HOST, plan.port), 30) as sock:
            try:
                sock.sendall(start)
                for _ in range((100 << 20) // len(_PART)):
                    sock.sendall(_PART)
                    time.sleep(0.001)
            except OSError:
                time.sleep(0.2)


if __name__ == "__main__":
    given = Plan(**json.loads(sys.argv[1]))
    if given.clients:
        print(json.dumps(run(given)))
    else:
        disturb(given)
