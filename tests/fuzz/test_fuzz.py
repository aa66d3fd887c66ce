"""The fuzz targets on their seeds, on damaged seeds, and in a short search."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS

SECONDS = 3


@pytest.mark.parametrize("target", TARGETS)
def test_fuzz_seeds_pass(target: str) -> None:
    for seed in SEEDS[target]():
        TARGETS[target](seed)


@pytest.mark.parametrize("target", TARGETS)
def test_fuzz_damaged_seeds_pass(target: str) -> None:
    """Change, drop and double bytes, the same each time: a little fuzzing without atheris."""
    chance = random.Random(target)
    seeds = [seed[:3000] for seed in SEEDS[target]()]
    for _ in range(300 if target not in ("config", "kazoo") else 30):
        damaged = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 4)):
            start = chance.randrange(len(damaged) + 1)
            end = min(len(damaged), start + chance.randint(0, 8))
            damaged[start:end] = chance.choice([b"", chance.randbytes(2), bytes(damaged[start:end]) * 2, b"\n\n"])
        TARGETS[target](bytes(damaged))


@pytest.mark.timeout(180)
def test_fuzz_short_search_finds_nothing(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="no atheris for this Python: coverage-guided fuzzing is left out")
    command = [sys.executable, "-m", "tests.fuzz", "--seconds", str(SECONDS), "--corpus", str(tmp_path), "every"]
    search = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert search.returncode == 0, search.stderr[-4000:]
    runs = re.search(r"Done (\d+) runs", search.stderr)
    assert runs is not None, search.stderr[-4000:]
    assert int(runs[1]) > 50
