"""Declare a port's routes in a table. The router and ``/openapi.json`` are both built from it, so that a route can't
exist without being described."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from types import SimpleNamespace
from typing import Any, Protocol

import falcon
import msgspec

from esl_apps.http.body import answer
from esl_apps.http.errors import ANSWERS, OURS, ErrorForm, Problem, problem
from esl_apps.http.idempotency import KEY
from esl_apps.node.services import Services

log = logging.getLogger(__name__)

#: The two ways to send a token.
TOKEN: tuple[Mapping[str, list[str]], ...] = ({"bearer": []}, {"token": []})
#: The query parameter of the security scheme "link".
SIGNATURE = "signature"
#: Methods that metrics name, and the label of everything else.
_METHODS, _OTHER = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}), "other"


@dataclass(frozen=True)
class Component:
    """A schema that no Struct can express. The port supplies it when it describes itself."""

    name: str


Body = type[msgspec.Struct] | Component | Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """An answer other than an error."""

    meaning: str
    body: Body | None = None
    media: str = "application/json"
    also: tuple[str, ...] = ()
    """Further media types that a client may ask for."""
    headers: Mapping[str, Any] = field(default_factory=dict)


class Port(Protocol):
    """The object that a table's handlers get as their first argument."""

    @property
    def services(self) -> Services:
        """The node's."""

    def admit(self, req: falcon.Request, scopes: tuple[str, ...], params: dict[str, Any]) -> None:
        """Admit a request if its token has one of these scopes. May change the handler's parameters.

        :raises Problem: 401, 403, 404 or 429.
        """


@dataclass(frozen=True)
class Operation:
    """One method of a route."""

    method: str
    name: str
    """The ``operationId``, which names the function in generated clients."""
    summary: str
    handler: Callable[..., None]
    """Called with the port, the request and the response, and with the path's parameters as keywords."""
    scopes: tuple[str, ...] | None
    """The token needs one of them. None opens the route to everyone."""
    answers: Mapping[int, Answer]
    errors: tuple[int, ...]
    body: Body | None = None
    parameters: tuple[Mapping[str, Any], ...] = ()
    admit: Callable[..., None] | None = None
    """Replaces the port's ``admit`` on a route that needs no token in some cases. Called with the port first."""
    security: tuple[Mapping[str, list[str]], ...] = TOKEN
    """The ways to authenticate, for the description."""
    deprecated: bool = False
    safe: bool = True
    """Whether a GET only reads, so that HEAD may do the same work."""


@dataclass(frozen=True)
class Route:
    path: str
    operations: tuple[Operation, ...]
    parameters: tuple[Mapping[str, Any], ...] = ()
    """Parameters that all methods share."""
    templates: tuple[str, ...] = ()
    """Falcon's templates, if a parameter of ``path`` may contain slashes."""


@dataclass(frozen=True)
class Api:
    """Everything that a port serves."""

    title: str
    description: str
    routes: tuple[Route, ...]
    forms: Mapping[str, ErrorForm] = field(default_factory=dict)
    """The form of errors by prefix of the path. Other paths use ``OURS``."""

    def form(self, path: str) -> ErrorForm:
        return next((form for prefix, form in self.forms.items() if path.startswith(prefix)), OURS)


def serve(api: Api, port: Port, middleware: Sequence[Any] = ()) -> falcon.App[falcon.Request, falcon.Response]:
    """Return the WSGI application of a table. HEAD is served wherever GET only reads, and OPTIONS everywhere.

    :param middleware: Falcon's, to see every request and answer.
    """
    app = falcon.App(middleware=[_Observed(api, port), *middleware])
    app.req_options.strip_url_path_trailing_slash = True
    _write_errors(app, api, port)
    methods = {"OPTIONS"}
    for route in api.routes:
        responders = {}
        for operation in route.operations:
            served = (operation.method, "HEAD") if operation.method == "GET" and operation.safe else (operation.method,)
            methods.update(served)
            responders.update(dict.fromkeys([f"on_{method.lower()}" for method in served], _responder(operation, port)))
        for template in route.templates or (route.path,):
            app.add_route(template, SimpleNamespace(**responders))
    app.add_sink(_root(", ".join(sorted(methods)), port), re.compile(r"/\Z"))
    return app


class _Observed:
    """Measure each request. A client can invent paths and methods, so those that aren't served share a label."""

    def __init__(self, api: Api, port: Port) -> None:
        self._requests = port.services.metrics.requests
        self._paths = {template: route.path for route in api.routes for template in route.templates}

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        req.context.began = perf_counter()

    def process_response(self, req: falcon.Request, resp: falcon.Response, _resource: object, _fine: bool) -> None:
        now = perf_counter()
        template, status = req.uri_template, str(resp.status)[:3]
        served = status != "405" and req.method in _METHODS
        self._requests.labels(
            req.method if served else _OTHER,
            self._paths.get(template, template) if template else _OTHER,
            status,
        ).observe(now - getattr(req.context, "began", now))


def _root(allowed: str, port: Port) -> Callable[..., None]:
    """Return the responder of ``/``: HAProxy's health check is ``OPTIONS /``. There is nothing else."""

    def respond(req: falcon.Request, resp: falcon.Response) -> None:
        if req.method != "OPTIONS":
            raise problem(404, "not_found", "no such resource")
        if reasons := port.services.readiness.reasons():
            raise problem(503, "unavailable", "; ".join(reasons), headers={"Retry-After": "5"})
        resp.set_header("Allow", allowed)

    return respond


def _responder(operation: Operation, port: Port) -> Callable[..., None]:
    handler, scopes, way_in = operation.handler, operation.scopes, operation.admit
    known = {parameter["name"] for parameter in operation.parameters if parameter["in"] == "query"}
    if any("link" in way for way in operation.security):
        known.add(SIGNATURE)
    repeatable = operation.body is None and operation.safe
    keyed = repeatable or any(parameter["name"] == KEY for parameter in operation.parameters)

    def respond(req: falcon.Request, resp: falcon.Response, **params: Any) -> None:
        if scopes is not None:
            if way_in is None:
                port.admit(req, scopes, params)
            else:
                way_in(port, req, scopes, params)
        _refuse_unknown(req, known, keyed=keyed)
        handler(port, req, resp, **params)

    return respond


def _refuse_unknown(req: falcon.Request, known: Collection[str], *, keyed: bool) -> None:
    """Refuse an option that the route doesn't have. Ignored, ``dry_run`` would dial, and a repeated request twice.

    :raises Problem: 422.
    """
    for name, value in req.params.items():
        if name not in known and not _is_of_family(name, known):
            expected = f"one of {', '.join(sorted(known))}" if known else "none"
            raise problem(422, "unknown", f"unknown query parameter; expected {expected}", name[:64])
        if not isinstance(value, str):
            raise problem(422, "value", "expected one value", name)
    if not keyed and req.get_header(KEY) is not None:
        raise problem(422, "unknown", "this request can't be repeated under a key", KEY)


def _is_of_family(name: str, known: Collection[str]) -> bool:
    """Whether a parameter is one of those that are described as ``metadata.NAME``."""
    family, dot, _ = name.partition(".")
    return f"{family}{dot}NAME" in known


def _write_errors(app: falcon.App[falcon.Request, falcon.Response], api: Api, port: Port) -> None:
    """Write every error in the form of its path, without versions or stack traces."""

    def on_problem(req: falcon.Request, resp: falcon.Response, error: Problem, _params: Any) -> None:
        form = api.form(req.env["PATH_INFO"])
        if form.show is None:
            answer(resp, *form.write(req, error))
        else:
            form.show(req, resp, error)
        for name, value in error.headers.items():
            resp.set_header(name, value)

    def on_mapped(req: falcon.Request, resp: falcon.Response, error: Exception, params: Any) -> None:
        kind = next(kind for kind in type(error).__mro__ if kind in ANSWERS)
        mapped = ANSWERS[kind](error)
        port.services.refused(mapped.status)
        on_problem(req, resp, mapped, params)

    def on_http_error(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, params: Any) -> None:
        status = falcon.http_status_to_code(error.status)
        code = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(status, "bad_request")
        message = {404: "no such resource", 405: "this resource has no such method"}.get(status, error.title or "")
        on_problem(req, resp, problem(status, code, message, headers=dict(error.headers or {})), params)

    def on_fault(req: falcon.Request, resp: falcon.Response, _error: Exception, params: Any) -> None:
        log.exception("http_request_failed", extra={"path": req.path[:80]})
        on_problem(req, resp, problem(500, "internal", "the request failed; its log says why"), params)

    app.add_error_handler(Exception, on_fault)
    app.add_error_handler(falcon.HTTPError, on_http_error)
    app.add_error_handler(Problem, on_problem)
    for kind in ANSWERS:
        app.add_error_handler(kind, on_mapped)
