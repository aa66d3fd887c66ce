"""A client of an HTTP port whose token opens little reaches and uses up nothing of another's."""

from __future__ import annotations

import pytest

from tests.support.http_services import World, errors
from tests.unit.http import conftest as http_fixtures

world = http_fixtures.world
CALLS = "/click2dial/calls"
ORDER = {"agent": "1000", "callee": "0820001234", "outbound_id": "27115550000"}


def bearer(world: World, agent: str) -> dict[str, str]:
    """A token of one agent's, as the headers of a request."""
    answer = world.api.simulate_post(f"/click2dial/agents/{agent}/token", json={})
    return {"Authorization": f"Bearer {answer.json['token']}"}


def test_agents_browser_takes_no_key_of_others(world: World) -> None:
    """A page of one agent could take the keys that its server was about to use: 409 for a day."""
    key = {"Idempotency-Key": "order-1"}
    for agent in ("1001", "1002"):
        headers = {**bearer(world, agent), **key}
        placed = world.api.simulate_post(CALLS, json={**ORDER, "agent": agent}, headers=headers)
        assert placed.status_code == 202
    hold = world.api.simulate_post(f"{CALLS}/{placed.json['call_ref']}/hold", headers=headers)
    # Its own key it has used.
    assert errors(hold, 409) == [("Idempotency-Key", "key_reused")]
    result = world.api.simulate_post(CALLS, json=ORDER, headers=key)
    assert (result.status_code, result.headers.get("idempotent-replayed")) == (202, None)


@pytest.mark.parametrize("key", ["", "a b", "x" * 201, "é"])
def test_agents_browser_has_keys_of_the_same_form(world: World, key: str) -> None:
    headers = {**bearer(world, "1000"), "Idempotency-Key": key}
    assert errors(world.api.simulate_post(CALLS, json=ORDER, headers=headers), 422) == [("Idempotency-Key", "pattern")]
