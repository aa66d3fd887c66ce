"""Give each peer its turn, so that a peer whose bytes are always ready can't keep the event loop for itself.

gevent's ``recv`` and ``sendall`` switch to the hub only if they would block (hazard 37). A loop that is fed from
outside therefore calls :func:`take_turn` before each unit of work: a request, a frame, a handshake, a part of an
answer.

* In each pass of the event loop, such work gets ``SLICE`` seconds in all. The rest waits until the loop has looked at
  all sockets and timers again, so everything else is delayed by a slice and one unit at most.
* Peers that wait take turns, one unit each. A peer is any hashable value, for example an address: its connections then
  wait in one queue.
* Within the slice, and while no peer waits, a turn costs a look at the clock (0.2 us).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

from gevent import get_hub, getcurrent

#: Seconds of such work in each pass of the event loop. A pass with a full slice costs 1 % more than one without an end.
SLICE = 0.002


class Turns:
    """The turns of one event loop."""

    def __init__(self, hub: Any, clock: Callable[[], float] = time.perf_counter) -> None:
        self._hub = hub
        self._clock = clock
        #: When the slice of this pass ends; 0.0 if it hasn't begun.
        self._end = 0.0
        #: The greenlets that wait, by peer. The first peer is next.
        self._queues: dict[Hashable, deque[Any]] = {}
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
        self._queues.setdefault(peer, deque()).append(waiting)
        try:
            self._hub.switch()
        except BaseException:
            # Killed, or out of time. It still waits, unless its turn came at this moment.
            queue = self._queues.get(peer)
            if queue is not None and waiting in queue:
                queue.remove(waiting)
                if not queue:
                    del self._queues[peer]
            raise

    def _serve(self) -> None:
        """Resume the greenlets that wait, until the slice of this pass has ended."""
        queues = self._queues
        self._begin()
        while queues:
            peer = next(iter(queues))
            queue = queues.pop(peer)
            waiting = queue.popleft()
            if queue:
                queues[peer] = queue
            waiting.switch()
            if self._clock() >= self._end:
                break
        if not queues:
            self._next_pass.stop()


#: By hub: one in each thread that has an event loop.
_TURNS: dict[Any, Turns] = {}


def take_turn(peer: Hashable) -> None:
    """Return when `peer` may do a unit of work: at once while there is time in this pass of the event loop."""
    hub = get_hub()
    turns = _TURNS.get(hub)
    if turns is None:
        turns = _TURNS[hub] = Turns(hub)
    turns.take(peer)
