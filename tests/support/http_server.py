"""An HTTP port in a process of its own, with small bounds: ``python -m tests.support.http_server BOUNDS [CERT KEY]``.

Its application answers in JSON with what it was asked, and counts; ``/slow`` says so and waits for SIGUSR1, ``/big`` is
8 MB, ``/short`` says more than it has, ``/split`` tries a line break in a header, ``/fault`` fails.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterable
from typing import Any

import gevent
from gevent import ssl
from gevent.event import Event

from esl_apps.http.server import Bounds, serve
from esl_apps.net import tls

BIG = 8 * 1024 * 1024
asked = 0
go = Event()


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    global asked
    asked += 1
    path = environ["PATH_INFO"]
    if path == "/fault":
        raise RuntimeError("a secret of the stack")
    if path == "/split":
        start_response("200 OK", [("x-a", "b\r\nx-c: d")])
        return [b""]
    if path == "/slow":
        print("asked", flush=True)
        go.wait(20)
    if path == "/big":
        start_response("200 OK", [("content-length", str(BIG))])
        return iter([b"x" * 65536] * (BIG // 65536))
    if path == "/short":
        start_response("200 OK", [("content-length", "100")])
        return iter([b"x" * 10])
    body = environ["wsgi.input"].read()
    shown = {name: value for name, value in environ.items() if isinstance(value, str)}
    data = json.dumps({"asked": asked, "environ": shown, "body": body.decode("latin-1")}).encode()
    start_response("200 OK", [("content-type", "application/json")])
    return [data]


def main(bounds: str, *files: str) -> None:
    context = tls.context(*files, ssl.SSLContext) if files else None
    server = serve(("127.0.0.1", 0), application, bounds=Bounds(**json.loads(bounds)), tls=context)
    gevent.signal_handler(signal.SIGUSR1, go.set)
    print(server.address[1], flush=True)
    # Until whoever started it closes its standard input, or ends.
    gevent.get_hub().threadpool.apply(sys.stdin.read)


if __name__ == "__main__":
    main(*sys.argv[1:])
