"""Give each peer its turn, so that a peer whose bytes are always ready can't keep the event loop for itself.

gevent's ``recv`` and ``sendall`` switch to the hub only if they would block (hazard 37). A loop that is fed from
outside therefore calls :func:`take_turn` before each unit of work: a request, a frame, a handshake, a part of an
answer.

* In each pass of the event loop, such work gets ``SLICE`` seconds in all. The rest waits until the loop has looked at
  all sockets and timers again, so everything else is delayed by a slice and one unit at most.
* Of the peers that wait, the one that has had the least time goes first. So a peer that seldom asks waits for one unit
  of another's, however many are waiting. A peer is any hashable value, for example an address: its connections then
  wait in one queue.
* Within the slice, and while no peer waits, a turn costs a look at the clock (0.2 us); otherwise 2 us.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from heapq import heappop, heappush
from itertools import count
from typing import Any, TypeVar

from gevent import get_hub, getcurrent

_Item = TypeVar("_Item")

#: Seconds of such work in each pass of the event loop. A pass with a full slice costs 1 % more than one without an end.
SLICE = 0.002
#: Peers to remember. A peer that is forgotten counts as one that has had nothing lately.
_MOST = 10_000


class Turns:
    """The turns of one event loop."""

    def __init__(self, hub: Any, clock: Callable[[], float] = time.perf_counter) -> None:
        self._hub = hub
        self._clock = clock
        #: When the slice of this pass ends; 0.0 if it hasn't begun.
        self._end = 0.0
        #: The greenlets that wait, by peer.
        self._queues: dict[Hashable, deque[Any]] = {}
        # Start-time fair queueing (Goyal, Vin and Cheng 1996). Each peer has a clock of its own, which its work moves
        # on. The peer with the earliest is next, and a peer that comes gets at least the time of the one last served.
        self._order: list[tuple[float, bool, int, Hashable]] = []
        self._number = count()
        self._now = 0.0
        self._clocks: dict[Hashable, float] = {}
        #: The peer at work, and when it began.
        self._at_work: tuple[Hashable, float] | None = None
        loop = hub.loop
        self._new_pass = loop.check(ref=False)
        # An idle watcher keeps the loop from waiting for events; the highest priority runs it in each pass. A timer of
        # 0 s would wait for the 1 ms that epoll can measure.
        self._next_pass = loop.idle(priority=loop.MAXPRI)

    def take(self, peer: Hashable) -> None:
        """Return when `peer` may do a unit of work. Not for callbacks of the hub, which can't wait."""
        if not self._queues:
            if not self._end:
                self._begin()
                return
            if self._clock() < self._end:
                return
        self._wait(peer)

    def _begin(self) -> None:
        self._end = self._clock() + SLICE
        self._new_pass.start(self._forget)

    def _forget(self) -> None:
        self._end = 0.0
        self._new_pass.stop()

    def _wait(self, peer: Hashable) -> None:
        waiting = getcurrent()
        if not self._queues:
            self._next_pass.start(self._serve)
        self._count_work()
        queue = self._queues.get(peer)
        if queue is None:
            queue = self._queues[peer] = deque()
            self._line_up(peer)
        queue.append(waiting)
        try:
            self._hub.switch()
        except BaseException:
            # Killed, or out of time. It still waits, unless its turn came at this moment.
            if waiting in queue:
                queue.remove(waiting)
            raise

    def _line_up(self, peer: Hashable) -> None:
        clock = self._clocks.get(peer, 0.0)
        had_some = clock > self._now
        self._clocks[peer] = clock = max(self._now, clock)
        heappush(self._order, (clock, had_some, next(self._number), peer))

    def _count_work(self) -> None:
        if self._at_work is not None:
            peer, began = self._at_work
            self._clocks[peer] += self._clock() - began
            self._at_work = None

    def _serve(self) -> None:
        """Resume the greenlets that wait, until the slice of this pass has ended."""
        queues = self._queues
        self._begin()
        while self._order:
            self._now, _had_some, _number, peer = heappop(self._order)
            queue = queues[peer]
            waiting = queue.popleft() if queue else None
            has_more = bool(queue)
            if not has_more:
                # Now, so that a peer without others goes on within the slice.
                del queues[peer]
            if waiting is None:
                continue
            self._at_work = peer, self._clock()
            waiting.switch()
            self._count_work()
            if has_more:
                self._line_up(peer)
            if self._clock() >= self._end:
                break
        if not queues:
            self._next_pass.stop()
            self._clocks.clear()
        elif len(self._clocks) > _MOST:
            self._clocks = {peer: clock for peer, clock in self._clocks.items() if peer in queues}


#: By hub: one in each thread that has an event loop.
_TURNS: dict[Any, Turns] = {}


def take_turn(peer: Hashable) -> None:
    """Return when `peer` may do a unit of work: at once while there is time in this pass of the event loop."""
    hub = get_hub()
    turns = _TURNS.get(hub)
    if turns is None:
        turns = _TURNS[hub] = Turns(hub)
    turns.take(peer)


def in_turns(peer: Hashable, items: Iterable[_Item], each: int = 20) -> Iterator[_Item]:
    """Yield items, and take a turn before every ``each``: for what came in one piece and takes long to go through."""
    for number, item in enumerate(items):
        if number % each == 0:
            take_turn(peer)
        yield item
