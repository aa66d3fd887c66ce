"""Compare looking up a card by PIN and by caller number with ten cards and with a million."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # As in a node: most of the cost of a look-up is how the process waits for Redis.
    from gevent import monkey

    monkey.patch_all()

import argparse
import contextlib
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks import process, table
from benchmarks.load.bulk_client import BulkClient
from esl_apps.cli.embedded_redis import redis_server
from esl_apps.core.numbers import NumberPlan
from esl_apps.store import keys, redis_py
from esl_apps.store.cards import CardStore
from esl_apps.store.fast_client import TIMEOUT

FEW, MANY = 10, 1_000_000
ROUNDS, LOOK_UPS = 100, 300
PIN_KEY = "key-for-benchmarks"
PLAN = NumberPlan("ZA", r"\d{3,4}")
NOTES = """\
Half of the cards have a PIN, half a caller number; all belong to one account. A look-up is a call of CardStore, as in a
real call: the HMAC of the PIN, one round trip to a dedicated redis-server on the other core, decoding the card. Each
figure is the median of {rounds} rounds of {look_ups:,} look-ups of random cards; rounds with few and with many cards
alternate. "in Redis" is the time per command that the server itself reports, over all of those rounds. "none" looks for
a PIN or number that no card has."""


@dataclass
class CardRedis:
    """A Redis that holds `count` cards."""

    count: int
    client: Any
    store: CardStore
    kb_per_card: float = 0.0

    def pin(self, i: int) -> str:
        return f"{700_000_000_000 + i}"

    def number(self, i: int) -> str:
        return f"2782{i:07d}"

    def load(self) -> None:
        before = self.client.info("memory")["used_memory"]
        bulk = BulkClient(self.client)
        store = CardStore(bulk, PIN_KEY, PLAN, {})
        for i in range(self.count // 2):
            user = f"{i:032x}"
            store.create("acme", {"pin": self.pin(i), "active": True, "user_id": user})
            store.create("acme", {"cid": "+" + self.number(i), "active": True, "user_id": user})
        bulk.flush()
        assert self.client.hlen(keys.CARDS) == self.count
        self.kb_per_card = (self.client.info("memory")["used_memory"] - before) / 1024 / self.count


def run(options: argparse.Namespace) -> str:
    """Run the benchmark in a process of its own, patched by gevent like a node."""
    command = process.python("benchmarks.suites.cards", *(["--quick"] if options.quick else []))
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, cwd=process.ROOT).stdout.rstrip()


def measure(*, quick: bool) -> str:
    machine = table.machine(["redis", "hiredis"])
    count = MANY // 10 if quick else MANY
    rounds = 10 if quick else ROUNDS
    with opened(FEW) as few, opened(count) as many:
        for redis in (few, many):
            redis.load()
        rows = [
            row(name, few, many, rounds, ask)
            for name, ask in {
                "PIN": lambda redis, i: redis.store.by_pin(redis.pin(i)) is not None,
                "PIN, none": lambda redis, i: redis.store.by_pin(redis.pin(i + redis.count)) is None,
                "number": lambda redis, i: redis.store.by_number(redis.number(i)) is not None,
                "number, none": lambda redis, i: redis.store.by_number(redis.number(i + redis.count)) is None,
            }.items()
        ]
        memory = f"{many.kb_per_card:.2f} KB per card in Redis, with its account's index, at {many.count:,} cards"
        server = f"redis-server {many.client.info('server')['redis_version']}"
    columns = [
        "look-up by",
        f"{FEW} cards, us",
        f"{count:,} cards, us",
        "ratio",
        f"in Redis, {FEW}",
        f"in Redis, {count:,}",
    ]
    notes = [f"{machine}, {server}", "", memory, "", *NOTES.format(rounds=rounds, look_ups=LOOK_UPS).splitlines()]
    return table.render("Cards: the cost of a look-up", columns, rows, notes)


def row(
    name: str, few: CardRedis, many: CardRedis, rounds: int, ask: Callable[[CardRedis, int], bool]
) -> tuple[str, str, str, str, str, str]:
    times: dict[int, list[float]] = {few.count: [], many.count: []}
    for redis in (few, many):
        round_us(redis, ask)
        redis.client.config_resetstat()
    for _ in range(rounds):
        for redis in (few, many):
            times[redis.count].append(round_us(redis, ask))
    few_us, many_us = statistics.median(times[few.count]), statistics.median(times[many.count])
    in_redis = [redis.client.info("commandstats")["cmdstat_hget"]["usec_per_call"] for redis in (few, many)]
    return (
        name,
        f"{few_us:.1f}",
        f"{many_us:.1f}",
        table.ratio(many_us, few_us),
        f"{in_redis[0]:.2f}",
        f"{in_redis[1]:.2f}",
    )


def round_us(redis: CardRedis, ask: Callable[[CardRedis, int], bool]) -> float:
    """Return microseconds per look-up, over one round."""
    cards = [random.randrange(redis.count // 2) for _ in range(LOOK_UPS)]
    began = time.perf_counter()
    hits = sum(ask(redis, i) for i in cards)
    took = time.perf_counter() - began
    assert hits == LOOK_UPS
    return took / LOOK_UPS * 1e6


@contextlib.contextmanager
def opened(count: int) -> Iterator[CardRedis]:
    port = process.free_port()
    with tempfile.TemporaryDirectory(prefix="cards-") as folder:
        command = [redis_server(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        with process.running(command, port):
            client = redis_py.single(f"redis://127.0.0.1:{port}/0", TIMEOUT)
            yield CardRedis(count, client, CardStore(client, PIN_KEY, PLAN, {}))


if __name__ == "__main__":
    print(measure(quick="--quick" in sys.argv))
