"""The fuzz targets: over their seeds, over simple damage to them, and a short search each."""

from __future__ import annotations

import random
import re
import subprocess
import sys

import pytest

from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS

SECONDS = 2


@pytest.mark.parametrize("target", TARGETS)
def test_the_seeds_pass(target: str) -> None:
    for seed in SEEDS[target]():
        TARGETS[target](seed)


@pytest.mark.parametrize("target", TARGETS)
def test_damaged_seeds_pass(target: str) -> None:
    """Bytes changed, dropped and doubled, the same each time: without atheris, too, something is tried."""
    chance = random.Random(target)
    seeds = [seed[:3000] for seed in SEEDS[target]()]
    for _ in range(300 if target not in ("config", "kazoo") else 30):
        damaged = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 4)):
            start = chance.randrange(len(damaged) + 1)
            end = min(len(damaged), start + chance.randint(0, 8))
            damaged[start:end] = chance.choice([b"", chance.randbytes(2), bytes(damaged[start:end]) * 2, b"\n\n"])
        TARGETS[target](bytes(damaged))


@pytest.fixture(scope="module")
def searches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, subprocess.Popen[str]]:
    """All at once: they share the time."""
    pytest.importorskip("atheris", reason="no atheris for this Python: coverage-guided fuzzing is left out")
    corpus = tmp_path_factory.mktemp("corpus")
    command = [sys.executable, "-m", "tests.fuzz", "--seconds", str(SECONDS), "--corpus", str(corpus)]
    pipe = subprocess.PIPE
    return {target: subprocess.Popen([*command, target], stderr=pipe, stdout=pipe, text=True) for target in TARGETS}


@pytest.mark.parametrize("target", TARGETS)
def test_a_short_search_finds_nothing(target: str, searches: dict[str, subprocess.Popen[str]]) -> None:
    search = searches[target]
    _output, told = search.communicate(timeout=110)
    assert search.returncode == 0, told[-4000:]
    runs = re.search(r"Done (\d+) runs", told)
    assert runs is not None, told[-4000:]
    assert int(runs[1]) > 100
