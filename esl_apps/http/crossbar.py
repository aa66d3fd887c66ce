"""Cards over HTTP on the operator's port, in the form of Kazoo's Crossbar (``cb_cccps``), and autodial.

Requests and answers wrap what they carry in ``data``; errors name field and code in it (contract §5). What
differs from Kazoo: a PIN is never in an answer, and uniqueness holds on updates, too.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import falcon

from esl_apps.calls import Full
from esl_apps.cards import CARD_ID, COMMENT_LENGTH, MOST_CONCURRENT_CALLS, NAME, PIN
from esl_apps.config import Config
from esl_apps.core.apps.autodial import CONFERENCE, AutodialOrder
from esl_apps.core.apps.click2dial import Fault, Refused
from esl_apps.core.cards import Account, Card, Unavailable
from esl_apps.core.numbers import NotDialable, Number
from esl_apps.core.restrictions import denied
from esl_apps.http.access import CALL, CARDS, READ, Door, Holder, holders
from esl_apps.http.common import Problem, answer, application, problem, read_json, spent
from esl_apps.http.server import Wsgi
from esl_apps.outgoing import Spent
from esl_apps.prompts import is_media
from esl_apps.service import Node

_T = TypeVar("_T")

_PREFIX = "/v2/"
_CARDS = "/v2/accounts/{account_id}/cccps"
#: Kazoo's own page.
_PAGE, _MOST = 50, 500
_LONGEST_DELAY = 3600.0
_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_AUTODIAL = ("a_leg_number", "b_leg_number", "callback_delay", "retain_cid", "media_id")
_RETRY_AFTER = {"Retry-After": "5"}

#: Kazoo's words for a status.
_MESSAGES = {
    400: "validation error",
    401: "invalid_credentials",
    403: "forbidden",
    404: "bad_identifier",
    405: "method not allowed",
    413: "request entity too large",
    415: "unsupported media type",
    429: "too_many_requests",
    500: "unspecified_fault",
    503: "datastore_unreachable",
}


def mount(app: Wsgi, node: Node, door: Door) -> Wsgi:
    """``app``, with everything under ``/v2/`` answered here, in Kazoo's form to the last error."""
    crossbar = build(node, door)

    def by_path(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return (crossbar if environ["PATH_INFO"].startswith(_PREFIX) else app)(environ, start_response)

    return by_path


def build(node: Node, door: Door) -> falcon.App[falcon.Request, falcon.Response]:
    app = application("the request", door, _kazoo_form)
    desk = _Desk(node, door)
    app.add_route(_CARDS, _Cards(desk))
    app.add_route(_CARDS + "/{card_id}", _Card(desk))
    app.add_route(_CARDS + "/autodial", _Autodial(desk))
    return app


def _kazoo_form(req: falcon.Request, error: Problem) -> tuple[int, Any]:
    # Kazoo knows no 422: a body that is wrong in whatever way is a 400.
    status = 400 if error.status == 422 else error.status
    data: dict[str, dict[str, dict[str, str]]] = {}
    for one in error.errors:
        data.setdefault(one["field"] or "request", {})[one["code"]] = {"message": one["message"]}
    return status, {
        "data": data,
        "error": str(status),
        "message": _MESSAGES.get(status, "error"),
        "status": "error",
        "request_id": _request_id(req),
    }


def _request_id(req: falcon.Request) -> str:
    """The client's ``X-Request-ID``, else one of ours."""
    given = req.get_header("X-Request-ID") or ""
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)


def _succeed(req: falcon.Request, resp: falcon.Response, status: int, data: Any, **more: Any) -> None:
    answer(resp, status, {"data": data, **more, "status": "success", "request_id": _request_id(req)})


def _shown(card: Card) -> dict[str, Any]:
    """A card as it is answered: a PIN is not in it, nor its hash."""
    shown: dict[str, Any] = {
        "id": card.id,
        "user_id": card.user_id,
        "active": card.active,
        "retain_cid": card.retain_cid,
        "max_concurrent_calls_per_user": card.max_concurrent_calls_per_user,
        "comment": card.comment,
    }
    if card.cid is not None:
        shown["cid"] = "+" + card.cid
    return shown


class _Desk:
    """Whose account it is, what they bring, and what the cards make of it."""

    def __init__(self, node: Node, door: Door) -> None:
        self.node = node
        self._door = door
        #: The tokens of a configuration, by account; a reload brings another one, and with it others.
        self._known: tuple[Config, dict[str | None, list[Holder]]] | None = None

    def open(self, req: falcon.Request, account_id: str, *scopes: str) -> Account:
        """The account of a request that may see it.

        :raises Problem: as ``Door.check``, a token of another account being a wrong one; 404 no such account; 503 Redis
            is away.
        """
        self._door.check(req, self._holders(account_id), *scopes)
        account = self.ask(lambda: self.node.cards.account(account_id)) if NAME.fullmatch(account_id) else None
        if account is None:
            raise problem(404, "not_found", "no such account", "account_id")
        return account

    def _holders(self, account_id: str) -> list[Holder]:
        config = self.node.config
        if self._known is None or self._known[0] is not config:
            self._known = config, {None: holders(config.admin, config.admin.tokens)}
        known = self._known[1]
        own = config.accounts.get(account_id)
        if own is None:
            return known[None]
        if account_id not in known:
            known[account_id] = known[None] + holders(own, own.tokens)
        return known[account_id]

    def data(self, req: falcon.Request) -> dict[str, Any]:
        """``data`` of the body. :raises Problem: as ``read_json``; 400 no ``data``."""
        _raw, body = read_json(req)
        data = body.get("data")
        if not isinstance(data, dict):
            raise problem(400, "required", "expected an object", "data")
        return data

    def ask(self, question: Callable[[], _T]) -> _T:
        """What the cards answer. :raises Problem: 400 the fields are wrong; 503 Redis is away."""
        try:
            return question()
        except Refused as refused:
            raise _refused(refused.faults) from None
        except Unavailable:
            raise problem(503, "unavailable", "redis: no answer", headers=_RETRY_AFTER) from None


def _refused(faults: list[Fault]) -> Problem:
    return Problem(
        400, [{"field": fault.field, "code": fault.code, "message": fault.message} for fault in faults]
    )


# Cards -----------------------------------------------------------------------------------------------


class _Cards:
    def __init__(self, desk: _Desk) -> None:
        self._desk = desk

    def on_get(self, req: falcon.Request, resp: falcon.Response, account_id: str) -> None:
        account = self._desk.open(req, account_id, READ, CARDS)
        after = req.get_param("start_key")
        if after is not None and not CARD_ID.fullmatch(after):
            raise problem(400, "pattern", "expected an earlier answer's next_start_key", "start_key")
        try:
            size = req.get_param_as_int("page_size", min_value=1, max_value=_MOST, default=_PAGE)
        except falcon.HTTPBadRequest:
            raise problem(400, "range", f"expected a number from 1 to {_MOST}", "page_size") from None
        cards, following = self._desk.ask(lambda: self._desk.node.cards.page(account.id, size, after))
        shown = [_shown(card) for card in cards]
        more = {"next_start_key": following} if following else {}
        _succeed(req, resp, 200, shown, page_size=len(shown), **more)

    def on_put(self, req: falcon.Request, resp: falcon.Response, account_id: str) -> None:
        account = self._desk.open(req, account_id, CARDS)
        data = self._desk.data(req)
        card = self._desk.ask(lambda: self._desk.node.cards.create(account.id, data))
        _succeed(req, resp, 201, _shown(card))
        resp.location = f"{_CARDS.format(account_id=account.id)}/{card.id}"


class _Card:
    def __init__(self, desk: _Desk) -> None:
        self._desk = desk

    def on_get(self, req: falcon.Request, resp: falcon.Response, account_id: str, card_id: str) -> None:
        account = self._desk.open(req, account_id, READ, CARDS)
        self._show(req, resp, card_id, lambda: self._desk.node.cards.get(account.id, card_id))

    def on_post(self, req: falcon.Request, resp: falcon.Response, account_id: str, card_id: str) -> None:
        self._update(req, resp, account_id, card_id, merge=False)

    def on_patch(self, req: falcon.Request, resp: falcon.Response, account_id: str, card_id: str) -> None:
        self._update(req, resp, account_id, card_id, merge=True)

    def on_delete(self, req: falcon.Request, resp: falcon.Response, account_id: str, card_id: str) -> None:
        account = self._desk.open(req, account_id, CARDS)
        self._show(req, resp, card_id, lambda: self._desk.node.cards.delete(account.id, card_id))

    def _update(
        self, req: falcon.Request, resp: falcon.Response, account_id: str, card_id: str, *, merge: bool
    ) -> None:
        account = self._desk.open(req, account_id, CARDS)
        data = self._desk.data(req)
        cards = self._desk.node.cards
        self._show(req, resp, card_id, lambda: cards.update(account.id, card_id, data, merge=merge))

    def _show(
        self, req: falcon.Request, resp: falcon.Response, card_id: str, question: Callable[[], Card | None]
    ) -> None:
        card = self._desk.ask(question) if CARD_ID.fullmatch(card_id) else None
        if card is None:
            raise problem(404, "not_found", "no such card", "id")
        _succeed(req, resp, 200, _shown(card))


# Autodial --------------------------------------------------------------------------------------------


class _Autodial:
    def __init__(self, desk: _Desk) -> None:
        self._desk = desk

    def on_put(self, req: falcon.Request, resp: falcon.Response, account_id: str) -> None:
        node = self._desk.node
        account = self._desk.open(req, account_id, CALL)
        data = self._desk.data(req)
        order = self._desk.ask(lambda: read_order(node, account, data))
        try:
            attempt = self._desk.ask(lambda: node.outgoing.autodial(account, order))
        except Full as full:
            raise problem(503, "unavailable", str(full), headers=_RETRY_AFTER) from None
        except Spent as over:
            raise spent(over.refusal) from None
        _succeed(req, resp, 201, {"call_ref": attempt.call_ref, "state": attempt.state})


def read_order(node: Node, account: Account, data: dict[str, Any]) -> AutodialOrder:
    """A request to dial two numbers, each checked as what a caller would have keyed.

    :raises Problem: 400, with every field that is wrong. :raises Unavailable: Redis is away.
    """
    faults = [
        Fault(name[:64], "additionalProperties", f"unknown; expected one of {', '.join(_AUTODIAL)}")
        for name in data
        if name not in _AUTODIAL
    ]
    a = _leg(node, account, data.get("a_leg_number"), "a_leg_number", faults)
    b, conference = None, None
    wanted = data.get("b_leg_number")
    if isinstance(wanted, str) and wanted.startswith("conference:"):
        named = wanted.removeprefix("conference:")
        if CONFERENCE.fullmatch(named):
            conference = named
        else:
            message = "expected conference: and 1 to 64 letters, digits, . _ -"
            faults.append(Fault("b_leg_number", "pattern", message))
    else:
        b = _leg(node, account, wanted, "b_leg_number", faults)
    delay = data.get("callback_delay")
    if delay is None:
        delay = node.rules.callback_delay
    if not isinstance(delay, (int, float)) or isinstance(delay, bool) or not 0 <= delay <= _LONGEST_DELAY:
        faults.append(Fault("callback_delay", "range", f"expected seconds from 0 to {_LONGEST_DELAY:g}"))
    retain_cid = data.get("retain_cid")
    if retain_cid is not None and not isinstance(retain_cid, bool):
        faults.append(Fault("retain_cid", "type", "expected true or false"))
    media_id, prompts = data.get("media_id"), node.config.prompts
    if media_id is not None and not is_media(media_id, prompts.dir, prompts.language, prompts.urls):
        message = "expected the name of a prompt without its .wav, or one of the configuration's prompts.urls"
        faults.append(Fault("media_id", "not_found", message))
    if faults:
        raise _refused(faults)
    assert a is not None
    return AutodialOrder(a, b, conference, float(delay), bool(retain_cid), media_id)


def _leg(node: Node, account: Account, text: object, field: str, faults: list[Fault]) -> Number | None:
    """A leg's number, which passes what dialthrough would ask of it; else None, and a fault."""
    if text is None:
        faults.append(Fault(field, "required", "missing"))
        return None
    try:
        number = node.settings.plan.read(text if isinstance(text, str) else "")
    except NotDialable as error:
        faults.append(Fault(field, "pattern", str(error)))
        return None
    rules = node.rules
    if number.is_emergency:
        if rules.emergency:
            return number
        faults.append(Fault(field, "forbidden", "is an emergency number"))
    elif number.e164 in rules.own_numbers:
        faults.append(Fault(field, "forbidden", "is a number of this installation"))
    elif rules.allowed_callee is not None and not rules.allowed_callee("+" + number.e164):
        faults.append(Fault(field, "forbidden", "is not allowed by allowed_callee_regex"))
    elif what := denied(number, account.call_restriction):
        faults.append(Fault(field, "restricted", f"class {what} is denied"))
    else:
        return number
    return None


# For /openapi.json -----------------------------------------------------------------------------------


def describe() -> dict[str, Any]:
    """The paths and schemas (OpenAPI 3.0.3) of what is answered here."""
    card = {
        "user_id": {"type": "string", "pattern": f"^{NAME.pattern}$", "nullable": True},
        "active": {"type": "boolean", "default": False},
        "retain_cid": {"type": "boolean", "default": False, "description": "Show the caller's own number"},
        "max_concurrent_calls_per_user": {
            "type": "integer",
            "minimum": 0,
            "maximum": MOST_CONCURRENT_CALLS,
            "default": 1,
        },
        "comment": {"type": "string", "maxLength": COMMENT_LENGTH, "default": ""},
        "cid": {"type": "string", "description": "The caller number that it is known by; unique over all accounts"},
    }
    pin = {"type": "string", "pattern": f"^{PIN.pattern}$", "writeOnly": True}
    schemas = {
        "CardFields": {
            "type": "object",
            "description": "Exactly one of pin and cid",
            "properties": {**card, "pin": {**pin, "description": "Unique over all accounts, and never shown"}},
        },
        "Card": {"type": "object", "properties": {"id": _ID, **card}},
        "Autodial": {
            "type": "object",
            "required": ["a_leg_number", "b_leg_number"],
            "properties": {
                "a_leg_number": {"type": "string"},
                "b_leg_number": {"type": "string", "description": "A number, or conference:NAME"},
                "callback_delay": {"type": "number", "minimum": 0, "maximum": _LONGEST_DELAY},
                "retain_cid": {"type": "boolean", "default": False},
                "media_id": {"type": "string", "description": "What A hears first: a prompt, or a listed URL"},
            },
        },
        "CrossbarErrors": {
            "type": "object",
            "required": ["data", "error", "message", "status", "request_id"],
            "properties": {
                "data": {"type": "object", "description": "Field, in it a code, in it a message"},
                "error": {"type": "string"},
                "message": {"type": "string"},
                "status": {"type": "string", "enum": ["error"]},
                "request_id": {"type": "string"},
            },
        },
    }
    one_card = _ref("Card")
    several = {"type": "array", "items": one_card}
    paths = {
        _CARDS: {
            "parameters": [_ACCOUNT_ID],
            "get": _operation("listCards", "An account's cards, a page at a time", 200, several, paged=True),
            "put": _operation("createCard", "A new card", 201, one_card, body="CardFields"),
        },
        _CARDS + "/{card_id}": {
            "parameters": [_ACCOUNT_ID, {"name": "card_id", "in": "path", "required": True, "schema": _ID}],
            "get": _operation("getCard", "One card", 200, one_card),
            "post": _operation("replaceCard", "Replace a card's fields", 200, one_card, body="CardFields"),
            "patch": _operation("updateCard", "Change some of a card's fields", 200, one_card, body="CardFields"),
            "delete": _operation("deleteCard", "Delete a card", 200, one_card),
        },
        _CARDS + "/autodial": {
            "parameters": [_ACCOUNT_ID],
            "put": _operation(
                "autodial", "Ring A, then join it with B", 201,
                {"type": "object", "properties": {"call_ref": {"type": "string"}, "state": {"type": "string"}}},
                body="Autodial",
            ),
        },
    }
    return {"paths": paths, "schemas": schemas}


_ID = {"type": "string", "pattern": f"^{CARD_ID.pattern}$"}
_ACCOUNT_ID = {
    "name": "account_id", "in": "path", "required": True, "schema": {"type": "string", "pattern": f"^{NAME.pattern}$"},
}  # fmt: skip
_PAGING = [
    {"name": "start_key", "in": "query", "schema": _ID, "description": "`next_start_key` of the page before"},
    {"name": "page_size", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": _MOST}},
]


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _operation(
    name: str, summary: str, status: int, data: dict[str, Any], *, body: str | None = None, paged: bool = False
) -> dict[str, Any]:
    def content(schema: dict[str, Any]) -> dict[str, Any]:
        return {"application/json": {"schema": schema}}

    envelope = {
        "type": "object",
        "required": ["data", "status", "request_id"],
        "properties": {
            "data": data,
            "status": {"type": "string", "enum": ["success"]},
            "request_id": {"type": "string"},
            **({"page_size": {"type": "integer"}, "next_start_key": _ID} if paged else {}),
        },
    }
    failures = (400, 401, 403, 404, 429, 503) if body is None else (400, 401, 403, 404, 413, 415, 429, 503)
    result: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "responses": {
            str(status): {"description": "Done", "content": content(envelope)},
            **{
                str(code): {"description": _MESSAGES[code], "content": content(_ref("CrossbarErrors"))}
                for code in failures
            },
        },
    }
    if body is not None:
        wrapped = {"type": "object", "required": ["data"], "properties": {"data": _ref(body)}}
        result["requestBody"] = {"required": True, "content": content(wrapped)}
    if paged:
        result["parameters"] = _PAGING
    return result
