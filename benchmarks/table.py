"""Render tables as plain text, for the terminal and the documentation."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import pathlib
import platform
import sys
from collections.abc import Iterable, Sequence


def render(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    notes: Sequence[str] = (),
    left: Sequence[str] = (),
) -> str:
    """Return a title, a table and notes. The first column and those in ``left`` are flush left, the others right."""
    cells = [
        list(columns),
        *([cell if isinstance(cell, str) else f"{cell:,}" for cell in row] for row in rows),
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if i == 0 or columns[i] in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join([first, *others]).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([title, "", line(cells[0]), rule, *map(line, cells[1:]), *([""] if notes else []), *notes])


def ratio(value: float, base: float) -> str:
    return f"{value / base:.2f}x" if base else "-"


def machine(packages: Iterable[str] = ()) -> str:
    """Return the date, the machine and the versions behind a measurement."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    # Distributions build Python with profile-guided optimisation; a default build is a fifth to a third slower.
    build = f" of {platform.freedesktop_os_release()['PRETTY_NAME']}" if sys.base_prefix == "/usr" else ""
    versions = [f"Python {platform.python_version()}{build}"]
    versions += [f"{name} {importlib.metadata.version(name)}" for name in packages]
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"{now}; {model}, {os.cpu_count()} cores, Linux {platform.release()}, "
        f"load {os.getloadavg()[0]:.1f} at the start\n" + ", ".join(versions)
    )
