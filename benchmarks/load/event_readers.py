"""Clients of ``GET /click2dial/events``: many in one thread, which count and time events and see that none is missing.

``python -m benchmarks.load.event_readers PLAN``, a ``Plan`` as JSON. Prints ``ready`` once all readers have their place
in the stream. Prints what came once all has come, nothing has for some seconds, or SIGTERM comes. An event's time is
that of its state (``at``), in whole milliseconds. In a large piece, only the first and the last event are timed: the
readers must keep up.
"""

from __future__ import annotations

import dataclasses
import json
import re
import select
import signal
import socket
import sys
import time
from array import array

_HOST = "127.0.0.1"
#: An id, and the time of its event if it has one.
_EVENT = re.compile(rb'id: (\d+)-(\d+)\n(?:event: \w+\ndata: [^\n]*?"at":([0-9.]+))?')
#: One buffer for all readers. A fresh megabyte for each read would cost more than what is in it.
_BUFFER = bytearray(1 << 20)
_VIEW = memoryview(_BUFFER)
#: Seconds without an event after which no more are expected.
_SILENCE = 10.0
#: A piece with more events has only its first and last one timed.
_FEW = 8


@dataclasses.dataclass(frozen=True)
class Plan:
    port: int
    token: str
    readers: int
    expected: int = 1 << 62
    """Events that all readers get, together; by default they read until SIGTERM."""
    agents: int = 0
    """Each reader asks for the calls of one agent, in turn of so many. 0: for all calls."""


class Delays:
    """Seconds from the states of calls on."""

    def __init__(self) -> None:
        #: Until the event was read.
        self.all = array("d")
        #: Until Redis had it.
        self.writing = array("d")


class Reader:
    def __init__(self, plan: Plan, number: int) -> None:
        query = f"?agent={1000 + number % plan.agents}" if plan.agents else ""
        self.socket = socket.create_connection((_HOST, plan.port), 30)
        head = f"GET /click2dial/events{query} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {plan.token}\r\n\r\n"
        self.socket.sendall(head.encode())
        self.socket.setblocking(False)
        self.rest = b""
        self.events = 0
        self.last = (0, 0)
        self.disordered = 0
        self.end = ""
        #: It has had its place in the stream.
        self.ready = False

    def read(self, delays: Delays) -> bool:
        """Read what is there. False: the stream has ended."""
        kept = len(self.rest)
        _BUFFER[:kept] = self.rest
        received = self.socket.recv_into(_VIEW[kept:])
        now = time.time()
        if not received:
            self.end = self.end or "closed"
            return False
        size = kept + received
        end = _BUFFER.rfind(b"\n\n", 0, size) + 2
        if end < 2:
            self.rest = bytes(_VIEW[:size])
            return True
        self.rest = bytes(_VIEW[end:size])
        count = _BUFFER.count(b"\ndata: ", 0, end)
        self.events += count
        if count > _FEW:
            self._note(bytes(_VIEW[: _BUFFER.index(b"\n\n") + 2]), now, delays)
            last = _BUFFER.rindex(b"\n\n", 0, end - 2) + 2
            self._note(bytes(_VIEW[last:end]), now, delays)
        else:
            self._note(bytes(_VIEW[:end]), now, delays)
        return True

    def _note(self, text: bytes, now: float, delays: Delays) -> None:
        self.ready = True
        for ms, count, at in _EVENT.findall(text):
            id = int(ms), int(count)
            # An id without an event says only how far the stream is.
            self.disordered += id < self.last
            self.last = id
            if at:
                delays.all.append(now - float(at))
                delays.writing.append(id[0] / 1000 - float(at))
        if b"event: end\n" in text:
            self.end = text[text.rindex(b"event: end\n") :].decode()


def share(seconds: array[float], part: float) -> float:
    """Return the milliseconds that a part of all events took at most."""
    return sorted(seconds)[min(len(seconds) - 1, int(len(seconds) * part))] * 1000 if seconds else 0.0


def main() -> None:
    plan = Plan(**json.loads(sys.argv[1]))
    poll = select.epoll()
    readers = {}
    for number in range(plan.readers):
        reader = Reader(plan, number)
        readers[reader.socket.fileno()] = reader
        poll.register(reader.socket.fileno(), select.EPOLLIN)
    delays = Delays()
    said = False
    open_readers = dict(readers)
    heard_at = time.monotonic()
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: ended.append(number))
    while open_readers and not ended and sum(reader.events for reader in readers.values()) < plan.expected:
        ready = poll.poll(1)
        for fd, _ in ready:
            if not open_readers[fd].read(delays):
                poll.unregister(fd)
                del open_readers[fd]
        if not said and all(reader.ready for reader in readers.values()):
            said = True
            print("ready", flush=True)
        if ready or not said:
            heard_at = time.monotonic()
        elif plan.expected != Plan.expected and time.monotonic() > heard_at + _SILENCE:
            break
    ends = [reader.end for reader in readers.values() if reader.end]
    result = {
        "events": [reader.events for reader in readers.values()],
        "disordered": sum(reader.disordered for reader in readers.values()),
        "dropped": len(ends),
        "ends": ends[:3],
        "cpu": time.process_time(),
        "p50": share(delays.all, 0.5),
        "p99": share(delays.all, 0.99),
        "writing_p99": share(delays.writing, 0.99),
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
