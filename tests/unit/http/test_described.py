"""Descriptions of ports, for which anyone may ask."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from esl_apps.core.status import CallStatus
from esl_apps.http import asyncapi, openapi
from tests.support import ROOT, schemas
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


def test_status_in_the_how_to_is_complete_and_as_described(world: World) -> None:
    text = (ROOT / "docs/howto/place-a-call.rst").read_text()
    shown = re.search(r"for a day after:\n\n.. code-block:: none\n\n(.*?)\n\n\S", text, re.DOTALL)
    assert shown is not None
    status = json.loads(shown[1])
    assert {*status, "record"} == {*CallStatus.__struct_fields__}
    document = world.api.simulate_get("/openapi.json").json
    schemas.described(document, document["components"]["schemas"]["Call"]).validate(status)
