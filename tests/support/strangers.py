"""Peers on a node's event-socket port that aren't a switch, and what they send."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from tests.support.commands import application, split
from tests.support.node import Node, request
from tests.support.peer import UUID, api_response, app_uuid, channel_data, complete, event, raw_event, reply

#: A TLS ClientHello's beginning.
TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(197))

#: The first bytes of strangers, to a node that waits for the reply to ``connect``.
OPENINGS: dict[str, bytes] = {
    "nothing": b"",
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: node\r\n\r\n",
    "a POST with a body": b"POST /x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\n\n",
    "a TLS hello": TLS_HELLO,
    "a SIP request": b"OPTIONS sip:node SIP/2.0\r\nVia: SIP/2.0/TCP x\r\nContent-Length: 0\r\n\r\n\n\n",
    "noise": bytes(range(256)) * 40,
    "zeros": bytes(4096),
    "empty lines": b"\n" * 4096,
    "a frame without a type": b"Reply-Text: +OK\n\n",
    "a reply that isn't a channel": reply(),
    "two replies too many": reply() * 5,
    "an answer to no command": api_response("+OK") * 5,
    "an event at once": event("CHANNEL_HANGUP"),
    "an event without a name": raw_event(b"\n\n"),
    "a length that isn't one": b"Content-Type: command/reply\nContent-Length: 1e9\n\n",
    "a length of 4,300 digits": b"Content-Type: command/reply\nContent-Length: " + b"9" * 4300 + b"\n\n",
    "a body of 256 MB": b"Content-Type: command/reply\nContent-Length: 250000001\n\n" + b"x" * 200_000,
    "an event of 99 MB": b"Content-Length: 99999999\nContent-Type: text/event-plain\n\n" + b"x" * 200_000,
    "a head of 2 MB": b"X: " + b"x" * (2 << 20),
    "a goodbye": b"Content-Type: text/disconnect-notice\nContent-Disposition: linger\n\n",
    "a refusal": reply("-ERR no"),
    "a channel without a name": channel_data({"Unique-ID": ""}),
    "half a channel": channel_data()[:-40],
}


def connection(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    sock = socket.create_connection((host, int(port)), 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def say(sock: socket.socket, data: bytes) -> None:
    """Send what the node takes of it."""
    with contextlib.suppress(OSError):
        sock.sendall(data)


def is_closed(sock: socket.socket, within: float) -> bool:
    """Whether the node closes the connection in time."""
    end = time.monotonic() + within
    with contextlib.suppress(OSError):
        while (left := end - time.monotonic()) > 0:
            sock.settimeout(left)
            if not sock.recv(65536):
                return True
        return False
    return time.monotonic() < end


class Probe:
    """Asks a node's ``/healthz`` all the time, as a load balancer would. ``times``: the CPU seconds that the node used
    until it answered, for the flood, too; other processes don't lengthen them."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.times: list[float] = []

    def p90(self) -> float:
        return sorted(self.times)[int(len(self.times) * 0.9)]

    @contextlib.contextmanager
    def running(self, *more: Callable[[], None]) -> Iterator[Probe]:
        """Ask, and do ``more`` over and over, each in a thread of its own, until the ``with`` ends."""
        over = threading.Event()

        def again(task: Callable[[], None]) -> None:
            with contextlib.suppress(OSError):
                while not over.is_set():
                    task()

        threads = [threading.Thread(target=again, args=(task,)) for task in (self._ask, *more)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def _ask(self) -> None:
        began = self._node.cpu_seconds()
        assert request(self._node.admin, "GET", "/healthz", token=None).status == 200
        self.times.append(self._node.cpu_seconds() - began)
        time.sleep(0.01)


class ForgedSwitch:
    """A switch's side of a call's event socket, whose values a stranger has chosen. Each application ends at once,
    except for a playback."""

    def __init__(self, listen: str, headers: Mapping[str, object], *, uuid: str = UUID) -> None:
        self.sock = connection(listen)
        self.commands: list[str] = []
        self._channel = channel_data(headers, uuid=uuid)
        self._uuid = uuid
        self._writing = threading.Lock()
        self._serving = threading.Thread(target=self._serve, daemon=True)
        self._serving.start()

    def flood(self, frames: bytes) -> None:
        """Send frames in between. :raises OSError: the node has closed."""
        with self._writing:
            self.sock.sendall(frames)

    def ended(self, within: float = 15.0) -> list[str]:
        """Wait until the node closes, and return the commands that it sent."""
        self._serving.join(within)
        assert not self._serving.is_alive(), self.commands
        return self.commands

    def _serve(self) -> None:
        rest = b""
        with contextlib.suppress(OSError):
            while data := self.sock.recv(65536):
                whole, rest = split(rest + data)
                for raw in whole:
                    self.commands.append(raw.decode())
                    self.flood(self._answer(self.commands[-1]))

    def _answer(self, command: str) -> bytes:
        if command == "connect":
            return self._channel
        if command.startswith("api "):
            return api_response("+OK\n")
        if "execute-app-name: hangup" in command:
            ends = ("CHANNEL_HANGUP", "CHANNEL_HANGUP_COMPLETE")
            return reply() + b"".join(event(name, uuid=self._uuid) for name in ends)
        if "execute-app-name" in command and "execute-app-name: playback" not in command:
            app, _ = application(command)
            return reply() + complete(app, app_uuid(command), uuid=self._uuid)
        return reply()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self._serving.join()
        self.sock.close()


class FloodingSwitch:
    """A switch that answers a node's commands and sends events as fast as the node takes them."""

    def __init__(self) -> None:
        self.frames = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.flooding = threading.Event()
        self.sent = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock = self._listener.accept()[0]
                threading.Thread(target=self._answer, args=(sock,), daemon=True).start()

    def _answer(self, sock: socket.socket) -> None:
        """Obey, and flood in between: an answer goes where one write of the flood ends."""
        rest = b""
        with contextlib.suppress(OSError), sock:
            sock.sendall(b"Content-Type: auth/request\n\n")
            while True:
                sock.settimeout(0.0005 if self.flooding.is_set() else 0.05)
                with contextlib.suppress(TimeoutError):
                    data = sock.recv(65536)
                    if not data:
                        return
                    whole, rest = split(rest + data)
                    sock.settimeout(20)
                    for command in whole:
                        sock.sendall(
                            api_response("fake-core") if command.startswith(b"api ") else reply("+OK accepted")
                        )
                if self.flooding.is_set():
                    sock.settimeout(20)
                    sock.sendall(self.frames)
                    self.sent += len(self.frames)

    def close(self) -> None:
        self._listener.close()
