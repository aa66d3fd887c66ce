"""A port's table of routes. What is served and what ``/openapi.json`` says are both built from it, so that no route can
exist without being described."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Protocol

import falcon
import msgspec

from esl_apps.http.access import Door
from esl_apps.http.body import answer
from esl_apps.http.errors import ANSWERS, OURS, ErrorForm, Problem, problem

log = logging.getLogger(__name__)

#: The two ways to send a token.
TOKEN: tuple[Mapping[str, list[str]], ...] = ({"bearer": []}, {"token": []})


@dataclass(frozen=True)
class Component:
    """A schema that no Struct can say; the port gives it when it is asked for its description."""

    name: str


Body = type[msgspec.Struct] | Component | Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """An answer that is no error."""

    meaning: str
    body: Body | None = None
    media: str = "application/json"
    headers: Mapping[str, Any] = field(default_factory=dict)


class Port(Protocol):
    """What a table is served for. Its handlers get it as their first argument."""

    @property
    def door(self) -> Door:
        """It looks at every request first, whatever its path."""

    def admit(self, req: falcon.Request, scopes: tuple[str, ...], params: dict[str, Any]) -> None:
        """Let a request in whose token has one of these scopes; may change what the handler gets.

        :raises Problem: 401, 403, 404 or 429.
        """

    def count(self, status: int) -> None:
        """Count a request that was refused."""


@dataclass(frozen=True)
class Operation:
    """One method of a route."""

    method: str
    name: str
    """``operationId``: what generated clients call it."""
    summary: str
    handler: Callable[..., None]
    """Called with the port, the request, the response, and the parameters of the path by their names."""
    scopes: tuple[str, ...] | None
    """A token needs one of them. None: the route is open to everyone."""
    answers: Mapping[int, Answer]
    errors: tuple[int, ...]
    body: Body | None = None
    parameters: tuple[Mapping[str, Any], ...] = ()
    admit: Callable[..., None] | None = None
    """In place of the port's own ``admit``, for a route that has another way in; called with the port first."""
    security: tuple[Mapping[str, list[str]], ...] = TOKEN
    """The ways in, as the description says them."""
    deprecated: bool = False


@dataclass(frozen=True)
class Route:
    path: str
    operations: tuple[Operation, ...]
    parameters: tuple[Mapping[str, Any], ...] = ()
    """Those that all of its methods have."""


@dataclass(frozen=True)
class Api:
    """All that a port serves."""

    title: str
    description: str
    routes: tuple[Route, ...]
    forms: Mapping[str, ErrorForm] = field(default_factory=dict)
    """The form of errors below a prefix of the path; everywhere else ``OURS``."""

    def form(self, path: str) -> ErrorForm:
        return next((form for prefix, form in self.forms.items() if path.startswith(prefix)), OURS)


def serve(api: Api, port: Port) -> falcon.App[falcon.Request, falcon.Response]:
    """The WSGI application of a table."""
    app = falcon.App(middleware=[port.door])
    app.req_options.strip_url_path_trailing_slash = True
    _write_errors(app, api, port)
    for route in api.routes:
        responders = {f"on_{one.method.lower()}": _responder(one, port) for one in route.operations}
        app.add_route(route.path, SimpleNamespace(**responders))
    return app


def _responder(operation: Operation, port: Port) -> Callable[..., None]:
    handler, scopes, way_in = operation.handler, operation.scopes, operation.admit

    def respond(req: falcon.Request, resp: falcon.Response, **params: Any) -> None:
        if scopes is not None:
            if way_in is None:
                port.admit(req, scopes, params)
            else:
                way_in(port, req, scopes, params)
        handler(port, req, resp, **params)

    return respond


def _write_errors(app: falcon.App[falcon.Request, falcon.Response], api: Api, port: Port) -> None:
    """Every error has the form of its path, without a version or a stack trace in it."""

    def on_problem(req: falcon.Request, resp: falcon.Response, error: Problem, _params: Any) -> None:
        answer(resp, *api.form(req.env["PATH_INFO"]).write(req, error))
        for name, value in error.headers.items():
            resp.set_header(name, value)

    def on_mapped(req: falcon.Request, resp: falcon.Response, error: Exception, params: Any) -> None:
        kind = next(kind for kind in type(error).__mro__ if kind in ANSWERS)
        mapped = ANSWERS[kind](error)
        port.count(mapped.status)
        on_problem(req, resp, mapped, params)

    def on_http_error(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, params: Any) -> None:
        status = falcon.http_status_to_code(error.status)
        code = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(status, "bad_request")
        message = {404: "no such resource", 405: "this resource has no such method"}.get(status, error.title or "")
        on_problem(req, resp, problem(status, code, message, headers=dict(error.headers or {})), params)

    def on_fault(req: falcon.Request, resp: falcon.Response, _error: Exception, params: Any) -> None:
        log.exception("request failed", extra={"path": req.path[:80]})
        on_problem(req, resp, problem(500, "internal", "the request failed; its log says why"), params)

    app.add_error_handler(Exception, on_fault)
    app.add_error_handler(falcon.HTTPError, on_http_error)
    app.add_error_handler(Problem, on_problem)
    for kind in ANSWERS:
        app.add_error_handler(kind, on_mapped)
