"""Which nodes are alive: each writes a stamp to Redis every second, and is dead after some seconds without a new one.

Each process has a *boot*, a random name made at its start. A node that was killed and restarted is another process;
the calls of the first one wait for a process to take them over.

A process measures the silence of the others by its own monotonic clock, from beat to beat, so no clock that is set or
steps (Redis's or a node's) makes a process look dead. A pause of the measuring process, or of Redis, doesn't count.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from esl_apps.core.node_clock import RemoteClock
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.core.versions import PROCESS
from esl_apps.store import documents, keys
from esl_apps.store.errors import Unreadable
from esl_apps.store.redis_client import Client
from esl_apps.store.script import Script

log = logging.getLogger(__name__)

BEAT = 1.0
#: Seconds of silence after which a process is dead. If it was only slow, nothing is lost: the node that takes its calls
#: over follows them and gives them back (``node.adoption``), and of two equal records Redis takes one.
DEAD = 4.0
#: The most seconds of silence seen between two beats. If more passed, this process was stopped or overloaded itself.
_SEEN = 2 * BEAT
#: The stamp of a process that has left.
_LEFT = "-1"


class Peer(msgspec.Struct, array_like=True):
    name: str
    advertise: str
    draining: bool
    stamp: str
    """Changes with each beat."""

    @property
    def left(self) -> bool:
        return self.stamp == _LEFT


class Membership:
    def __init__(
        self,
        client: Client,
        name: str,
        advertise: str,
        clock: Callable[[], float] = time.monotonic,
        predecessor: str = "",
    ) -> None:
        """``predecessor``: the boot of this node's last run, known to be dead because this one has its files."""
        self.boot = secrets.token_hex(8)
        self.name = name
        self._advertise = advertise
        self._client = client
        self._clock = clock
        self.predecessor = predecessor
        """As given; empty once it has left no calls."""
        self._say = Script(client, "node_beat")
        self.redis_clock = RemoteClock()
        """Redis's clock, learnt from the stamps of this process's beats."""
        self._said_at: float | None = None
        self._heard_for = 0.0
        """For how long Redis has answered without a break. While it doesn't, all others seem silent."""
        self._silent_for: dict[str, float] = {}
        """By boot: seconds since its stamp changed, as seen from here."""
        self._spoke: set[str] = set()
        """Boots whose stamp was seen to change, and that have not been silent for long since."""
        self._gap = 0.0
        self._last_beat: float | None = None
        self._lives_until = 0.0
        """``clock`` before which no other process takes this one for dead, as of its last beat."""
        self._unbroken_since = 0.0
        """``clock`` since which no other process can have taken this one for dead."""
        self.peers: dict[str, Peer] = {}
        """By boot, this process included; as of the last ``say``."""

    def say(self, *, draining: bool = False) -> None:
        """Write a beat, and read those of the others. :raises StoreUnavailable: Redis is down."""
        asked, began = time.monotonic(), self._clock()
        try:
            flat: list[Any] = self._say([keys.NODES], [self.boot, self.name, self._advertise, int(draining)])
        except StoreUnavailable:
            self._said_at, self._heard_for = None, 0.0
            self._silent_for.clear()
            self._spoke.clear()
            raise
        now = self._clock()
        passed = 0.0 if self._said_at is None else min(now - self._said_at, _SEEN)
        if self._last_beat is not None:
            self._gap = max(self._gap, now - self._last_beat)
        self._said_at = self._last_beat = now
        if now >= self._lives_until:
            self._unbroken_since = now
        self._lives_until = began + DEAD
        self._heard_for += passed
        before, self.peers = self.peers, _peers(flat)
        self.redis_clock.learn(float(self.peers[self.boot].stamp), asked, time.monotonic())
        silent_for, self._silent_for = self._silent_for, {}
        for boot, peer in self.peers.items():
            known = before.get(boot)
            unchanged = known is not None and known.stamp == peer.stamp
            self._silent_for[boot] = silent_for.get(boot, 0.0) + passed if unchanged else 0.0
            if known is not None and not unchanged:
                self._spoke.add(boot)
        self._spoke = {boot for boot in self._spoke if boot in self.peers and not self.is_dead(boot)}

    def redis_time(self) -> float | None:
        """Return Redis's time; None before the first beat."""
        return self.redis_clock.now() if self.boot in self.peers else None

    def held_since(self, at: float) -> bool:
        """Return whether this process has all that it had at a time (``clock``): no other process can have taken it for
        dead since."""
        return self._unbroken_since <= at and self._clock() < self._lives_until

    def longest_gap(self) -> float:
        """Return the most seconds between two beats that reached Redis since this was last asked. If it is long, other
        processes may have adopted this one's calls."""
        gap, self._gap = self._gap, 0.0
        return gap

    def is_dead(self, boot: str) -> bool:
        """Whether a process has left, is silent, or was the last run of this node."""
        if boot == self.boot:
            return False
        peer = self.peers.get(boot)
        if boot == self.predecessor or (peer is not None and peer.left):
            return True
        return (self._heard_for if peer is None else self._silent_for.get(boot, 0.0)) > DEAD

    def dead(self) -> list[str]:
        """Also the last run of this node, if another process has taken it off the list: it may have made its calls
        known again since, and was killed before its next beat."""
        gone = {self.predecessor} - {"", *self.peers}
        return [*(boot for boot in self.peers if self.is_dead(boot)), *gone]

    def living(self) -> list[str]:
        """The other processes that are not dead."""
        return [boot for boot in self.peers if boot != self.boot and not self.is_dead(boot)]

    def returned(self, boots: Iterable[str]) -> str | None:
        """The first of these processes that lives after all; None if none does.

        It has to have beaten since: after Redis was away, dead processes aren't told from living ones for a while.
        """
        return next((boot for boot in boots if boot in self._spoke), None)

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

    @property
    def is_current(self) -> bool:
        """Whether Redis has answered for so long that other processes have written down what they couldn't before."""
        return self._heard_for > DEAD

    # One process for a name ---------------------------------------------------------------------------

    def namesakes(self) -> list[str]:
        """Other processes that live under this node's name."""
        return sorted(boot for boot in self._spoke if boot != self.boot and self.peers[boot].name == self.name)

    def watch_namesakes(self, sleep: Callable[[float], None]) -> str | None:
        """Look for a process that lives under this node's name, before this one becomes a member. Returns its boot.

        An entry whose stamp doesn't change for as long as a process may be silent is one that crashed elsewhere.
        :raises StoreUnavailable: Redis is down.
        """
        first = self._namesakes_stamps()
        watched = 0.0
        while first and watched <= DEAD:
            sleep(BEAT / 4)
            watched += BEAT / 4
            now = self._namesakes_stamps()
            for boot, stamp in now.items():
                if first.setdefault(boot, stamp) != stamp:
                    return boot
            first = {boot: stamp for boot, stamp in first.items() if boot in now}
        return None

    def _namesakes_stamps(self) -> dict[str, str]:
        flat = [value for pair in self._client.hgetall(keys.NODES).items() for value in pair]
        return {
            boot: peer.stamp
            for boot, peer in _peers(flat).items()
            if peer.name == self.name and not peer.left and boot not in (self.boot, self.predecessor)
        }

    # Leaving ------------------------------------------------------------------------------------------

    def forget(self, boot: str) -> None:
        """Remove a dead process that left no calls. :raises StoreUnavailable: Redis is down."""
        self._client.hdel(keys.NODES, boot)
        if boot == self.predecessor and boot not in self.peers:
            self.predecessor = ""

    def leave(self) -> None:
        """Announce that this process ends, so that others take its calls over at once.

        :raises StoreUnavailable: Redis is down.
        """
        gone = documents.encode(PROCESS, [self.name, self._advertise, True, _LEFT])
        self._client.hset(keys.NODES, self.boot, gone)


def _peers(flat: list[Any]) -> dict[str, Peer]:
    return {boot.decode("utf-8", "replace"): _peer(raw) for boot, raw in zip(flat[::2], flat[1::2], strict=True)}


def _peer(raw: bytes) -> Peer:
    try:
        return documents.decode(PROCESS, raw, Peer)
    except Unreadable:
        # Written by hand or by another version. It takes no calls, and is dead unless it changes.
        return Peer("", "", True, raw.decode("latin-1"))


def names(client: Client) -> dict[str, str]:
    """The names of all known processes, by boot, for the command line. :raises StoreUnavailable: Redis is down."""
    return {boot.decode("utf-8", "replace"): _peer(raw).name for boot, raw in client.hgetall(keys.NODES).items()}


def boots(client: Client) -> list[str]:
    """The boots of all known processes, for the command line. :raises StoreUnavailable: Redis is down."""
    return [boot.decode() for boot in client.hkeys(keys.NODES)]
