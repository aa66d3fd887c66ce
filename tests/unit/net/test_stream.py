"""The socket of a call: deadlines that share a timer, slow readers, and closing by another greenlet."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import gevent
import pytest
from gevent import socket

from esl_apps.net.stream import Stream
from tests.support.peer import tcp_pair

Pair = tuple[Stream, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    near, far = socket.socketpair()
    stream = Stream(near)
    yield stream, far
    stream.close()
    far.close()


@pytest.fixture
def over_tcp() -> Iterator[Pair]:
    near, far = tcp_pair()
    stream = Stream(near)
    yield stream, far
    stream.close()
    far.close()


def waited(stream: Stream, seconds: float) -> float:
    started = time.monotonic()
    assert stream.recv(started + seconds) is None
    return time.monotonic() - started


def test_recv_returns_data_then_empty_bytes_at_the_end(pair: Pair) -> None:
    stream, far = pair
    far.sendall(b"one")
    assert stream.recv(time.monotonic() + 1) == b"one"
    gevent.spawn_later(0.01, far.sendall, b"two")
    assert stream.recv(None) == b"two"
    far.shutdown(socket.SHUT_WR)
    assert stream.recv(None) == b""


def test_recv_keeps_its_deadline_after_other_deadlines(pair: Pair) -> None:
    stream, far = pair
    assert 0.05 <= waited(stream, 0.05) < 10
    far.sendall(b"x")
    assert stream.recv(time.monotonic() + 60) == b"x"  # leaves a timer that fires in a minute
    assert 0.05 <= waited(stream, 0.05) < 10
    far.sendall(b"x")
    assert stream.recv(time.monotonic() + 0.05) == b"x"  # leaves a timer that fires during the next wait
    assert 0.2 <= waited(stream, 0.2) < 10
    assert stream.recv(time.monotonic() - 1) is None


def test_recv_without_deadline_outlasts_an_old_timer(pair: Pair) -> None:
    stream, far = pair
    far.sendall(b"x")
    assert stream.recv(time.monotonic() + 0.02) == b"x"
    gevent.spawn_later(0.1, far.sendall, b"later")
    assert stream.recv(None) == b"later"


def test_old_timer_does_not_wake_a_sleeping_greenlet(pair: Pair) -> None:
    stream, far = pair
    far.sendall(b"x")
    assert stream.recv(time.monotonic() + 0.02) == b"x"
    started = time.monotonic()
    gevent.sleep(0.1)
    assert time.monotonic() - started >= 0.1


def test_send_with_slow_reader_writes_everything(pair: Pair) -> None:
    stream, far = pair
    data = bytes(range(256)) * 8192
    got = gevent.spawn(lambda: b"".join(iter(lambda: far.recv(65536), b"")))
    stream.send(data, 5)
    stream.close()
    assert got.get(timeout=5) == data


def test_send_with_stopped_reader_times_out(pair: Pair) -> None:
    stream, _far = pair
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        stream.send(b"x" * (8 << 20), 0.05)
    assert time.monotonic() - started < 10


def test_recv_raises_when_another_greenlet_closes(pair: Pair) -> None:
    stream, _far = pair
    gevent.spawn_later(0.02, stream.close)
    with gevent.Timeout(2), pytest.raises(OSError, match="closed"):
        stream.recv(None)


def test_stream_works_after_a_gevent_timeout_in_recv(pair: Pair) -> None:
    stream, far = pair
    with contextlib.suppress(gevent.Timeout), gevent.Timeout(0.02):
        stream.recv(None)
    far.sendall(b"still")
    assert stream.recv(time.monotonic() + 1) == b"still"


def test_send_raises_when_another_greenlet_closes(pair: Pair) -> None:
    stream, _far = pair
    gevent.spawn_later(0.02, stream.close)
    with gevent.Timeout(2), pytest.raises(OSError, match="closed"):
        stream.send(b"x" * (8 << 20), 5)


def test_recv_waits_for_the_least_bytes(over_tcp: Pair) -> None:
    stream, far = over_tcp
    stream.wait_for(10)
    far.sendall(b"too few")
    reading = gevent.spawn(stream.recv, time.monotonic() + 5)
    gevent.sleep(0.01)
    assert not reading.ready()
    far.sendall(b", enough")
    assert reading.get() == b"too few, enough"


def test_recv_that_waits_for_more_sees_the_end(over_tcp: Pair) -> None:
    stream, far = over_tcp
    stream.wait_for(10)
    far.sendall(b"last")
    far.shutdown(socket.SHUT_WR)
    assert stream.recv(time.monotonic() + 5) == b"last"
    assert stream.recv(time.monotonic() + 5) == b""


def test_recv_takes_what_is_there_when_less_will_do(over_tcp: Pair) -> None:
    stream, far = over_tcp
    stream.wait_for(10)
    far.sendall(b"few")
    reading = gevent.spawn(stream.recv, time.monotonic() + 5)
    gevent.sleep(0.01)
    assert not reading.ready()
    stream.wait_for(1)
    assert reading.get(timeout=5) == b"few"
