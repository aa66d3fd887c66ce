"""Calls that a node is to place later, in Redis: whichever node is up when one is due places it, and no two do.

Each application that places such calls has a store of its own. A number has at most one pending call in each, however
often it asks. A node takes the earliest that is due for the time of a lease; if it dies, another node takes the call,
and whatever the first one does with its old claim has no effect.

Times are Redis's (``Membership.redis_clock``), because the nodes' clocks may differ.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

import msgspec

from esl_apps.core.reference import new_ref
from esl_apps.core.timed_call import Frequency, Scheduled, TimedCall, Waiting
from esl_apps.core.versions import TIMED_CALL
from esl_apps.store import documents, keys
from esl_apps.store.documents import WrongVersion
from esl_apps.store.errors import read_text
from esl_apps.store.redis_client import Client
from esl_apps.store.script import Script

DAY = 86400
#: Calls that are listed at most.
LISTED = 1000
#: Seconds until a call that was given back untried is due, so that a full node is not asked again at once.
RELEASE_FOR = 1.0

_Document = Annotated[list[str | dict[str, int]], msgspec.Meta(min_length=2)]
"""The call's id, its number, and the application's data; from version 2 on, its version."""


_ANY = Frequency()
#: Seconds between two calls to a number that had ``unused_per_day``: anyone may have made them up, and the person whose
#: number it is waits no longer than this.
UNUSED_PAUSE = 3600


class TimedCalls:
    """Every method raises :class:`esl_apps.core.unavailable.StoreUnavailable` if Redis is down."""

    def __init__(self, client: Client, node: str, name: str) -> None:
        """``name``: the store's own, ``callbacks`` for instance. ``node``: shown in claims, for debugging."""
        self._client = client
        self._node = node
        self._name = name
        self._due = keys.timed_due(name)
        self._pending = keys.timed_pending(name)
        self._keys = (self._due, self._pending)
        self._schedule = Script(client, "timed_call_schedule")
        self._claim = Script(client, "timed_call_claim")
        self._renew = Script(client, "timed_call_renew")
        self._give_back = Script(client, "timed_call_give_back")
        self._done = Script(client, "timed_call_done")
        self._used = Script(client, "timed_call_used")
        self._list = Script(client, "timed_call_list")
        self._drop = Script(client, "timed_call_drop")

    def schedule(
        self,
        number: str,
        data: Sequence[str],
        due_at: float,
        *,
        now: float,
        frequency: Frequency = _ANY,
        owner: str = "",
        most: int = 0,
        until: float | None = None,
    ) -> Scheduled:
        """Schedule a call to ``number``, unless it has one already or ``frequency`` refuses it. ``owner``: an account
        that may have ``most`` calls that wait; ``number`` is a text of its own then. ``until``: when this has no effect
        any more, also if Redis gets it only then."""
        document = [new_ref(now), number, *data]
        unused = frequency.unused_per_day
        refused = self._schedule(
            self._all_keys(number, owner),
            [
                number,
                documents.encode(TIMED_CALL, document),
                due_at,
                frequency.cool_down,
                frequency.per_day,
                now,
                int(now // DAY),
                "" if unused is None else unused,
                UNUSED_PAUSE,
                owner,
                most,
                "" if until is None else until,
            ],
        )
        if refused is None:
            return Scheduled()
        reason, _, at = refused.decode().partition(" ")
        return Scheduled(reason, float(at or 0.0))

    def claim_due(self, now: float, lease: float) -> TimedCall | None:
        """Take the earliest that is due. Unless it is renewed, retried, done or released within ``lease`` seconds,
        another node takes it."""
        claim = f"{self._node}:{secrets.token_hex(8)}"
        while taken := self._claim(self._keys, [now, now + lease, claim]):
            raw, attempt, owner, dropped, key = taken
            try:
                id, number, *data = _read(raw)
            except WrongVersion:
                # Nodes that can read it are to have it soon, and this one goes on with the next.
                self._give_back(self._keys, [key, claim, now + RELEASE_FOR, -1])
                continue
            return TimedCall(id, number, tuple(data), attempt, claim, read_text(owner), dropped == b"1")
        return None

    def holds(self, call: TimedCall) -> bool:
        """Whether it is still this claim's: another node takes it once the lease has ended."""
        return bool(self._client.hget(self._pending, f"{call.number}:claim") == call.claim.encode())

    def renew(self, call: TimedCall, now: float, lease: float) -> bool:
        """Keep it for ``lease`` seconds from now on. False: another node has it by now."""
        return bool(self._renew(self._keys, [call.number, call.claim, now + lease]))

    def retry(self, call: TimedCall, due_at: float) -> bool:
        """Try again at ``due_at``, on any node. False: another node has it by now."""
        return self._given_back(call, due_at, 0)

    def release(self, call: TimedCall, now: float, pause: float = RELEASE_FOR) -> bool:
        """Give it back untried, to any node after ``pause`` seconds; the attempt does not count. False: another node
        has it by now."""
        return self._given_back(call, now + pause, -1)

    def done(self, call: TimedCall, now: float) -> bool:
        """It was answered, or is given up: the number may ask again after its cool-down. False: another node has it by
        now."""
        return bool(self._done(self._all_keys(call.number, call.owner), [call.number, call.claim, now, call.owner]))

    def used(self, number: str, now: float) -> None:
        """Count a number's latest call against ``Frequency.per_day``."""
        self._used([keys.timed_past(self._name, number)], [int(now // DAY)])

    # For people ---------------------------------------------------------------------------------------

    def waiting(self) -> list[Waiting]:
        """The calls to be placed later, the next one first; ``LISTED`` at most."""
        return self._listed([0, LISTED - 1])

    def find(self, number: str) -> Waiting | None:
        """The call of a number, if one waits."""
        return next(iter(self._listed(["", number])), None)

    def waiting_of(self, owner: str) -> list[Waiting]:
        """An account's."""
        numbers = sorted(read_text(raw) for raw in self._client.smembers(keys.timed_of(self._name, owner)))
        return self._listed(["", *numbers]) if numbers else []

    def drop(self, number: str, owner: str) -> bool | None:
        """Drop a call of an account (empty: of none): the next node that looks ends it. False: there is none; None: a
        node is placing it."""
        dropped = self._drop(self._all_keys(number, owner), [number, owner])
        return None if dropped < 0 else bool(dropped)

    def _listed(self, arguments: Sequence[str | int]) -> list[Waiting]:
        waiting = []
        for raw, due_at, owner, placing in self._list(self._keys, arguments):
            with suppress(WrongVersion):
                _id, number, *data = _read(raw)
                waiting.append(Waiting(number, float(due_at), read_text(owner), tuple(data), placing == b"1"))
        return waiting

    def _all_keys(self, number: str, owner: str) -> list[str]:
        return [*self._keys, keys.timed_past(self._name, number), keys.timed_of(self._name, owner)]

    def _given_back(self, call: TimedCall, due_at: float, attempts: int) -> bool:
        return bool(self._give_back(self._keys, [call.number, call.claim, due_at, attempts]))


def _read(raw: bytes) -> list[str]:
    """:raises Unreadable, WrongVersion: as ``documents.decode``."""
    found: list[str | dict[str, int]] = documents.decode(TIMED_CALL, raw, _Document)
    return [item for item in found if isinstance(item, str)]
