"""``esl-apps import``: Kazoo's documents, as CouchDB exports them, into Redis.

It imports ``system_config/cccp`` and ``system_config/callflow.disa`` (their ``default``), accounts, users and cccps
documents, in this order, whatever the order of the files, and keeps their ids. A document that was imported before and
has not changed since is skipped, even if its card was changed or deleted over HTTP in the meantime: importing twice
changes nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from esl_apps.cli.output import explain, print_json, printable
from esl_apps.config.model import Cccp, Config, DisaDefaults, Rule
from esl_apps.core.faults import Refused
from esl_apps.core.number_classes import CLASSES, HIGH_RISK
from esl_apps.core.number_text import NotDialable
from esl_apps.core.numbers import NumberPlan
from esl_apps.store import keys, redis_client
from esl_apps.store.card_fields import CARD_ID, FIELDS, NAME, SPELLINGS
from esl_apps.store.cards import CardStore, IdTaken
from esl_apps.store.redis_client import Client

TOOK, SAME, LEFT, FAILED = "took", "same", "left", "FAILED"

_SYSTEM_CONFIG: dict[str, type[msgspec.Struct]] = {"cccp": Cccp, "callflow.disa": DisaDefaults}
_GAP = re.compile(r"[\s,\x1e]*")
_REALM = re.compile(r"[A-Za-z0-9.-]{1,255}")

Document = dict[str, Any]


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_number)


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome for one document, or for a part of a file that isn't a document."""

    outcome: str
    """:data:`TOOK`, :data:`SAME` (imported before, unchanged), :data:`LEFT` (not wanted here) or :data:`FAILED`."""
    what: str
    message: str = ""

    def __str__(self) -> str:
        line = f"{self.outcome:<6} {self.what}{': ' if self.message else ''}{self.message}"
        return printable(line)


class _Bad(Exception):
    """The document can't be imported; the text says why."""


class _Left(Exception):
    """The document is skipped, though nothing is wrong with it; the text says why."""


def run(config: Config, arguments: argparse.Namespace) -> int:
    client = redis_client.connect(config.redis.url)
    count = dict.fromkeys((TOOK, SAME, LEFT, FAILED), 0)
    for result in import_files(arguments.files, config, client):
        count[result.outcome] += 1
        if arguments.json:
            print_json({"outcome": result.outcome.lower(), "document": result.what, "message": result.message})
        else:
            print(result, flush=True)
    if not arguments.json:
        print(", ".join(f"{number} {outcome}" for outcome, number in count.items()), file=sys.stderr)
    return 1 if count[FAILED] else 0


def import_files(files: Iterable[str], config: Config, client: Client) -> Iterator[Result]:
    """Import files, and yield each document's result when it is there.

    :raises StoreUnavailable: Redis is down; what was imported so far stays, and the next run continues.
    """
    documents: list[tuple[str, Document]] = []
    for file in files:
        try:
            with open(file, encoding="utf-8-sig") as stream:
                text = stream.read()
        except OSError as error:
            yield Result(FAILED, explain(error))
            continue
        except UnicodeDecodeError as error:
            yield Result(FAILED, file, f"not UTF-8 at byte {error.start}")
            continue
        for where, found in read(text):
            if isinstance(found, str):
                yield Result(FAILED, f"{file}:{where}", found)
            else:
                documents.append((f"{file}:{where}", found))
    yield from _Importer(config, client).take(documents)


# Files -----------------------------------------------------------------------------------------------


def read(text: str) -> Iterator[tuple[int, Document | str]]:
    """Yield a file's documents, each with its line. A text in place of a document says what is wrong there.

    A file has one document, several one after another (NDJSON or not), an array, ``{"docs": […]}``, or the answer to
    ``_all_docs?include_docs=true``.
    """
    at, line, counted = _skip(text, 0), 1, 0
    while at < len(text):
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, end = _DECODER.raw_decode(text, at)
        except ValueError as error:
            where = error.lineno if isinstance(error, json.JSONDecodeError) else line
            yield where, f"not JSON: {getattr(error, 'msg', error)}"
            # Go on with the next document that begins a line: it may be whole.
            resumed = text.find("\n{", max(at, getattr(error, "pos", at)))
            end = len(text) if resumed < 0 else resumed
        except RecursionError:
            yield line, "nested too deep"
            return
        else:
            for one in _unwrapped(value):
                yield line, one
        at = _skip(text, end)


def _skip(text: str, at: int) -> int:
    gap = _GAP.match(text, at)
    return gap.end() if gap else at


def _unwrapped(value: object) -> Iterator[Document | str]:
    if isinstance(value, list):
        for one in value:
            yield from _unwrapped(one)
    elif not isinstance(value, dict):
        yield "expected a document"
    elif isinstance(value.get("rows"), list):
        for row in value["rows"]:
            if isinstance(row, dict) and isinstance(row.get("doc"), dict):
                yield row["doc"]
            else:
                yield "a row without its document: export with _all_docs?include_docs=true"
    elif isinstance(value.get("docs"), list) and "_id" not in value:
        yield from _unwrapped(value["docs"])
    else:
        yield value


# Documents -------------------------------------------------------------------------------------------


class _Importer:
    def __init__(self, config: Config, client: Client) -> None:
        self._config = config
        self._client = client
        self._plan: NumberPlan = config.plan()
        self._cards = CardStore(client, config.pin_key, self._plan, config.accounts)
        self._out_of_use: set[str] = set()
        """Ids of this run's accounts that are disabled or deleted."""
        self._takers: dict[str, Callable[[str, Document], str]] = {
            "system_config": self._take_system_config,
            "account": self._take_account,
            "user": self._take_user,
            "cccp": self._take_card,
        }

    def take(self, documents: Iterable[tuple[str, Document]]) -> Iterator[Result]:
        """Import the system configuration, then accounts, then their users and cards."""
        sorted_by_kind: dict[str, list[tuple[str, Document]]] = {kind: [] for kind in self._takers}
        for where, document in documents:
            try:
                sorted_by_kind[_kind(document)].append((where, document))
            except _Left as left:
                yield Result(LEFT, _name(where, document), str(left))
            except _Bad as bad:
                yield Result(FAILED, _name(where, document), str(bad))
        self._out_of_use = {str(one["_id"]) for _where, one in sorted_by_kind["account"] if _gone(one)}
        for kind, some in sorted_by_kind.items():
            for where, document in some:
                yield self._take(kind, where, document)

    def _take(self, kind: str, where: str, document: Document) -> Result:
        id = str(document["_id"])
        what = f"{kind}/{id} ({where})"
        key, fingerprint = f"{kind}:{id}", self._fingerprint(document)
        before = self._client.hget(keys.IMPORTED, key)
        if before is not None and before.decode() == fingerprint:
            return Result(SAME, what)
        try:
            message = self._takers[kind](id, document)
        except _Left as left:
            return Result(LEFT, what, str(left))
        except _Bad as bad:
            return Result(FAILED, what, str(bad))
        except Refused as refused:
            return Result(FAILED, what, str(refused))
        except UnicodeEncodeError:
            return Result(FAILED, what, "a text with half of a surrogate pair")
        self._client.hset(keys.IMPORTED, key, fingerprint)
        return Result(TOOK, what, message)

    def _fingerprint(self, document: Document) -> str:
        """Return a hash that changes when the document does.

        It is keyed like the hash of a PIN: from a plain hash, anyone who knows the other fields could find the PIN.
        """
        public = {name: value for name, value in document.items() if name not in ("_rev", "pvt_modified")}
        text = json.dumps(public, sort_keys=True)
        return hmac.digest((self._config.pin_key or "").encode(), text.encode(), hashlib.sha256).hex()

    # system_config ------------------------------------------------------------------------------------

    def _take_system_config(self, id: str, document: Document) -> str:
        section = document.get("default")
        if not isinstance(section, dict):
            raise _Bad("expected an object under default")
        kind = _SYSTEM_CONFIG[id]
        known = {field.encode_name for field in msgspec.structs.fields(kind)}
        settings = {name: value for name, value in section.items() if name in known}
        if not settings:
            raise _Bad(f"default has none of {', '.join(sorted(known))}")
        try:
            # As a node will read it: a value that JSON can't hold becomes null.
            stored = msgspec.json.decode(msgspec.json.encode(settings))
            checked = msgspec.convert({**msgspec.to_builtins(self._configured(id)), **stored}, kind)
        except msgspec.ValidationError as error:
            raise _Bad(_printable(str(error))) from None
        if isinstance(checked, Cccp):
            self._check_cccp(checked)
        self._cards.put_system_config(id, settings)
        return (
            f"{', '.join(sorted(settings))}: they override the configuration file's {id} on every node that uses this "
            "Redis, from its next start or SIGHUP" + _unread(section, known) + _other_sections(document)
        )

    def _configured(self, id: str) -> Cccp | DisaDefaults:
        return self._config.cccp if id == "cccp" else self._config.callflow_disa

    def _check_cccp(self, cccp: Cccp) -> None:
        """Apply the rules of the configuration file."""
        if cccp.allowed_callee_regex is not None:
            try:
                re.compile(cccp.allowed_callee_regex)
            except re.error as error:
                raise _Bad(f"allowed_callee_regex: not a regular expression: {error}") from None
        for name in ("cccp_cb_number", "cccp_cc_number", "default_caller_id_number"):
            self._check_number(name, getattr(cccp, name))
        callback, calling_card = cccp.cccp_cb_number, cccp.cccp_cc_number
        if callback and calling_card and self._plan.same(callback, calling_card):
            raise _Bad("cccp_cb_number and cccp_cc_number are the same: callback and dialthrough need a number each")

    def _check_number(self, name: str, number: object) -> None:
        try:
            if number is not None:
                self._plan.read(str(number))
        except NotDialable as error:
            raise _Bad(f"{name}: {error}") from None

    # Accounts and users -------------------------------------------------------------------------------

    def _take_account(self, id: str, document: Document) -> str:
        if self._cards.is_configured(id):
            raise _Left("the configuration has an account of this id, which overrides an imported one")
        gone = _gone(document)
        if gone and self._cards.close_account(id):
            return f"it is {gone}: from now on none of its cards may dial"
        if gone:
            raise _Left(f"it is {gone}")
        external = _section(_section(document, "caller_id"), "external")
        number = external.get("number")
        self._check_number("caller_id.external.number", number)
        realm = document.get("realm") or ""
        if not isinstance(realm, str) or (realm and not _REALM.fullmatch(realm)):
            raise _Bad("realm: expected a domain")
        restriction = _restriction(document)
        self._cards.put_account(
            id,
            name=_text(document, "name"),
            realm=realm,
            caller_id=None if number is None else str(number),
            caller_id_name=_text(external, "name") or None,
            call_restriction=restriction,
        )
        return "only the administrator's token gives access to it" + self._unknown_classes(restriction)

    def _take_user(self, id: str, document: Document) -> str:
        account_id = self._account_of(document)
        if self._cards.is_configured(account_id):
            raise _Left("its account is in the configuration, and so must its call_restriction be")
        restriction = _restriction(document)
        self._cards.put_user(account_id, id, restriction)
        return "its call_restriction" + self._unknown_classes(restriction)

    def _unknown_classes(self, restriction: Mapping[str, Rule]) -> str:
        known = {*CLASSES, HIGH_RISK, *self._config.dial.classifiers}
        unknown = sorted(set(restriction) - known)
        return f"; no number is of class {', '.join(unknown)} until dial.classifiers defines it" if unknown else ""

    def _account_of(self, document: Document) -> str:
        """Return ``pvt_account_id``. :raises _Bad: it is missing or unknown. :raises _Left: the account is closed."""
        account_id = document.get("pvt_account_id")
        if not isinstance(account_id, str) or not NAME.fullmatch(account_id):
            raise _Bad("pvt_account_id: expected the id of its account")
        if account_id in self._out_of_use:
            raise _Left("its account is disabled or deleted")
        if self._cards.account(account_id) is None:
            raise _Bad(f"account {account_id} is unknown: import or configure it first")
        return account_id

    # Cards --------------------------------------------------------------------------------------------

    def _take_card(self, id: str, document: Document) -> str:
        if not CARD_ID.fullmatch(id):
            raise _Bad("_id: expected 32 hexadecimal digits")
        if _gone(document) == "deleted":
            if self._cards.delete(str(document.get("pvt_account_id")), id) is None:
                raise _Left("it is deleted")
            return "also deleted here"
        account_id = self._account_of(document)
        known = {*FIELDS, *SPELLINGS}
        fields = {name: value for name, value in document.items() if name in known and value is not None}
        try:
            card = self._cards.create(account_id, fields, id)
        except IdTaken:
            changed = self._cards.update(account_id, id, fields, merge=False)
            if changed is None:
                raise _Bad("another account has a card of this id") from None
            card = changed
        public = {name: value for name, value in document.items() if not name.startswith(("_", "pvt_"))}
        return ("active" if card.active else "not active") + _unread(public, known | {"id", "ui_metadata"})


def _kind(document: Document) -> str:
    """Return the document's kind. :raises _Left: it isn't wanted here. :raises _Bad: it isn't a document of Kazoo."""
    id = document.get("_id")
    if not isinstance(id, str) or not id:
        raise _Bad("a document without _id")
    kind = document.get("pvt_type")
    if document.get("_deleted") is True:
        raise _Left("it is deleted, and doesn't say what it was")
    if id.startswith("_design/"):
        raise _Left("a design document")
    if id in _SYSTEM_CONFIG and kind in (None, "config"):
        return "system_config"
    if kind in ("account", "user", "cccp"):
        if not NAME.fullmatch(id):
            raise _Bad("_id: expected letters, digits, . _ -")
        return str(kind)
    if kind is None and ("pin" in document or "cid" in document):
        return "cccp"
    raise _Left(f"a document of type {_printable(kind)}" if kind else "a document without pvt_type")


def _gone(document: Document) -> str | None:
    """Return ``deleted`` or ``disabled``, as Kazoo marks a document that is out of use; None if it is in use."""
    if document.get("pvt_deleted") is True:
        return "deleted"
    return "disabled" if document.get("enabled") is False or document.get("pvt_enabled") is False else None


def _name(where: str, document: Document) -> str:
    id = document.get("_id")
    return f"{_printable(id) if isinstance(id, str) else 'document'} ({where})"


def _printable(value: object) -> str:
    """Return a document's value in a form that is safe to show on a terminal."""
    return json.dumps(value)[:200].strip('"')


def _section(document: Document, name: str) -> Document:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _text(document: Document, name: str) -> str:
    value = document.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > 255:
        raise _Bad(f"{name}: expected a text of 255 characters at most")
    return value


def _restriction(document: Document) -> dict[str, Rule]:
    """Return ``call_restriction`` without the rules that inherit, which mean the same as no rule."""
    rules = document.get("call_restriction")
    if rules is None:
        return {}
    try:
        read = msgspec.convert(rules, dict[str, Rule])
    except msgspec.ValidationError as error:
        # A rule that can't be read might be the one that denies.
        raise _Bad(_printable(f"call_restriction: {error}")) from None
    return {klass: rule for klass, rule in read.items() if rule.action != "inherit"}


def _unread(section: Document, known: set[str]) -> str:
    names = sorted(_printable(name) for name in set(section) - known)
    return f"; ignored, as nothing here uses them: {', '.join(names)}" if names else ""


def _other_sections(document: Document) -> str:
    names = sorted(
        _printable(name)
        for name, value in document.items()
        if name != "default" and isinstance(value, dict) and not name.startswith(("_", "pvt_"))
    )
    return f"; ignored, as they are for single nodes of Kazoo: {', '.join(names)}" if names else ""
