"""Which nodes are alive: each writes a beat to Redis every second, and is dead after some seconds without one.

Each process has a *boot*, a random name made at its start. A node that was killed and restarted is another process;
the calls of the first one wait for a process to take them over.

All timing uses Redis's clock.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

import msgspec

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store import keys
from esl_apps.store.redis_client import Client
from esl_apps.store.script import Script

BEAT = 1.0
#: Seconds of silence after which a process is dead. If it was only slow, nothing is lost: the node that takes its
#: calls over waits for their ends as it does itself, and of two equal records Redis takes one.
DEAD = 4.0


class Peer(msgspec.Struct, array_like=True):
    name: str
    advertise: str
    draining: bool
    silent: str
    """Seconds since its last beat; negative if it has left."""

    @property
    def left(self) -> bool:
        return float(self.silent) < 0


class Membership:
    def __init__(self, client: Client, name: str, advertise: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.boot = secrets.token_hex(8)
        self.name = name
        self._advertise = advertise
        self._client = client
        self._clock = clock
        self._say = Script(client, "node_beat")
        self._heard_since: float | None = None
        """Since when Redis has answered without a break. While it doesn't, all others seem silent."""
        self.peers: dict[str, Peer] = {}
        """By boot, this process included; as of the last ``say``."""

    def say(self, *, draining: bool = False) -> None:
        """Write a beat, and read those of the others. :raises StoreUnavailable: Redis is down."""
        try:
            flat: list[Any] = self._say([keys.NODES], [self.boot, self.name, self._advertise, int(draining)])
        except StoreUnavailable:
            self._heard_since = None
            raise
        if self._heard_since is None:
            self._heard_since = self._clock()
        self.peers = {
            boot.decode(): msgspec.json.decode(raw, type=Peer) for boot, raw in zip(flat[::2], flat[1::2], strict=True)
        }

    def is_dead(self, boot: str) -> bool:
        """Whether a process has left, is silent, or was an earlier run of this node (same name)."""
        peer = self.peers.get(boot)
        if boot == self.boot:
            return False
        if peer is not None and (peer.left or peer.name == self.name):
            return True
        heard_for = 0.0 if self._heard_since is None else self._clock() - self._heard_since
        return (peer is None or float(peer.silent) > DEAD) and heard_for > DEAD

    def dead(self) -> list[str]:
        return [boot for boot in self.peers if self.is_dead(boot)]

    def living(self) -> list[str]:
        """The other processes that are not dead."""
        return [boot for boot in self.peers if boot != self.boot and not self.is_dead(boot)]

    def others(self) -> list[str]:
        """The addresses of the other nodes that take calls, sorted."""
        return sorted(
            {peer.advertise for boot, peer in self.peers.items() if not peer.draining and not self.is_dead(boot)}
            - {self._advertise}
        )

    @property
    def alone(self) -> bool:
        """Whether the last beat found no other process, dead or alive."""
        return set(self.peers) == {self.boot}

    def forget(self, boot: str) -> None:
        """Remove a dead process that left no calls. :raises StoreUnavailable: Redis is down."""
        self._client.hdel(keys.NODES, boot)

    def leave(self) -> None:
        """Announce that this process ends, so that others take its calls over at once.

        :raises StoreUnavailable: Redis is down.
        """
        gone = msgspec.json.encode([self.name, self._advertise, True, "-1"])
        self._client.hset(keys.NODES, self.boot, gone)


def boots(client: Client) -> list[str]:
    """The boots of all known processes, for the command line. :raises StoreUnavailable: Redis is down."""
    return [boot.decode() for boot in client.hkeys(keys.NODES)]
