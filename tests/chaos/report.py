"""The options of a chaos run, and its report."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.accounts import DOUBLED, LEFT_OVER, MINUTES, MISSING, WRONG, Finding
from tests.chaos.mischief import WEIGHTS
from tests.chaos.transfers import SILENCE

LEAK = "left on a node or a switch"


@dataclass(frozen=True)
class Options:
    seconds: float = 60.0
    seed: int = 1
    nodes: int = 2
    switches: int = 1
    redis: str = "single"
    real: bool = False
    rate: float = 12.0
    """Calls a second."""
    pause: float = 2.5
    """Seconds between two disturbances, on average."""
    tick: float = 20.0
    settle: float = 60.0
    """Seconds for all to come to rest after the last disturbance; waiting longer doesn't help."""
    weights: dict[str, int] = field(default_factory=lambda: dict(WEIGHTS))
    push: str = "left"
    """As ``integrators[].push``: the list or the stream is the witness."""
    old: str | None = None
    """The commit that nodes are upgraded from and rolled back to; None: they stay as they are."""
    keep: Path | None = None
    """The folder of logs and stories. None: a temporary one, removed if all is well."""


@dataclass
class Report:
    options: Options
    findings: list[Finding]
    outcomes: Counter[tuple[str, str]]
    deeds: Counter[str]
    begun: int
    records: int
    legs: int
    posted: int
    """Messages that the webhook's receiver took, repetitions included."""
    trouble: Counter[str]
    seconds: float
    stories: list[str]

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(finding.kind for finding in self.findings)
        return {kind: found[kind] for kind in (MISSING, DOUBLED, LEFT_OVER, WRONG, MINUTES, SILENCE, LEAK)}

    @property
    def good(self) -> bool:
        return not self.findings

    def table(self) -> str:
        options = self.options
        lines = [
            f"seed {options.seed}  nodes {options.nodes}  switches {options.switches}  redis {options.redis}  "
            f"{'a real FreeSWITCH' if options.real else 'sandbox'}  {self.seconds:.0f} s",
            *([f"rolling upgrade from {options.old} and back"] if options.old else []),
            "",
            f"calls begun {self.begun}   records {self.records}   legs {self.legs}   posted {self.posted}",
            "",
            f"{'application':<18} {'outcome':<44} {'calls':>6}",
        ]
        lines += [f"{app:<18} {outcome:<44} {count:>6}" for (app, outcome), count in sorted(self.outcomes.items())]
        lines += ["", f"{'done to them':<63} {'times':>6}"]
        lines += [f"{kind:<63} {count:>6}" for kind, count in sorted(self.deeds.items())]
        lines += [f"{'in all':<63} {self.deeds.total():>6}", ""]
        lines += [f"{kind:<63} {count:>6}" for kind, count in self.counts.items()]
        by_text = Counter((finding.kind, finding.app, _shape(finding.text)) for finding in self.findings)
        lines += [f"  {kind}: {app}: {text:<60} {count}" for (kind, app, text), count in by_text.most_common()]
        if self.trouble:
            lines += ["", "the load could not:"]
            lines += [f"  {count:>5} {what}" for what, count in self.trouble.most_common(10)]
        return "\n".join(lines)


def _shape(text: str) -> str:
    """The text without names and figures, so that the same fault counts as the same."""
    return re.sub(r"\d+", "#", re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{32}", "…", text))[:100]
