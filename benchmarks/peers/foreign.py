"""Peers in other languages: how each is built, or why it can't be on this machine.

Nothing of theirs is in this repository. Their packages come from npm or from Go's module proxy, into ``build/peers``.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks import process

_HERE = Path(__file__).resolve().parent
#: Seconds for a package to be fetched and built.
_PATIENCE = 300


class Missing(Exception):
    """The peer can't be built here; says why."""


def shimaore() -> list[str]:
    """Return the command of shimaore's esl (npm), but for the port. :raises Missing: it can't be built here."""
    folder = _copied("shimaore", "node", "npm")
    _run(folder, ["npm", "install", "--no-audit", "--no-fund", "--silent"])
    return ["node", str(folder / "app.mjs")]


def eslgo() -> list[str]:
    """Return the command of eslgo (Go), but for the port. :raises Missing: it can't be built here."""
    folder = _copied("eslgo", "go")
    _run(folder, ["go", "build", "-mod=mod", "-o", "app", "."])
    # One core, as the others have.
    return ["env", "GOMAXPROCS=1", str(folder / "app")]


@functools.cache
def command(name: str) -> list[str] | Missing:
    """Return a peer's command, but for the port, or why it can't be had. Builds it once."""
    try:
        return {"shimaore": shimaore, "eslgo": eslgo}[name]()
    except Missing as reason:
        return reason


def _copied(name: str, *programs: str) -> Path:
    for program in programs:
        if shutil.which(program) is None:
            raise Missing(f"{program} is not installed")
    folder = process.ROOT / "build" / "peers" / name
    shutil.copytree(_HERE / name, folder, dirs_exist_ok=True)
    return folder


def _run(folder: Path, command: Sequence[str]) -> None:
    try:
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise Missing(f"{command[0]} did not end within {_PATIENCE} s") from None
    if ended.returncode:
        lines = (ended.stderr or ended.stdout).strip().splitlines() or [f"exit {ended.returncode}"]
        raise Missing(f"{' '.join(command[:2])} failed: {lines[-1].strip()[:120]}")
