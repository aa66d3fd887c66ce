"""Run all benchmarks, or those named on the command line.

A benchmark is a module of ``benchmarks.suites`` with an entry in ``BENCHMARKS`` and a function ``run(options) -> str``,
which returns its table. The table is printed and written to ``docs/benchmarks/NAME.txt``.
"""

from __future__ import annotations

import argparse
import importlib
import sys

from benchmarks import process

BENCHMARKS = {
    "esl": "the event-socket layer compared with its peers: calls per CPU-second, memory per held call",
    "applications": "complete DISA, dialthrough and click-to-dial calls per CPU-second of a node, memory per held call",
    "cards": "looking up a card by PIN and by number, with 10 cards and with 1,000,000",
    "budget": "one call wake-up by wake-up: what woke the node, what it read and wrote, system calls, CPU, profile",
    "ideas": "ideas for a cheaper call with FreeSWITCH's tick, each next to the node as it is",
    "growth": "CPU and memory per call as calls, cards, integrators and the list of recent calls grow",
    "delay": "INVITE to 200, last key to B-leg, BYE to record: a real FreeSWITCH under SIPp, compared with peers",
    "http": "POST /click2dial/calls with 100 clients; response times next to slow clients and huge bodies",
    "ring": "from POST /click2dial/calls to the agent's INVITE, compared with the same originate typed by hand",
    "events": "live events to 100 readers: delay, CPU, memory, readers that are cut off",
    "instructions": "instructions of a node per call, counted by callgrind; --old COMMIT: next to an older tree's",
    "webhooks": "the cost of a webhook: click-to-dial calls per CPU-second of a node without one and with one",
    "switch": "SIPp, a real FreeSWITCH and a node at a rising rate: calls a second without a failure, cores, memory",
    "scaling": "the gain of a second worker; one, two and four nodes compared with what the model predicts",
}


def main() -> int:
    lines = "\n".join(f"  {name:12} {summary}" for name, summary in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure this project and compare it with its peers.",
        epilog=f"benchmarks:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmark to run (default: all)")
    parser.add_argument("--quick", action="store_true", help="do a tenth of the work, once: a smoke test")
    parser.add_argument("--only", action="append", metavar="APP", help="measure only this application; may be repeated")
    parser.add_argument("--old", metavar="COMMIT", help="instructions: count an older commit, too")
    parser.add_argument("--minutes", type=float, default=1.0, help="switch: how long to hold the highest rate")
    parser.add_argument("--rate", type=int, help="switch: hold this rate, and look for no other")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}; choose from {', '.join(BENCHMARKS)}")
    complete = not (options.quick or options.old) and (not options.only or options.rate)
    for name in options.names or BENCHMARKS:
        text = importlib.import_module(f"benchmarks.suites.{name}").run(options)
        if not text:  # skipped: it has printed the reason
            continue
        print(text, flush=True)
        if complete:  # a partial run must not replace the documented table
            # A rate that was given is another table, next to the one with the highest rate.
            file = f"{name}_held.txt" if options.rate else f"{name}.txt"
            path = process.ROOT / "docs" / "benchmarks" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
