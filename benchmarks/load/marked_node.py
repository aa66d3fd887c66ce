"""A node that marks each wake-up: ``python -m benchmarks.load.marked_node FILE serve -c CONFIG``.

When its loop has run all that a wake-up brought, it writes a line to FILE: nanoseconds of CPU, and of time. Under
strace these lines show which system calls belong to which wake-up.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any


def mark(path: str) -> None:
    """Mark the wake-ups of this thread's loop."""
    import gevent

    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    loop: Any = gevent.get_hub().loop
    # The first that runs behind the wait, and the last before the next.
    woke = loop.check(ref=False, priority=loop.MAXPRI)
    sleeps = loop.prepare(ref=False, priority=loop.MINPRI)
    begun = [0, 0]

    def begin() -> None:
        begun[:] = time.thread_time_ns(), time.perf_counter_ns()

    def end() -> None:
        if begun[0]:
            cpu, wall = time.thread_time_ns() - begun[0], time.perf_counter_ns() - begun[1]
            os.write(file, b"%d %d\n" % (cpu, wall))
            begun[0] = 0

    woke.start(begin)
    sleeps.start(end)


def main() -> None:
    from esl_apps import __main__ as program

    path = sys.argv.pop(1)
    program.patch()
    mark(path)
    program.main()


if __name__ == "__main__":
    main()
