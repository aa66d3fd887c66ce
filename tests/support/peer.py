"""The switch's end of an event socket, for tests: frames as FreeSWITCH writes them, and peers that send them.

It shares no code with ``esl_apps.esl``, which it tests.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import quote

import gevent
from gevent import socket
from gevent.event import Event as Flag
from gevent.server import StreamServer

from tests.support import commands

UUID = "eb43d895-1f07-4a4e-93fc-ba8febf183b8"
OTHER_UUID = "11111111-2222-4333-8444-555555555555"
PASSWORD = "secret"

# Frames -----------------------------------------------------------------------------------------------

AUTH_REQUEST = b"Content-Type: auth/request\n\n"


def reply(text: str = "+OK") -> bytes:
    return f"Content-Type: command/reply\nReply-Text: {text}\n\n".encode()


def api_response(body: str) -> bytes:
    return b"Content-Type: api/response\nContent-Length: %d\n\n%s" % (len(body.encode()), body.encode())


def raw_event(block: bytes) -> bytes:
    return b"Content-Length: %d\nContent-Type: text/event-plain\n\n%s" % (len(block), block)


def lines(headers: Mapping[str, object]) -> bytes:
    return "".join(f"{name}: {quote(str(value), safe='/:;')}\n" for name, value in headers.items()).encode()


def event(name: str, headers: Mapping[str, object] | None = None, *, uuid: str = UUID, body: str = "") -> bytes:
    """Return an event of a channel. ``body``: as in BACKGROUND_JOB."""
    head = {"Event-Name": name, "Core-UUID": "core-1", "Unique-ID": uuid, **(headers or {})}
    if not body:
        return raw_event(lines(head) + b"\n")
    return raw_event(lines({**head, "Content-Length": len(body.encode())}) + b"\n" + body.encode())


def complete(app: str, app_uuid: str, headers: Mapping[str, object] | None = None, *, uuid: str = UUID) -> bytes:
    """Return CHANNEL_EXECUTE_COMPLETE of one application."""
    names = {"Application": app, "variable_current_application": app, "Application-UUID": app_uuid}
    return event("CHANNEL_EXECUTE_COMPLETE", {**names, **(headers or {})}, uuid=uuid)


def channel_data(headers: Mapping[str, object] | None = None, *, uuid: str = UUID) -> bytes:
    """Return the reply to ``connect``, which has the channel's headers."""
    head = {
        "Event-Name": "CHANNEL_DATA",
        "Unique-ID": uuid,
        "Answer-State": "ringing",
        "Caller-Caller-ID-Number": "27820001234",
        "variable_uuid": uuid,
        **(headers or {}),
    }
    return lines(head) + b"Content-Type: command/reply\nReply-Text: %2BOK%0A\nSocket-Mode: async\nControl: full\n\n"


def linger_notice(uuid: str = UUID) -> bytes:
    """Return the notice that the channel hung up and its socket stays for a while."""
    return (
        f"Content-Type: text/disconnect-notice\nControlled-Session-UUID: {uuid}\nContent-Disposition: linger\n"
        "Channel-Name: sofia/internal/1000\nLinger-Time: 5\nContent-Length: 0\n\n"
    ).encode()


def goodbye() -> bytes:
    """Return the notice before the switch closes the socket."""
    text = b"Disconnected, goodbye.\nSee you at ClueCon! http://www.cluecon.com/\n"
    return b"Content-Type: text/disconnect-notice\nContent-Length: %d\n\n%s" % (len(text), text)


def rejection() -> bytes:
    """Return the frame for an address outside the switch's ACL."""
    return b"Content-Type: text/rude-rejection\nContent-Length: 24\n\nAccess Denied, go away.\n"


# The peer ---------------------------------------------------------------------------------------------


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a connection over TCP."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        far = socket.create_connection(listener.getsockname())
        return listener.accept()[0], far


class Peer:
    """One connection's other end, which reads commands and sends frames."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._unread = b""
        self._commands: list[str] = []

    def say(self, *frames: bytes) -> None:
        """Send frames in one write."""
        self.sock.sendall(b"".join(frames))

    def command(self) -> str:
        """Return the next command (``commands.split``). :raises EOFError: the end."""
        while not self._commands:
            data = self.sock.recv(1 << 20)
            if not data:
                raise EOFError
            self._take(data)
        return self._commands.pop(0)

    def _take(self, data: bytes) -> None:
        whole, self._unread = commands.split(self._unread + data)
        self._commands += [command.decode() for command in whole]

    def commands(self) -> Iterator[str]:
        """Yield all commands, to the end of the connection."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                yield self.command()

    def expect(self, start: str) -> str:
        command = self.command()
        assert command.startswith(start), command
        return command

    def expect_end(self) -> None:
        """Check that the other side closes without another command."""
        try:
            command = self.command()
        except (EOFError, ConnectionError):
            return
        raise AssertionError(f"unexpected command: {command}")

    def pending(self) -> list[str]:
        """Return the commands that have come, without waiting."""
        gevent.sleep(0)
        while True:
            try:
                data = self.sock.recv(1 << 20) if self.readable() else b""
            except OSError:
                data = b""
            if not data:
                break
            self._take(data)
        pending, self._commands = self._commands, []
        return pending

    def readable(self) -> bool:
        """Whether bytes or the end have come."""
        return bool(select.select([self.sock.fileno()], [], [], 0)[0])

    def close(self) -> None:
        """Close with a bare FIN, as when the process at the other end has died."""
        self.sock.close()


def eventually(done: Callable[[], object], within: float = 30.0) -> None:
    """Poll until true, and let other greenlets run, unlike the rigs' ``eventually``."""
    deadline = time.monotonic() + within
    while not done():
        assert time.monotonic() < deadline, "not in time"
        gevent.sleep(0.002)


def app_uuid(execute: str) -> str:
    """Return the ``Event-UUID`` of an execute, which comes back as ``Application-UUID``."""
    return next(line[12:] for line in execute.split("\n") if line.startswith("Event-UUID: "))


def dial(port: int) -> Peer:
    """Connect as a switch that runs ``socket 127.0.0.1:port``."""
    return Peer(socket.create_connection(("127.0.0.1", port), timeout=5))


Answer = bytes | Callable[[Peer, str], bytes]


class FakeSwitch:
    """A FreeSWITCH's inbound event socket. It obeys, except for the commands in ``answers``."""

    def __init__(self, port: int = 0) -> None:
        self.core_uuid = "core-1"
        #: Replies by the start of a command. A function is called with the connection and the command.
        self.answers: dict[str, Answer] = {}
        self.hello = AUTH_REQUEST
        self.connections: list[Peer] = []
        self.heard: list[str] = []
        self.server = StreamServer(("127.0.0.1", port), self._serve)
        self.server.start()

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", int(self.server.address[1]))

    def _serve(self, sock: socket.socket, _address: object) -> None:
        peer = Peer(sock)
        self.connections.append(peer)
        with contextlib.suppress(OSError):
            peer.say(self.hello)
            for command in peer.commands():
                self.heard.append(command)
                peer.say(self._answer(peer, command))

    def _answer(self, peer: Peer, command: str) -> bytes:
        for start, answer in self.answers.items():
            if command.startswith(start):
                return answer if isinstance(answer, bytes) else answer(peer, command)
        return self.obey(command)

    def obey(self, command: str) -> bytes:
        if command.startswith("auth "):
            return reply("+OK accepted" if command == f"auth {PASSWORD}" else "-ERR invalid")
        if command == "api global_getvar core_uuid":
            return api_response(self.core_uuid)
        if command.startswith("api "):
            return api_response(f"+OK {command[4:]}")
        return reply()

    def stop_at(self, start: str) -> Flag:
        """Stop at a command, as by SIGSTOP, until the flag is set."""
        resumed = Flag()

        def stopped(_peer: Peer, command: str) -> bytes:
            resumed.wait()
            return self.obey(command)

        self.answers[start] = stopped
        return resumed

    def drop(self) -> None:
        """Cut every connection without a goodbye."""
        for peer in self.connections:
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)

    def say(self, *frames: bytes) -> None:
        """Send frames to the newest connection."""
        self.connections[-1].say(*frames)

    def close(self) -> None:
        self.server.stop()
        self.drop()
        for peer in self.connections:
            peer.close()
