"""The metrics of a node, and of all workers of one: a scrape may reach any of them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import gevent
import msgspec
import pytest
from gevent import socket, spawn
from gevent.event import Event as Flag
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from esl_apps.observe import metrics as metrics_module
from esl_apps.observe.durations import Durations
from esl_apps.observe.metrics import Metrics, Scrapes
from esl_apps.process import background


@pytest.fixture
def names() -> list[str]:
    prefix = f"esl_apps.test.{secrets.token_hex(8)}"
    return [f"{prefix}.{number}" for number in (1, 2)]


@pytest.fixture
def first(names: list[str]) -> Iterator[Scrapes]:
    metrics = Metrics()
    metrics.refused.labels("429").inc(2)
    made = Scrapes(metrics, 1, names)
    yield made
    made.stop()


def sample(scrapes: Scrapes, name: str, **labels: str) -> float | None:
    value: float | None = scrapes.registry.get_sample_value(name, labels)
    return value


def test_metrics_of_two_nodes_in_one_process_are_apart() -> None:
    one, other = Metrics(), Metrics()
    one.calls("disa", "answered").inc()
    labels = {"app": "disa", "end_reason": "answered"}
    assert one.registry.get_sample_value("esl_apps_calls_total", labels) == 1.0
    assert other.registry.get_sample_value("esl_apps_calls_total", labels) is None
    assert one.calls("disa", "answered") is one.calls("disa", "answered")


def test_metrics_count_greenlets_by_their_work() -> None:
    done = Flag()
    once, kept = background.once("probe", done.wait), background.keep("probe", done.wait)
    other = gevent.spawn(done.wait)
    gevent.sleep(0)
    registry = Metrics().registry
    assert registry.get_sample_value("esl_apps_greenlets", {"task": "probe"}) == 2
    assert registry.get_sample_value("esl_apps_greenlets", {"task": "Event.wait"}) == 1
    done.set()
    for finish in (once.join, kept.join, other.join):
        finish()
    assert registry.get_sample_value("esl_apps_greenlets", {"task": "probe"}) is None
    # Those that something still refers to.
    assert registry.get_sample_value("esl_apps_greenlets", {"task": "Greenlet._run"}) is None


def test_durations_are_counted_up_to_each_bound() -> None:
    registry = CollectorRegistry()
    durations = Durations("took_seconds", "For tests", ["way"], (0.1, 1), registry)
    for seconds in (0.05, 0.1, 0.5, 7.0):
        durations.labels("in").observe(seconds)
    durations.labels("out").observe(1.0)
    assert [
        registry.get_sample_value("took_seconds_bucket", {"way": "in", "le": bound}) for bound in ("0.1", "1.0", "+Inf")
    ] == [2.0, 3.0, 4.0]
    assert registry.get_sample_value("took_seconds_count", {"way": "out"}) == 1.0
    assert registry.get_sample_value("took_seconds_sum", {"way": "in"}) == pytest.approx(7.65)
    # As prometheus_client's own, so that a query for either finds its buckets.
    own = Histogram("took_seconds", "For tests", ["way"], buckets=(0.1, 1), registry=CollectorRegistry())
    own.labels("in").observe(0.05)
    bounds = [sample.labels for metric in own.collect() for sample in metric.samples if "le" in sample.labels]
    (family,) = durations.collect()
    assert [sample.labels for sample in family.samples if "le" in sample.labels][:3] == bounds


def test_scrapes_merge_durations_of_all_workers(first: Scrapes, names: list[str]) -> None:
    other = Metrics()
    other.redis_round_trip.labels("main").observe(0.003)
    second = Scrapes(other, 2, names)
    found = sample(first, "esl_apps_redis_round_trip_seconds_bucket", redis="main", le="0.005", worker="2")
    assert found == 1.0
    assert sample(first, "esl_apps_redis_round_trip_seconds_count", redis="main", worker="1") is None
    second.stop()


def test_scrapes_show_every_worker_with_its_number(first: Scrapes, names: list[str]) -> None:
    other = Metrics()
    other.refused.labels("429").inc(3)
    second = Scrapes(other, 2, names)
    for scrapes in (first, second):
        assert sample(scrapes, "esl_apps_requests_refused_total", status="429", worker="1") == 2.0
        assert sample(scrapes, "esl_apps_requests_refused_total", status="429", worker="2") == 3.0
        assert sample(scrapes, "esl_apps_worker_up", worker="2") == 1.0
    assert b'esl_apps_worker_up{worker="2"} 1.0' in generate_latest(first.registry)
    second.stop()


def test_scrapes_show_a_worker_that_is_gone_as_down(first: Scrapes) -> None:
    assert sample(first, "esl_apps_worker_up", worker="2") == 0.0
    assert sample(first, "esl_apps_requests_refused_total", status="429", worker="1") == 2.0


@pytest.mark.parametrize("said", [b"", b"not msgpack", msgspec.msgpack.encode({"a": 1}), None])
def test_scrapes_outlive_a_worker_that_answers_badly(
    first: Scrapes, names: list[str], said: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None: it is stopped, and answers nothing at all."""
    monkeypatch.setattr(metrics_module, "_PATIENCE", 0.02)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind("\0" + names[1])
    listener.listen()

    def answer() -> None:
        accepted, _ = listener.accept()
        if said is not None:
            accepted.sendall(said)
            accepted.close()
        kept.append(accepted)

    kept: list[socket.socket] = []
    answering = spawn(answer)
    assert sample(first, "esl_apps_worker_up", worker="2") == 0.0
    assert sample(first, "esl_apps_worker_up", worker="1") == 1.0
    answering.kill()
    listener.close()
    for accepted in kept:
        accepted.close()


def test_scrapes_outlive_a_client_that_gives_up(first: Scrapes, names: list[str]) -> None:
    for _ in range(3):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect("\0" + names[0])
        sock.close()
    assert sample(first, "esl_apps_worker_up", worker="1") == 1.0
