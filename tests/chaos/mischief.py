"""Kills, pauses and cuts of nodes, Redis and connections, by a seeded schedule."""

from __future__ import annotations

import random
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import redis

from tests.chaos.parts import ClockedNode, Process, Redis
from tests.chaos.receiver import MANNERS, Receiver
from tests.chaos.witness import clock


@dataclass(frozen=True)
class Deed:
    """A disturbance; ``until`` is the time at which all was as before."""

    kind: str
    victim: str
    at: float
    until: float

    def __str__(self) -> str:
        return f"{clock(self.at)}-{clock(self.until)} {self.kind} {self.victim}"


#: Seconds by which a node's clock is set, either way.
CLOCK_STEP = 30.0
#: Relative frequency of each disturbance.
WEIGHTS = {
    "node killed": 8,
    "all nodes killed": 1,
    "node drained": 4,
    "node stopped": 4,
    "node cut off from redis": 3,
    "node clock stepped": 3,
    "disk full": 2,
    "node reloaded": 3,
    "redis killed": 3,
    "redis stopped": 2,
    "redis clients cut": 3,
    "redis full": 2,
    "redis read-only": 2,
    "sockets dropped": 4,
    "switch killed": 2,
    "gateway dead": 2,
    "gateway silent": 2,
    "receiver misbehaves": 5,
}
#: The gateway that fails: the first of ``dial.external``. The next one goes on, so each call has its outcome still.
GATEWAY = "pstn"
#: What a dead gateway does with its calls: sofia knows that it is down, or nothing listens there.
_DEAD: tuple[dict[str, Any], ...] = ({"down": True}, {"fails": "NETWORK_OUT_OF_ORDER"})


class Deck:
    """The disturbances in the order in which they come: each kind once, then at random by their weights."""

    def __init__(self, weights: dict[str, int], chance: random.Random) -> None:
        self._weights = weights
        self._chance = chance
        self._first = chance.sample(list(weights), len(weights))

    def draw(self) -> str:
        if self._first:
            return self._first.pop()
        return self._chance.choices(list(self._weights), list(self._weights.values()))[0]

    def put_back(self, kind: str) -> None:
        """Draw it again, after some others: it found no victim that was undisturbed."""
        self._first.insert(max(0, len(self._first) - 2), kind)


@dataclass
class Mischief:
    """Causes a disturbance every ``pause`` seconds, on average."""

    nodes: list[ClockedNode]
    redis: Redis
    rigs: list[Any]
    receiver: Receiver
    seed: int
    pause: float
    weights: dict[str, int] = field(default_factory=lambda: dict(WEIGHTS))
    deeds: list[Deed] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """Victims that failed to stop or to start."""

    def __post_init__(self) -> None:
        self._random = random.Random(f"mischief {self.seed}")
        self._deck = Deck(self.weights, random.Random(f"deck {self.seed}"))
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._busy: list[threading.Thread] = []
        self._at_switch = {rig.name: threading.Lock() for rig in self.rigs}
        self._deeds: dict[str, Callable[[random.Random], list[str]]] = {
            "node killed": self._kill_node,
            "all nodes killed": self._kill_all,
            "node drained": self._drain,
            "node stopped": self._stop_node,
            "node cut off from redis": self._cut_off,
            "node clock stepped": self._step_clock,
            "disk full": self._fill_disk,
            "node reloaded": self._reload,
            "redis killed": self._kill_redis,
            "redis stopped": self._stop_redis,
            "redis clients cut": self._cut_clients,
            "redis full": self._fill_redis,
            "redis read-only": self._forbid_writes,
            "sockets dropped": self._drop,
            "switch killed": self._kill_switch,
            "gateway dead": self._kill_gateway,
            "gateway silent": self._silence_gateway,
            "receiver misbehaves": self._disturb_receiver,
        }

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop, and return when all victims are up again."""
        self._stopped.set()
        self._thread.join()
        for thread in self._busy:
            thread.join()

    def count(self) -> Counter[str]:
        """How often each was done. One that was never done has 0, and shows in the table."""
        return Counter({**dict.fromkeys(self.weights, 0), **Counter(deed.kind for deed in self.deeds)})

    def around(self, begin: float, end: float) -> list[Deed]:
        """The disturbances during a call."""
        return [deed for deed in self.deeds if deed.at < end + 1 and deed.until > begin - 1]

    def redis_lost(self, at: float) -> bool:
        """Whether a Redis was killed in the minute before: it may have lost its latest writes, and counts again."""
        return any(deed.kind == "redis killed" for deed in self.around(at - 60, at))

    def _run(self) -> None:
        while not self._stopped.wait(self._random.uniform(0.5, 1.5) * self.pause):
            kind = self._deck.draw()
            # A generator for each disturbance, so that one's random choices don't change the next.
            chance = random.Random(self._random.random())
            thread = threading.Thread(target=self._do, args=(kind, chance), daemon=True)
            self._busy.append(thread)
            thread.start()

    def _do(self, kind: str, chance: random.Random) -> None:
        begun = time.time()
        try:
            victims = self._deeds[kind](chance)
        except Exception as error:
            self.faults.append(f"{clock(time.time())} {kind}: {error!r}")
            return
        if victims:
            self.deeds.append(Deed(kind, " ".join(victims), begun, time.time()))
        else:
            self._deck.put_back(kind)

    def _take(self, victims: list[Any], chance: random.Random) -> Any:
        """A victim that is undisturbed now, locked; None if there is none."""
        for victim in chance.sample(victims, len(victims)):
            if victim.lock.acquire(blocking=False):
                return victim
        return None

    def _kill_node(self, chance: random.Random) -> list[str]:
        node = self._take(self.nodes, chance)
        if node is None:
            return []
        try:
            node.kill()
            time.sleep(chance.choice((0.0, 0.5, 2.0, 4.0)))
            node.start()
        finally:
            node.lock.release()
        return [node.name]

    def _kill_all(self, chance: random.Random) -> list[str]:
        taken = [node for node in self.nodes if node.lock.acquire(blocking=False)]
        try:
            for node in taken:
                node.kill()
            time.sleep(chance.choice((0.0, 2.0, 5.0)))
            for node in taken:
                node.start()
        finally:
            for node in taken:
                node.lock.release()
        return [node.name for node in taken]

    def _drain(self, chance: random.Random) -> list[str]:
        node = self._take(self.nodes, chance)
        if node is None:
            return []
        try:
            if not node.terminate(node.drain + 20):
                self.faults.append(f"{clock(time.time())} {node.name} did not stop on SIGTERM")
            node.start()
        finally:
            node.lock.release()
        return [node.name]

    def _stop_node(self, chance: random.Random) -> list[str]:
        return self._pause(self._take(self.nodes, chance), chance.choice((0.5, 2.0, 5.0, 10.0)))

    def _cut_off(self, chance: random.Random) -> list[str]:
        """One node alone doesn't reach Redis: its user is switched off."""

        def cut(node: ClockedNode) -> None:
            for server in self.redis.servers:
                with suppress(redis.RedisError):
                    server.direct().acl_setuser(node.name, enabled=False)
                    server.direct().execute_command("CLIENT", "KILL", "USER", node.name)

        def mend(node: ClockedNode) -> None:
            for server in self.redis.servers:
                with suppress(redis.RedisError):
                    server.direct().execute_command("ACL", "SETUSER", *server.user(node.name).split()[1:])

        return self._for_a_while(self.nodes, chance, (1.0, 4.0, 7.0, 12.0), cut, mend)

    def _step_clock(self, chance: random.Random) -> list[str]:
        ahead = chance.choice((-CLOCK_STEP, CLOCK_STEP))
        return self._for_a_while(
            self.nodes, chance, (2.0, 6.0), lambda node: node.set_clock(ahead), lambda node: node.set_clock(0)
        )

    def _fill_disk(self, chance: random.Random) -> list[str]:
        """No file of the node grows, as on a full disk (EFBIG in place of ENOSPC)."""

        def limit(node: ClockedNode, most: int) -> None:
            with suppress(ProcessLookupError):
                resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

        return self._for_a_while(
            self.nodes,
            chance,
            (1.0, 4.0),
            lambda node: limit(node, 0),
            lambda node: limit(node, resource.RLIM_INFINITY),
        )

    def _fill_redis(self, chance: random.Random) -> list[str]:
        return self._configure(chance, "maxmemory", "1", "0")

    def _forbid_writes(self, chance: random.Random) -> list[str]:
        """It answers, and takes no writes: as a replica, or a master that has lost its replicas."""
        return self._configure(chance, "min-replicas-to-write", "9", self.redis.replicas_to_write)

    def _configure(self, chance: random.Random, name: str, value: str, usual: str) -> list[str]:
        return self._for_a_while(
            self.redis.victims(),
            chance,
            (0.5, 2.0, 5.0),
            lambda server: server.direct().config_set(name, value),
            lambda server: server.direct().config_set(name, usual),
        )

    def _for_a_while(
        self,
        victims: list[Any],
        chance: random.Random,
        seconds: tuple[float, ...],
        disturb: Callable[[Any], object],
        mend: Callable[[Any], object],
    ) -> list[str]:
        victim = self._take(victims, chance)
        if victim is None:
            return []
        try:
            disturb(victim)
            time.sleep(chance.choice(seconds))
            mend(victim)
        finally:
            victim.lock.release()
        return [victim.name]

    def _stop_redis(self, chance: random.Random) -> list[str]:
        return self._pause(self._take(self.redis.victims(), chance), chance.choice((0.3, 1.0, 3.0)))

    def _pause(self, victim: Process | None, seconds: float) -> list[str]:
        if victim is None:
            return []
        try:
            victim.signal(signal.SIGSTOP)
            time.sleep(seconds)
            victim.signal(signal.SIGCONT)
        finally:
            victim.lock.release()
        return [victim.name]

    def _reload(self, chance: random.Random) -> list[str]:
        node = self._take(self.nodes, chance)
        if node is None:
            return []
        try:
            node.signal(signal.SIGHUP)
        finally:
            node.lock.release()
        return [node.name]

    def _kill_redis(self, chance: random.Random) -> list[str]:
        server = self._take(self.redis.victims(), chance)
        if server is None:
            return []
        try:
            server.kill()
            time.sleep(chance.choice((0.0, 0.5, 2.0)))
            server.start()
        finally:
            server.lock.release()
        return [server.name]

    def _cut_clients(self, chance: random.Random) -> list[str]:
        server = chance.choice(self.redis.victims())
        with suppress(redis.RedisError):
            server.direct().client_kill_filter(_type="normal", skipme=True)
            return [server.name]
        return []

    def _drop(self, chance: random.Random) -> list[str]:
        return self._to_switch(chance, lambda rig: rig.drop_sockets())

    def _kill_switch(self, chance: random.Random) -> list[str]:
        def kill(rig: Any) -> None:
            rig.kill()
            time.sleep(chance.choice((0.0, 1.0, 4.0)))
            rig.start()

        return self._to_switch(chance, kill)

    def _kill_gateway(self, chance: random.Random) -> list[str]:
        return self._to_gateway(chance, chance.choice(_DEAD))

    def _silence_gateway(self, chance: random.Random) -> list[str]:
        """It takes INVITEs and says nothing (hazard 43)."""
        return self._to_gateway(chance, {"silent": True})

    def _disturb_receiver(self, chance: random.Random) -> list[str]:
        manner = chance.choice(MANNERS)
        return self._for_a_while(
            [self.receiver], chance, (0.5, 2.0, 4.0), lambda one: one.misbehave(manner), lambda one: one.mend()
        )

    def _to_gateway(self, chance: random.Random, state: dict[str, Any]) -> list[str]:
        def disturb(rig: Any) -> None:
            rig.gateway(GATEWAY, **state)
            time.sleep(chance.choice((2.0, 5.0)))
            rig.gateway(GATEWAY)

        return self._to_switch(chance, disturb)

    def _to_switch(self, chance: random.Random, deed: Callable[[Any], None]) -> list[str]:
        rig = chance.choice(self.rigs)
        if not self._at_switch[rig.name].acquire(blocking=False):
            return []
        try:
            deed(rig)
        finally:
            self._at_switch[rig.name].release()
        return [rig.name]
