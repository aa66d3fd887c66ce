"""Fixtures: each test fails with its stack after some seconds instead of hanging."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest
from gevent import socket
from greenswitch import esl as greenswitch

from esl_apps.esl.session import OutboundSession
from tests.support.esl_servers import serving, serving_naively
from tests.support.peer import FakeSwitch, Peer, channel_data, reply


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
    """Yield a connected session, and the switch's end of its socket."""
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
    """Yield the same with the unmodified greenswitch."""
    ours, theirs = socket.socketpair()
    session, peer = greenswitch.OutboundSession(("test", 0), ours), Peer(theirs)
    connecting = gevent.spawn(session.connect)
    peer.expect("connect")
    peer.say(channel_data())
    connecting.get()
    yield session, peer
    # Its stop() may wait for ever, which is one of the hazards.
    gevent.killall([session._receive_events_greenlet, session._process_events_greenlet])
    ours.close()
    peer.close()


serve = pytest.fixture(serving)
serve_naively = pytest.fixture(serving_naively)
