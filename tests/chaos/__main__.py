"""``python -m tests.chaos``: print the table; exit with 1 if the accounts don't agree."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.chaos.parts import REDIS, end_by_exit
from tests.chaos.report import Options
from tests.chaos.run import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of load and mischief (10)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--switches", type=int, default=1)
    parser.add_argument("--redis", choices=REDIS, default="single")
    parser.add_argument("--real", action="store_true", help="a real FreeSWITCH and its phones, in place of the sandbox")
    parser.add_argument(
        "--push", choices=["left", "stream"], help="where the records are read (a list if the seed is odd, or a stream)"
    )
    parser.add_argument("--rate", type=float, help="calls a second (18; 2 on a real switch)")
    parser.add_argument("--pause", type=float, help="seconds between two deeds (2.5; 8 on a real switch); 0: none")
    parser.add_argument("--tick", type=float, default=20.0, help="the sandbox's, milliseconds (20)")
    parser.add_argument("--old", metavar="COMMIT", help="a rolling upgrade of the nodes from this commit, and back")
    parser.add_argument("--stories", type=int, default=5, help="how many to print (5); all are in the folder")
    parser.add_argument("--keep", type=Path, help="folder for logs and stories (build/chaos/SEED)")
    asked = parser.parse_args()
    end_by_exit()
    pause = asked.pause if asked.pause is not None else 8.0 if asked.real else 2.5
    options = Options(
        seconds=asked.minutes * 60,
        seed=asked.seed,
        nodes=asked.nodes,
        switches=asked.switches,
        redis=asked.redis,
        real=asked.real,
        push=asked.push or ("left" if asked.seed % 2 else "stream"),
        rate=asked.rate or (2.0 if asked.real else 18.0),
        pause=pause or 1e9,
        tick=asked.tick,
        old=asked.old,
        keep=asked.keep or Path("build/chaos") / str(asked.seed),
    )
    report = run(options)
    assert options.keep is not None
    stories = options.keep / "stories.txt"
    stories.write_text("\n\n".join(report.stories))
    for story in report.stories[: asked.stories]:
        print(story, end="\n\n")
    print(report.table())
    if not report.good:
        print(f"\n{len(report.stories)} stories in {stories}; to see the like again: --seed {options.seed}")
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
