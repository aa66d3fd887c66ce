"""Count wrong PINs in Redis, over all nodes: :class:`esl_apps.core.pins.Guard`.

One script checks all counters of a typed PIN and counts it if it is wrong. So two nodes never both find a threshold not
reached, and of two tries that reach it together one sets the lock and sends the alert. All keys share a hash tag, so
one script may use them on a cluster. A service sees a few wrong PINs a minute; under attack the locks keep the rate
down.

Every key expires. PINs typed during a lock are not counted, so a caller who invents a new number for every call creates
keys for at most ``overall`` numbers in a window before the whole system is locked.

All timing uses Redis's clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from esl_apps.config.model import PinGuard
from esl_apps.core.pins import ADDRESS, ALL, CARD, DNIS, ENTRANCE, LOCKED, NUMBER, OPEN, WRONG, Source
from esl_apps.core.reference import new_ref
from esl_apps.store import keys
from esl_apps.store.redis_client import Client
from esl_apps.store.script import Script


class Tell(Protocol):
    def __call__(self, kind: str, **details: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Lock:
    name: str
    """``KIND:WHAT``, as ``number:27825556666``, or ``all`` for all callers."""
    seconds: int
    """Seconds remaining."""


class GuardStore:
    """:class:`esl_apps.core.pins.Guard`."""

    def __init__(
        self, client: Client, limits: PinGuard, tell: Tell, *, clock: Callable[[], float] | None = None
    ) -> None:
        """``tell``: ``Alerts.tell``, called once per lock over all nodes. ``clock``: Unix seconds, for tests; None:
        Redis's own."""
        self._limits = limits
        self._tell = tell
        self._clock = clock
        self._judge = Script(client, "pin_judge")
        source, service = limits.longest_lock, limits.longest_service_lock
        self._bounds = {
            NUMBER: (limits.per_number, source),
            ADDRESS: (limits.per_address, source),
            CARD: (limits.per_card, source),
            ENTRANCE: (limits.per_service, service),
            DNIS: (limits.per_service, service),
            ALL: (limits.overall, service),
        }

    def judge(self, source: Source, right: bool, card_id: str, *, guessed: bool) -> str:
        names = [keys.PIN_LOCKS]
        arguments: list[Any] = []
        for kind, what in source.counters(card_id).items():
            name = _name(kind, what)
            names += _keys(name)
            arguments += [name if what else "", *self._bounds[kind]]
        counted = new_ref() if guessed and not right else ""
        answer = [
            part.decode()
            for part in self._judge(names, [self._now(), counted, self._limits.window, self._limits.lock, *arguments])
        ]
        if len(answer) == 1:
            return LOCKED
        for i in range(0, len(answer), 3):
            self._tell("pin_lock", lock=answer[i], seconds=int(answer[i + 1]), wrong_pins=int(answer[i + 2]))
        return OPEN if right else WRONG

    def _now(self) -> Any:
        return "" if self._clock is None else self._clock()


class Locks:
    """The locks, for operators. Both methods raise ``StoreUnavailable`` if Redis is down."""

    def __init__(self, client: Client, *, clock: Callable[[], float] | None = None) -> None:
        """``clock``: as :class:`GuardStore`'s."""
        self._clock = clock
        self._list = Script(client, "pin_locks")
        self._lift = Script(client, "pin_unlock")

    def list(self) -> list[Lock]:
        """The locks that hold now, the next to open first."""
        found = [part.decode() for part in self._list([keys.PIN_LOCKS], [self._now()])]
        return [Lock(name, int(seconds)) for name, seconds in zip(found[::2], found[1::2], strict=True)]

    def lift(self, name: str) -> bool:
        """Open a lock and delete the tries that led to it. False: there was none of this name."""
        return bool(self._lift([keys.PIN_LOCKS, *_keys(name)], [self._now(), name]))

    def _now(self) -> Any:
        return "" if self._clock is None else self._clock()


def _name(kind: str, what: str) -> str:
    return ALL if kind == ALL else f"{kind}:{what}"


def _keys(name: str) -> list[str]:
    return [keys.pin_tries(name), keys.pin_lock(name)]
