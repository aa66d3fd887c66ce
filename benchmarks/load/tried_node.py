"""A node with an idea tried on it: ``python -m benchmarks.load.tried_node IDEA serve -c CONFIG``.

Each idea is a patch of this process, not of the product, so that its gain can be measured again next to the node as
it is. Those that take something away ("no …") say what it costs at most.
"""

from __future__ import annotations

import gc
import sys
import time
import types
from collections.abc import Callable
from typing import Any

#: Before gevent replaces it.
_sleep = time.sleep


def no_collector() -> None:
    """Python's collector of cycles never runs."""
    gc.disable()


def watchers_stay_started() -> None:
    """A socket's watcher goes on between reads, which saves an epoll_ctl for each wait."""
    from gevent import get_hub, getcurrent

    from esl_apps.net import stream as module

    target: Any = module.Stream

    def ready(stream: Any) -> None:
        if stream._waiter is None:
            stream._read.stop()
        else:
            stream._waiter.switch()

    def recv(stream: Any, deadline: float | None) -> bytes | None:
        while True:
            if deadline is not None and (stream._timer is None or deadline < stream._due):
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                stream._arm(deadline, left)
            stream._waiter = getcurrent()
            if not stream._read.active:
                stream._read.start(ready, stream)
            try:
                get_hub().switch()
            finally:
                stream._waiter = None
            try:
                return bytes(stream._sock.recv(65536))
            except BlockingIOError:
                continue

    target.recv = recv


def no_look_at_redis() -> None:
    """A pooled connection to Redis is used without a look whether it has been closed."""
    from esl_apps.store import connection

    target: Any = connection.Connection
    target.refresh = lambda self: None


def states_written_every_200_ms() -> None:
    """The state of a call is written to Redis after 0.2 s instead of 0.02."""
    import gevent

    from esl_apps.store import calls

    target: Any = calls

    def sleep(seconds: float = 0) -> None:
        gevent.sleep(0.2 if seconds == 0.02 else seconds)

    target.gevent = types.SimpleNamespace(**{**vars(gevent), "sleep": sleep})


def no_states_on_the_switch() -> None:
    """No CUSTOM event on the switch for each state of a call."""
    from esl_apps.esl import switch as module
    from esl_apps.node import records

    told: Any = records
    told.state_event = lambda *_: b""
    target: Any = module.Switch
    post = target.post_raw

    def post_raw(switch: Any, raw: bytes) -> None:
        if raw:
            post(switch, raw)

    target.post_raw = post_raw


def loop_rests(seconds: float) -> Callable[[], None]:
    """The loop sleeps a little before it looks for news, so that one wake-up finds more of it."""

    def patch() -> None:
        import gevent

        loop: Any = gevent.get_hub().loop
        watcher = loop.prepare(ref=False, priority=loop.MINPRI)
        watcher.start(_sleep, seconds)
        _KEPT.append(watcher)

    return patch


#: Watchers stop when they are freed.
_KEPT: list[Any] = []

IDEAS: dict[str, Callable[[], None]] = {
    "nothing": lambda: None,
    "no_collector": no_collector,
    "watchers": watchers_stay_started,
    "no_look": no_look_at_redis,
    "states_200_ms": states_written_every_200_ms,
    "no_states": no_states_on_the_switch,
    "rest_1_ms": loop_rests(0.001),
    "rest_4_ms": loop_rests(0.004),
}


def main() -> None:
    from esl_apps import __main__ as program

    idea = IDEAS[sys.argv.pop(1)]
    program.patch()
    idea()
    program.main()


if __name__ == "__main__":
    main()
