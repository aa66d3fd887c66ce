"""Answers that aren't 2xx: an exception for each, with a stable code, and the forms in which ports write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import falcon
import msgspec

from esl_apps.apps.click2dial import limit_fault
from esl_apps.core.actions import UNKNOWN, Undone
from esl_apps.core.faults import Refused
from esl_apps.core.limits import BREAKER, Refusal
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.http.schemas import Errors
from esl_apps.node.live import Crowded, Full
from esl_apps.node.outgoing import Spent, Unsure
from esl_apps.node.presence import AgentUnavailable


class Problem(Exception):
    """An answer that is not 2xx: its status and its ``errors``."""

    def __init__(self, status: int, errors: list[dict[str, str]], headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{status}")
        self.status = status
        self.errors = errors
        self.headers = headers or {}


def problem(status: int, code: str, message: str, field: str = "", headers: dict[str, str] | None = None) -> Problem:
    """Return a ``Problem`` of one error."""
    return Problem(status, [{"field": field, "code": code, "message": message}], headers)


# Exceptions of the rest of the program --------------------------------------------------------------------

#: Seconds: as long as a switch or a Redis takes to come back.
_COMES_BACK = {"Retry-After": "5"}
#: Seconds until the window of a limit may have moved on, or a person has looked at a breaker.
_SPENT = {"Retry-After": "60"}


def _refused(error: Refused) -> Problem:
    faults = [{"field": fault.field, "code": fault.code, "message": fault.message} for fault in error.faults]
    return Problem(422, faults)


def _full(error: Full) -> Problem:
    return problem(503, "unavailable", str(error), headers=_COMES_BACK)


def _crowded(error: Crowded) -> Problem:
    return problem(429, "limit_reached", str(error), "limits", headers=_COMES_BACK)


def _unavailable(error: StoreUnavailable) -> Problem:
    return problem(503, "unavailable", error.summary, headers=_COMES_BACK)


def _spent(error: Spent) -> Problem:
    """429 for a limit; 503 for a tripped breaker, which no client can do anything about."""
    refusal: Refusal = error.refusal
    fault = limit_fault(refusal)
    status = 503 if fault.code == BREAKER else 429
    return problem(status, fault.code, fault.message, fault.field, headers=_SPENT)


def _unsure(error: Unsure) -> Problem:
    fault = {"field": "", "code": UNKNOWN, "message": str(error), "call_ref": error.call_ref}
    return Problem(503, [fault], _COMES_BACK)


def _agent_unavailable(error: AgentUnavailable) -> Problem:
    fault = {"field": "agent", "code": "agent_unavailable", "message": str(error), "reason": error.reason}
    return Problem(409, [fault])


def _undone(error: Undone) -> Problem:
    fault = {"field": error.field, "code": error.code, "message": error.message}
    headers = {503: _COMES_BACK, 429: _SPENT}.get(error.status)
    return Problem(error.status, [{**fault, "state": error.state} if error.state else fault], headers)


#: Exceptions of the program that have an HTTP answer. This is the only place that maps them.
ANSWERS: Mapping[type[Exception], Callable[[Any], Problem]] = {
    Refused: _refused,
    Full: _full,
    Crowded: _crowded,
    StoreUnavailable: _unavailable,
    Spent: _spent,
    Unsure: _unsure,
    AgentUnavailable: _agent_unavailable,
    Undone: _undone,
}

# Forms ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ErrorForm:
    """The form in which a group of routes writes its errors."""

    body: type[msgspec.Struct]
    meanings: Mapping[int, str]
    """By status, for the description."""
    write: Callable[[falcon.Request, Problem], tuple[int, Any]]
    """Return the status and the body of an error."""
    wrong: int
    """The status for a wrong field or query parameter."""
    show: Callable[[falcon.Request, falcon.Response, Problem], None] | None = None
    """Writes the whole answer, for a form that isn't JSON."""


def _write(_req: falcon.Request, error: Problem) -> tuple[int, Any]:
    return error.status, {"errors": error.errors}


#: The form of all routes but the cards'.
OURS = ErrorForm(
    Errors,
    {
        400: "Not JSON, or a parameter that can't be read",
        401: "No token, or a wrong one",
        403: "The token lacks the scope that this needs; message names it",
        404: "Not there, or another integrator's",
        405: "No such method",
        406: "Neither application/json nor text/csv is accepted",
        409: "The agent isn't as require_agent asks; the call's state doesn't allow it; the idempotency key came with "
        "another body, or its first request is still running (Retry-After)",
        413: "The body is too large",
        415: "Not application/json",
        416: "A range that the recording does not have",
        422: "A field or a query parameter is wrong: nothing was dialled",
        429: "Too many requests of this token or address, too many wrong tokens from it, or a limit "
        "of calls or minutes is reached: nothing was dialled; Retry-After says in how many seconds to ask again",
        503: "No switch, no Redis, or a breaker has tripped; Retry-After says when to ask again",
    },
    _write,
    wrong=422,
)
