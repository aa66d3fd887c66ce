"""TLS in small parts: a peer whose records carry nothing gives way, and is cut off."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from gevent import socket

from esl_apps.net import tls_stream
from esl_apps.net.tls_stream import TlsStream
from tests.support import TLS


def server_context(tickets: int = 0) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "one.pem", TLS / "one.key")
    context.num_tickets = tickets
    return context


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(TLS / "one.pem")
    return context


class Peer:
    """The server at the other end of a socket that never waits: it does what it can when the client sends."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self.outgoing, server_side=True)
        self.heard = b""
        self.alert = ""
        self.full = False
        self._shaken = False

    def send(self, data: bytes) -> int:
        if self.full:
            raise TimeoutError
        self._incoming.write(data)
        try:
            if not self._shaken:
                self.tls.do_handshake()
                self._shaken = True
            self.heard += self.tls.read()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.alert = str(error)
        return len(data)

    def recv(self, size: int) -> bytes:
        return self.outgoing.read(size)


@pytest.fixture
def turns() -> list[int]:
    return []


def connected(peer: Peer, turns: list[int]) -> TlsStream:
    sock: Any = peer
    stream = TlsStream(sock, client_context(), server_hostname="localhost", turn=lambda: turns.append(1))
    stream.do_handshake()
    return stream


def test_tls_stream_carries_data_both_ways(turns: list[int]) -> None:
    peer = Peer(server_context())
    stream = connected(peer, turns)
    stream.sendall(b"a" * 100_000)
    while len(peer.heard) < 100_000:
        peer.heard += peer.tls.read(100_000)
    assert peer.heard == b"a" * 100_000
    peer.tls.write(b"b" * 50_000)
    data = b""
    while len(data) < 50_000:
        data += stream.recv(16_384)
    assert data == b"b" * 50_000
    assert len(turns) >= 50_000 // tls_stream._PART
    assert stream.pending() == 0


def test_tls_stream_ends_records_that_carry_nothing(turns: list[int]) -> None:
    """OpenSSL reads on while tickets or KeyUpdates come, and the event loop stood still for as long."""
    peer = Peer(server_context(tickets=2000))
    stream = connected(peer, turns)
    before = len(turns)
    with pytest.raises(OSError, match="without data"):
        stream.recv(100)
    assert len(turns) - before == tls_stream._NOTHING // tls_stream._PART
    assert peer.outgoing.pending > 0


def test_tls_stream_takes_the_tickets_of_an_honest_server(turns: list[int]) -> None:
    peer = Peer(server_context(tickets=4))
    stream = connected(peer, turns)
    peer.tls.write(b"hello")
    assert stream.recv(100) == b"hello"


def test_tls_stream_sends_later_what_was_not_taken_in_time(turns: list[int]) -> None:
    peer = Peer(server_context())
    stream = connected(peer, turns)
    peer.full = True
    assert stream.send(b"one ") == 4
    with pytest.raises(TimeoutError):
        stream.send(b"two")
    peer.full = False
    stream.sendall(b"two")
    assert peer.heard == b"one two"


def test_tls_stream_without_an_end_of_the_handshake_is_cut_off(
    turns: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_stream, "_HANDSHAKE", 500)
    monkeypatch.setattr(tls_stream, "_PART", 100)
    with pytest.raises(OSError, match="without data"):
        connected(Peer(server_context()), turns)


def test_tls_stream_tells_the_peer_why_it_is_refused(turns: list[int]) -> None:
    peer = Peer(server_context())
    sock: Any = peer
    with pytest.raises(ssl.SSLCertVerificationError):
        TlsStream(sock, client_context(), server_hostname="elsewhere", turn=lambda: turns.append(1)).do_handshake()
    assert "ALERT" in peer.alert


def test_tls_stream_of_a_client_that_left_is_at_its_end() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with pytest.raises(OSError):
        TlsStream(ours, server_context(), server_side=True, turn=lambda: None).do_handshake()
    ours.close()
