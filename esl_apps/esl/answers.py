"""The answers of a switch to commands."""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent
from gevent.event import AsyncResult

from esl_apps.esl.greenswitch_base import NotConnectedError
from esl_apps.esl.wire import Event


class SwitchFailed(Exception):
    """The switch hasn't done what it was asked to, or may not have."""


class SwitchUnavailable(SwitchFailed, NotConnectedError):  # type: ignore[misc]
    """The switch isn't connected, or didn't answer in time."""


class ReplyError(SwitchFailed):
    """The switch answered ``-ERR``. ``str()`` is its text."""


class Job:
    """A ``bgapi`` and its answer."""

    __slots__ = ("_result", "sent_at", "uuid")

    def __init__(self, uuid: str) -> None:
        self.uuid = uuid
        self.sent_at = time.monotonic()
        self._result: AsyncResult[str] = AsyncResult()

    def answer(self, output: str) -> None:
        if not self._result.ready():
            self._result.set(output)

    def fail(self, error: Exception) -> None:
        if not self._result.ready():
            self._result.set_exception(error)

    @property
    def done(self) -> bool:
        return bool(self._result.ready())

    def notify(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, when the answer or a failure has come."""
        self._result.rawlink(lambda _result: callback())

    def result(self, timeout: float | None = 0) -> str:
        """Return the job's output. :raises SwitchUnavailable: the connection was lost first, or time ran out."""
        try:
            return str(self._result.get(timeout=timeout))
        except gevent.Timeout:
            raise SwitchUnavailable("no answer to a bgapi in time") from None


class NoWaiter:
    """Takes the place of a waiter for the reply to a posted frame."""

    __slots__ = ()

    def set(self, _frame: Event) -> None:
        pass

    def set_exception(self, _error: Exception) -> None:
        pass


NO_WAITER = NoWaiter()
