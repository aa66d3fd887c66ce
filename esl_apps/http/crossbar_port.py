"""Kazoo's Crossbar API on the operator's port: its accounts and tokens, and the form of its bodies."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import falcon
import msgspec
from gevent.lock import BoundedSemaphore

from esl_apps.config.model import Config
from esl_apps.core.pins import Asker
from esl_apps.http import dry_run
from esl_apps.http.access import Door, Token, tokens_of
from esl_apps.http.body import answer, check_fields, read_json
from esl_apps.http.errors import ErrorForm, Problem, problem
from esl_apps.http.parameters import in_path, in_query
from esl_apps.http.routes import Answer, Body, Operation
from esl_apps.http.schemas import AccountId, CardId, CrossbarErrors
from esl_apps.node.outgoing import Outgoing
from esl_apps.node.services import Services
from esl_apps.store.card_fields import NAME
from esl_apps.store.cards import Taken

log = logging.getLogger(__name__)

T = TypeVar("T")

PREFIX = "/v2/"
CARDS_PATH = "/v2/accounts/{account_id}/cccps"
_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{1,64}")

#: Kazoo's message for each status.
_MESSAGES = {
    400: "validation error",
    401: "invalid_credentials",
    403: "forbidden",
    404: "bad_identifier",
    405: "method not allowed",
    409: "conflicting state",
    413: "request entity too large",
    415: "unsupported media type",
    429: "too_many_requests",
    500: "unspecified_fault",
    503: "datastore_unreachable",
}


# Bodies ---------------------------------------------------------------------------------------------------


def succeed(req: falcon.Request, resp: falcon.Response, status: int, data: Any, **more: Any) -> None:
    answer(resp, status, {"data": data, **more, "status": "success", "request_id": _request_id(req)})


def read_data(req: falcon.Request) -> dict[str, Any]:
    """Return ``data`` of the body. :raises Problem: as ``read_json``; 400 if it has no ``data``."""
    _raw, body = read_json(req)
    data = body.get("data")
    if not isinstance(data, dict):
        raise problem(400, "required", "expected an object", "data")
    check_fields(data, "data")
    return data


def _write(req: falcon.Request, error: Problem) -> tuple[int, Any]:
    # Kazoo has no 422: every wrong body is a 400.
    status = 400 if error.status == 422 else error.status
    data: dict[str, dict[str, dict[str, str]]] = {}
    for fault in error.errors:
        more = {name: value for name, value in fault.items() if name not in ("field", "code")}
        data.setdefault(fault["field"] or "request", {})[fault["code"]] = more
    return status, {
        "data": data,
        "error": str(status),
        "message": _MESSAGES.get(status, "error"),
        "status": "error",
        "request_id": _request_id(req),
    }


KAZOO = ErrorForm(CrossbarErrors, _MESSAGES, _write, wrong=400)


def _request_id(req: falcon.Request) -> str:
    """Return the client's ``X-Request-ID``, or a new one."""
    given = req.get_header("X-Request-ID") or ""
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)


# The port -------------------------------------------------------------------------------------------------


class CrossbarPort:
    """The first argument of the handlers. Those of routes with an account get it as ``account``."""

    def __init__(self, services: Services, outgoing: Outgoing) -> None:
        self.services = services
        self.outgoing = outgoing
        self.door = Door(lambda: services.policy.config.admin.rate, services.refused)
        #: A configuration and its tokens by account. A reload brings another.
        self._known: tuple[Config, dict[str | None, list[Token]]] | None = None
        self._turns: WeakValueDictionary[str, BoundedSemaphore] = WeakValueDictionary()
        """By account that writes cards now."""

    def admit(self, req: falcon.Request, scopes: tuple[str, ...], params: dict[str, Any]) -> None:
        """Admit a request and replace the account's id with the account.

        :raises Problem: as ``Door.check``; another account's token counts as wrong; 404 for an unknown account.
        :raises StoreUnavailable: Redis is down.
        """
        account_id = params.pop("account_id")
        token = self.door.check(req, self.tokens(account_id), *scopes)
        account = self.services.policy.cards.account(account_id) if NAME.fullmatch(account_id) else None
        if account is None:
            raise problem(404, "not_found", "no such account", "account_id")
        params["account"] = account
        req.context.asker = Asker(token.name, account_id)

    def write_card(self, req: falcon.Request, data: Mapping[str, Any], write: Callable[[], T]) -> T:
        """Write a card with the fields ``data``.

        The answer that a PIN or a number is in use tells of another account's, so it is a guess: it is counted, logged,
        and after a few refused, and so are many PINs that are not. A right guess gets the same 429 as a wrong one.

        :raises Problem: 429. :raises Refused, StoreUnavailable: as ``write``.
        """
        if data.get("pin") is None and data.get("cid") is None:
            return write()
        # What isn't a PIN or a number at all is no guess.
        self.services.policy.cards.check(data)
        asker: Asker = req.context.asker
        guard = self.services.policy.guard
        # One after the other: requests at the same time would all pass before the first is counted.
        with self._turns.setdefault(asker.account, BoundedSemaphore()):
            seconds = guard.refuses(asker, new_pin=data.get("pin") is not None)
            if seconds:
                raise self.door.too_many(seconds, "PINs or numbers for cards")
            try:
                return write()
            except Taken as taken:
                if taken.account_id != asker.account:
                    log.warning("card_claim_refused", extra={"account": asker.account, "token": asker.token})
                    guard.told(asker)
                raise

    def tokens(self, account_id: str | None = None) -> list[Token]:
        """Return this port's tokens and, for an account of the configuration, its own."""
        config = self.services.policy.config
        if self._known is None or self._known[0] is not config:
            # No account's name has a +.
            self._known = config, {None: tokens_of(config.admin, config.admin.tokens, "+admin")}
        by_account = self._known[1]
        account = None if account_id is None else config.accounts.get(account_id)
        if account is None or account_id is None:
            return by_account[None]
        if account_id not in by_account:
            by_account[account_id] = by_account[None] + tokens_of(account, account.tokens, account_id)
        return by_account[account_id]


# Its routes -----------------------------------------------------------------------------------------------

#: Kazoo's own page.
PAGE, LARGEST_PAGE = 50, 500
ACCOUNT_ID = in_path("account_id", AccountId)
CARD_ID = in_path("card_id", CardId)
_PAGING = (
    in_query("start_key", CardId, "`next_start_key` of the page before"),
    in_query("page_size", {"type": "integer", "minimum": 1, "maximum": LARGEST_PAGE}),
)


def operation(
    method: str,
    name: str,
    summary: str,
    handler: Callable[..., None],
    *,
    scopes: tuple[str, ...],
    data: Body,
    status: int = 200,
    body: type[msgspec.Struct] | None = None,
    paged: bool = False,
    conflict: bool = False,
    dry_run_data: Body | None = None,
) -> Operation:
    """Return an operation whose bodies wrap their content in ``data``.

    :param data: the answer's content. :param body: the request's content. :param conflict: it may answer 409.
    :param dry_run_data: the content of a dry run's answer; None if there is none.
    """
    answers = {status: Answer("Done", _envelope(data, paged=paged))}
    parameters: tuple[Mapping[str, Any], ...] = _PAGING if paged else ()
    if dry_run_data is not None:
        answers[200] = Answer("A dry run's verdicts", _envelope(dry_run_data))
        parameters += (dry_run.PARAMETER,)
    return Operation(
        method,
        name,
        summary,
        handler,
        scopes=scopes,
        answers=answers,
        errors=(400, 401, 403, 404, *((409,) if conflict else ()), *((413, 415) if body is not None else ()), 429, 503),
        body=body and {"type": "object", "required": ["data"], "properties": {"data": body}},
        parameters=parameters,
    )


def _envelope(data: Body, *, paged: bool = False) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["data", "status", "request_id"],
        "properties": {
            "data": data,
            "status": {"type": "string", "enum": ["success"]},
            "request_id": {"type": "string"},
            **({"page_size": {"type": "integer"}, "next_start_key": CARD_ID["schema"]} if paged else {}),
        },
    }
