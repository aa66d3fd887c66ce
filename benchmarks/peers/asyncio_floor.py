"""The floor on asyncio with uvloop: it splits the stream into frames and no more, as ``floor`` does on gevent.

A protocol object per call takes the bytes as they come, so no task, stream or future is between the loop and the call.
"""

import asyncio
import sys
from collections.abc import Callable

import uvloop

from benchmarks.peers.floor import EVENTS, EXECUTE, WELCOME

COMPLETE, DTMF, ENDED = (
    b"Event-Name: CHANNEL_EXECUTE_COMPLETE",
    b"Event-Name: DTMF",
    b"Event-Name: CHANNEL_HANGUP_COMPLETE",
)


class Call(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports don't inherit from asyncio's.
        self.write = transport.write  # type: ignore[attr-defined]
        self.close = transport.close
        self.buffer, self.uuid, self.digits = b"", b"", b""
        #: The callback for the next frame.
        self.step: Callable[[bytes, bytes], None] = self.connected
        self.write(b"connect\n\n")

    def data_received(self, data: bytes) -> None:
        buffer = self.buffer + data if self.buffer else data
        start = 0
        while (end := buffer.find(b"\n\n", start)) >= 0:
            header = buffer[start:end]
            at = header.find(b"Content-Length: ")
            length = int(header[at + 16 :].partition(b"\n")[0]) if at >= 0 else 0
            end += 2
            if len(buffer) < end + length:
                break
            self.step(header, buffer[end : end + length])
            start = end + length
        self.buffer = buffer[start:]

    # Steps: a reply is waited for before the next command, as in ``floor``.

    def reply(self, command: bytes, then: Callable[[bytes, bytes], None]) -> None:
        def replied(header: bytes, body: bytes) -> None:
            if b"/reply" in header or b"/response" in header:
                then(header, body)

        self.step = replied
        self.write(command)

    def event(self, name: bytes, then: Callable[[bytes], None]) -> None:
        def came(_header: bytes, body: bytes) -> None:
            if body.startswith(name):
                then(body)

        self.step = came

    def execute(self, app: bytes, arg: bytes, event: bytes, then: Callable[[bytes], None]) -> None:
        self.reply(EXECUTE % (app, arg), lambda _header, _body: self.event(event, then))

    def connected(self, header: bytes, _body: bytes) -> None:
        at = header.find(b"\nUnique-ID: ") + 12
        self.uuid = header[at : at + 36]
        self.reply(b"linger\n\n", lambda *_: self.reply(EVENTS, self.subscribed))

    def subscribed(self, _header: bytes, _body: bytes) -> None:
        self.reply(b"filter Unique-ID %s\n\n" % self.uuid, lambda *_: self.answer())

    def answer(self) -> None:
        self.execute(b"answer", b"", COMPLETE, self.play)

    def play(self, _event: bytes) -> None:
        self.execute(b"playback", WELCOME, COMPLETE, self.collect)

    def collect(self, _event: bytes) -> None:
        self.execute(b"playback", WELCOME, DTMF, self.pressed)

    def pressed(self, event: bytes) -> None:
        at = event.find(b"\nDTMF-Digit: ") + 13
        self.digits += event[at : at + 1]
        if len(self.digits) == 4:
            assert self.digits == b"4821"
            self.reply(b"api uuid_break %s all\n\n" % self.uuid, lambda *_: self.event(COMPLETE, self.bridge))

    def bridge(self, _event: bytes) -> None:
        self.execute(b"bridge", b"user/1000", COMPLETE, self.hang_up)

    def hang_up(self, _event: bytes) -> None:
        self.execute(b"hangup", b"NORMAL_CLEARING", ENDED, self.exit)

    def exit(self, _event: bytes) -> None:
        self.reply(b"exit\n\n", lambda *_: self.close())


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Call, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
