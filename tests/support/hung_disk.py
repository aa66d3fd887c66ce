"""A file system that hangs: whatever is asked of it blocks its thread until the test lets go."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class HungDisk:
    def __init__(self) -> None:
        self._released = threading.Event()
        self.asked = 0

    def hang(self, *_args: Any, **_options: Any) -> Any:
        """Take the place of a function that touches files."""
        self.asked += 1
        self._released.wait(30)
        raise OSError("mounted again")

    def before(self, do: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that waits for the disk, and then does what ``do`` does."""

        def wait(*args: Any, **options: Any) -> Any:
            self.asked += 1
            self._released.wait(30)
            return do(*args, **options)

        return wait

    def release(self) -> None:
        self._released.set()


@contextmanager
def hung_disk() -> Iterator[HungDisk]:
    disk = HungDisk()
    try:
        yield disk
    finally:
        disk.release()
