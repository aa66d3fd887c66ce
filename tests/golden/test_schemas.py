"""Each golden file is as its JSON Schema says, key by key, so clients may check against the schema.

The schemas of v2 and v3 allow no further key.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec import Struct

from esl_apps.core import notification_shapes as shapes
from tests.support import schemas

FOLDER = Path(__file__).parent
SHAPES: dict[str, type[Struct]] = {
    "cdr_v2": shapes.cdr("v2"),
    "cdr_v3": shapes.cdr("v3"),
    "cdr_v4": shapes.cdr("v4"),
    "cdr_teleforge": shapes.cdr("v3", "teleforge"),
    "inbound_v2": shapes.inbound("v2"),
    "inbound_v3": shapes.inbound("v3"),
    "inbound_v4": shapes.inbound("v4"),
    "session": shapes.session(),
    "c2d": shapes.C2dNotification,
}


@pytest.mark.parametrize("form", SHAPES)
def test_every_notification_is_as_its_schema_says(form: str) -> None:
    (schema,), defined = shapes.schemas(SHAPES[form])
    validator = schemas.validator({**schema, "$defs": defined})
    lines = [line for path in (FOLDER / form).glob("*.json") for line in path.read_text().splitlines()]
    assert lines
    for line in lines:
        body = json.loads(line)
        validator.validate(body)
        if form != "c2d":
            described = [*defined[f"{SHAPES[form].__name__}Payload"]["properties"]]
            assert sorted(body["payload"]) == sorted(described)


@pytest.mark.parametrize(
    ("form", "open_"), [("cdr_v2", False), ("cdr_v3", False), ("inbound_v3", False), ("cdr_v4", True)]
)
def test_key_of_a_later_version_is_allowed_from_v4_on(form: str, open_: bool) -> None:
    (schema,), defined = shapes.schemas(SHAPES[form])
    body = json.loads(next((FOLDER / form).glob("*.json")).read_text().splitlines()[0])
    body["payload"]["colour"] = "blue"
    assert schemas.validator({**schema, "$defs": defined}).is_valid(body) is open_
