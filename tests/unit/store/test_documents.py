"""Documents keep what another version has written, and those of a version too far away are refused and left."""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Iterator

import msgspec
import pytest

from esl_apps.core.versions import CARD, LIVE_CALL, NOTHING, RECORD, Kind, Rest, VersionRefused
from esl_apps.store import documents
from esl_apps.store.documents import Refusals, WrongVersion, decode, decode_fields, encode, rest_of
from esl_apps.store.errors import Unreadable
from esl_apps.store.essence import Essence, StoredEssence, essence, restored
from tests.support import ROOT

SECOND = Kind("thing", version=2)


class Thing(msgspec.Struct):
    name: str
    count: int = 0


class Listed(msgspec.Struct, array_like=True):
    name: str
    count: int = 0


def test_version_one_costs_no_byte() -> None:
    assert encode(LIVE_CALL, Thing("a", 1)) == b'{"name":"a","count":1}'
    assert encode(CARD, Listed("a", 1)) == b'["a",1]'


@pytest.mark.parametrize("of", [Thing, Listed])
def test_version_is_written_and_read(of: type[Thing]) -> None:
    raw = encode(SECOND, of("a", 1))
    assert b'"v":2' in raw
    assert decode(SECOND, raw, of) == of("a", 1)
    assert decode(Kind("thing", version=3), raw, of) == of("a", 1)
    with pytest.raises(WrongVersion, match="a thing is of version 2, this node reads 3 to 5"):
        decode(Kind("thing", version=4), raw, of)


def test_empty_object_gets_its_version() -> None:
    assert encode(SECOND, {}) == b'{"v":2}'
    assert encode(SECOND, []) == b'[{"v":2}]'


@pytest.mark.parametrize(
    ("of", "raw"),
    [
        (Thing, b'{"name":"a","later":{"x":[1,"{,"]},"count":3,"v":3,"more":null}'),
        (Listed, b'["a",3,"later",{"x":1},{"v":3}]'),
    ],
)
def test_members_of_a_later_version_survive_a_change(of: type[Thing], raw: bytes) -> None:
    changed = decode(SECOND, raw, of)
    changed.count = 4
    again = encode(SECOND, changed, rest_of(raw, of))
    assert json.loads(again) == json.loads(raw.replace(b'"a",3', b'"a",4').replace(b'"count":3', b'"count":4'))
    assert json.loads(again) != json.loads(raw)


def test_higher_version_of_two_stays() -> None:
    assert json.loads(encode(SECOND, Thing("a"), Rest(3)))["v"] == 3
    assert json.loads(encode(SECOND, Thing("a"), Rest(1, b'"x":1')))["v"] == 2


def test_document_without_more_has_no_rest() -> None:
    assert rest_of(b'{"name":"a","count":1}', Thing) is NOTHING
    assert rest_of(b'["a",1]', Listed) is NOTHING


@pytest.mark.parametrize("raw", [b' ["a",1,"later"]', b'\n{"name":"a","count":1,"later":2}'])
def test_document_that_begins_with_a_space_is_read(raw: bytes) -> None:
    of = Listed if b"[" in raw else Thing
    assert rest_of(raw, of).members in (b'"later"', b'"later":2')


@pytest.mark.parametrize("more", [b'"\xff":1', b'"later":"\xff"'])
def test_members_that_are_no_text_cost_the_others_nothing(more: bytes) -> None:
    """A call with such a member must not keep its adopter from writing it."""
    raw = b'{"name":"a","count":1,%s}' % more
    assert decode(LIVE_CALL, raw, Thing) == Thing("a", 1)
    assert rest_of(raw, Thing) is NOTHING


def test_version_inside_a_clients_data_is_not_the_documents() -> None:
    raw = b'{"name":"a","metadata":{"v":9}}'
    assert decode(LIVE_CALL, raw, Thing) == Thing("a")
    assert decode_fields(RECORD, raw) == {"name": "a", "metadata": {"v": 9}}


#: Deeper than the stack, which is the only limit on Python 3.14.
DEEP = b'{"name":"a","x":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}"


@pytest.mark.parametrize(
    "raw",
    [b"", b"[", b'{"v":', b'{"name":"a","v":"x"}', b'{"name":"\xff"}', b'{"name":1}', DEEP],
    ids=lambda raw: repr(raw[:20]),
)
def test_damaged_document_is_unreadable_and_of_no_version(raw: bytes) -> None:
    with pytest.raises(Unreadable) as raised:
        decode(LIVE_CALL, raw, Thing)
    assert not isinstance(raised.value, WrongVersion)


def test_decode_fields_hides_the_version() -> None:
    assert decode_fields(SECOND, b'{"a":1,"v":2}') == {"a": 1}


def test_refusals_are_remembered_for_a_minute_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    refusals = Refusals(lambda: now[0])
    refused = VersionRefused(LIVE_CALL, 3)
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            assert "version 3" in str(refusals.note(refused))
    assert [record.message for record in caplog.records] == ["version_refused"]
    assert refusals.current() == ["a live call is of version 3, this node reads 1 to 2: upgrade this node"]
    now[0] += documents.REMEMBERED + 1
    assert refusals.current() == []


def test_leg_of_a_later_version_is_refused() -> None:
    for version in (None, "", "1", "2", "x"):
        documents.check(LIVE_CALL, version)
    with pytest.raises(WrongVersion):
        documents.check(LIVE_CALL, "3")


def test_call_that_is_taken_over_keeps_what_it_had() -> None:
    first = Essence("r", "r", "r", "disa", 1.0, "queued", "external")
    raw = first.encode()[:-1] + b',"later":{"deep":[1]},"v":2}'
    call = StoredEssence.decode(raw)
    call.had_by = ["boot"]
    assert json.loads(call.encode()) == {**json.loads(raw), "had_by": ["boot"]}
    # Through a live attempt, as its adopter writes it from then on.
    attempt = restored(call)
    kept = json.loads(essence(attempt, None, had_by=["boot"]).encode())
    assert (kept["later"], kept["v"]) == ({"deep": [1]}, 2)


# Past documents.py ------------------------------------------------------------------------------

#: Modules that encode or decode JSON that isn't a document of ours, and what it is.
OTHERS = {
    "store.documents": "the seam itself",
    "store.record_history": "fragments to search records for",
    "store.journal": "a notification, whose form clients know",
    "node.presence": "a switch's answer",
    "node.census": "a switch's answer",
    "node.call_log": "the reference in a line of another version",
    "node.workers": "said between processes of one run",
    "node.event_feed": "an event, whose form clients know",
    "core.charges": "a part of a call, which has the version",
    "node.charging": "the same",
    "node.acting": "said between nodes and not kept: what isn't understood is answered so",
    "operations.record_table": "a cell of a table",
    "apps.autodial": "an item of a timed call, which has the version",
    "core.call_events": "an event, whose form clients know",
}


CODECS = {"msgspec.json.encode", "msgspec.json.decode", "msgspec.json.Decoder", "json.loads", "json.dumps"}


def users_of_json() -> Iterator[str]:
    for folder in ("store", "node", "operations", "apps", "core"):
        for path in (ROOT / "esl_apps" / folder).rglob("*.py"):
            used = [
                ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)
            ]
            if not CODECS.isdisjoint(used):
                yield f"{folder}.{path.stem}"


def test_documents_are_encoded_and_decoded_in_one_place() -> None:
    """A document that outlives its process goes through ``documents``, with a kind: otherwise it has no version."""
    assert sorted(users_of_json()) == sorted(OTHERS)
