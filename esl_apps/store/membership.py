"""Which nodes are alive: each says so every second, and one that has not for some seconds is dead.

A process is known by its *boot*, a name that it makes at its start: a node that was killed and is back is another
process, and what the first one had is nobody's until somebody takes it over.

Time is Redis's own.
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
#: Seconds of silence. A node that was only slow loses nothing: who takes its calls over waits for their ends, as it
#: does itself, and a call's record is one, whoever pushes it.
DEAD = 4.0


class Peer(msgspec.Struct, array_like=True):
    name: str
    advertise: str
    draining: bool
    silent: str
    """Seconds since its last word; negative where it has left."""

    @property
    def left(self) -> bool:
        return float(self.silent) < 0


class Roster:
    def __init__(self, client: Client, name: str, advertise: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.boot = secrets.token_hex(8)
        self.name = name
        self._advertise = advertise
        self._client = client
        self._clock = clock
        self._say = Script(client, "node_beat")
        self._heard_since: float | None = None
        """Since when Redis has answered without a break: others were as silent as it was."""
        self.peers: dict[str, Peer] = {}
        """By boot, this process included; as of the last ``say``."""

    def say(self, *, draining: bool = False) -> None:
        """Say that this process lives, and hear who else does. :raises StoreUnavailable: Redis is away."""
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
        """A process that left, that is silent, or whose place this one has: a node of our name that was killed."""
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
        """Where the other nodes that take calls are reached, in a steady order."""
        return sorted(
            {peer.advertise for boot, peer in self.peers.items() if not peer.draining and not self.is_dead(boot)}
            - {self._advertise}
        )

    @property
    def alone(self) -> bool:
        """Whether, as far as Redis last said, no other process was there, dead or alive."""
        return set(self.peers) == {self.boot}

    def forget(self, boot: str) -> None:
        """A process that left nothing behind. :raises StoreUnavailable: Redis is down."""
        self._client.hdel(keys.NODES, boot)

    def leave(self) -> None:
        """This process ends: what it leaves is the others' at once. :raises StoreUnavailable: Redis is down."""
        gone = msgspec.json.encode([self.name, self._advertise, True, "-1"])
        self._client.hset(keys.NODES, self.boot, gone)


def boots(client: Client) -> list[str]:
    """All processes that are known, for the command line. :raises StoreUnavailable: Redis is down."""
    return [boot.decode() for boot in client.hkeys(keys.NODES)]
