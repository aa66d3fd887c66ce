"""The benchmarks' readers of live events: what they count must be what came."""

from __future__ import annotations

import socket
import time
from array import array
from collections.abc import Iterator

import pytest

from benchmarks.load.event_readers import Delays, Plan, Reader

TOKEN = "token-of-bench"


def event(count: int, at: float) -> bytes:
    return b'id: 1700000000000-%d\nevent: call\ndata: {"state":"queued","at":%.3f}\n\n' % (count, at)


@pytest.fixture
def pair() -> Iterator[tuple[Reader, socket.socket]]:
    """A reader, and the server's end of its connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        reader = Reader(Plan(server.getsockname()[1], TOKEN, 1, 1), 0)
        peer, _ = server.accept()
        with peer, reader.socket:
            yield reader, peer


def read(reader: Reader, peer: socket.socket, *pieces: bytes) -> array[float]:
    delays = Delays()
    reader.socket.setblocking(True)
    for piece in pieces:
        peer.sendall(piece)
        reader.read(delays)
    return delays.all


def test_reader_counts_an_event_in_two_pieces_once(pair: tuple[Reader, socket.socket]) -> None:
    text = event(1, time.time() - 2.0)
    delays = read(*pair, b"id: 1-0\n\n" + text[:40], text[40:])
    assert pair[0].events == 1
    assert pair[0].disordered == 0
    assert 1.9 < delays[0] < 60.0


def test_reader_sees_events_out_of_order(pair: tuple[Reader, socket.socket]) -> None:
    read(*pair, event(2, 1.0), event(1, 1.0))
    assert pair[0].disordered == 1


def test_reader_times_first_and_last_of_a_large_piece(pair: tuple[Reader, socket.socket]) -> None:
    now = time.time()
    delays = read(*pair, b"".join(event(number, now - number) for number in range(20)))
    assert pair[0].events == 20
    assert [round(delay) for delay in delays] == [0, 19]


def test_reader_says_why_its_stream_ended(pair: tuple[Reader, socket.socket]) -> None:
    read(*pair, b'event: end\ndata: {"reason":"too_slow"}\n\n')
    assert "too_slow" in pair[0].end
