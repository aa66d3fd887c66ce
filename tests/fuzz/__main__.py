"""``python -m tests.fuzz [--seconds N] [--corpus DIR] [TARGET [FILE…]]``.

Without TARGET, each runs for N seconds; ``every`` searches all at once, and an input's first byte chooses. With FILEs,
only those inputs run, to look at a finding. The corpus is kept in ``build/fuzz/TARGET``, so that a search goes on where
the last one ended; findings are written next to it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

from tests.support import temporary

#: All targets in one search: to start one takes longer than a short search.
EVERY = "every"


def run(target: str, seconds: int, corpus: Path, files: list[str]) -> None:
    """Search until the time is over or something is found, then end the process."""
    with atheris.instrument_imports(include=["esl_apps"]):
        from tests.fuzz.targets import TARGETS
    from tests.fuzz.seeds import SEEDS, WORDS

    names = sorted(TARGETS)
    seeded: list[bytes] = []
    if target == EVERY:
        for number, name in enumerate(names):
            seeded += [bytes([number]) + seed for seed in SEEDS[name]()]
    else:
        seeded += SEEDS[target]()
    listed = [word for name in (names if target == EVERY else [target]) for word in WORDS[name]]

    def any_of_them(data: bytes) -> None:
        if data:
            TARGETS[names[data[0] % len(names)]](data[1:])

    kept = corpus / target
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        seeds, words = Path(folder, "seeds"), Path(folder, "words")
        seeds.mkdir()
        for number, seed in enumerate(seeded):
            Path(seeds, f"{number:03}").write_bytes(seed)
        quoted = ("".join(f"\\x{byte:02x}" for byte in word.encode()) for word in dict.fromkeys(listed))
        words.write_text("".join(f'"{word}"\n' for word in quoted))
        options = [
            f"-max_total_time={seconds}",
            f"-dict={words}",
            # Seconds: an input that takes longer counts as a hang. The largest seed is the shipped configuration.
            "-timeout=10",
            "-max_len=12000",
            "-rss_limit_mb=1024",
            f"-artifact_prefix={corpus}/{target}-",
        ]
        search = any_of_them if target == EVERY else TARGETS[target]
        atheris.Setup([sys.argv[0], *options, *(files or [str(kept), str(seeds)])], search)
        atheris.Fuzz()


def main() -> int:
    from tests.fuzz.seeds import SEEDS

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--corpus", type=Path, default=Path("build/fuzz"), help="folder of what was found to matter")
    parser.add_argument("target", nargs="?", choices=[*sorted(SEEDS), EVERY], help="one only")
    parser.add_argument("files", nargs="*", help="inputs to try, in place of a search")
    options = parser.parse_args()
    options.corpus.mkdir(parents=True, exist_ok=True)
    if options.target:
        run(options.target, options.seconds, options.corpus.resolve(), options.files)
    # Atheris ends the process without cleaning up.
    temporary.use_own_folder()
    command = [sys.executable, "-m", "tests.fuzz", "--seconds", str(options.seconds), "--corpus", str(options.corpus)]
    failed = [name for name in SEEDS if subprocess.run([*command, name], check=False).returncode]
    print(f"findings in: {', '.join(failed)}" if failed else "no findings")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
