"""The charts of the last hour."""

from __future__ import annotations

from esl_apps.http.console.charts import Bar, charts
from esl_apps.node.metric_history import Sample

NOW = 10_000.0
INF = float("inf")


def sample(
    ago: float, live: int = 0, ended: dict[str, float] | None = None, rang: dict[float, float] | None = None
) -> Sample:
    return Sample(NOW - ago, live, ended or {}, rang or {})


def test_charts_without_samples_are_empty() -> None:
    live, outcomes, ring = charts([], NOW)
    assert (live.summary, live.lines) == ("0 now, 0 at most", [])
    assert (outcomes.summary, outcomes.bars) == ("0 answered, 0 missed, 0 failed", [])
    assert (ring.summary, ring.lines) == ("no call has rung", [])


def test_live_chart_is_scaled_to_its_most() -> None:
    live, *_ = charts([sample(4000, 900), sample(3599, 0), sample(1800, 37), sample(0, 12)], NOW)
    assert (live.summary, live.top) == ("12 now, 37 at most", "40")
    (line,) = live.lines
    assert line.points == "34.1,128.0 214.0,18.8 394.0,92.6"


def test_chart_of_one_point_draws_a_dot() -> None:
    live, *_ = charts([sample(0, 12)], NOW)
    (line,) = live.lines
    assert line.points == "394.0,57.2 394.0,57.2"


def test_outcomes_count_what_ended_between_samples() -> None:
    samples = [
        sample(600, ended={"answered": 5, "callee_busy": 1}),
        sample(300, ended={"answered": 8, "callee_busy": 2, "rejected": 1}),
        # A worker was restarted, so a count is lower.
        sample(10, ended={"answered": 2, "callee_busy": 2, "rejected": 2}),
    ]
    _, outcomes, _ = charts(samples, NOW)
    assert outcomes.summary == "3 answered, 1 missed, 2 failed"
    assert [bar.tone for bar in outcomes.bars] == ["failed", "good", "missed", "failed"]
    latest = outcomes.bars[0]
    assert isinstance(latest, Bar)
    assert latest.x + latest.width <= 394
    good, missed, failed = outcomes.bars[1:]
    assert good.y == missed.y + missed.height
    assert missed.y == failed.y + failed.height


def test_time_to_ring_is_estimated_from_buckets() -> None:
    before = {1.0: 0.0, 2.0: 0.0, INF: 0.0}
    after = {1.0: 10.0, 2.0: 20.0, INF: 20.0}
    _, _, ring = charts([sample(200, rang=before), sample(100, rang=after), sample(50, rang=after)], NOW)
    assert ring.summary == "half ring within 1.0 s, 95 % within 1.9 s"
    assert len(ring.lines) == 1


def test_time_to_ring_beyond_all_buckets_is_the_last_bound() -> None:
    samples = [sample(20, rang={1.0: 0.0, INF: 0.0}), sample(10, rang={1.0: 0.0, INF: 4.0})]
    _, _, ring = charts(samples, NOW)
    assert ring.summary == "half ring within 1.0 s, 95 % within 1.0 s"
