"""Schemathesis on ``/openapi.json`` of both ports: answers match the document, and no request causes a 5xx."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.rig.sandbox import SandboxRig
from tests.support.node import ADMIN_TOKEN, TOKEN, Node, RedisServer, configuration, request

#: Routes open to all.
OPEN = {"/openapi.json", "/healthz", "/readyz", "/metrics"}
bounded = settings(
    max_examples=10, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


@pytest.fixture(scope="module")
def node(redis: RedisServer) -> Iterator[Node]:
    with SandboxRig() as rig:
        config = configuration(rig, redis, caller_ids=[])
        config["pin_key"] = "key-for-tests"
        config["accounts"] = {"acme": {"caller_id": {"number": "+27115550000"}}}
        made = Node(config)
        yield made
        made.end()


def described(address: str) -> Any:
    # Not above: each process that collects this would take half a second for it.
    import schemathesis

    schema = schemathesis.openapi.from_dict(request(address, "GET", "/openapi.json", token=None).json)
    schema.config.update(base_url=f"http://{address}")
    return schema


def try_it(case: Any, token: str) -> None:
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    kept = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_headers_conformance,
        checks.response_schema_conformance,
    ]
    response = case.call(headers={"Authorization": f"Bearer {token}"}, timeout=20)
    case.validate_response(response, checks=kept)
    if case.operation.path not in OPEN:
        stranger = case.call(headers={"Authorization": "Bearer wrong"}, timeout=20)
        # A missing resource is reported to any client.
        assert stranger.status_code in {401, response.status_code} - set(range(200, 400)), stranger.status_code


def try_all(address: str, token: str, prefixes: tuple[str, ...]) -> int:
    """Test every operation below one of the prefixes; return how many there were."""
    tried = 0
    for found in described(address).get_all_operations():
        operation = found.ok()
        if not operation.path.startswith(prefixes) or _is_endless(operation):
            continue

        @bounded
        @given(case=operation.as_strategy())
        def one(case: Any) -> None:
            try_it(case, token)

        one()
        tried += 1
    return tried


def _is_endless(operation: Any) -> bool:
    """Whether an answer is a stream of events, which ends when the client leaves."""
    answers = operation.definition.raw["responses"].values()
    return any("text/event-stream" in answer.get("content", {}) for answer in answers)


def test_openapi_integrators_port_does_as_described(node: Node) -> None:
    assert try_all(node.api, TOKEN, ("/click2dial", "/call.php", "/openapi.json")) >= 6


def test_openapi_admin_port_does_as_described(node: Node) -> None:
    assert try_all(node.admin, ADMIN_TOKEN, ("/v2", "/healthz", "/readyz", "/metrics", "/openapi.json")) >= 8
