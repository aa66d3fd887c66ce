"""An integrator's port: click-to-dial calls and their recordings."""

from __future__ import annotations

import ipaddress
import logging
from typing import Any

import falcon

from esl_apps.core import terms
from esl_apps.core.reference import new_ref
from esl_apps.http.access import CALL, READ
from esl_apps.http.calls_port import _REF, _RETRY_AFTER, _Port
from esl_apps.http.errors import answer, application, problem, read_json
from esl_apps.http.openapi import describe
from esl_apps.http.recordings import _RECORDINGS, _Link, _Recording
from esl_apps.net.address import within
from esl_apps.node.node import Node
from esl_apps.store.redis_client import ERRORS

log = logging.getLogger(__name__)

_PREFIX = "/click2dial/calls"
_FILTERS = ("state", "agent", "contact_ref")
_PAGE, _MOST = 50, 500


def build(node: Node, name: str) -> falcon.App[falcon.Request, falcon.Response]:
    """The WSGI application of the integrator of this name; its settings are read at each request, so a
    reload needs no new port."""
    port = _Port(node, name)
    app = application("the request", port.door)
    app.add_route(_PREFIX, _Calls(port))
    app.add_route(_PREFIX + "/{ref}", _Call(port))
    app.add_route(_RECORDINGS + "/{name}", _Recording(port))
    app.add_route(_RECORDINGS + "/{name}/link", _Link(port))
    app.add_route("/call.php", _Legacy(port))
    app.add_route("/openapi.json", _OpenApi(port))
    return app


class _Calls:
    def __init__(self, port: _Port) -> None:
        self._port = port

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        self._port.authorise(req, CALL)
        raw, fields = read_json(req)
        try:
            dry_run = req.get_param_as_bool("dry_run", blank_as_true=True)
        except falcon.HTTPBadRequest:
            raise problem(422, "value", "expected 1 or 0", "dry_run") from None
        if dry_run:
            answer(resp, 200, self._port.dry_run(fields))
            return
        key = req.get_header("Idempotency-Key")
        call = self._port.place(fields, new_ref()) if key is None else self._port.place_once(key, raw, fields)
        answer(resp, 202, call)
        resp.location = f"{_PREFIX}/{call['call_ref']}"

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        self._port.authorise(req, READ)
        wanted = {field: value for field in _FILTERS if (value := req.get_param(field)) is not None}
        state = wanted.get("state")
        if state is not None and state not in terms.STATES:
            raise problem(422, "value", f"expected one of {', '.join(terms.STATES)}", "state")
        before = req.get_param("before")
        if before is not None and not _REF.fullmatch(before):
            raise problem(422, "value", "expected the value of an earlier answer's next", "before")
        try:
            limit = req.get_param_as_int("limit", min_value=1, max_value=_MOST, default=_PAGE)
        except falcon.HTTPBadRequest:
            raise problem(422, "value", f"expected a number from 1 to {_MOST}", "limit") from None
        try:
            calls, following = self._port.node.services.store.calls(self._port.name, wanted, limit, before)
        except ERRORS:
            raise problem(503, "unavailable", "redis: no answer", headers=_RETRY_AFTER) from None
        answer(resp, 200, {"calls": calls, "next": following})


class _Call:
    def __init__(self, port: _Port) -> None:
        self._port = port

    def _find(self, req: falcon.Request, ref: str, scope: str) -> dict[str, Any]:
        self._port.authorise(req, scope)
        call = self._port.find(ref)
        if call is None:
            raise problem(404, "not_found", "no such call")
        return call

    def on_get(self, req: falcon.Request, resp: falcon.Response, ref: str) -> None:
        answer(resp, 200, self._find(req, ref, READ))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, ref: str) -> None:
        call = self._find(req, ref, CALL)
        if call["state"] == terms.ENDED:
            answer(resp, 200, call)
            return
        self._port.node.services.calls.cancel_anywhere(call)
        answer(resp, 202, {field: call[field] for field in ("call_ref", "contact_ref", "state")})


class _Legacy:
    """``GET /call.php``: Click2Dial's first form. Off unless ``legacy_get`` lists who may use it."""

    def __init__(self, port: _Port) -> None:
        self._port = port

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        legacy = self._port.settings.legacy_get
        if not legacy:
            raise problem(404, "not_found", "no such resource")
        if not within(req.env.get("REMOTE_ADDR") or "", [ipaddress.ip_network(text) for text in legacy.allow]):
            self._port.authorise(req, CALL)
        for field, value in req.params.items():
            if not isinstance(value, str):
                raise problem(422, "value", "expected one value", field[:40])
        call = self._port.place(dict(req.params), new_ref())
        answer(resp, 202, call)
        resp.location = f"{_PREFIX}/{call['call_ref']}"


class _OpenApi:
    def __init__(self, port: _Port) -> None:
        self._port = port

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        answer(resp, 200, describe(self._port.node.services.policy.clients[self._port.name]))
