"""A stub of FreeSWITCH for the HTTP benchmark: its event socket accepts every originate and reports the callee busy.

It keeps no state of calls, so an originate costs it next to nothing. The node still does all its work, from the request
to the record.
"""

import re
import socket
import sys

from gevent.server import StreamServer

from tests.support.commands import split

OK = b"Content-Type: command/reply\nReply-Text: +OK\n\n"
JOB = re.compile(rb"\nJob-UUID: ([^\n]+)")


def handle(sock: socket.socket, _address: object) -> None:
    sock.sendall(b"Content-Type: auth/request\n\n")
    buffer = b""
    while data := sock.recv(65536):
        commands, buffer = split(buffer + data)
        sock.sendall(b"".join(map(answer, commands)))


def answer(command: bytes) -> bytes:
    if command.startswith(b"bgapi"):
        job = JOB.search(command)
        assert job is not None
        body = b"Event-Name: BACKGROUND_JOB\nJob-UUID: %s\nContent-Length: 15\n\n-ERR USER_BUSY\n" % job[1]
        event = b"Content-Length: %d\nContent-Type: text/event-plain\n\n%s" % (len(body), body)
        return b"Content-Type: command/reply\nReply-Text: +OK Job-UUID: %s\nJob-UUID: %s\n\n%s" % (
            job[1],
            job[1],
            event,
        )
    if command.startswith(b"api"):
        return b"Content-Type: api/response\nContent-Length: 5\n\nbusy\n"
    return OK


if __name__ == "__main__":
    StreamServer(("127.0.0.1", int(sys.argv[1])), handle).serve_forever()
