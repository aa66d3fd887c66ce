"""The least that can answer a real call: it subscribes to only the events it needs and has no time-outs.

One greenlet per call reads the raw socket. After ``connect`` it sends ``answer``. For the second half of the
measurement it then has FreeSWITCH collect a number and bridges the call to it.

Arguments: ``PORT ENDPOINT COLLECT``: the endpoint with ``%s`` for the number, and the argument of play_and_get_digits.
"""

import socket
import sys

from gevent.server import StreamServer

from benchmarks.peers.floor import EXECUTE, Call

EVENTS = b"event plain CHANNEL_EXECUTE_COMPLETE\n\n"


def handle(sock: socket.socket, _address: object) -> None:
    call = Call(sock)
    data = call.reply(b"connect\n\n")
    call.reply(EXECUTE % (b"answer", b""))
    at = data.find(b"\nUnique-ID: ") + 12
    call.reply(b"filter Unique-ID %s\n\n" % data[at : at + 36])
    call.reply(EVENTS)
    call.reply(EXECUTE % (b"play_and_get_digits", COLLECT))
    try:
        while True:
            event = call.event(b"Event-Name: CHANNEL_EXECUTE_COMPLETE")
            if b"\nApplication: play_and_get_digits" in event:
                break
        at = event.find(b"\nvariable_got: ") + 15
        call.reply(EXECUTE % (b"bridge", BRIDGE % event[at : event.find(b"\n", at)]))
        while True:
            call.frame()
    except EOFError:
        pass


COLLECT = BRIDGE = b""
if __name__ == "__main__":
    BRIDGE, COLLECT = sys.argv[2].encode(), sys.argv[3].encode()
    StreamServer(("127.0.0.1", int(sys.argv[1])), handle, backlog=1024).serve_forever()
