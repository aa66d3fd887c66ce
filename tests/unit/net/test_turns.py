"""Turns of work in the event loop, with a clock that only the units of work move on."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

import gevent
import pytest
from gevent import get_hub, socket

from esl_apps.net.turns import SLICE, Turns, in_turns, take_turn
from tests.support.peer import eventually


class Work:
    """Units of work of several peers, in the order in which they were done. Each takes three quarters of a slice."""

    def __init__(self) -> None:
        self.now = 1.0
        self.turns = Turns(get_hub(), lambda: self.now)
        self.done: list[Hashable] = []
        self.greenlets: list[gevent.Greenlet[..., None]] = []

    def spawn(self, peer: Hashable, units: int, *, units_of: float = 1.0) -> gevent.Greenlet[..., None]:
        """:param units_of: how much more time than others its units take."""
        greenlet = gevent.spawn(self._work, peer, units, units_of)
        self.greenlets.append(greenlet)
        return greenlet

    def _work(self, peer: Hashable, units: int, units_of: float) -> None:
        for _ in range(units):
            self.turns.take(peer)
            self.now += SLICE * 0.75 * units_of
            self.done.append(peer)

    def wait(self) -> None:
        assert len(gevent.joinall(self.greenlets, timeout=10)) == len(self.greenlets)


@pytest.fixture
def work() -> Iterator[Work]:
    work = Work()
    yield work
    gevent.killall(work.greenlets)


def test_turns_let_sockets_in_after_each_slice(work: Work) -> None:
    near, far = socket.socketpair()
    with near, far:

        def echo() -> None:
            for _ in range(10):
                near.send(near.recv(1))
                work.done.append("socket")

        def ask() -> None:
            for _ in range(10):
                far.send(b"x")
                far.recv(1)

        work.greenlets += [gevent.spawn(echo), gevent.spawn(ask)]
        work.spawn("flood", 100)
        work.wait()
    last = max(index for index, peer in enumerate(work.done) if peer == "socket")
    # The slice has room for two units, and an answer takes two passes at most.
    assert last < 10 * 2 * 3


def test_turns_go_to_peers_and_not_to_their_greenlets(work: Work) -> None:
    for _ in range(10):
        work.spawn("many", 10)
    work.spawn("single", 10)
    work.wait()
    # The first pass starts all ten before anything waits.
    assert work.done.index("single") < 12
    last = max(index for index, peer in enumerate(work.done) if peer == "single")
    assert last < 10 + 2 * 10
    assert len(work.done) == 110


def test_turns_of_a_newcomer_come_before_all_that_had_some(work: Work) -> None:
    for number in range(50):
        work.spawn(f"flood {number}", 20)
    gevent.sleep(0)
    eventually(lambda: len(work.done) > 200)
    for number in range(5):
        before = len(work.done)
        work.spawn(f"newcomer {number}", 1).join(10)
        # It waits for two passes, and not for fifty others.
        assert work.done[before:].index(f"newcomer {number}") < 10


def test_turns_are_shared_by_time_and_not_by_number(work: Work) -> None:
    work.spawn("light", 100)
    work.spawn("heavy", 100, units_of=4.0)
    work.wait()
    before = work.done[: work.done.index("light", 60)]
    # While both wait, four light units have the time of a heavy one.
    assert before.count("heavy") < before.count("light") / 2


def test_turns_within_a_slice_do_not_switch(work: Work) -> None:
    other = gevent.spawn(work.done.append, "other")
    work.turns.take("peer")
    work.turns.take("peer")
    assert work.done == []
    work.now += SLICE
    work.turns.take("peer")
    assert work.done == ["other"]
    other.join()


def test_turns_of_a_killed_greenlet_go_to_the_others(work: Work) -> None:
    work.spawn("first", 3)
    killed = work.spawn("killed", 3)
    work.spawn("last", 3)
    gevent.sleep(0)
    # All have begun, and wait for the second pass.
    killed.kill()
    work.wait()
    assert work.done.count("first") == work.done.count("last") == 3
    assert work.done.count("killed") < 3


def test_turns_after_a_pause_begin_with_a_whole_slice(work: Work) -> None:
    work.spawn("first", 5)
    work.wait()
    gevent.idle()
    other = gevent.spawn(work.done.append, "other")
    work.turns.take("second")
    assert work.done == ["first"] * 5
    other.join()


def test_take_turn_lets_others_run() -> None:
    stopped: list[bool] = []
    gevent.spawn_later(0.01, stopped.append, True)
    with gevent.Timeout(10):
        while not stopped:
            take_turn("peer")


def test_in_turns_takes_one_before_each_group(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr("esl_apps.net.turns.take_turn", lambda peer: seen.append(peer))
    for item in in_turns("redis", range(5), each=2):
        seen.append(item)
    assert seen == ["redis", 0, 1, "redis", 2, 3, "redis", 4]
