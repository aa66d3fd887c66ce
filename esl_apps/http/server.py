"""A WSGI port on gevent, with the limits that a port needs: slow, huge and broken clients delay nobody."""

from __future__ import annotations

import logging
from typing import Any

from gevent import socket
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer

log = logging.getLogger(__name__)

#: Seconds that a client may be silent, in a request or between two.
IDLE = 30.0
CONNECTIONS = 1000
#: Bytes of a request's body; the largest that makes sense is a few hundred.
MAX_BODY = 65536


class _Handler(WSGIHandler):
    def handle(self) -> None:
        self.socket.settimeout(IDLE)
        try:
            super().handle()
        except TimeoutError:
            self.socket.close()

    def log_request(self) -> None:
        """What happens to a call is logged with the call; a line a request would only repeat it."""

    def log_error(self, msg: str, *args: Any) -> None:
        log.info("http", extra={"reason": (msg % args if args else msg)[:200], "client": str(self.client_address)})


def serve(address: tuple[str, int], app: Any, backlog: int = 512) -> WSGIServer:
    """Bind and start. :raises OSError: the address is in use or is not this machine's."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    listener.listen(backlog)
    server = WSGIServer(
        listener, app, log=None, error_log=logging.getLogger("esl_apps.http"), handler_class=_Handler,
        spawn=Pool(CONNECTIONS),
    )  # fmt: skip
    server.start()
    return server
