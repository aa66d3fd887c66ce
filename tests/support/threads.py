"""Threads that start together, for tests of what must happen once."""

from __future__ import annotations

import threading
from collections.abc import Callable


def at_once(actions: list[Callable[[], object]]) -> list[object]:
    """Run all at the same time, each in a thread. Return what each returned or raised."""
    results: list[object] = [None] * len(actions)
    barrier = threading.Barrier(len(actions))

    def run(i: int) -> None:
        barrier.wait()
        try:
            results[i] = actions[i]()
        except Exception as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=[i]) for i in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
