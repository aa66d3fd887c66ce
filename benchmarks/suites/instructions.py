"""Instructions that a node executes per call, counted by callgrind; with ``--old COMMIT``, next to an older tree's."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import process, table

CALLS = 100
APPS = ("disa", "dialthrough", "click2dial")
#: Calls held while others are counted.
HELD = 1000
NOTES = """\
Thousands of instructions in user space, counted by valgrind's callgrind, without those of an idle node in the same
time. On a machine that others use, the line click2dial repeats within 3 %, and the others within 10 to 20 %: a node
that waits for its core finds several keys at once, and an idle node's share differs with the time that a run takes.
Compare trees that are counted at the same time, several times. Each line is {calls} calls of the first table of
applications.txt, ten at a time. "tick": the switch sends its frames one burst at a time, so that the node sleeps before
each. "held": next to {held:,} click-to-dial calls that are held in a bridge."""


def run(options: argparse.Namespace) -> str:
    if shutil.which("valgrind") is None:
        print("instructions: skipped, because valgrind is not installed", file=sys.stderr)
        return ""
    calls, held = (20, 100) if options.quick else (CALLS, HELD)
    apps = [name for name in APPS if not options.only or name in options.only]
    plans: list[dict[str, Any]] = [
        {"apps": apps, "ticking": apps, "held": 0, "calls": calls},
        {"apps": apps[-1:], "ticking": [], "held": held, "calls": calls},
    ]
    new = counted(process.ROOT, plans)
    old: dict[str, int] = {}
    if options.old:
        with checked_out(options.old) as tree:
            old = counted(tree, plans)
    rows = [
        (name, f"{count / 1000:,.0f}", *([f"{old[name] / 1000:,.0f}", table.ratio(count, old[name])] if old else []))
        for name, count in new.items()
    ]
    columns = ["calls", "now", *([options.old, "x"] if old else [])]
    notes = NOTES.format(calls=calls, held=held).splitlines()
    text = table.render("Instructions per call, in thousands", columns, rows, notes)
    return f"{text}\n\n{table.machine(['gevent', 'msgspec', 'hiredis'])}"


def counted(tree: Path, plans: list[dict[str, Any]]) -> dict[str, int]:
    """Count in a tree, with this tree's counter and Python packages."""
    counts: dict[str, int] = {}
    counter = process.ROOT / "benchmarks" / "load" / "counted_node.py"
    for plan in plans:
        # Without -P, the folder of the script would be the first to import from.
        command = [sys.executable, "-P", str(counter), json.dumps(plan)]
        done = subprocess.run(
            command, cwd=tree, env=dict(os.environ, PYTHONPATH=str(tree)), stdout=subprocess.PIPE, check=True
        )
        held = f", {plan['held']:,} held" if plan["held"] else ""
        counts.update({name + held: count for name, count in json.loads(done.stdout).items()})
    return counts


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Check a commit out into a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-old-") as folder:
        archive = subprocess.run(["git", "archive", commit], cwd=process.ROOT, stdout=subprocess.PIPE, check=True)
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        yield Path(folder)
