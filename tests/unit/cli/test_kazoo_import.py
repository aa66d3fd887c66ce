"""``esl-apps import`` and ``hash-pin``, as an operator runs them."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from esl_apps.cli.kazoo_import import import_files
from esl_apps.cli.kazoo_import.export import read
from esl_apps.cli.kazoo_import.importer import FAILED
from esl_apps.cli.kazoo_import.marks import mark
from esl_apps.cli.main import main
from esl_apps.config import parse
from esl_apps.core.cards import CallerId, Card
from esl_apps.core.numbers import NumberPlan
from esl_apps.core.restrictions import denied
from esl_apps.store.cards import CardStore, hash_pin
from esl_apps.store.redis_client import connect
from tests.support import DOCUMENTS, zygote
from tests.support.node import RedisServer
from tests.support.ports import free_port
from tests.unit.cli.conftest import Run
from tests.unit.store.conftest import everything

ACCOUNT, USER = "a" * 32, "b" * 32
PIN, PIN_KEY = "482190735", "key-for-tests"


class Operator:
    """An operator with a configuration, a Redis and files."""

    def __init__(self, redis: RedisServer, folder: Path) -> None:
        self.redis = redis
        self.folder = folder
        self.config = folder / "esl_apps.yml"
        self.configure()
        self._files = 0

    def configure(self, **more: Any) -> None:
        sections = {
            "redis": {"url": self.redis.url},
            "pin_key": PIN_KEY,
            "switches": [{"name": "fs1", "address": "127.0.0.1:8021", "password": "secret"}],
            "admin": {"token": "t"},
            "accounts": {"acme": {}},
            **more,
        }
        self.config.write_text(json.dumps(sections))
        self.settings = parse(self.config.read_text(), {})

    @property
    def cards(self) -> CardStore:
        return CardStore(
            connect(self.redis.url),
            self.settings.pin_key,
            self.settings.plan(),
            self.settings.accounts,
            old_key=self.settings.pin_key_old,
        )

    def file(self, *documents: object, text: str | None = None) -> str:
        self._files += 1
        path = self.folder / f"export{self._files}.json"
        path.write_text("\n".join(map(json.dumps, documents)) if text is None else text)
        return str(path)

    def imports(self, *files: str) -> tuple[int, list[str]]:
        """The exit status and the lines."""
        results = list(import_files(files, self.settings, connect(self.redis.url)))
        assert PIN not in str(results)
        return int(any(result.outcome == FAILED for result in results)), [str(result) for result in results]

    def types(self, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        """``esl-apps`` in a process of its own."""
        return zygote.run([*arguments, "-c", str(self.config)], typed)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture
def operator(redis: RedisServer, tmp_path: Path) -> Operator:
    redis.client.flushall()
    return Operator(redis, tmp_path)


def account(**more: Any) -> dict[str, Any]:
    return {
        "_id": ACCOUNT,
        "_rev": "3-1",
        "name": "Kazoo's own",
        "realm": "kazoo.example",
        "caller_id": {"external": {"number": "+27117770000", "name": "K"}, "internal": {"number": "1000"}},
        "call_restriction": {"international": {"action": "deny"}, "tollfree_us": {"action": "deny"}},
        "pvt_type": "account",
        "pvt_account_id": ACCOUNT,
        **more,
    }


def user(**more: Any) -> dict[str, Any]:
    return {
        "_id": USER,
        "username": "joe",
        "call_restriction": {"mobile": {"action": "deny"}, "emergency": {"action": "inherit"}},
        "pvt_type": "user",
        "pvt_account_id": ACCOUNT,
        **more,
    }


def card(**more: Any) -> dict[str, Any]:
    return {
        "_id": "c" * 32,
        "_rev": "1-2",
        "pin": PIN,
        "active": True,
        "user_id": USER,
        "max_concurent_calls_per_user": 2,
        "pvt_type": "cccp",
        "pvt_account_id": ACCOUNT,
        "pvt_created": 63598679846,
        **more,
    }


# The reference's documents ---------------------------------------------------------------------------


def test_import_takes_the_references_documents_verbatim(operator: Operator) -> None:
    files = [str(DOCUMENTS / name) for name in ("cccp.json", "callflow.disa.json")]
    done = operator.types("import", *files)
    assert done.returncode == 0
    assert done.stderr == "2 took, 0 same, 0 left, 0 FAILED\n"
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["took", "system_config/cccp"],
        ["took", "system_config/callflow.disa"],
    ]
    for key in ("cccp_cb_number", "allowed_callee_regex", "callback_delay", "last_number_redial_code"):
        assert key in lines[0]
    assert all("SIGHUP" in line for line in lines)
    assert operator.cards.system_config("cccp") == {
        "cccp_cb_number": "5142223333",
        "cccp_cc_number": "5141115555",
        "last_number_redial_code": "*0",
        "ensure_valid_caller_id": True,
        "default_caller_id_number": "+15140000000",
        "allowed_callee_regex": r"^\+?\d{11,}$",
        "callback_delay": 3,
    }
    assert operator.cards.system_config("callflow.disa") == {
        "default_use_account_caller_id": True,
        "default_pin_length": 10,
    }


@pytest.mark.parametrize(
    ("default", "fault"),
    [
        ({"cccp_cb_number": "5142223333", "cccp_cc_number": "+275142223333"}, "a number each"),
        ({"allowed_callee_regex": "("}, "not a regular expression"),
        ({"callback_delay": "soon"}, "callback_delay"),
        ({"callback_delay": 1e400}, "not JSON"),
        ({"cccp_cc_number": "the usual one"}, "cccp_cc_number: expected digits"),
        ({"default_caller_id_number": "+1514000%0A"}, "default_caller_id_number: expected digits"),
        ({"nothing": "known"}, "none of"),
        ([], "none of"),
        ("x", "expected an object"),
        (None, "expected an object"),
    ],
)
def test_import_system_config_that_is_invalid_fails(operator: Operator, default: object, fault: str) -> None:
    status, [line] = operator.imports(operator.file({"_id": "cccp", "default": default, "pvt_type": "config"}))
    assert status == 1
    assert line.startswith("FAILED")
    assert fault in line
    assert operator.cards.system_config("cccp") == {}


def test_import_names_the_keys_it_ignored(operator: Operator) -> None:
    document = {"_id": "cccp", "default": {"callback_delay": 5, "mystery": 1}, "kazoo@node": {"callback_delay": 9}}
    status, [line] = operator.imports(operator.file(document))
    assert status == 0
    assert "nothing here uses them: mystery" in line
    assert "single nodes of Kazoo: kazoo@node" in line
    assert operator.cards.system_config("cccp") == {"callback_delay": 5}


# Cards, accounts, users ------------------------------------------------------------------------------


def test_import_takes_documents_in_any_order(operator: Operator) -> None:
    status, lines = operator.imports(operator.file(card(), user(), account()))
    assert status == 0, lines
    assert [line.split()[1].split("/")[0] for line in lines] == ["account", "user", "cccp"]
    cards = operator.cards
    taken = cards.by_pin(PIN)
    assert taken is not None
    assert replace(taken, claim="", stored=b"") == Card(
        id="c" * 32, account_id=ACCOUNT, user_id=USER, cid=None, active=True, max_concurrent_calls_per_user=2
    )
    found = cards.account(ACCOUNT)
    assert found is not None
    assert (found.name, found.realm, found.caller_id) == ("Kazoo's own", "kazoo.example", "+27117770000")
    assert found.call_restriction["international"].action == "deny"
    assert {klass: rule.action for klass, rule in found.users[USER].items()} == {"mobile": "deny"}
    assert PIN not in everything(operator.redis)


@pytest.mark.parametrize(
    ("external", "shown"),
    [
        ({"number": "011 777 0001", "name": "Joe\n"}, CallerId("0117770001", "Joe")),
        ({"name": "Joe"}, CallerId(None, "Joe")),
        ({"number": "main-line"}, None),
        ({}, None),
    ],
)
def test_import_takes_a_users_caller_id(operator: Operator, external: dict[str, str], shown: CallerId | None) -> None:
    status, lines = operator.imports(operator.file(account(), user(caller_id={"external": external}), card()))
    assert status == 0, lines
    found = operator.cards.account(ACCOUNT)
    assert found is not None
    assert found.user_caller_ids == ({} if shown is None else {USER: shown})


def test_import_twice_changes_nothing(operator: Operator) -> None:
    file = operator.file(account(), user(), card(), card(_id="d" * 32, pin=None, cid="0820001234"))
    assert operator.imports(file)[0] == 0
    before = everything(operator.redis)
    status, lines = operator.imports(file)
    assert (status, [line.split()[0] for line in lines]) == (0, ["same"] * 4)
    assert everything(operator.redis) == before
    # Nor does it undo what was done since: a card that was stopped stays so, one that was deleted stays away.
    cards = operator.cards
    cards.update(ACCOUNT, "c" * 32, {"active": False}, merge=True)
    cards.delete(ACCOUNT, "d" * 32)
    before = everything(operator.redis)
    operator.imports(file)
    assert everything(operator.redis) == before


@pytest.mark.parametrize("old_key", [PIN_KEY, None])
def test_import_after_the_key_was_replaced_revives_nothing(operator: Operator, old_key: str | None) -> None:
    pins = {"c": PIN, "d": "1" * 9, "e": "2" * 9, "f": "3" * 9}
    some = [card(_id=letter * 32, pin=pin) for letter, pin in pins.items()]
    file = operator.file(account(), user(), *some, card(_id="1" * 32, pin=None, cid="0820001234"))
    assert operator.imports(file)[0] == 0
    operator.cards.update(ACCOUNT, "c" * 32, {"active": False}, merge=True)
    operator.cards.update(ACCOUNT, "1" * 32, {"active": False}, merge=True)
    operator.cards.delete(ACCOUNT, "d" * 32)
    operator.cards.update(ACCOUNT, "e" * 32, {"pin": "9" * 9}, merge=True)
    before = operator.cards.page(ACCOUNT, 100)[0]
    operator.configure(pin_key="another-key", **({"pin_key_old": old_key} if old_key else {}))
    for _ in range(2):
        status, lines = operator.imports(file)
        outcomes = [line.split()[0] for line in lines]
        assert (status, outcomes[2:]) == (0, ["same"] * 5), lines
    after = operator.cards.page(ACCOUNT, 100)[0]
    assert [replace(one, claim="") for one in after] == [replace(one, claim="") for one in before]
    assert operator.cards.by_pin("2" * 9) is None
    # PINs that a card still has are hashed again, so that they open once the old key is gone.
    operator.configure(pin_key="another-key")
    assert (operator.cards.by_pin("3" * 9) is not None) == (old_key is not None)
    assert (operator.cards.by_pin(PIN) is not None) == (old_key is not None)
    # The mark is the present key's: a PIN that Kazoo changes is taken.
    assert operator.imports(operator.file(account(), card(_id="f" * 32, pin="4" * 9)))[1][1].startswith("took")
    assert operator.cards.by_pin("4" * 9) is not None


@pytest.mark.parametrize("key", [PIN_KEY, "another-key"])
def test_import_of_a_changed_document_of_a_deleted_card(operator: Operator, key: str) -> None:
    operator.imports(operator.file(account(), card()))
    operator.cards.delete(ACCOUNT, "c" * 32)
    operator.configure(pin_key=key)
    status, lines = operator.imports(operator.file(account(), card(comment="changed")))
    assert status == 0
    assert lines[1].startswith("left")
    assert "deleted after it was imported" in lines[1]
    assert operator.cards.page(ACCOUNT, 100)[0] == []


def test_import_says_when_a_pin_may_have_changed(operator: Operator) -> None:
    operator.imports(operator.file(account(), card()))
    operator.configure(pin_key="another-key")
    file = operator.file(account(), card(pin="111222333444"))
    assert "its pin_key is gone" in operator.imports(file)[1][1]
    assert operator.cards.by_pin("111222333444") is None
    operator.imports(operator.file(account(), card(pin="111222333444", retain_cid=True)))
    assert operator.cards.by_pin("111222333444") is not None


def test_import_mark_does_not_reveal_a_pin() -> None:
    # Without the key, PINs can't be tried on the mark of a document whose other fields are known.
    first, other_pin = mark("cccp", card(), PIN_KEY), mark("cccp", card(pin="111222333444"), PIN_KEY)
    assert first.options == other_pin.options
    assert first.document not in (other_pin.document, mark("cccp", card(), "another-key").document)


def test_import_takes_a_changed_document_again(operator: Operator) -> None:
    operator.imports(operator.file(account(), card()))
    status, lines = operator.imports(operator.file(account(_rev="4-1"), card(active=False, pin="111222333444")))
    assert (status, [line.split()[0] for line in lines]) == (0, ["same", "took"])
    assert operator.cards.by_pin(PIN) is None
    found = operator.cards.by_pin("111222333444")
    assert found is not None
    assert (found.id, found.active) == ("c" * 32, False)


def test_import_of_a_deleted_or_disabled_document_opens_nothing(operator: Operator) -> None:
    operator.imports(operator.file(account(), user(), card()))
    status, [line] = operator.imports(operator.file(card(pvt_deleted=True)))
    assert status == 0
    assert "also deleted here" in line
    assert operator.cards.by_pin(PIN) is None
    operator.imports(operator.file(card(comment="again")))
    closed = operator.file(account(enabled=False), card(comment="and again"))
    status, lines = operator.imports(closed)
    assert (status, [line.split()[0] for line in lines]) == (0, ["took", "left"])
    assert operator.cards.account(ACCOUNT) is None
    status, lines = operator.imports(closed)
    assert (status, [line.split()[0] for line in lines]) == (0, ["same", "left"])
    # It opens again, as it was.
    operator.imports(operator.file(account()))
    back = operator.cards.account(ACCOUNT)
    assert back is not None
    assert USER in back.users


def test_import_names_bad_documents_and_takes_the_others(operator: Operator) -> None:
    operator.imports(operator.file(account(), card(_id="e" * 32, pin="999888777666")))
    bad = {
        "short PIN": card(_id="1" * 32, pin="1234"),
        "both": card(_id="2" * 32, cid="0820001234"),
        "neither": card(_id="3" * 32, pin=None),
        "taken": card(_id="4" * 32, pin="999888777666"),
        "no account": card(_id="5" * 32, pvt_account_id="f" * 32),
        "no account id": card(_id="6" * 32, pvt_account_id=None),
        "an id that is none": card(_id="../../7"),
        "an id that is no card's": card(_id="7"),
        "a restriction that can't be read": user(_id="8" * 32, call_restriction={"mobile": {"action": "DENY"}}),
        "a denied class that is none": account(_id="9" * 32, call_restriction={"nowhere": {"action": "deny"}}),
        "no id": {"pin": PIN},
        "no text": card(_id="1" * 31 + "2", active="yes"),
    }
    status, lines = operator.imports(operator.file(*bad.values(), card()))
    assert status == 1
    assert sum(line.startswith("FAILED") for line in lines) == len(bad), lines
    assert sum(line.startswith("took") for line in lines) == 1
    assert operator.cards.by_pin(PIN) is not None
    assert len(operator.cards.page(ACCOUNT, 100)[0]) == 2


def test_import_leaves_other_documents_without_failing(operator: Operator) -> None:
    file = operator.file(
        {"_id": "_design/cccps", "views": {}},
        {"_id": "1" * 32, "pvt_type": "device", "pvt_account_id": ACCOUNT},
        {"_id": "2" * 32, "pvt_type": "\x1b[2Jevil"},
        {"_id": "3" * 32, "_deleted": True},
        {"_id": "acme", "pvt_type": "account", "name": "another acme"},
        {"_id": USER, "pvt_type": "user", "pvt_account_id": "acme"},
    )
    status, lines = operator.imports(file)
    assert (status, [line.split()[0] for line in lines]) == (0, ["left"] * 6)
    assert "\x1b" not in "".join(lines)
    assert everything(operator.redis) == "[]"


def test_import_names_the_fields_it_ignored(operator: Operator) -> None:
    status, lines = operator.imports(operator.file(account(), card(outbound_cid="0820001234", ui_metadata={})))
    assert status == 0
    assert lines[-1].endswith("ignored, as nothing here uses them: outbound_cid")


_TEXT = st.text(max_size=12) | st.sampled_from([ACCOUNT, USER, "0820001234", "\x1b[2J", "\ud800", "deny"])
_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=5,
)
_FIELDS = [*card(), *user(), *account(), "default", "_deleted", "pvt_deleted", "enabled", "rows", "docs", "comment"]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([card(), user(), account(), {"_id": "cccp", "default": {"callback_delay": 3}}]),
    st.dictionaries(st.sampled_from(_FIELDS), _VALUE, max_size=3),
)
def test_import_goes_on_after_any_document(operator: Operator, document: dict[str, Any], wrong: dict[str, Any]) -> None:
    _status, lines = operator.imports(operator.file({**document, **wrong}, account(_id="9" * 32)))
    for line in lines:
        assert line.isprintable()
        line.encode()
    assert any(line.split()[1] == f"account/{'9' * 32}" for line in lines)


# Fields that can't be used, and restrictions ----------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        ("", None),
        (None, None),
        ("+27 (11) 555-0000", "+27115550000"),
        (27115550000, "27115550000"),
        ("main-line", None),
        ({}, None),
    ],
)
def test_import_account_with_an_odd_caller_id_is_taken(operator: Operator, number: object, shown: str | None) -> None:
    odd = account(caller_id={"external": {"number": number, "name": ["x"]}}, realm="a\r\nb", name=7)
    status, lines = operator.imports(operator.file(odd, user(), card()))
    assert (status, [line.split()[0] for line in lines]) == (0, ["took"] * 3), lines
    stored = operator.cards.account(ACCOUNT)
    assert stored is not None
    assert (stored.caller_id, stored.realm, stored.name) == (shown, "", "")
    assert ("caller_id.external.number left out" in lines[0]) == (number in ("main-line", {}))


def test_import_kazoos_stock_classes_are_enforced(operator: Operator) -> None:
    rules = {name: {"action": "deny"} for name in ("did_us", "tollfree_us", "toll_us", "caribbean", "unknown")}
    status, _lines = operator.imports(operator.file(account(call_restriction=rules)))
    assert status == 0
    stored = operator.cards.account(ACCOUNT)
    plan = NumberPlan("US", "")
    assert stored is not None
    assert [denied(plan.read(text), stored.call_restriction) for text in ("8005551212", "4155550123")] == [
        "tollfree_us",
        "did_us",
    ]


@pytest.mark.parametrize("rules", [{"nowhere": {"action": "deny"}}, {"mobile": {"action": "DENY"}}, "deny", 0, ["x"]])
def test_import_restriction_not_understood_opens_nothing(operator: Operator, rules: object) -> None:
    status, lines = operator.imports(operator.file(account(call_restriction=rules), user(), card()))
    assert (status, [line.split()[0] for line in lines]) == (1, ["FAILED"] * 3), lines
    assert operator.cards.by_pin(PIN) is None
    status, lines = operator.imports(operator.file(account(), user(call_restriction=rules), card()))
    assert (status, [line.split()[0] for line in lines]) == (1, ["took", "FAILED", "took"]), lines
    stored = operator.cards.account(ACCOUNT)
    assert stored is not None
    assert denied(NumberPlan("ZA", "").read("0820001234"), stored.users[USER]) == "mobile"


def test_import_class_allowed_but_unknown_is_left_out(operator: Operator) -> None:
    rules = {"nowhere": {"action": "allow"}, "mobile": [], "premium": {"action": "inherit"}}
    assert operator.imports(operator.file(account(call_restriction=rules)))[0] == 0
    stored = operator.cards.account(ACCOUNT)
    assert stored is not None
    assert stored.call_restriction == {}


def test_import_reads_values_written_as_texts(operator: Operator) -> None:
    texts = card(active="true", max_concurent_calls_per_user="2", retain_cid="false")
    status, lines = operator.imports(operator.file(account(call_restriction=[], caller_id=[]), texts))
    assert status == 0, lines
    stored = operator.cards.by_pin(PIN)
    assert stored is not None
    assert (stored.active, stored.max_concurrent_calls_per_user, stored.retain_cid) == (True, 2, False)


# Files -----------------------------------------------------------------------------------------------


def test_import_takes_crossbars_replies(operator: Operator) -> None:
    def reply(data: object, **more: object) -> dict[str, object]:
        return {"data": data, "status": "success", "request_id": "r", "auth_token": "t", **more}

    def outside(document: dict[str, Any]) -> dict[str, Any]:
        return {"id": document["_id"], **{k: v for k, v in document.items() if not k.startswith(("_", "pvt_"))}}

    status, lines = operator.imports(
        operator.file(
            reply([outside(card())], page_size=1),
            reply(outside(user()), metadata={"type": "user", "account_id": ACCOUNT}),
            reply(outside(account())),
            {"data": {"message": "not found"}, "status": "error", "message": "bad_identifier", "request_id": "r"},
        )
    )
    assert [line.split()[0] for line in lines] == ["FAILED", "took", "took", "took"], lines
    assert status == 1
    assert "bad_identifier" in lines[0]
    assert operator.cards.by_pin(PIN) is not None


def test_import_reply_without_its_account_says_so(operator: Operator) -> None:
    data = {"id": "c" * 32, "pin": PIN, "active": True}
    status, [line] = operator.imports(operator.file({"data": data, "status": "success"}))
    assert (status, "pvt_account_id: expected" in line) == (1, True)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le-bom", "utf-16-be-bom"])
def test_import_reads_any_unicode_file(operator: Operator, encoding: str) -> None:
    text = json.dumps(account(name="Société"), ensure_ascii=False)
    marks = {"utf-16-le-bom": ("utf-16-le", codecs.BOM_UTF16_LE), "utf-16-be-bom": ("utf-16-be", codecs.BOM_UTF16_BE)}
    codec, mark = marks.get(encoding, (encoding, b""))
    file = Path(operator.file(text=""))
    file.write_bytes(mark + text.encode(codec))
    assert operator.imports(str(file))[0] == 0
    stored = operator.cards.account(ACCOUNT)
    assert stored is not None
    assert stored.name == "Société"


ONE, TWO = {"_id": "1"}, {"_id": "2"}


@pytest.mark.parametrize(
    "text",
    [
        '{"_id": "1"}{"_id": "2"}',
        '{"_id": "1"}\n{"_id": "2"}\n',
        '[{"_id": "1"}, {"_id": "2"}]',
        '[{"_id": "1"}]\n[{"_id": "2"}]',
        '{"docs": [{"_id": "1"}, {"_id": "2"}]}',
        '{"total_rows": 2, "rows": [\n{"id": "1", "doc": {"_id": "1"}},\n{"id": "2", "doc": {"_id": "2"}}\n]}',
        '{\n  "_id": "1"\n},\n{\n  "_id": "2"\n}',
        # couchbackup, whose header and marks are no documents.
        '{"name":"@cloudant/couchbackup","version":"2.11.5","mode":"full"}\n[{"_id":"1"}]\n[{"_id":"2"}]\n'
        '{"marker":"@cloudant/couchbackup:resume"}',
        # pouchdb-dump.
        '{"version":"1.3.0","db_type":"http","start_time":"x","db_info":{}}\n{"docs":[{"_id":"1"},{"_id":"2"}]}\n{"seq":2}',
        # _changes, whole and continuous.
        '{"results":[{"seq":1,"id":"1","changes":[],"doc":{"_id":"1"}},\n{"seq":2,"id":"2","changes":[],"doc":{"_id":"2"}}],'
        '"last_seq":2,"pending":0}',
        '{"seq":1,"id":"1","changes":[],"doc":{"_id":"1"}}\n{"seq":2,"id":"2","changes":[],"doc":{"_id":"2"}}\n'
        '{"last_seq":2,"pending":0}',
    ],
)
def test_read_all_forms_of_a_file(text: str) -> None:
    assert [one for _line, one in read(text)] == [ONE, TWO]


def test_read_goes_on_after_a_broken_document() -> None:
    found = list(read('{"_id": "1"}\n{"_id": oops}\n{"_id": "2"}\n'))
    assert [found[0], found[2]] == [(1, ONE), (3, TWO)]
    assert found[1][0] == 2
    assert "not JSON" in str(found[1][1])


@pytest.mark.parametrize("text", ["[" * 100_000, '{"rows": [{"id": "x"}]}', "7", '"x"', "{", '[["x"]]'])
def test_read_names_what_is_not_a_document(text: str) -> None:
    [(line, found)] = read(text)
    assert line == 1
    assert isinstance(found, str)


@pytest.mark.parametrize("text", ["", "{}", "[]", "\n"])
def test_import_says_that_a_file_has_no_document(operator: Operator, text: str) -> None:
    file = operator.file(text=text)
    status, (line,) = operator.imports(file)
    assert (status, line) == (0, f"left   {file}: no document in it")


def test_read_of_an_empty_file_is_empty() -> None:
    assert list(read("")) == list(read(" \n ")) == []


def test_import_file_that_cannot_be_read_fails(operator: Operator) -> None:
    binary = operator.folder / "binary"
    binary.write_bytes(b"\xff\x00")
    status, lines = operator.imports(str(operator.folder / "nowhere"), str(binary))
    assert (status, [line.split()[0] for line in lines]) == (1, ["FAILED", "FAILED"])


def test_import_without_redis_fails(operator: Operator) -> None:
    operator.configure(redis={"url": f"redis://127.0.0.1:{free_port()}/0"})
    done = operator.types("import", operator.file(account()))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("esl-apps: Redis: ")


def test_import_status_is_1_if_a_document_failed(operator: Operator) -> None:
    done = operator.types("import", operator.file(account(), card(pin="1")))
    assert done.returncode == 1
    assert done.stderr == "1 took, 0 same, 0 left, 1 FAILED\n"


# hash-pin --------------------------------------------------------------------------------------------


def test_hash_pin_reads_standard_input(operator: Operator) -> None:
    done = operator.types("hash-pin", typed=PIN + "\n")
    assert (done.returncode, done.stdout) == (0, hash_pin(PIN_KEY, PIN) + "\n")


def test_hash_pin_takes_no_pin_as_an_argument(operator: Operator) -> None:
    done = operator.types("hash-pin", PIN)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("typed", ["", "\n", "abc\n", "\uff14\uff18\uff12\n"])
def test_hash_pin_refuses_other_than_digits(
    operator: Operator, typed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert main(["hash-pin", "-c", str(operator.config)]) == 1
    assert capsys.readouterr().out == ""


def test_hash_pin_without_a_key_names_the_key(operator: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    operator.configure(pin_key=None)
    assert main(["hash-pin", "-c", str(operator.config)]) == 2
    assert "pin_key" in capsys.readouterr().err


def test_hash_pin_does_not_show_a_typed_pin(operator: Operator) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "esl_apps", "hash-pin", "-c", str(operator.config)],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    while b"PIN:" not in shown:
        shown += os.read(ours, 100)
    os.write(ours, PIN.encode() + b"\n")
    assert process.stdout is not None
    assert process.stdout.read().decode().strip() == hash_pin(PIN_KEY, PIN)
    assert process.wait() == 0
    os.set_blocking(ours, False)
    with contextlib.suppress(OSError):
        shown += os.read(ours, 1000)
    os.close(ours)
    assert PIN.encode() not in shown


# The command -------------------------------------------------------------------------------------------


def test_import_prints_each_document_and_the_counts(operator: Operator, run: Run) -> None:
    file = operator.file(account(), {"_id": "x", "pvt_type": "device"})
    ran = run("import", "-c", str(operator.config), file)
    assert ran.status == 0
    assert ran.out.splitlines()[0].startswith("left   x (")
    assert ran.out.splitlines()[1].startswith(f"took   account/{ACCOUNT} (")
    assert ran.err == "1 took, 0 same, 1 left, 0 FAILED\n"


def test_import_json_has_a_line_for_each_document(operator: Operator, run: Run) -> None:
    ran = run("import", "-c", str(operator.config), operator.file(account(), text=None), "--json")
    assert (ran.status, ran.err) == (0, "")
    (result,) = ran.json
    assert result["outcome"] == "took"
    assert result["document"].startswith(f"account/{ACCOUNT} (")


@pytest.mark.parametrize("file", ["none.json", "/", "/dev/null/x", "\udcff", "n" * 300])
def test_import_names_a_file_that_cannot_be_read(operator: Operator, run: Run, file: str) -> None:
    ran = run("import", "-c", str(operator.config), file, operator.file(account()))
    assert ran.status == 1
    failed, took = ran.out.splitlines()
    assert failed.startswith("FAILED ")
    assert "Errno" not in failed
    assert took.startswith("took ")


def test_import_names_a_file_that_is_not_text(operator: Operator, run: Run, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"{\xff}")
    ran = run("import", "-c", str(operator.config), str(tmp_path / "binary"))
    told = "the byte 0xff isn't UTF-8 (in Latin-1 it is ÿ), at byte 1; save the file as UTF-8"
    assert (ran.status, ran.out) == (1, f"FAILED {tmp_path / 'binary'}: {told}\n")


def test_import_without_redis_blames_redis(operator: Operator, run: Run) -> None:
    operator.configure(redis={"url": f"redis://127.0.0.1:{free_port()}/0"})
    ran = run("import", "-c", str(operator.config), operator.file(account()))
    assert ran.status == 1
    assert ran.err.startswith("esl-apps: Redis: ")
