"""Event-socket servers for tests: ours, and a naive one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gevent.pool import Pool
from gevent.server import StreamServer

from esl_apps.esl.server import OutboundServer
from esl_apps.esl.session import OutboundSession
from tests.support.peer import Peer


def serving() -> Iterator[Callable[..., OutboundServer]]:
    """Yield a function that starts our server on a free port: ``serve(application, max_connections=…)``."""
    started: list[OutboundServer] = []

    def start(
        application: Callable[[OutboundSession], None], max_connections: int = 1000, **more: object
    ) -> OutboundServer:
        server = OutboundServer(("127.0.0.1", 0), application, max_connections, **more)  # type: ignore[arg-type]
        server.listen()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


class NaiveServer:
    """Passes each connection, as a ``Peer``, to a function: a first attempt, without our code."""

    def __init__(self, handler: Callable[[Peer], None]) -> None:
        self._calls = Pool()
        self.server = StreamServer(("127.0.0.1", 0), lambda sock, _: handler(Peer(sock)), spawn=self._calls)
        self.server.start()

    @property
    def port(self) -> int:
        return int(self.server.address[1])

    def end(self) -> None:
        """Stop, with all its calls."""
        self.server.stop(timeout=0)
        self._calls.kill()


def serving_naively() -> Iterator[Callable[[Callable[[Peer], None]], NaiveServer]]:
    started: list[NaiveServer] = []

    def start(handler: Callable[[Peer], None]) -> NaiveServer:
        started.append(NaiveServer(handler))
        return started[-1]

    yield start
    for server in started:
        server.end()
