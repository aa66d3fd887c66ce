"""The optional fields of a request: what is accepted, and what another process reads of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from esl_apps.core import call_options
from esl_apps.core.call_options import NO_OPTIONS, OPTIONS, CallOptions
from esl_apps.core.faults import Fault
from tests.support.dial_strings import ATTACKS

ALLOWED = SimpleNamespace(
    record=True,
    longest=600.0,
    names=True,
    headers=frozenset({"x-lead"}),
    is_media=lambda name: name == "announcement",
)
#: Options that may be any text of one line: ``test_click2dial_options`` looks where it ends up.
TEXTS = ("callee_name", "outbound_name")

GOOD: dict[str, Any] = {
    "callee_name": 'Zo\u00eb "O\'Brien"',
    "ringback": "%(400,200,400,450);%(400,2000,400,450)",
    "headers": {"agent": {"X-Lead": "00Q5g a=1;b=2 (x)"}, "callee": {"x-lead": "7"}},
    "outbound_name": "\u5c71\u7530 100%",
    "agent_timeout": 12.5,
    "callee_timeout": 3600,
    "max_duration": 600,
    "require_agent": "idle",
    "auto_answer": True,
    "confirm": False,
    "announce": "announcement",
    "record": False,
    "metadata": {"crm.lead_id-7": "\u0000 \u00e9\U0001f600 {'a'}\r\n"},
}


def read(fields: dict[str, object], **allowed: Any) -> tuple[CallOptions, list[Fault]]:
    faults: list[Fault] = []
    options = call_options.read(fields, SimpleNamespace(**{**vars(ALLOWED), **allowed}), faults)
    return options, faults


def test_every_option_is_in_the_table() -> None:
    assert GOOD.keys() == set(OPTIONS)


@pytest.mark.parametrize("name", OPTIONS)
def test_option_that_is_right_is_taken_as_it_is(name: str) -> None:
    options, faults = read({name: GOOD[name]})
    assert (getattr(options, name), faults) == (GOOD[name], [])


@pytest.mark.parametrize("name", OPTIONS)
def test_option_that_is_null_is_as_if_left_out(name: str) -> None:
    assert read({name: None}) == (NO_OPTIONS, [])


@pytest.mark.parametrize(
    "text", ["../announcement", "https://media.example/other.wav", "tone_stream://%(100,0,400)", "", "numbers"]
)
def test_announcement_that_is_no_media_is_refused(text: str) -> None:
    assert [(fault.field, fault.code) for fault in read({"announce": text})[1]] == [("announce", "not_allowed")]
    assert read({"announce": "number"})[1] == []


@pytest.mark.parametrize("name", OPTIONS)
def test_option_of_another_type_names_the_field(name: str) -> None:
    for value in ([1], {"a": {"b": "c"}}, {"a": 1}):
        options, faults = read({name: value})
        assert options == NO_OPTIONS
        assert [(fault.field, fault.code) for fault in faults] == [(name, "value")]
        assert faults[0].message == f"expected {call_options.expected(name)}"


@pytest.mark.parametrize("name", [name for name in OPTIONS if name not in TEXTS])
def test_option_with_an_attack_is_refused(name: str) -> None:
    for text in ATTACKS:
        assert [fault.field for fault in read({name: text})[1]] == [name], text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("agent_timeout", 0),
        ("agent_timeout", "30"),
        ("agent_timeout", True),
        ("callee_timeout", 3601),
        ("callee_timeout", -1),
        ("max_duration", 0.5),
        ("auto_answer", "yes"),
        ("confirm", 1),
        ("require_agent", "Idle"),
        ("require_agent", True),
        ("record", 1),
        ("record", "true"),
        ("callee_name", ""),
        ("callee_name", "a" * 65),
        ("callee_name", "a\r\nX-A: 1"),
        ("callee_name", "a\n"),
        ("outbound_name", "\0"),
        ("outbound_name", "\u2028"),
        ("ringback", "%(2000,4000)"),
        ("ringback", "%(2000,4000,440);"),
        ("ringback", "/etc/passwd"),
        ("ringback", "tone_stream://%(2000,4000,440)"),
        ("headers", {"agent": {"From": "x"}}),
        ("headers", {"agent": {"X-Lead:": "x"}}),
        ("headers", {"agent": {"X-Lead": ""}}),
        ("headers", {"agent": {"X-Lead": " x"}}),
        ("headers", {"agent": {"X-Lead": "x  y"}}),
        ("headers", {"agent": {"X-Lead": "x\r\nX-A: y"}}),
        ("headers", {"agent": {"X-Lead": "x\n"}}),
        ("headers", {"agent": {"X-Lead": "a:_:b"}}),
        ("headers", {"agent": {"X-Lead": "a" * 257}}),
        ("headers", {"agent": {f"X-{i}": "a" for i in range(9)}}),
        ("headers", {"bleg": {"X-Lead": "x"}}),
        ("metadata", {"a b": "c"}),
        ("metadata", {"a\n": "c"}),
        ("metadata", {"": "c"}),
        ("metadata", {"a" * 33: "c"}),
        ("metadata", {"a": "b" * 257}),
        ("metadata", {"a": None}),
        ("metadata", {str(i): "" for i in range(17)}),
    ],
)
def test_option_out_of_bounds_is_refused(name: str, value: object) -> None:
    assert [(fault.field, fault.code) for fault in read({name: value})[1]] == [(name, "value")]


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ({"record": True}, {"record": False}),
        ({"max_duration": 601}, {}),
        ({"max_duration": 1e300}, {}),
        ({"outbound_name": "Jane"}, {"names": False}),
        ({"headers": {"callee": {"X-Other": "x"}}}, {}),
    ],
)
def test_option_past_the_integrators_rules_is_refused(fields: dict[str, object], allowed: dict[str, Any]) -> None:
    assert [(fault.field, fault.code) for fault in read(fields, **allowed)[1]] == [(next(iter(fields)), "not_allowed")]


@pytest.mark.parametrize(
    ("text", "value"), [("30", 30.0), ("2.5", 2.5), ("x", "x"), ("1e3", "1e3"), ("-1", "-1"), ("\u0663", "\u0663")]
)
def test_header_that_is_a_number_is_read_as_one(text: str, value: object) -> None:
    headers = {"Callee-Timeout": text, "Outbound-Name": ""}
    assert call_options.of_headers(headers.get) == {"callee_timeout": value}


def test_options_go_through_json_to_another_process() -> None:
    options, _faults = read(GOOD)
    order = msgspec.json.decode(msgspec.json.encode(call_options.kept(options)))
    assert call_options.restored(order) == msgspec.structs.replace(options, metadata=None)
    assert call_options.kept(NO_OPTIONS) is None
    assert call_options.restored(None) is NO_OPTIONS


@pytest.mark.parametrize("order", [{"agent_timeout": "x"}, {"max_duration": -1}, {"record": "no"}])
def test_options_that_others_wrote_are_not_believed(order: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        call_options.restored(order)


def test_schemas_describe_each_option_without_null() -> None:
    schemas = call_options.schemas()
    assert schemas.keys() == set(OPTIONS)
    assert all(
        schema["description"] and "anyOf" not in schema and "default" not in schema for schema in schemas.values()
    )
