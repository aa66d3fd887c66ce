"""The floor: the cost of gevent and Python without any library. It splits the stream into frames and no more.

One greenlet per call reads its socket and looks for an event's name in the bytes of the frame. It doesn't match
Event-UUIDs, doesn't notice a hang-up, and has no time-outs, so no real application could be written like this. With
``myevents`` as the second argument it subscribes to those instead of only the events that it needs.
"""

import socket
import sys

from gevent.server import StreamServer

EVENTS = b"""event plain CHANNEL_EXECUTE_COMPLETE DTMF CHANNEL_ANSWER CHANNEL_BRIDGE CHANNEL_UNBRIDGE \
CHANNEL_HANGUP CHANNEL_HANGUP_COMPLETE\n\n"""
EXECUTE = b"sendmsg\ncall-command: execute\nexecute-app-name: %s\nexecute-app-arg: %s\n\n"
WELCOME = b"/usr/share/freeswitch/sounds/en/us/callie/ivr/8000/ivr-welcome.wav"


class Call:
    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.buffer = sock, b""

    def frame(self) -> tuple[bytes, bytes]:
        """Return the header and the body of the next frame."""
        while True:
            end = self.buffer.find(b"\n\n")
            if end >= 0:
                break
            self.fill()
        header = self.buffer[:end]
        at = header.find(b"Content-Length: ")
        length = int(header[at + 16 :].partition(b"\n")[0]) if at >= 0 else 0
        end += 2
        while len(self.buffer) < end + length:
            self.fill()
        body = self.buffer[end : end + length]
        self.buffer = self.buffer[end + length :]
        return header, body

    def fill(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError
        self.buffer += data

    def reply(self, command: bytes) -> bytes:
        self.sock.sendall(command)
        while True:
            header, _ = self.frame()
            if b"/reply" in header or b"/response" in header:
                return header

    def event(self, name: bytes) -> bytes:
        while True:
            _, body = self.frame()
            if body.startswith(name):
                return body

    def execute(self, app: bytes, arg: bytes = b"") -> None:
        self.reply(EXECUTE % (app, arg))

    def complete(self) -> None:
        self.event(b"Event-Name: CHANNEL_EXECUTE_COMPLETE")


def handle(sock: socket.socket, _address: object) -> None:
    call = Call(sock)
    data = call.reply(b"connect\n\n")
    at = data.find(b"\nUnique-ID: ") + 12
    uuid = data[at : at + 36]
    call.reply(b"linger\n\n")
    if MYEVENTS:
        call.reply(b"myevents\n\n")
    else:
        call.reply(EVENTS)
        call.reply(b"filter Unique-ID %s\n\n" % uuid)
    call.execute(b"answer")
    call.complete()
    call.execute(b"playback", WELCOME)
    call.complete()
    call.execute(b"playback", WELCOME)
    digits = b""
    while len(digits) < 4:
        event = call.event(b"Event-Name: DTMF")
        at = event.find(b"\nDTMF-Digit: ") + 13
        digits += event[at : at + 1]
    assert digits == b"4821"
    call.reply(b"api uuid_break %s all\n\n" % uuid)
    call.complete()
    call.execute(b"bridge", b"user/1000")
    call.complete()
    call.execute(b"hangup", b"NORMAL_CLEARING")
    call.event(b"Event-Name: CHANNEL_HANGUP_COMPLETE")
    call.reply(b"exit\n\n")


MYEVENTS = "myevents" in sys.argv[2:]
if __name__ == "__main__":
    StreamServer(("127.0.0.1", int(sys.argv[1])), handle, backlog=1024).serve_forever()
