"""Runs the benchmarks: all of them, or those named.

Each is a module of this package with a line in ``BENCHMARKS`` and ``run(options) -> str``: the table that
is printed here and kept in ``docs/benchmarks/NAME.txt``.
"""

from __future__ import annotations

import argparse
import importlib
import sys

from benchmarks import pages, process

BENCHMARKS = {
    "esl": "the event-socket layer beside its peers: calls per CPU-second, memory of a held call",
    "applications": "DISA, dialthrough and click-to-dial whole: calls per CPU-second of a node, memory of a held call",
    "cards": "a card's look-up by PIN and by number, with 10 cards and with 1,000,000",
    "growth": "CPU and memory of a call as there are more calls, cards, integrators and calls to be listed",
    "delay": "INVITE to 200, the last key to the B-leg, BYE to the record: a real FreeSWITCH under SIPp, beside peers",
    "http": "POST /click2dial/calls with 100 clients; a client's times beside slow and huge ones",
    "ring": "from POST /click2dial/calls to the agent's INVITE, beside the same originate typed by hand",
    "scaling": "what a second worker brings; one, two and four nodes beside what the model says they carry",
}


def main() -> int:
    listed = "\n".join(f"  {name:12} {what}" for name, what in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures this project beside its peers.",
        epilog=f"benchmarks:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to run (all)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, one run: to see that it works")
    parser.add_argument("--only", action="append", metavar="APP", help="only this application (may be repeated)")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    whole = not (options.quick or options.only)
    for name in options.names or BENCHMARKS:
        text = importlib.import_module(f"benchmarks.{name}").run(options)
        if not text:  # it said why it did not run
            continue
        print(text, flush=True)
        if whole:  # a partial run does not replace the documented table
            path = process.ROOT / "docs" / "benchmarks" / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
            pages.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
