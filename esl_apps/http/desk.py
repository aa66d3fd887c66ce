"""Cards and accounts as Kazoo's Crossbar shows them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import Any, TypeVar

import falcon

from esl_apps.config.model import Config
from esl_apps.core.cards import Account
from esl_apps.core.faults import Fault, Refused
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.http.access import Door, Holder, holders
from esl_apps.http.errors import Problem, answer, problem, read_json
from esl_apps.node.node import Node
from esl_apps.store.card_fields import NAME

_T = TypeVar("_T")

_PREFIX = "/v2/"
_CARDS = "/v2/accounts/{account_id}/cccps"
#: Kazoo's own page.
_PAGE, _MOST = 50, 500
_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
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
        account = (
            self.ask(lambda: self.node.services.policy.cards.account(account_id))
            if NAME.fullmatch(account_id)
            else None
        )
        if account is None:
            raise problem(404, "not_found", "no such account", "account_id")
        return account

    def _holders(self, account_id: str) -> list[Holder]:
        config = self.node.services.policy.config
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
        except StoreUnavailable:
            raise problem(503, "unavailable", "redis: no answer", headers=_RETRY_AFTER) from None


def _refused(faults: list[Fault]) -> Problem:
    return Problem(400, [{"field": fault.field, "code": fault.code, "message": fault.message} for fault in faults])
