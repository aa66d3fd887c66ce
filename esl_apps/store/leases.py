"""Concurrent calls, counted over all nodes: each call holds a lease, renewed while its node lives.

The calls of a node that dies stop counting when their leases end. All timing uses Redis's clock, so a node with a wrong
clock ends no other node's lease.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store import keys
from esl_apps.store.errors import Fault, raise_first
from esl_apps.store.redis_client import Client
from esl_apps.store.script import Script, by_redis, run_all

log = logging.getLogger(__name__)

#: Seconds after which the calls of a dead node stop counting.
LEASE = 30.0
#: Leases renewed in one round trip: a node with 5,000 calls renews them without holding Redis up.
_BATCH = 500


class Leases:
    def __init__(
        self,
        client: Client,
        *,
        alone: Callable[[], bool] = lambda: False,
        seconds: float = LEASE,
        clock: Callable[[], Any] = by_redis,
    ) -> None:
        """``alone``: whether this is the only node, which may then rely on its own count while Redis is down."""
        self.seconds = seconds
        self._client = client
        self._alone = alone
        self._clock = clock
        self._held: set[tuple[str, str]] = set()
        """(holder, call_ref) of this node's calls."""
        self._enter = Script(client, "concurrent_enter")
        self._renew = Script(client, "concurrent_renew")

    def enter(self, holder: str, limit: int, call_ref: str) -> bool:
        """Take a lease for a call; False if ``holder`` has ``limit`` already. :raises StoreUnavailable: Redis is down
        and other nodes may hold some, too."""
        try:
            counted = bool(self._enter([keys.concurrent(holder)], [self._clock(), call_ref, self.seconds, limit]))
        except Fault:
            raise
        except StoreUnavailable:
            if not self._alone():
                raise
            taken = [ref for name, ref in self._held if name == holder]
            counted = call_ref in taken or len(taken) < limit
        if counted:
            self._held.add((holder, call_ref))
        return counted

    def hold(self, holder: str, call_ref: str) -> None:
        """Renew the lease of a dead node's call from now on."""
        self._held.add((holder, call_ref))

    def let_go(self, holder: str, call_ref: str) -> None:
        """Stop renewing a lease that another node has taken over."""
        self._held.discard((holder, call_ref))

    def leave(self, holder: str, call_ref: str) -> None:
        """End a lease. If Redis is down it ends by itself."""
        self._held.discard((holder, call_ref))
        try:
            self._client.zrem(keys.concurrent(holder), call_ref)
        except StoreUnavailable as error:
            log.warning("lease_not_ended", extra={"call_ref": call_ref, "reason": str(error)})

    def renew(self) -> None:
        """Renew the leases of all of this node's calls. :raises StoreUnavailable: Redis is down."""
        held = list(self._held)
        failed: list[StoreUnavailable] = []
        for i in range(0, len(held), _BATCH):
            batch = held[i : i + _BATCH]
            now = self._clock()
            renewing = [self._renew.on((keys.concurrent(holder),), (now, ref, self.seconds)) for holder, ref in batch]
            answers = run_all(self._client, renewing, strict=False)
            failed += [answer for answer in answers if isinstance(answer, StoreUnavailable)]
            # A call that ended meanwhile may have been renewed after its lease was ended.
            for holder, ref in batch:
                if (holder, ref) not in self._held:
                    self.leave(holder, ref)
        # One holder's key must not keep the others' leases from being renewed.
        raise_first(failed)
