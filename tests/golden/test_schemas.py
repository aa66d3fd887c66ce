"""Each golden file is as its JSON Schema says, key by key, so clients may check against the schema.

The schemas of v2 and v3 allow no further key.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from esl_apps.core import notification
from esl_apps.core import notification_shapes as shapes
from esl_apps.core.attempt import Attempt
from esl_apps.http import integrator, openapi
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
            described = defined[f"{SHAPES[form].__name__}Payload"]
            assert set(described["required"]) <= set(body["payload"]) <= set(described["properties"])


def test_every_record_is_as_openapi_says() -> None:
    document = openapi.document(integrator.API, {"Order": {}})
    validator = schemas.described(document, document["components"]["schemas"]["CallRecord"])
    lines = [line for path in (FOLDER / "cdr_v4").glob("*.json") for line in path.read_text().splitlines()]
    assert lines
    for line in lines:
        validator.validate(json.loads(line)["payload"])


@pytest.mark.parametrize("payload", shapes.PAYLOADS)
@pytest.mark.parametrize("dispositions", ["esl_apps", "teleforge"])
def test_record_with_metadata_is_as_every_schema_says(payload: str, dispositions: str) -> None:
    attempt = Attempt(app="click-dial", call_dir="outbound", extension="1000", number="1001", metadata={"a": "b"})
    attempt.dialled(attempt.queued_at)
    attempt.end("answered", 16, "agent", attempt.queued_at + 5)
    assert attempt.record is not None
    body = notification.cdr_payload(attempt.record, payload=payload, dispositions=dispositions)
    body["payload"]["seq"] = 1
    (schema,), defined = shapes.schemas(shapes.cdr(payload, dispositions))
    schemas.validator({**schema, "$defs": defined}).validate(json.loads(msgspec.json.encode(body)))


@pytest.mark.parametrize(
    ("form", "open_"), [("cdr_v2", False), ("cdr_v3", False), ("inbound_v3", False), ("cdr_v4", True)]
)
def test_key_of_a_later_version_is_allowed_from_v4_on(form: str, open_: bool) -> None:
    (schema,), defined = shapes.schemas(SHAPES[form])
    body = json.loads(next((FOLDER / form).glob("*.json")).read_text().splitlines()[0])
    body["payload"]["colour"] = "blue"
    assert schemas.validator({**schema, "$defs": defined}).is_valid(body) is open_
