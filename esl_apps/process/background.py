"""Supervise background greenlets: an exception that no one expected is logged as JSON and counted, and work that must
go on is begun again after a pause.

No other module calls ``gevent.spawn`` (``tests/unit/test_layers.py``): gevent prints the traceback of a greenlet that
fails, as text, and its work stops for good.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import gevent
from gevent.hub import Hub

log = logging.getLogger(__name__)

_T = TypeVar("_T")

#: Seconds before failed work is begun again, doubled each time up to the second value.
AGAIN_FIRST, AGAIN_LAST = 0.1, 10.0
#: Seconds after which work that has gone well begins with the first pause again.
SETTLED = 60.0

#: gevent's time-out isn't an ``Exception``. A kill (``GreenletExit``) is expected.
_UNEXPECTED = (Exception, gevent.Timeout)

#: Task → how often it has failed in this process.
failures: Counter[str] = Counter()


def keep(task: str, work: Callable[..., _T], *args: Any, **details: object) -> gevent.Greenlet[..., _T]:
    """Run work in a greenlet until it returns or is killed; if it raises, begin it again.

    :param task: its name in logs and metrics. :param details: more for the log line.
    """
    return gevent.spawn(_keep, task, work, args, details)


class Kept(ABC):
    """A part of a process that works from ``start`` to ``stop``: :func:`keep` runs its ``_run`` as ``TASK``."""

    TASK: ClassVar[str]
    _greenlet: gevent.Greenlet[..., None] | None = None

    def start(self) -> None:
        self._greenlet = keep(self.TASK, self._run)

    def stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill()

    @abstractmethod
    def _run(self) -> None:
        """The work, until it returns or is killed."""


def once(task: str, work: Callable[..., _T], *args: Any, **details: object) -> gevent.Greenlet[..., _T | None]:
    """Run work in a greenlet; its value is None if it raises."""
    return gevent.spawn(_once, task, work, args, details)


def later(seconds: float, task: str, work: Callable[..., _T], *args: Any) -> gevent.Greenlet[..., _T | None]:
    """Run work once, after a while."""
    return gevent.spawn_later(seconds, _once, task, work, args, {})


def task_of(greenlet: gevent.Greenlet[..., Any]) -> str:
    """Return the name of a greenlet's work: a task, or a function that a server runs."""
    run = getattr(greenlet, "_run", None)
    if run in (_keep, _once) and greenlet.args:
        return str(greenlet.args[0])
    return str(getattr(run, "__qualname__", type(greenlet).__name__))


def _keep(task: str, work: Callable[..., _T], args: tuple[Any, ...], details: dict[str, object]) -> _T:
    pause = AGAIN_FIRST
    while True:
        began = time.monotonic()
        try:
            return work(*args)
        except _UNEXPECTED:
            if time.monotonic() - began > SETTLED:
                pause = AGAIN_FIRST
            failures[task] += 1
            log.exception("background_failed", extra={"task": task, "again_in": pause, **details})
        gevent.sleep(pause)
        pause = min(pause * 2, AGAIN_LAST)


def _once(task: str, work: Callable[..., _T], args: tuple[Any, ...], details: dict[str, object]) -> _T | None:
    try:
        return work(*args)
    except _UNEXPECTED:
        failures[task] += 1
        log.exception("background_failed", extra={"task": task, **details})
        return None


def log_all() -> None:
    """Log what fails in gevent's own greenlets, too (a server's, a timer's callback), instead of printing it."""

    def log_failure(_hub: Hub, context: object, type: Any, value: Any, tb: Any) -> None:
        failures["greenlet"] += 1
        log.error("background_failed", extra={"task": "greenlet", "context": str(context)}, exc_info=(type, value, tb))

    Hub.print_exception = log_failure  # type: ignore[method-assign, assignment]
