"""``python -m tests.attack [--frames N] [--requests N] [--seed N]``: the long form (``make attack``).

Send malformed frames and requests to a real node in ten rounds, and print after each what the node holds.
Exit with 1 if the node died, doesn't serve, or holds more than it did after half of the rounds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.attack.malformed import Field, Figures, figures
from tests.support import temporary

ROUNDS = 10
#: Memory that Python may keep for itself, from the middle of the run to its end.
_GROWTH_KB = 8192


def grew(first: Figures, last: Figures) -> list[str]:
    """Name what a node holds more of than before."""
    found = []
    if last.rss_kb > first.rss_kb + _GROWTH_KB:
        found.append(f"memory: {first.rss_kb} kB to {last.rss_kb} kB")
    for name, slack in (("fds", 4), ("greenlets", 4), ("calls", 0), ("sockets", 0)):
        before, after = getattr(first, name), getattr(last, name)
        if after > before + slack:
            found.append(f"{name}: {before} to {after}")
    if last.objects > first.objects * 1.1 + 2000:
        found.append(f"objects: {first.objects} to {last.objects}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    parser.add_argument("--frames", type=int, default=1_000_000, help="malformed ESL frames (1000000)")
    parser.add_argument("--requests", type=int, default=100_000, help="malformed requests (100000)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    temporary.use_own_folder()
    field = Field(options.seed)
    faults: list[str] = []
    began = time.monotonic()
    try:
        if not field.serves():
            faults.append("the node does not serve before it is attacked")
        print(f"{'before':24} {figures(field.node)}", flush=True)
        said, statuses, middle = 0, Counter[str](), figures(field.node)
        for turn in range(ROUNDS):
            said += field.frames(options.frames // ROUNDS, 100)
            statuses += field.requests(options.requests // ROUNDS)
            field.settle()
            now = figures(field.node)
            print(f"{said:9} + {sum(statuses.values()):6} answers {now}", flush=True)
            if turn == ROUNDS // 2 - 1:
                # Buffers with an upper bound (recent records, the rate limits' buckets) are full by now.
                middle = now
            if turn == ROUNDS - 1:
                faults += grew(middle, now)
        if field.dialled():
            faults.append(f"dialled: {field.dialled()} calls")
        if not field.serves():
            faults.append("the node does not serve any more")
        print(f"answers by status: {dict(sorted(statuses.items()))}")
        print(f"connections of the hostile switch: {field.hostile.connections}, its frames {field.hostile.said}")
        if any(status.startswith("5") and status != "503" for status in statuses):
            faults.append("an answer that says the fault is the server's")
    finally:
        ended = field.close()
    log = field.node.log.read_text()
    if ended != 0:
        faults.append(f"the node ended with {ended}")
    if "Traceback" in log:
        faults.append(f"a traceback in {field.node.log}")
    print(f"{time.monotonic() - began:.0f} s; " + ("; ".join(faults) if faults else "nothing leaked, nothing broke"))
    if faults:
        temporary.keep()
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
