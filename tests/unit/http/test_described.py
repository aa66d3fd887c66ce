"""Descriptions of ports, for which anyone may ask."""

from __future__ import annotations

from typing import Any

import pytest

from esl_apps.http import asyncapi, openapi
from tests.support.http_services import World


@pytest.mark.parametrize(("module", "path"), [(openapi, "/openapi.json"), (asyncapi, "/asyncapi.json")])
def test_description_is_made_once_for_each_configuration(
    world: World, monkeypatch: pytest.MonkeyPatch, module: Any, path: str
) -> None:
    """Each one took 7 ms: a stranger without a token could use up a core."""
    made: list[object] = []
    make = module.document

    def count(*given: Any) -> Any:
        made.append(given)
        return make(*given)

    monkeypatch.setattr(module, "document", count)
    before = [client.simulate_get(path).json for client in (world.api, world.admin) for _ in range(3)]
    assert len(made) == 2
    world.configure(integrators={"payload": "v2"})
    assert world.api.simulate_get(path).json != before[0] or path == "/openapi.json"
    assert len(made) == 3
