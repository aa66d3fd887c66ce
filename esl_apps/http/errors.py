"""What both kinds of port share: tokens, bodies, and errors of one form (contract §5)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

import falcon
import msgspec

from esl_apps.apps.click2dial import limit_fault
from esl_apps.core.limits import BREAKER, Refusal
from esl_apps.http.request import MAX_BODY

log = logging.getLogger(__name__)


class Problem(Exception):
    """An answer that is not 2xx: its status and its ``errors``."""

    def __init__(self, status: int, errors: list[dict[str, str]], headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{status}")
        self.status = status
        self.errors = errors
        self.headers = headers or {}


def problem(status: int, code: str, message: str, field: str = "", headers: dict[str, str] | None = None) -> Problem:
    return Problem(status, [{"field": field, "code": code, "message": message}], headers)


#: Seconds: as long as it takes at the least until an hour's or a day's window has moved on, or a person has looked.
_SPENT = {"Retry-After": "60"}


def spent(refusal: Refusal) -> Problem:
    """429 over a limit; 503 where a breaker has tripped, which no client can do anything about."""
    fault = limit_fault(refusal)
    status = 503 if fault.code == BREAKER else 429
    return problem(status, fault.code, fault.message, fault.field, headers=_SPENT)


def answer(resp: falcon.Response, status: int, body: Any) -> None:
    resp.status = status
    resp.data = msgspec.json.encode(body)
    resp.content_type = "application/json"


def our_form(_req: falcon.Request, error: Problem) -> tuple[int, Any]:
    """The status and the body of an error, as the contract has them (§5)."""
    return error.status, {"errors": error.errors}


class Hook(Protocol):
    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None: ...


def application(
    prefix: str, door: Hook, form: Callable[[falcon.Request, Problem], tuple[int, Any]] = our_form
) -> falcon.App[falcon.Request, falcon.Response]:
    """A falcon app whose every error is of one form, without a version or a stack trace in it.

    :param door: is asked first, whatever the request is.
    """
    app = falcon.App(middleware=[door])
    app.req_options.strip_url_path_trailing_slash = True

    def on_problem(req: falcon.Request, resp: falcon.Response, error: Problem, _params: Any) -> None:
        answer(resp, *form(req, error))
        for name, value in error.headers.items():
            resp.set_header(name, value)

    def on_http_error(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, params: Any) -> None:
        status = falcon.http_status_to_code(error.status)
        code = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(status, "bad_request")
        message = {404: "no such resource", 405: "this resource has no such method"}.get(status, error.title or "")
        on_problem(req, resp, problem(status, code, message, headers=dict(error.headers or {})), params)

    def on_fault(req: falcon.Request, resp: falcon.Response, error: Exception, params: Any) -> None:
        log.exception("request failed", extra={"path": req.path[:80]})
        on_problem(req, resp, problem(500, "internal", f"{prefix} failed; its log says why"), params)

    app.add_error_handler(Exception, on_fault)
    app.add_error_handler(falcon.HTTPError, on_http_error)
    app.add_error_handler(Problem, on_problem)
    return app


def read_json(req: falcon.Request) -> tuple[bytes, dict[str, Any]]:
    """The body, raw and decoded.

    :raises Problem: 413 too large, 415 another type, 400 not JSON, 422 not an object.
    """
    media = (req.content_type or "application/json").partition(";")[0].strip().lower()
    if media != "application/json" and not media.endswith("+json"):
        raise problem(415, "media_type", "expected application/json")
    if (req.content_length or 0) > MAX_BODY:
        raise problem(413, "too_large", f"expected {MAX_BODY} bytes at most")
    # The server has read it; nobody is waited for here.
    raw = req.bounded_stream.read()
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise problem(400, "not_json", "expected a JSON object") from None
    if not isinstance(body, dict):
        raise problem(422, "type", "expected a JSON object")
    return raw, body
