"""The samples of the last hour."""

from __future__ import annotations

import gevent
import pytest
from prometheus_client import CollectorRegistry

from esl_apps.node import metric_history
from esl_apps.node.metric_history import MetricHistory, Sample
from esl_apps.observe.metrics import Metrics
from tests.support.clock import Clock


def test_history_sample_has_what_the_metrics_say() -> None:
    metrics, clock = Metrics(), Clock()
    metrics.calls("disa", "answered").inc(2)
    metrics.calls("callback", "answered").inc()
    metrics.calls("disa", "rejected").inc()
    metrics.live.labels("disa").set(3)
    metrics.live.labels("callback").set(1)
    metrics.time_to_ring("disa").observe(0.3)
    taken = MetricHistory(metrics.registry.collect, clock)
    taken.take()
    (sample,) = taken.samples
    assert (sample.at, sample.live, sample.ended) == (1000.0, 4, {"answered": 3.0, "rejected": 1.0})
    assert (sample.rang[0.25], sample.rang[0.5]) == (0.0, 1.0)


def test_history_keeps_an_hour_and_no_more() -> None:
    clock = Clock()
    clock.now = 0.0
    taken = MetricHistory(CollectorRegistry().collect, clock)
    for _ in range(1000):
        clock.now += metric_history.EVERY
        taken.take()
    assert len(taken.samples) == 361
    assert taken.samples[0] == Sample(10_000.0 - metric_history.SPAN, 0, {}, {})


def test_history_takes_samples_until_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_history, "EVERY", 0.001)
    taken = MetricHistory(CollectorRegistry().collect)
    taken.stop()
    taken.start()
    with gevent.Timeout(10):
        while len(taken.samples) < 3:
            gevent.sleep(0.001)
    taken.stop()
    count = len(taken.samples)
    gevent.sleep(0.01)
    assert len(taken.samples) == count
