"""The session's socket: deadlines on one timer, a slow reader, a close from elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator

import gevent
import pytest
from gevent import socket

from esl_apps.net.stream import Stream

Pair = tuple[Stream, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    near, far = socket.socketpair()
    stream = Stream(near)
    yield stream, far
    stream.close()
    far.close()


def waited(stream: Stream, seconds: float) -> float:
    started = time.monotonic()
    assert stream.recv(started + seconds) is None
    return time.monotonic() - started


def test_what_comes_is_read_and_an_end_is_no_timeout(pair: Pair) -> None:
    stream, far = pair
    far.sendall(b"one")
    assert stream.recv(time.monotonic() + 1) == b"one"
    gevent.spawn_later(0.01, far.sendall, b"two")
    assert stream.recv(None) == b"two"
    far.shutdown(socket.SHUT_WR)
    assert stream.recv(None) == b""


def test_a_deadline_holds_whatever_the_last_one_was(pair: Pair) -> None:
    stream, far = pair
    assert 0.05 <= waited(stream, 0.05) < 0.5
    far.sendall(b"x")
    assert stream.recv(time.monotonic() + 60) == b"x"  # leaves a timer for a minute from now
    assert 0.05 <= waited(stream, 0.05) < 0.5
    far.sendall(b"x")
    assert stream.recv(time.monotonic() + 0.05) == b"x"  # leaves one that goes off in the next wait
    assert 0.2 <= waited(stream, 0.2) < 0.5
    assert stream.recv(time.monotonic() - 1) is None


def test_an_old_timer_does_not_end_a_wait_without_deadline(pair: Pair) -> None:
    stream, far = pair
    far.sendall(b"x")
    assert stream.recv(time.monotonic() + 0.02) == b"x"
    gevent.spawn_later(0.1, far.sendall, b"later")
    assert stream.recv(None) == b"later"


def test_an_old_timer_leaves_a_greenlet_alone_that_waits_for_something_else(pair: Pair) -> None:
    stream, far = pair
    far.sendall(b"x")
    assert stream.recv(time.monotonic() + 0.02) == b"x"
    started = time.monotonic()
    gevent.sleep(0.1)
    assert time.monotonic() - started >= 0.1


def test_a_write_is_whole_or_fails(pair: Pair) -> None:
    stream, far = pair
    data = bytes(range(256)) * 8192
    got = gevent.spawn(lambda: b"".join(iter(lambda: far.recv(65536), b"")))
    stream.send(data, 5)
    stream.close()
    assert got.get(timeout=5) == data


def test_a_reader_that_stopped_holds_a_write_for_its_timeout(pair: Pair) -> None:
    stream, _far = pair
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        stream.send(b"x" * (8 << 20), 0.05)
    assert time.monotonic() - started < 1


def test_a_close_from_elsewhere_ends_the_wait(pair: Pair) -> None:
    stream, _far = pair
    gevent.spawn_later(0.02, stream.close)
    with gevent.Timeout(2), pytest.raises(OSError, match="closed"):
        stream.recv(None)


def test_a_gevent_timeout_around_a_wait_leaves_the_stream_of_use(pair: Pair) -> None:
    stream, far = pair
    with gevent.Timeout(0.02, False):
        stream.recv(None)
    far.sendall(b"still")
    assert stream.recv(time.monotonic() + 1) == b"still"
