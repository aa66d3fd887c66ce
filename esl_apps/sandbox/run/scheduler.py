"""Scheduled tasks: ``sched_hangup``, ``sched_transfer``, ``sched_api``."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from esl_apps.sandbox.run.sleeper import Handle, later


@dataclass
class Task:
    """One entry of ``show tasks``."""

    number: int
    group: str
    name: str
    handle: Handle


class Scheduler:
    """Tasks by number and by group; a channel's group is its UUID."""

    def __init__(self) -> None:
        self._next = 1
        self._phase = -time.monotonic()
        self._tasks: dict[int, Task] = {}
        self._groups: dict[str, set[int]] = {}

    def add(self, when: str, group: str, name: str, function: Callable[..., object], *args: object) -> int:
        """Schedule a task at ``+SECONDS`` or an epoch; return its number.

        The switch counts in whole seconds of its clock and checks twice a second: ``+8`` is up to one second early,
        plus up to half a second.
        """
        number, self._next = self._next, self._next + 1
        match = re.match(r"(\+?)(\d+)", when.strip())
        now = time.time()
        due_at = (int(now) if match and match[1] else 0) + (int(match[2]) if match else 0)
        seconds = due_at - now
        # Wait for its next check.
        seconds += -(self._phase + time.monotonic() + seconds) % 0.5

        def due() -> None:
            self._remove(number)
            function(*args)

        self._tasks[number] = Task(number, group, name, later(max(0.0, seconds), due))
        self._groups.setdefault(group, set()).add(number)
        return number

    def cancel(self, which: str) -> int:
        """Cancel tasks by number or group; return how many."""
        if which.isdigit() and int(which) in self._tasks:
            self._remove(int(which))
            return 1
        numbers = list(self._groups.get(which, ()))
        for number in numbers:
            self._remove(number)
        return len(numbers)

    def forget(self, group: str) -> None:
        """Cancel the tasks of a channel that has ended."""
        for number in list(self._groups.get(group, ())):
            self._remove(number)

    def tasks(self) -> list[Task]:
        """Return all scheduled tasks."""
        return list(self._tasks.values())

    def _remove(self, number: int) -> None:
        task = self._tasks.pop(number, None)
        if task is None:
            return
        task.handle.cancel()
        group = self._groups.get(task.group)
        if group is not None:
            group.discard(number)
            if not group:
                del self._groups[task.group]
