"""A field of a call is declared once, and is found wherever a call is kept or shown."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Annotated

import msgspec
import pytest

from esl_apps.core.attempt import Attempt
from esl_apps.core.call_fields import CallFields, Published, Shown
from esl_apps.core.notification import CallRecord, cdr
from esl_apps.core.record import Record
from esl_apps.core.status import CallStatus, snapshot
from esl_apps.store.essence import Essence, essence, restored

#: A process in which CallFields has one more field, declared before anything is derived from it.
ONE_MORE_FIELD = textwrap.dedent(
    """
    import json
    from typing import Annotated
    import msgspec
    from esl_apps.core import call_fields

    class CallFields(call_fields.CallFields):
        ring_back: Annotated[int, call_fields.Shown(status="ring_back", cdr="ring_back")] = 0

    call_fields.CallFields = CallFields
    call_fields._COUNT += 1

    from esl_apps.config.records import RecordsConfig
    from esl_apps.core.attempt import Attempt
    from esl_apps.core.status import snapshot
    from esl_apps.http import integrator, openapi
    from esl_apps.node import notification_lists
    from esl_apps.store.essence import Essence, essence, restored

    attempt = Attempt(app="disa", call_dir="external", ring_back=7)
    kept = msgspec.json.encode(essence(attempt, "core-1"))
    adopted = restored(msgspec.json.decode(kept, type=Essence))
    adopted.end("lost", 31, "system", 1.0)
    (entry,) = notification_lists.entries(adopted.record, None, RecordsConfig(payload="v4"))
    (older,) = notification_lists.entries(adopted.record, None, RecordsConfig())
    schemas = openapi.document(integrator.API, {"Order": {}})["components"]["schemas"]
    print(json.dumps({
        "status": snapshot(attempt)["ring_back"],
        "adopted": adopted.record.ring_back,
        "pushed": json.loads(entry.head + "1" + entry.tail)["payload"]["ring_back"],
        "pushed in v3": "ring_back" in json.loads(older.head + "1" + older.tail)["payload"],
        "last key": list(json.loads(entry.head + "1" + entry.tail)["payload"])[-2:],
        "openapi": [schemas[name]["properties"]["ring_back"]["type"] for name in ("Call", "CallRecord")],
    }))
    """
)


@pytest.mark.parametrize("kind", [Attempt, Essence])
def test_fields_of_a_call_come_first(kind: type[CallFields]) -> None:
    fields = CallFields.__struct_fields__
    assert kind.__struct_fields__[: len(fields)] == fields


def test_attempt_without_an_application_is_refused() -> None:
    with pytest.raises(TypeError, match="app"):
        Attempt(call_dir="external")


def test_field_that_is_added_is_kept_shown_and_described() -> None:
    run = subprocess.run([sys.executable, "-c", ONE_MORE_FIELD], check=True, capture_output=True, text=True)
    assert json.loads(run.stdout) == {
        "status": 7,
        "adopted": 7,
        "pushed": 7,
        "pushed in v3": False,
        "last key": ["ring_back", "seq"],
        "openapi": ["integer", "integer"],
    }


class OneMoreField(CallFields, kw_only=True):
    colour: Annotated[str, Shown(status="colour")]


def attempt() -> Attempt:
    return Attempt(app="disa", call_dir="external", extension="0825556666", holder="user:acme:u1", hold_time=3)


def test_adopted_attempt_has_every_field() -> None:
    first = attempt()
    known = msgspec.json.decode(msgspec.json.encode(essence(first, "core-1")), type=Essence)
    again = restored(known)
    for name in CallFields.__struct_fields__:
        assert getattr(again, name) == getattr(first, name), name
    assert essence(again, "core-1") == known


def test_essence_of_a_later_version_is_read() -> None:
    kept = json.loads(msgspec.json.encode(essence(attempt(), "core-1")))
    known = msgspec.json.decode(json.dumps({**kept, "colour": {"of": ["a later", "version"]}}), type=Essence)
    assert known.extension == "0825556666"


@pytest.mark.parametrize("call_ref", ["", "a b", "x\n", "a\n\napi hupall", "x" * 65, "ä"])
def test_essence_with_a_hostile_reference_is_refused(call_ref: str) -> None:
    kept = {**json.loads(msgspec.json.encode(essence(attempt(), "core-1"))), "call_ref": call_ref}
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(json.dumps(kept), type=Essence)


def test_record_has_every_field_and_never_changes() -> None:
    one = attempt()
    one.end("lost", 31, "system", one.queued_at + 5)
    assert one.record is not None
    assert {*CallFields.__struct_fields__} < {*Record.__struct_fields__}
    with pytest.raises(AttributeError):
        one.record.hold_time = 4  # type: ignore[misc]
    one.hold_time = 9
    assert one.record.hold_time == 3


def test_status_and_record_are_as_they_are_described() -> None:
    one = attempt()
    one.note("pin_locked")
    one.end("lost", 31, "system", one.queued_at + 5)
    assert one.record is not None
    msgspec.convert(cdr(one.record), CallRecord)
    msgspec.convert(snapshot(one), CallStatus)
    assert list(cdr(one.record)) == list(CallRecord.__struct_fields__)
    assert list(snapshot(one)) == list(CallStatus.__struct_fields__)


def test_order_that_names_an_undeclared_key_is_refused() -> None:
    with pytest.raises(KeyError, match="colour"):
        Published("status", CallFields, ("call_ref", "colour"))


def test_published_keys_that_the_order_does_not_name_follow_it() -> None:
    form = Published("status", OneMoreField, ("state", "agent"))
    assert list(form.fields)[:3] == ["state", "agent", "call_ref"]
    assert list(form.fields)[-1] == "colour"


def test_closed_form_has_the_keys_of_its_order_only() -> None:
    form = Published("status", OneMoreField, ("state", "agent"), closed=True)
    assert list(form.fields) == list(form.of(attempt())) == ["state", "agent"]


def test_published_struct_takes_types_of_its_own() -> None:
    made = Published("status", OneMoreField, ("colour",)).struct("Made", {"colour": int})
    assert msgspec.json.schema_components([made])[1]["Made"]["properties"]["colour"] == {"type": "integer"}
