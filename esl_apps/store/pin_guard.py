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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from esl_apps.config.pin_guard import PinGuard
from esl_apps.core.pins import (
    ACCOUNT,
    ADDRESS,
    ALL,
    CARD,
    DNIS,
    ENTRANCE,
    LOCKED,
    NEW_PINS_ACCOUNT,
    NEW_PINS_TOKEN,
    NUMBER,
    OPEN,
    TOKEN,
    WRONG,
    Asker,
    Source,
)
from esl_apps.core.reference import new_ref
from esl_apps.store import keys
from esl_apps.store.redis_client import Client
from esl_apps.store.script import Script, by_redis

#: Seconds that a lock lasts at most, whatever the configuration says: any of them may hit honest callers.
LONGEST = 3600.0
#: Seconds for which a caller is remembered from whom a right PIN came.
REMEMBERED = 90 * 86400
#: Callers that are remembered for one PIN, the latest: anyone who has it can claim any number of numbers.
_CALLERS = 5000


class Tell(Protocol):
    def __call__(self, kind: str, **details: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Lock:
    name: str
    """``KIND:WHAT``, as ``number:27825556666``, or ``all`` for all callers."""
    seconds: int
    """Seconds remaining."""


_Counter = tuple[str, bool, int, float]
"""A counter's name, whether it counts, its threshold, and its longest lock in seconds."""


class GuardStore:
    """:class:`esl_apps.core.pins.Guard`."""

    def __init__(self, client: Client, limits: PinGuard, tell: Tell, *, clock: Callable[[], Any] = by_redis) -> None:
        """``tell``: ``Alerts.tell``, called once per lock over all nodes."""
        self._limits = limits
        self._tell = tell
        self._clock = clock
        self._judge = Script(client, "pin_judge")
        self._first = min(limits.lock, LONGEST)
        source, service = min(limits.longest_lock, LONGEST), min(limits.longest_service_lock, LONGEST)
        self._bounds = {
            NUMBER: (limits.per_number, source),
            ADDRESS: (limits.per_address, source),
            CARD: (limits.per_card, source),
            ENTRANCE: (limits.per_service, service),
            DNIS: (limits.per_service, service),
            ALL: (limits.overall, service),
        }

    def judge(self, source: Source, right: bool, card_id: str, *, guessed: bool, pin_id: str = "") -> str:
        counters = [
            (_name(kind, what), bool(what), *self._bounds[kind]) for kind, what in source.counters(card_id).items()
        ]
        locked = self._count(
            counters,
            guessed and not right,
            first=self._first,
            caller=source.number,
            pin_id=pin_id,
            remembered=REMEMBERED if source.is_own else "",
            right=right,
        )
        return LOCKED if locked else OPEN if right else WRONG

    def refuses(self, asker: Asker, *, new_pin: bool) -> int:
        """Return for how many seconds a client may name no PIN and no number for a card; 0: it may.

        ``new_pin``: it names a PIN, which counts: that a PIN is *not* in use is an answer too, and the guess that is
        right needs one answer only.

        :raises StoreUnavailable: Redis is down.
        """
        # Of the first two only the locks are looked at.
        counters = [(name, False, threshold, longest) for name, _, threshold, longest in self._counters_of(asker)]
        if new_pin:
            for kind, what in ((NEW_PINS_TOKEN, asker.token), (NEW_PINS_ACCOUNT, asker.account)):
                is_operator = what.startswith("+")
                counters.append((_name(kind, what), not is_operator, self._limits.new_pins, LONGEST))
        return self._count(counters, new_pin, first=LONGEST)

    def told(self, asker: Asker) -> None:
        """Count that a client was told of a PIN or a number of another account's. :raises StoreUnavailable: Redis is
        down."""
        self._count(self._counters_of(asker), True, first=LONGEST)

    def _counters_of(self, asker: Asker) -> list[_Counter]:
        # The operator's tokens serve all accounts: one tenant's guesses through them must not shut out the others.
        of_token = self._limits.per_service if asker.token.startswith("+") else self._limits.per_token
        return [
            (_name(TOKEN, asker.token), True, of_token, LONGEST),
            (_name(ACCOUNT, asker.account), True, self._limits.per_token, LONGEST),
        ]

    def _count(
        self,
        counters: Sequence[_Counter],
        guessed: bool,
        *,
        first: float,
        caller: str = "",
        pin_id: str = "",
        remembered: float | str = "",
        right: bool = False,
    ) -> int:
        """Return the seconds remaining of a lock that holds; 0: there is none, and a guess was counted."""
        names = [keys.PIN_LOCKS, keys.pin_opened(pin_id)]
        arguments: list[Any] = []
        for name, counts, threshold, longest in counters:
            names += _keys(name)
            arguments += [name if counts else "", threshold, longest]
        head = [self._clock(), new_ref() if guessed else "", self._limits.window, first]
        head += [remembered, "1" if right else "", caller, _CALLERS]
        answer = [part.decode() for part in self._judge(names, [*head, *arguments])]
        if len(answer) == 2:
            return int(answer[1])
        for i in range(0, len(answer), 3):
            self._tell("pin_lock", lock=answer[i], seconds=int(answer[i + 1]), wrong_pins=int(answer[i + 2]))
        return 0


class Locks:
    """The locks, for operators. Both methods raise ``StoreUnavailable`` if Redis is down."""

    def __init__(self, client: Client, *, clock: Callable[[], Any] = by_redis) -> None:
        self._clock = clock
        self._list = Script(client, "pin_locks")
        self._lift = Script(client, "pin_unlock")

    def list(self) -> list[Lock]:
        """The locks that hold now, the next to open first."""
        # Something else may have written there, which must hide no lock.
        found = [part.decode("utf-8", "replace") for part in self._list([keys.PIN_LOCKS], [self._clock()])]
        return [Lock(name, int(seconds)) for name, seconds in zip(found[::2], found[1::2], strict=True)]

    def lift(self, name: str) -> bool:
        """Open a lock and delete the tries that led to it. False: there was none of this name."""
        return bool(self._lift([keys.PIN_LOCKS, *_keys(name)], [self._clock(), name]))


def _name(kind: str, what: str) -> str:
    return ALL if kind == ALL else f"{kind}:{what}"


def _keys(name: str) -> list[str]:
    return [keys.pin_tries(name), keys.pin_lock(name)]
