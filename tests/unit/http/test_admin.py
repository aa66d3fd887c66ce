"""Health, metrics and the description on the operator's port."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter

from esl_apps.http import admin_port
from tests.support.http_services import World, errors


def test_health_with_redis_down_is_200(world: World) -> None:
    world.services.reasons.append("redis: no answer")
    result = world.admin.simulate_get("/healthz", headers={"X-Auth-Token": ""})
    assert (result.status_code, result.json) == (200, {"status": "ok"})


def test_readiness_of_a_node_without_redis_is_503_with_reasons(world: World) -> None:
    result = world.admin.simulate_get("/readyz")
    assert (result.status_code, result.json) == (200, {"status": "ok", "reasons": []})
    world.services.reasons += ["draining", "redis: no answer"]
    result = world.admin.simulate_get("/readyz")
    assert (result.status_code, result.json["status"]) == (503, "not ready")
    assert result.json["reasons"] == ["draining", "redis: no answer"]


def test_metrics_shows_the_registry(world: World) -> None:
    Counter("cards_sold", "For tests", registry=world.services.metrics.registry).inc(3)
    result = world.admin.simulate_get("/metrics")
    assert result.headers["content-type"].startswith("text/plain")
    assert "cards_sold_total 3.0" in result.text


def test_metrics_take_a_tenth_of_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anyone may ask for them 300 times a second, and with 100 integrators each takes 8 ms."""
    now, cpu = [100.0], iter([1.0, 1.008, 2.0, 2.008])
    made = iter([b"first", b"second"])
    monkeypatch.setattr(admin_port, "generate_latest", lambda _registry: next(made))
    exposition = admin_port.Exposition(CollectorRegistry(), lambda: now[0], lambda: next(cpu))
    assert exposition.text() == b"first"
    now[0] += 0.071
    assert exposition.text() == b"first"
    now[0] += 0.002
    assert exposition.text() == b"second"


def test_description_lists_this_ports_routes_only(world: World) -> None:
    paths = world.admin.simulate_get("/openapi.json").json["paths"]
    assert {"/healthz", "/readyz", "/metrics", "/openapi.json"} < paths.keys()
    assert not any(path.startswith("/click2dial") for path in paths)


def test_unknown_path_is_404_in_our_form(world: World) -> None:
    assert errors(world.admin.simulate_get("/nothing"), 404) == [("", "not_found")]
    assert errors(world.admin.simulate_post("/healthz"), 405) == [("", "method_not_allowed")]
