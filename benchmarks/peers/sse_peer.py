"""The usual way to send events: a queue for each reader, and a part of the answer for each event. No token, no filter.

Arguments: ``PORT REDIS_PORT STREAM``. One greenlet reads the stream of events that the nodes write.
"""

from gevent import monkey

monkey.patch_all()

import sys
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import redis
from gevent.pywsgi import WSGIServer
from gevent.queue import SimpleQueue

QUEUES: dict[int, "SimpleQueue[bytes]"] = {}


def read_stream(port: int, stream: str) -> None:
    client: Any = redis.Redis(port=port)
    newest = client.xrevrange(stream, count=1)
    last = newest[0][0] if newest else b"0"
    while True:
        for _, entries in client.xread({stream: last}, count=500, block=50) or ():
            for last, fields in entries:
                frame = b"id: %s\nevent: %s\ndata: %s\n\n" % (last, fields[b"event"], fields[b"json"])
                for queue in list(QUEUES.values()):
                    queue.put(frame)


def application(
    _environ: dict[str, object], start_response: Callable[[str, list[tuple[str, str]]], object]
) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/event-stream"), ("Connection", "close")])
    queue: SimpleQueue[bytes] = SimpleQueue()
    QUEUES[id(queue)] = queue
    try:
        yield b"id: 0-0\n\n"
        while True:
            yield queue.get()
    finally:
        del QUEUES[id(queue)]


if __name__ == "__main__":
    gevent.spawn(read_stream, int(sys.argv[2]), sys.argv[3])
    WSGIServer(("127.0.0.1", int(sys.argv[1])), application, log=None, backlog=512).serve_forever()
