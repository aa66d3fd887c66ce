"""Count the instructions that a node executes per call, with callgrind.

``benchmarks.suites.instructions`` runs this file in the tree to measure, which may be an older one: it uses only what
the benchmarks of both have. Takes a plan as JSON on the command line and prints one JSON object, instructions by name::

    {"apps": ["disa"], "ticking": ["disa"], "held": 0, "calls": 100}
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.load import node_bench
from benchmarks.load.node_bench import NodeBench

CARDS = 100
#: Calls before each count. They load scripts and fill caches.
WARM_UP = 20
#: Calls at a time. Under callgrind, a node is 50 times as slow.
AT_ONCE = 10
#: Seconds between two bursts of the switch: long enough for the node to have slept before each.
TICK = 0.1
#: Seconds for which an idle node is counted.
IDLE = 5.0
_TOTAL = re.compile(r"^(?:summary|totals): (\d+)", re.MULTILINE)
_CALLGRIND = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--quiet"]


class Counter:
    """The instructions of a node that runs under callgrind."""

    def __init__(self, bench: NodeBench, folder: Path) -> None:
        self._bench = bench
        self._files = folder / "counted"
        bench.node.command = [*_CALLGRIND, f"--callgrind-out-file={self._files}", *bench.node.command]
        self._dumps = 0
        self._idle = 0.0
        """Instructions per second without calls."""

    def start(self) -> None:
        self._control("--instr=on")
        self._dump()
        began = time.monotonic()
        time.sleep(IDLE)
        self._idle = self._dump() / (time.monotonic() - began)

    def count(self, app: str, calls: int) -> int:
        """Return the node's instructions per call, without those that it executes when it has no calls."""
        self._bench.measure_calls({app: 1}, WARM_UP, concurrency=AT_ONCE)
        self._dump()
        began = time.monotonic()
        self._bench.measure_calls({app: 1}, calls, concurrency=AT_ONCE)
        total = self._dump()
        return round((total - self._idle * (time.monotonic() - began)) / calls)

    def _dump(self) -> int:
        """Return the instructions since the last dump."""
        self._control("--dump")
        self._dumps += 1
        return int(_TOTAL.findall(Path(f"{self._files}.{self._dumps}").read_text())[-1])

    def _control(self, order: str) -> None:
        subprocess.run(["callgrind_control", order, str(self._bench.pid)], check=True, capture_output=True)


def main() -> None:
    plan = json.loads(sys.argv[1])
    counts: dict[str, int] = {}
    with node_bench.opened() as bench, tempfile.TemporaryDirectory(prefix="counted-") as folder:
        bench.create_cards(CARDS)
        counter = Counter(bench, Path(folder))
        bench.start(callers=CARDS)
        if plan["held"]:
            # Not under callgrind's eyes yet, so this takes seconds.
            bench.order("hold", mix={"click2dial": 1}, calls=plan["held"], concurrency=AT_ONCE)
        counter.start()
        for app in plan["apps"]:
            counts[app] = counter.count(app, plan["calls"])
        bench.order("dial", callers=CARDS, tick=TICK)
        for app in plan["ticking"]:
            counts[f"{app}, tick"] = counter.count(app, plan["calls"])
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
