"""Take Kazoo's documents into Redis, one by one.

A rule that denies is never lost on the way: a restriction that can't be read, or that denies a class which no number
has, refuses its account or its user, and until that is mended their cards don't dial. Other fields that can't be used
are left out, and the message says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from esl_apps.cli.kazoo_import.export import Document
from esl_apps.cli.kazoo_import.marks import Mark, mark, read
from esl_apps.cli.output import printable
from esl_apps.config.model import Cccp, Config, DisaDefaults, Rule
from esl_apps.core import display_name
from esl_apps.core.cards import CallerId
from esl_apps.core.faults import Refused
from esl_apps.core.number_classes import CLASSES, KNOWN_CLASSES
from esl_apps.core.number_text import NotDialable, presented
from esl_apps.core.numbers import NumberPlan
from esl_apps.store import keys
from esl_apps.store.card_fields import CARD_ID, FIELDS, NAME, SPELLINGS
from esl_apps.store.cards import CardStore, IdTaken
from esl_apps.store.redis_client import Client

TOOK, SAME, LEFT, FAILED = "took", "same", "left", "FAILED"

_SYSTEM_CONFIG: dict[str, type[msgspec.Struct]] = {"cccp": Cccp, "callflow.disa": DisaDefaults}
_REALM = re.compile(r"[A-Za-z0-9.-]{1,255}")

#: The rules of a user whose own rules can't be read.
_NOTHING = {klass: Rule("deny") for klass in CLASSES}


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


# Documents -------------------------------------------------------------------------------------------


class Importer:
    def __init__(self, config: Config, client: Client) -> None:
        self._config = config
        self._client = client
        self._plan: NumberPlan = config.plan()
        self._keys = [config.pin_key or "", *([config.pin_key_old] if config.pin_key_old else [])]
        self._cards = CardStore(client, config.pin_key, self._plan, config.accounts, old_key=config.pin_key_old)
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
        documents = _with_owner(list(documents))
        sorted_by_kind: dict[str, list[tuple[str, Document]]] = {kind: [] for kind in self._takers}
        for where, document in documents:
            try:
                sorted_by_kind[_kind(document)].append((where, document))
            except _Left as left:
                yield Result(LEFT, _name(where, document), str(left))
            except _Bad as bad:
                yield Result(FAILED, _name(where, document), str(bad))
        self._out_of_use = {str(document["_id"]) for _where, document in sorted_by_kind["account"] if _gone(document)}
        for kind, some in sorted_by_kind.items():
            for where, document in some:
                yield self._take(kind, where, document)

    def _take(self, kind: str, where: str, document: Document) -> Result:
        id = str(document["_id"])
        what = f"{kind}/{id} ({where})"
        key, marked = f"{kind}:{id}", [mark(kind, document, pin_key) for pin_key in self._keys]
        before = read(self._client.hget(keys.IMPORTED, key))
        if before == marked[0]:
            return Result(SAME, what)
        message = self._unchanged(before, marked)
        if message is not None:
            if kind == "cccp" and isinstance(document.get("pin"), str):
                # Hashes the PIN by the present key, if the card still has it by the old one.
                self._cards.by_pin(document["pin"])
            self._client.hset(keys.IMPORTED, key, str(marked[0]))
            return Result(SAME, what, message)
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
        self._client.hset(keys.IMPORTED, key, str(marked[0]))
        return Result(TOOK, what, message)

    @staticmethod
    def _unchanged(before: Mark | None, marked: list[Mark]) -> str | None:
        """Return the message of a document that was imported under another key and is as it was; None for others.

        What was done to its card since must hold under any key: a card that was stopped must not come back.
        """
        if before is None:
            return None
        if before.document in [now.document for now in marked]:
            return ""
        if before.options and before.options == marked[0].options and before.key not in [now.key for now in marked]:
            return "its pin_key is gone: if its PIN or number has changed in Kazoo since, change it over HTTP"
        return None

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
        notes = ["only the administrator's token gives access to it"]
        restriction = self._restriction(document)
        self._cards.put_account(
            id,
            name=_text(document, "name", notes),
            realm=_realm(document, notes),
            caller_id=self._caller_id(external, notes),
            caller_id_name=display_name.shown(_text(external, "name", notes)) or None,
            call_restriction=restriction,
        )
        return "; ".join(notes)

    def _caller_id(self, external: Document, notes: list[str]) -> str | None:
        """Return the number that the account shows, without separators. Without one its calls show the default."""
        number = external.get("number")
        if number in (None, ""):
            return None
        try:
            self._plan.read(str(number))
        except NotDialable:
            notes.append(
                f"caller_id.external.number left out, {_printable(number)!r} isn't a telephone number: its calls show "
                "cccp.default_caller_id_number, or none"
            )
            return None
        return presented(str(number))

    def _take_user(self, id: str, document: Document) -> str:
        account_id = self._account_of(document)
        if self._cards.is_configured(account_id):
            raise _Left("its account is in the configuration, and so must its call_restriction be")
        notes = ["its call_restriction and caller_id"]
        external = _section(_section(document, "caller_id"), "external")
        caller_id = CallerId(self._caller_id(external, notes), display_name.shown(_text(external, "name", notes)))
        shown = caller_id if caller_id.number or caller_id.name else None
        try:
            self._cards.put_user(account_id, id, self._restriction(document), shown)
        except _Bad as bad:
            account = self._cards.account(account_id)
            if account is None or id in account.users:
                raise
            self._cards.put_user(account_id, id, _NOTHING)
            raise _Bad(f"{bad}; until then no card of this user may dial") from None
        return "; ".join(notes)

    def _restriction(self, document: Document) -> dict[str, Rule]:
        """Return ``call_restriction`` without the rules that inherit, which mean the same as no rule.

        :raises _Bad: it can't be read, or denies a class that no number has. That must not let its numbers through.
        """
        rules = document.get("call_restriction")
        if isinstance(rules, dict):
            rules = {klass: rule for klass, rule in rules.items() if rule != {}}
        try:
            read = msgspec.convert({} if rules is None else rules, dict[str, Rule])
        except msgspec.ValidationError as error:
            raise _Bad(_printable(f"call_restriction: {error}")) from None
        known = KNOWN_CLASSES | self._config.dial.classifiers.keys()
        unknown = sorted(klass for klass, rule in read.items() if rule.action == "deny" and klass not in known)
        if unknown:
            raise _Bad(
                f"call_restriction denies {_printable(', '.join(unknown))}, and no number is of that class: define it "
                "in dial.classifiers first"
            )
        return {klass: rule for klass, rule in read.items() if rule.action != "inherit" and klass in known}

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
        card, imported = None, self._client.hexists(keys.IMPORTED, f"cccp:{id}")
        if not imported:
            with suppress(IdTaken):
                card = self._cards.create(account_id, fields, id)
        card = card or self._cards.update(account_id, id, fields, merge=False)
        if card is None and imported and not self._client.hexists(keys.CARD_IDS, id):
            raise _Left("its card was deleted after it was imported: make a new one over HTTP")
        if card is None:
            raise _Bad("another account has a card of this id")
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


def _text(document: Document, name: str, notes: list[str]) -> str:
    value = document.get(name)
    if value is None:
        return ""
    if isinstance(value, str) and len(value) <= 255:
        return value
    notes.append(f"{name} left out: expected a text of 255 characters at most")
    return ""


def _realm(document: Document, notes: list[str]) -> str:
    realm = document.get("realm") or ""
    if isinstance(realm, str) and (not realm or _REALM.fullmatch(realm)):
        return realm
    notes.append("realm left out: expected a domain")
    return ""


def _with_owner(documents: list[tuple[str, Document]]) -> list[tuple[str, Document]]:
    """Return the documents, those that don't say whose they are with the only account of this run."""
    owners = {
        str(document["_id"])
        for _where, document in documents
        if document.get("pvt_type") == "account" and "_id" in document
    }
    if len(owners) != 1:
        return documents
    owner = owners.pop()
    return [(where, {"pvt_account_id": owner, **document}) for where, document in documents]


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
