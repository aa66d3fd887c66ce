"""Each test ends: what would hang fails after some seconds with its stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import gevent
import pytest
from gevent import socket
from gevent.pool import Pool
from gevent.server import StreamServer
from greenswitch import esl as greenswitch
from hypothesis import HealthCheck, settings

from esl_apps.esl.server import OutboundServer
from esl_apps.esl.session import OutboundSession
from tests.rig.sandbox import SandboxRig
from tests.support.peer import FakeSwitch, Peer, channel_data, reply

# A loaded machine is no fault of what is tested.
settings.register_profile("esl_apps", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("esl_apps")


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    with gevent.Timeout(20):
        yield


@pytest.fixture
def fake_switch() -> Iterator[FakeSwitch]:
    switch = FakeSwitch()
    yield switch
    switch.close()


@pytest.fixture
def line() -> Iterator[tuple[OutboundSession, Peer]]:
    """A session that has connected, and the switch's end of its socket."""
    ours, theirs = socket.socketpair()
    session, peer = OutboundSession(("test", 0), ours), Peer(theirs)
    peer.say(channel_data(), reply("+OK will linger 5 seconds"))
    session.connect()
    assert peer.pending() == ["connect", "linger 5"]
    yield session, peer
    session.close("the test is over")
    peer.close()


@pytest.fixture
def their_line() -> Iterator[tuple[greenswitch.OutboundSession, Peer]]:
    """The same with the unmodified greenswitch."""
    ours, theirs = socket.socketpair()
    session, peer = greenswitch.OutboundSession(("test", 0), ours), Peer(theirs)
    connecting = gevent.spawn(session.connect)
    peer.expect("connect")
    peer.say(channel_data())
    connecting.get()
    yield session, peer
    # Its stop() may wait for ever: that is one of the hazards.
    gevent.killall([session._receive_events_greenlet, session._process_events_greenlet])
    ours.close()
    peer.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., OutboundServer]]:
    """Starts a server of ours on a free port: ``serve(application, max_connections=…)``."""
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
    """Hands each connection, as a ``Peer``, to a function. What one writes first, with nothing of ours."""

    def __init__(self, handler: Callable[[Peer], None]) -> None:
        self._calls = Pool()
        self.server = StreamServer(("127.0.0.1", 0), lambda sock, _: handler(Peer(sock)), spawn=self._calls)
        self.server.start()

    @property
    def port(self) -> int:
        return int(self.server.server_port)

    def end(self) -> None:
        """With all its calls."""
        self.server.stop(timeout=0)
        self._calls.kill()


@pytest.fixture
def serve_naively() -> Iterator[Callable[[Callable[[Peer], None]], NaiveServer]]:
    started: list[NaiveServer] = []

    def start(handler: Callable[[Peer], None]) -> NaiveServer:
        started.append(NaiveServer(handler))
        return started[-1]

    yield start
    for server in started:
        server.end()


@pytest.fixture(scope="session")
def sandbox_process() -> Iterator[SandboxRig]:
    with SandboxRig() as rig:
        yield rig


@pytest.fixture
def sandbox(sandbox_process: SandboxRig) -> Iterator[SandboxRig]:
    """The stand-in switch, with no call and no phone."""
    yield sandbox_process
    # In a thread: the calls end only as this process' greenlets let go of them.
    gevent.get_hub().threadpool.apply(sandbox_process.reset)
