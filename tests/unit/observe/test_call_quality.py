"""How calls sounded, as histograms."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from esl_apps.core.quality import CallQuality, LegQuality
from esl_apps.observe.call_quality import QualityMetrics


def test_quality_of_each_party_is_counted() -> None:
    registry = CollectorRegistry()
    metrics = QualityMetrics(registry)
    agent = LegQuality(leg="a", mos=4.3, loss=0.01, jitter=25.0, round_trip=120.0, packets_in=10, packets_out=0)
    for party, leg in CallQuality(agent=agent, callee=LegQuality(leg="b", post_dial_delay=1.5)).legs():
        metrics.observe(party, leg)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"esl_apps_leg_{name}", labels)

    assert value("mos_sum", party="agent") == 4.3
    assert value("loss_ratio_sum", party="agent") == 0.01
    assert value("jitter_seconds_sum", party="agent") == 0.025
    assert value("round_trip_seconds_sum", party="agent") == 0.12
    assert value("post_dial_delay_seconds_bucket", party="callee", le="2.0") == 1.0
    assert value("mos_count", party="callee") is None
    assert value("silent_total", party="agent", direction="out") == 1.0
    assert value("silent_total", party="agent", direction="in") is None
