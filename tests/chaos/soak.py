"""The soak: many calls through one node, and the resources that it holds before, during and after them.

``python -m tests.chaos.soak --calls 100000``; ``make soak CALLS=100000``. The benchmarks' load generator plays the
switch (``benchmarks/load/exchange.py``): a sandbox would take ten times as long. All calls have ended
before each reading, so that it shows what remains.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.node_bench import NodeBench
from esl_apps.store import keys
from tests.chaos import parts

#: Calls through each application, of every ten.
MIX = {"click2dial": 5, "inbound": 2, "dialthrough": 1, "autodial": 1, "disa": 1}
#: Simultaneous calls, and the numbers that they come from.
AT_ONCE, CALLERS = 50, 1000
#: How far the memory of the last quarter may exceed that of the second, and the calls from which on this is checked:
#: during the first thousands it grows to its steady size.
GROWTH, ENOUGH = 1.02, 20_000
#: Figures that must return exactly to their start when all calls have ended.
EXACT = ("files", "sockets", "connections", "esl_apps_greenlets")


@dataclass(frozen=True)
class Reading:
    """The resources that the node holds without calls."""

    calls: int
    at: float
    """Seconds since the first reading."""
    figures: dict[str, float]
    records: int
    """CDRs popped from Redis so far."""
    answered: int
    """Those of them with the end reason ``answered``."""

    def __getitem__(self, name: str) -> float:
        return self.figures[name]

    @property
    def live(self) -> float:
        return self["esl_apps_live_calls"] + self["esl_apps_outbound_sockets"] + self["esl_apps_outbox_depth"]


class Soak:
    """A node, a switch and a Redis."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.bench = NodeBench(folder, stack)
        self.bench.create_cards(CALLERS)
        self.bench.start(callers=CALLERS, connections=8)
        self.calls = self.records = 0
        self.began = time.monotonic()
        self._refs: list[str] = []

    def run(self, calls: int) -> None:
        """Place ``count`` calls, and return when all have ended. :raises NotPerformed: a call went wrong."""
        self._refs += self.bench.order("run", mix=MIX, calls=calls, concurrency=AT_ONCE)["refs"]
        self.calls += calls
        parts.until(self._ended, 180, "the calls did not end")

    def _ended(self) -> bool:
        now = self.bench.node.metrics()
        return not (now["esl_apps_live_calls"] or now["esl_apps_outbound_sockets"] or now["esl_apps_outbox_depth"])

    # Readings -----------------------------------------------------------------------------------------

    def read(self) -> Reading:
        """Pop the records, one per call, and read the node's figures. :raises NotPerformed: records are missing."""
        refs, self._refs = self._refs, []
        self.bench.check_records(refs)
        self.records += len(refs)
        at = time.monotonic() - self.began
        return Reading(self.calls, at, self.bench.node.figures(), self.records, self.records)

    def rest(self, first: Reading) -> Reading:
        """Take a reading once the last connections are closed, or after a time if they never are."""
        for _ in range(50):
            reading = self.read()
            if all(reading[name] <= first[name] for name in EXACT):
                break
            time.sleep(0.2)
        return reading

    def warm_up(self) -> Reading:
        """Place some calls, so that what is created once exists; counting starts here."""
        self.run(200)
        self.read()
        self.calls = self.records = 0
        self.began = time.monotonic()
        # The journal's file is open twice while it is synced, so take the smallest figure.
        seen = []
        for _ in range(10):
            time.sleep(0.1)
            seen.append(self.read())
        return min(seen, key=lambda reading: sum(reading[name] for name in EXACT))

    def live(self) -> int:
        """Calls of all processes that are live in Redis."""
        client = self.bench.client
        return sum(client.hlen(key) for key in client.scan_iter(keys.live("*")))


@contextlib.contextmanager
def soaking() -> Iterator[Soak]:
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, contextlib.ExitStack() as stack:
        yield Soak(Path(folder), stack)


def table(readings: list[Reading]) -> str:
    lines = [
        "One node, calls of five applications (five click-to-dial, two inbound, one each of DISA, dialthrough and",
        "autodial of ten)",
        "",
        "    calls  records  answered  seconds  calls/s  RSS MB  files  sockets  to Redis  greenlets  live",
        "  -------  -------  --------  -------  -------  ------  -----  -------  --------  ---------  ----",
    ]
    before = readings[0]
    for one in readings:
        rate = (one.calls - before.calls) / (one.at - before.at) if one.at > before.at else 0.0
        lines.append(
            f"  {one.calls:>7,}  {one.records:>7,}  {one.answered:>8,}  {one.at:>7.0f}  {rate:>7.1f}"
            f"  {one['rss_kb'] / 1024:>6.1f}  {one['files']:>5.0f}  {one['sockets']:>7.0f}  {one['pool']:>8.0f}"
            f"  {one['esl_apps_greenlets']:>9.0f}"
            f"  {one.live:>4.0f}"
        )
        before = one
    lines += [
        "",
        "Read when all calls have ended; the first after a warm-up of 200. Sockets: listening, and to the switch. Of",
        "those to Redis a pool keeps as many as were once used at a time.",
        time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        + f"; {os.cpu_count()} cores, Python {platform.python_version()}",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000)
    calls = parser.parse_args().calls
    parts.end_by_exit()
    with soaking() as soak:
        readings = [soak.warm_up()]
        for done in range(10):
            soak.run(calls * (done + 1) // 10 - soak.calls)
            readings.append(soak.rest(readings[0]))
            print(table(readings[-1:]).splitlines()[5], file=sys.stderr, flush=True)
        live = soak.live()
    print(table(readings))
    left = faults(readings)
    if live:
        left.append(f"{live} live in Redis")
    for text in left:
        print(f"not as it should be: {text}")
    return 1 if left else 0


def faults(readings: list[Reading]) -> list[str]:
    """List the figures that did not return to their start or are not as they should be."""
    first, last = readings[0], readings[-1]
    found = [f"{name}: {last[name]:.0f}, {first[name]:.0f} at the start" for name in EXACT if last[name] > first[name]]
    if last.live:
        found.append(f"{last.live:.0f} live on the node")
    if last.records != last.calls:
        found.append(f"{last.records} records of {last.calls} calls")
    second, fourth = (
        statistics.fmean(one["rss_kb"] for one in readings if low < one.calls / last.calls <= low + 0.25)
        for low in (0.25, 0.75)
    )
    if last.calls >= ENOUGH and fourth > second * GROWTH:
        found.append(f"memory: {fourth / 1024:.1f} MB in the last quarter, {second / 1024:.1f} MB in the second")
    return found


if __name__ == "__main__":
    sys.exit(main())
