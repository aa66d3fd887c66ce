"""``/asyncapi.json`` describes what a client gets, in the form that it has chosen.

All forms were also valid by the schema of AsyncAPI 3.0.0 itself (``@asyncapi/specs`` 6.11.1, 2026-11-29), which is too
large for this repository.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from esl_apps.config.model import Config, Integrator
from esl_apps.config.records import RecordsConfig
from esl_apps.core.attempt import Attempt
from esl_apps.core.call_events import CALL, INBOUND, RECORD, CallEvent, of_answer, of_end, of_record, written
from esl_apps.core.notification import cdr
from esl_apps.core.notification_shapes import event
from esl_apps.core.status import steady
from esl_apps.http.asyncapi import Choices, document

FORMS = list(
    itertools.product(
        ("v2", "v3", "v4"), ("esl_apps", "teleforge"), ("left", "right", "stream"), (True, False), (True, False)
    )
)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref":
                yield inner
            else:
                yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def resolve(made: Any, reference: str) -> Any:
    for part in reference.removeprefix("#/").split("/"):
        made = made[part]
    return made


def test_every_reference_leads_somewhere() -> None:
    for form in FORMS:
        made = document(Choices(*form))
        found = list(references(made))
        assert found
        for reference in found:
            assert resolve(made, reference), reference


def test_everything_described_is_sent() -> None:
    made = document(Choices())
    for name, channel in made["channels"].items():
        operation = made["operations"][f"send{name[0].upper()}{name[1:]}"]
        assert operation["action"] == "send"
        assert len(operation["messages"]) == len(channel["messages"])


@pytest.mark.parametrize(
    ("more", "address", "messages"),
    [
        ({}, "enigma:notifications:cdr", ["cdr"]),
        ({"push": "stream"}, "enigma:notifications:cdr:stream", ["cdr"]),
        ({"session_records": True}, "enigma:notifications:cdr", ["cdr", "session"]),
    ],
)
def test_list_is_described_as_the_integrator_has_it(more: dict[str, Any], address: str, messages: list[str]) -> None:
    integrator = Integrator(name="acme", listen="127.0.0.1:8300", **more)
    made = document(Choices.of(integrator))
    channel = made["channels"]["cdrs"]
    assert (channel["address"], list(channel["messages"])) == (address, messages)
    assert "c2d" not in made["channels"]
    assert made["components"]["schemas"]["CdrV3Payload"]["additionalProperties"] is False


def test_operators_port_describes_the_calls_of_no_integrator() -> None:
    config = Config(records=RecordsConfig(payload="v4"))
    made = document(Choices.of_others(config))
    assert list(made["channels"]) == ["cdrs", "inbound"]
    assert "CdrV4" in made["components"]["schemas"]


# Events --------------------------------------------------------------------------------------------------


def attempt() -> Attempt:
    one = Attempt(app="click-dial", call_dir="outbound", extension="1000", number="0820001234", metadata={"a": "b"})
    one.dialled(one.queued_at)
    return one


def data(happened: CallEvent, rest: Any) -> Any:
    """An event's data, as a client gets it."""
    return {**msgspec.json.decode("{" + happened.head + "}"), **msgspec.json.decode(msgspec.json.encode(rest))}


def test_events_are_as_they_are_described() -> None:
    one = attempt()
    one.enter("agent_ringing", one.queued_at + 1)
    _call, line = written(one, one.timeline[-1:]).splitlines()
    ringing = data(CallEvent(*line.split(" ", 2)), steady(one))  # type: ignore[arg-type]
    one.end("lost", 31, "system", one.queued_at + 5)
    assert one.record is not None
    ended = data(of_end(one.record, one.timeline[-1].at), steady(one))
    answered = data(of_answer(one, 3), steady(one))
    record = data(of_record(one.record), cdr(one.record))
    for kind, found in ((CALL, ringing), (CALL, ended), (INBOUND, answered), (RECORD, record)):
        shape = event(kind)
        msgspec.convert(found, shape)
        described = {field.encode_name for field in msgspec.structs.fields(shape)}
        assert set(found) <= described, kind
        assert set(found) >= {field.encode_name for field in msgspec.structs.fields(shape) if field.required}, kind
