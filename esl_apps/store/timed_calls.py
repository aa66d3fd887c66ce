"""Calls that a node is to place later, in Redis: whichever node is up when one is due places it, and no two do.

Each application that places such calls has a store of its own. A number has at most one pending call in each, however
often it asks. A node takes the earliest that is due for the time of a lease; if it dies, another node takes the call,
and whatever the first one does with its old claim has no effect.

Times are Unix seconds of the nodes' clocks, which are expected to agree within seconds (NTP). Two nodes whose clocks
differ by a lease would both place a call.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Annotated

import msgspec

from esl_apps.core.reference import new_ref
from esl_apps.core.timed_call import Frequency, Scheduled, TimedCall
from esl_apps.store import keys
from esl_apps.store.errors import read_json
from esl_apps.store.redis_client import Client
from esl_apps.store.script import Script

DAY = 86400
#: Seconds until a call that was given back untried is due, so that a full node is not asked again at once.
RELEASE_FOR = 1.0

_Document = Annotated[list[str], msgspec.Meta(min_length=2)]
"""The call's id, its number, and the application's data."""


_ANY = Frequency()


class TimedCalls:
    """Every method raises :class:`esl_apps.core.unavailable.StoreUnavailable` if Redis is down."""

    def __init__(self, client: Client, node: str, name: str) -> None:
        """``name``: the store's own, ``callbacks`` for instance. ``node``: shown in claims, for debugging."""
        self._client = client
        self._node = node
        self._name = name
        self._due = keys.timed_due(name)
        self._keys = (self._due, keys.timed_pending(name))
        self._schedule = Script(client, "timed_call_schedule")
        self._claim = Script(client, "timed_call_claim")
        self._give_back = Script(client, "timed_call_give_back")
        self._done = Script(client, "timed_call_done")

    def schedule(
        self, number: str, data: Sequence[str], due_at: float, *, now: float, frequency: Frequency = _ANY
    ) -> Scheduled:
        """Schedule a call to ``number``, unless it has one already or ``frequency`` refuses it."""
        document = [new_ref(now), number, *data]
        refused = self._schedule(
            [*self._keys, keys.timed_past(self._name, number)],
            [
                number,
                msgspec.json.encode(document),
                due_at,
                frequency.cool_down,
                frequency.per_day,
                now,
                int(now // DAY),
            ],
        )
        return Scheduled(None if refused is None else refused.decode())

    def next_due(self) -> float | None:
        """When the next one is due or a taken one's lease ends; None if nothing is pending."""
        first = self._client.zrange(self._due, 0, 0, withscores=True)
        return float(first[0][1]) if first else None

    def claim_due(self, now: float, lease: float) -> TimedCall | None:
        """Take the earliest that is due. Unless it is retried, done or released within ``lease`` seconds, another node
        takes it."""
        claim = f"{self._node}:{secrets.token_hex(8)}"
        taken = self._claim(self._keys, [now, now + lease, claim])
        if taken is None:
            return None
        id, number, *data = read_json(taken[0], _Document)
        return TimedCall(id, number, tuple(data), taken[1], claim)

    def retry(self, call: TimedCall, due_at: float) -> bool:
        """Try again at ``due_at``, on any node. False: another node has it by now."""
        return self._given_back(call, due_at, 0)

    def release(self, call: TimedCall, now: float | None = None) -> bool:
        """Give it back untried, to any node in a second; the attempt does not count. False: another node has it by
        now."""
        return self._given_back(call, (time.time() if now is None else now) + RELEASE_FOR, -1)

    def done(self, call: TimedCall, now: float | None = None) -> bool:
        """It was answered, or is given up: the number may ask again after its cool-down. False: another node has it by
        now."""
        at = time.time() if now is None else now
        return bool(self._done([*self._keys, keys.timed_past(self._name, call.number)], [call.number, call.claim, at]))

    def _given_back(self, call: TimedCall, due_at: float, attempts: int) -> bool:
        return bool(self._give_back(self._keys, [call.number, call.claim, due_at, attempts]))
