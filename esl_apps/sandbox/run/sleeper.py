"""Let a channel's greenlet wait for a time or a wake-up, without polling."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import gevent
from gevent import get_hub, getcurrent


class Handle:
    """A function call that is due later."""

    __slots__ = ("_timer",)

    def __init__(self, timer: Any) -> None:
        self._timer: Any = timer

    def cancel(self) -> None:
        """Cancel the call. After it ran, or a second time, do nothing."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()
            timer.close()


def later(seconds: float, function: Callable[..., object], *args: object) -> Handle:
    """Call a function that never blocks from the hub, after some seconds."""
    loop = get_hub().loop

    def due() -> None:
        handle.cancel()
        function(*args)

    if seconds <= 0:
        handle = Handle(loop.run_callback(due))
    else:
        timer = loop.timer(seconds)
        handle = Handle(timer)
        timer.start(due)
    return handle


def at_most(seconds: float) -> Any:
    """Return a context that ends silently when the time is up."""
    silently: Any = False
    return gevent.Timeout(seconds, silently)


class Sleeper:
    """One greenlet sleeps, any may wake it. A wake while none sleeps ends the next sleep."""

    __slots__ = ("_greenlet", "_pending", "_phase", "_tick", "_wake")

    def __init__(self, tick: float) -> None:
        self._tick = tick
        self._phase = time.monotonic()
        self._greenlet: Any = None
        self._pending = False
        self._wake: Handle | None = None

    def until_tick(self) -> float:
        """Return the seconds to this channel's next 20 ms frame; 0 if the tick is off."""
        if not self._tick:
            return 0.0
        elapsed = (time.monotonic() - self._phase) / self._tick
        return (math.floor(elapsed) + 1 - elapsed) * self._tick

    def sleep(self, seconds: float | None) -> None:
        """Block the calling greenlet until the time is up or `wake` is called."""
        if self._pending:
            self._pending = False
            # Yield, or a greenlet that is always woken would keep the others from running.
            gevent.sleep(0)
            return
        self._greenlet = getcurrent()
        handle = later(seconds, self._resume) if seconds is not None else None
        try:
            get_hub().switch()
        finally:
            self._greenlet = None
            if handle is not None:
                handle.cancel()
            if self._wake is not None:
                self._wake.cancel()
                self._wake = None

    def frame(self) -> None:
        """Sleep for one frame."""
        if self._tick:
            pending = self._pending
            self._pending = False
            self.sleep(self.until_tick())
            self._pending = self._pending or pending

    def wake(self, *, at_once: bool = False) -> None:
        """Wake the sleeper at the channel's next frame, or now with ``at_once``."""
        if self._greenlet is None:
            self._pending = True
        elif self._wake is None:
            self._wake = later(0.0 if at_once else self.until_tick(), self._resume)

    def _resume(self) -> None:
        greenlet = self._greenlet
        if greenlet is not None:
            self._greenlet = None
            greenlet.switch()
