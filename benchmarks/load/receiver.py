"""A receiver of webhooks that takes everything, at little cost: ``python -m benchmarks.load.receiver PORT``."""

from __future__ import annotations

import sys

from gevent.server import StreamServer

_TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"


def _serve(sock: object, _address: object) -> None:
    # A node writes a post at once, and the next one only after the answer.
    while sock.recv(65536):  # type: ignore[attr-defined]
        sock.sendall(_TAKEN)  # type: ignore[attr-defined]


if __name__ == "__main__":
    StreamServer(("127.0.0.1", int(sys.argv[1])), _serve).serve_forever()
