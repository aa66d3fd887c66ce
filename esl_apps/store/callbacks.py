"""Pending callbacks in Redis: whichever node is up when one is due places it, and no two do.

A number has one pending callback at most, however often it rings. A node takes the earliest that is due by a
lease; one that dies loses it to another, and what it does afterwards with its old claim changes nothing.

Times are Unix seconds of the nodes' clocks, which are expected to agree within seconds (NTP): a clock that is off by
a lease makes two nodes of one.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

import msgspec

from esl_apps.core.reference import new_ref
from esl_apps.store import keys
from esl_apps.store.redis_client import Client
from esl_apps.store.script import Script, asking_redis

DAY = 86400
#: Seconds until a callback that was given back untried is due: a node that is full is not asked again at once.
RELEASE_FOR = 1.0

_SCHEDULE = (keys.CALLBACKS_DUE, keys.CALLBACKS_PENDING)


@dataclass(frozen=True, slots=True)
class Scheduled:
    """Whether a callback was scheduled; as a bool, too."""

    refused: str | None = None
    """Why nothing was: ``pending`` (the number has one), ``cool_down``, ``per_day``; None where it was."""

    def __bool__(self) -> bool:
        return self.refused is None


@dataclass(frozen=True, slots=True)
class Pending:
    """A callback that this node has taken and now places."""

    id: str
    """The same at every attempt, on whatever node."""
    number: str
    """Whom to call: E.164 digits, or an extension."""
    card_id: str
    dnis: str
    """The number that was rung."""
    attempt: int
    """1 at the first; one that a dead node had begun counts."""
    claim: str
    """What this node shows that it still has it."""


class _Document(msgspec.Struct, array_like=True):
    id: str
    number: str
    card_id: str
    dnis: str


class CallbackStore:
    """Every method raises :class:`esl_apps.core.unavailable.StoreUnavailable` when Redis is away."""

    def __init__(self, client: Client, node: str) -> None:
        self._client = client
        self._node = node
        self._schedule = Script(client, "callback_schedule")
        self._claim = Script(client, "callback_claim")
        self._give_back = Script(client, "callback_give_back")
        self._done = Script(client, "callback_done")

    def schedule(
        self, number: str, card_id: str, due_at: float, *, dnis: str, cool_down: float, per_day: int, now: float
    ) -> Scheduled:
        """A missed call: a callback to ``number`` at ``due_at``, unless it has one already, had one that ended
        less than ``cool_down`` seconds ago, or had ``per_day`` in this day (UTC; retries are part of one)."""
        document = _Document(new_ref(now), number, card_id, dnis)
        refused = self._schedule(
            [*_SCHEDULE, keys.callbacks_past(number)],
            [number, msgspec.json.encode(document), due_at, cool_down, per_day, now, int(now // DAY)],
        )
        return Scheduled(None if refused is None else refused.decode())

    def next_due(self) -> float | None:
        """When the next one is due, or a taken one's lease ends; None: nothing is pending."""
        with asking_redis():
            found = self._client.zrange(keys.CALLBACKS_DUE, 0, 0, withscores=True)
        return float(found[0][1]) if found else None

    def claim_due(self, now: float, lease: float) -> Pending | None:
        """Take the earliest that is due. Unless it is retried, done or released within ``lease`` seconds,
        another node takes it."""
        claim = f"{self._node}:{secrets.token_hex(8)}"
        found = self._claim(_SCHEDULE, [now, now + lease, claim])
        if found is None:
            return None
        one = msgspec.json.decode(found[0], type=_Document)
        return Pending(one.id, one.number, one.card_id, one.dnis, found[1], claim)

    def retry(self, pending: Pending, due_at: float) -> bool:
        """It was not answered: try again at ``due_at``, on whatever node. False: another node has it by now."""
        return self._given_back(pending, due_at, 0)

    def release(self, pending: Pending, now: float | None = None) -> bool:
        """Give it back untried, to whatever node takes it first in a second; the attempt does not count. False:
        another node has it by now."""
        return self._given_back(pending, (time.time() if now is None else now) + RELEASE_FOR, -1)

    def done(self, pending: Pending, now: float | None = None) -> bool:
        """It was answered, or is given up: the number may ring for another after its cool-down. False: another
        node has it by now."""
        at = time.time() if now is None else now
        return bool(
            self._done(
                [keys.CALLBACKS_DUE, keys.CALLBACKS_PENDING, keys.callbacks_past(pending.number)],
                [pending.number, pending.claim, at],
            )
        )

    def _given_back(self, pending: Pending, due_at: float, attempts: int) -> bool:
        return bool(self._give_back(_SCHEDULE, [pending.number, pending.claim, due_at, attempts]))
