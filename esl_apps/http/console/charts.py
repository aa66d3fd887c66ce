"""The charts of the last hour, as shapes for the templates: points and bars of an SVG without any style in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from esl_apps.node.metric_history import SPAN, Sample
from esl_apps.operations import words

#: The drawing: small, so that its text can be read on a phone's screen, too.
WIDTH, HEIGHT = 400, 150
LEFT, RIGHT, TOP, BOTTOM = 34, 6, 10, 22
#: Seconds of a bar, or of a point of the time to ring.
_STEP = 120.0
_TONES = (words.GOOD, words.MISSED, words.FAILED)


@dataclass(frozen=True)
class Line:
    name: str
    points: str


@dataclass(frozen=True)
class Bar:
    tone: str
    x: float
    y: float
    width: float
    height: float


@dataclass
class Chart:
    title: str
    summary: str
    """A sentence with the figures, for those who don't see it, and below it for all."""
    top: str
    """The label of the upper end of the scale."""
    lines: list[Line] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)


def charts(samples: Sequence[Sample], now: float) -> list[Chart]:
    """Return live calls, outcomes and time to ring over the last hour."""
    recent = [sample for sample in samples if sample.at > now - SPAN]
    return [_live(recent, now), _outcomes(recent, now), _ring(recent, now)]


def _live(samples: Sequence[Sample], now: float) -> Chart:
    most = max((sample.live for sample in samples), default=0)
    top = _nice(most)
    lines = _lines("live", [f"{_x(sample.at, now)},{_y(sample.live, top)}" for sample in samples])
    latest = samples[-1].live if samples else 0
    return Chart("Live calls", f"{latest} now, {most} at most", f"{top:g}", lines)


def _outcomes(samples: Sequence[Sample], now: float) -> Chart:
    steps: dict[int, dict[str, float]] = {}
    totals = dict.fromkeys(_TONES, 0.0)
    for step, before, after in _differences(samples, now):
        for reason, count in after.ended.items():
            new = max(0.0, count - before.ended.get(reason, 0.0))
            tone = words.tone(reason)
            totals[tone] += new
            counts = steps.setdefault(step, dict.fromkeys(_TONES, 0.0))
            counts[tone] += new
    top = _nice(max((sum(counts.values()) for counts in steps.values()), default=0))
    bars = []
    for step, counts in sorted(steps.items()):
        right = _x(now - step * _STEP, now)
        left = max(float(LEFT), _x(now - (step + 1) * _STEP, now))
        below = 0.0
        for tone in _TONES:
            if counts[tone]:
                y = _y(below + counts[tone], top)
                bars.append(Bar(tone, left + 0.5, y, round(right - left - 1, 1), round(_y(below, top) - y, 1)))
                below += counts[tone]
    summary = f"{totals['good']:g} answered, {totals['missed']:g} missed, {totals['failed']:g} failed"
    return Chart("Outcomes", summary, f"{top:g}", bars=bars)


def _ring(samples: Sequence[Sample], now: float) -> Chart:
    steps: dict[int, dict[float, float]] = {}
    total: dict[float, float] = {}
    for step, before, after in _differences(samples, now):
        counts = steps.setdefault(step, {})
        for bound, count in after.rang.items():
            new = max(0.0, count - before.rang.get(bound, 0.0))
            counts[bound] = counts.get(bound, 0.0) + new
            total[bound] = total.get(bound, 0.0) + new
    halves = [(now - (step + 0.5) * _STEP, _quantile(0.5, counts)) for step, counts in sorted(steps.items())]
    found = [(at, seconds) for at, seconds in halves if seconds is not None]
    top = _nice(max((seconds for _at, seconds in found), default=0.0), least=0.5)
    lines = _lines("ring", [f"{_x(at, now)},{_y(seconds, top)}" for at, seconds in reversed(found)])
    half, most = _quantile(0.5, total), _quantile(0.95, total)
    summary = "no call has rung"
    if half is not None and most is not None:
        summary = f"half ring within {half:.1f} s, 95 % within {most:.1f} s"
    return Chart("Time to ring", summary, f"{top:g} s", lines)


def _lines(name: str, points: list[str]) -> list[Line]:
    """Return a line through all points, if there are any."""
    # An SVG line of one point draws nothing. To itself and with round ends, it is a dot.
    return [Line(name, " ".join(points if len(points) > 1 else points * 2))] if points else []


def _differences(samples: Sequence[Sample], now: float) -> list[tuple[int, Sample, Sample]]:
    """Each two neighbours, with the step that the later one is in: 0 is the latest."""
    return [(int((now - after.at) // _STEP), before, after) for before, after in pairwise(samples)]


def _quantile(share: float, counts: Mapping[float, float]) -> float | None:
    """Estimate a quantile as Prometheus does, by a straight line within a bucket. None: there were no calls."""
    bounds = sorted(counts)
    if not bounds or not counts[bounds[-1]]:
        return None
    wanted = share * counts[bounds[-1]]
    low, below = 0.0, 0.0
    for bound in bounds:
        if counts[bound] >= wanted:
            if math.isinf(bound):
                return low
            return low + (bound - low) * (wanted - below) / (counts[bound] - below)
        low, below = bound, counts[bound]
    return low


def _nice(most: float, least: float = 4) -> float:
    """Return the next round number."""
    if most <= least:
        return least
    power = 10.0 ** math.floor(math.log10(most))
    return next(step * power for step in (1, 2, 3, 4, 5, 6, 8, 10) if step * power >= most)


def _x(at: float, now: float) -> float:
    share = min(1.0, max(0.0, 1 - (now - at) / SPAN))
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def _y(value: float, top: float) -> float:
    return round(HEIGHT - BOTTOM - min(1.0, value / top) * (HEIGHT - TOP - BOTTOM), 1)
