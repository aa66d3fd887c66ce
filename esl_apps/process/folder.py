"""Touch files in threads, so that a mount that hangs costs each caller a bounded wait, and the process a few threads.

A thread that hangs in a system call can't be ended. Each folder has threads of its own; once all of them hang, it
refuses at once, until they return.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, Protocol, TypeVar, cast

import gevent
from gevent.event import AsyncResult
from gevent.threadpool import ThreadPool

from esl_apps.process import background

log = logging.getLogger(__name__)

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: Threads of one folder; as many may hang.
THREADS = 4
#: Seconds to wait for one piece of work. A local disk takes milliseconds.
PATIENCE = 2.0
#: Seconds until a file is closed again whose folder hung.
_CLOSE_AGAIN = 5.0

_folders: weakref.WeakSet[Folder] = weakref.WeakSet()


class Hangs(OSError):
    """The folder didn't answer in time, or hangs already."""


class Closable(Protocol):
    """An open file."""

    def close(self) -> None: ...


class Folder:
    """The threads for one folder, or for several on one disk."""

    def __init__(self, name: str, *, patience: float = PATIENCE, threads: int = THREADS) -> None:
        """``name``: as logs and metrics call it."""
        self.name = name
        self._patience = patience
        self._threads = threads
        self._pool: ThreadPool | None = None
        self._late: set[AsyncResult[Any]] = set()
        """Work that was given up, whose thread has not returned."""
        _folders.add(self)

    @property
    def stuck(self) -> int:
        """The number of threads that hang."""
        return len(self._late)

    def run(self, do: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a function in a thread and return its result. An open file in a dropped result must close itself.

        :raises Hangs: it took too long, and its result will be dropped; or all threads hang. :raises Exception: what
        the function raises.
        """
        if len(self._late) >= self._threads:
            raise Hangs(0, f"{self.name}: the file system doesn't answer")
        if self._pool is None:
            self._pool = ThreadPool(self._threads)
        # Typed without T: gevent's ``get`` may return None, and ``rawlink`` is invariant.
        result: AsyncResult[Any] | None = None
        timeout = gevent.Timeout.start_new(self._patience)
        try:
            result = self._pool.spawn(_outcome, do, *args, **kwargs)
            value, error = cast(tuple[Any, Exception | None], result.get())
        except gevent.Timeout as expired:
            if expired is not timeout:
                raise
            self._give_up(result)
            raise Hangs(0, f"{self.name}: the file system didn't answer within {self._patience:g} s") from None
        finally:
            timeout.close()
        if error is not None:
            raise error
        return cast(_T, value)

    def close(self, file: Closable) -> None:
        """Close a file in a thread: on some file systems this waits, too. If the folder hangs, try until it answers."""
        try:
            self.run(file.close)
        except Hangs:
            # If it were dropped, Python would close it here and now.
            background.later(_CLOSE_AGAIN, "file_close", self.close, file)

    def _give_up(self, result: AsyncResult[Any] | None) -> None:
        # Without a result, all threads were busy and this work was never begun.
        if result is None:
            return
        if not self._late:
            log.error("folder_hangs", extra={"folder": self.name, "seconds": self._patience})
        self._late.add(result)
        result.rawlink(self._returned)

    def _returned(self, result: AsyncResult[Any]) -> None:
        self._late.discard(result)
        if not self._late:
            log.warning("folder_answers", extra={"folder": self.name})


def _outcome(do: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, Exception | None]:
    """Return what a function returns or raises. An exception that leaves a thread is logged as a fault of the hub's."""
    try:
        return do(*args, **kwargs), None
    except Exception as error:
        return None, error


def stuck() -> Iterator[tuple[str, int]]:
    """Yield each folder of this process, and how many of its threads hang."""
    totals: dict[str, int] = {}
    for folder in _folders:
        totals[folder.name] = totals.get(folder.name, 0) + folder.stuck
    yield from sorted(totals.items())
