"""An integrator's port: click-to-dial calls and their recordings."""

from __future__ import annotations

import ipaddress
from typing import Any

import falcon

from esl_apps.core import status, terms
from esl_apps.core.reference import new_ref
from esl_apps.http import (
    actions,
    agents,
    asyncapi,
    dry_run,
    events,
    idempotency,
    openapi,
    phone_page,
    record_query,
    recordings,
    schemas,
)
from esl_apps.http.access import CALL, OWN_CALL, OWN_READ, READ
from esl_apps.http.body import answer, read_json
from esl_apps.http.calls_port import CallsPort
from esl_apps.http.connection import Wsgi
from esl_apps.http.cors import Cors
from esl_apps.http.errors import problem
from esl_apps.http.paging import Paging
from esl_apps.http.parameters import in_path, in_query
from esl_apps.http.routes import TOKEN, Answer, Api, Component, Operation, Route, serve
from esl_apps.http.schemas import Accepted, Call, DryRun, Page, RecordPage
from esl_apps.net.address import within
from esl_apps.node.outgoing import Outgoing
from esl_apps.node.services import Services

_CALLS = "/click2dial/calls"
_FILTERS = ("state", "agent", "contact_ref")
_PAGING = Paging(50, 500)
_ORDER = Component("Order")
#: Fields of an order in the deprecated form, and whether each is required.
_LEGACY = {"agent": True, "callee": True, "outbound_id": True, "contact_ref": False, "call_ref": False}


def build(services: Services, outgoing: Outgoing, name: str) -> Wsgi:
    """Return the WSGI application of an integrator. It reads its settings at each request, so it survives a reload."""
    port = CallsPort(services, outgoing, name)
    return serve(API, port, [Cors(lambda: port.settings.allow_origins)])


# Handlers -------------------------------------------------------------------------------------------------


def create_call(port: CallsPort, req: falcon.Request, resp: falcon.Response) -> None:
    raw, fields = read_json(req)
    port.check_agent(req, fields.get("agent"))
    key = port.key_of(req)
    if dry_run.is_asked_for(req):
        answer(resp, 200, port.dry_run(fields))
        return
    if key is None:
        _accept(resp, port.place(fields, new_ref()))
        return
    ref = new_ref()
    accepted = port.place_once(key, raw, fields, ref)
    _accept(resp, accepted)
    if accepted.call_ref != ref:
        resp.set_header(idempotency.REPLAYED, "true")


def list_calls(port: CallsPort, req: falcon.Request, resp: falcon.Response) -> None:
    named = [*_FILTERS, *(name for name in req.params if name.startswith(status.METADATA))]
    filters = {field: value for field in named if (value := req.get_param(field)) is not None}
    own = port.token(req).agent
    if "agent" in filters:
        filters["agent"] = port.client.agent(filters["agent"])
    if own is not None:
        port.check_agent(req, filters.setdefault("agent", own))
    state = filters.get("state")
    if state is not None and state not in terms.STATES:
        raise problem(422, "value", f"expected one of {', '.join(terms.STATES)}", "state")
    limit, before = _PAGING.read(req)
    calls, next_ref = port.services.store.calls(port.name, filters, limit, before)
    answer(resp, 200, {"calls": calls, "next": next_ref})


def get_call(port: CallsPort, _req: falcon.Request, resp: falcon.Response, ref: str) -> None:
    answer(resp, 200, port.call(ref))


def cancel_call(port: CallsPort, req: falcon.Request, resp: falcon.Response, ref: str) -> None:
    call = port.cancel(port.call(ref), port.token(req).agent)
    if call["state"] == terms.ENDED:
        answer(resp, 200, call)
    else:
        answer(resp, 202, Accepted(call["call_ref"], call["contact_ref"], call["state"]))


def create_call_legacy(port: CallsPort, req: falcon.Request, resp: falcon.Response) -> None:
    """``GET /call.php``: Click2Dial's first form. It is off unless ``legacy_get`` lists addresses that may use it."""
    _accept(resp, port.place(dict(req.params), new_ref()))


def list_records(port: CallsPort, req: falcon.Request, resp: falcon.Response) -> None:
    as_csv = record_query.wants_csv(req)
    chosen = record_query.chosen(req, port.services.policy.settings.plan)
    limit, before = record_query.PAGING.read(req)
    page = port.services.record_history.page(port.name, chosen, limit, before)
    if as_csv:
        record_query.answer_csv(req, resp, page)
    else:
        answer(resp, 200, {"records": page[0], "next": page[1]})


def describe(port: CallsPort) -> dict[str, Any]:
    return openapi.document(API, {_ORDER.name: schemas.order(port.client)})


def describe_messages(port: CallsPort) -> dict[str, Any]:
    return asyncapi.document(asyncapi.Choices.of(port.settings))


def _accept(resp: falcon.Response, call: Accepted) -> None:
    answer(resp, 202, call)
    resp.location = f"{_CALLS}/{call.call_ref}"


def admit_listed_address(port: CallsPort, req: falcon.Request, scopes: tuple[str, ...], params: dict[str, Any]) -> None:
    """Admit the addresses of ``legacy_get`` without a token."""
    legacy = port.settings.legacy_get
    if not legacy:
        raise problem(404, "not_found", "no such resource")
    if not within(req.env.get("REMOTE_ADDR") or "", [ipaddress.ip_network(text) for text in legacy.allow]):
        port.admit(req, scopes, params)


# Routes ---------------------------------------------------------------------------------------------------

_LOCATION = {"Location": {"schema": {"type": "string"}, "description": "The call's resource"}}
_LOCATED = Answer("Accepted", Accepted, headers=_LOCATION)
_PLACED = Answer(
    "Accepted",
    Accepted,
    headers={
        **_LOCATION,
        **idempotency.replayed_header("An earlier request with this Idempotency-Key placed the call"),
    },
)

_ROUTES = (
    Route(
        _CALLS,
        (
            Operation(
                "POST",
                "createCall",
                "Ring the agent; when it answers, dial the callee",
                create_call,
                scopes=(CALL, OWN_CALL),
                parameters=(
                    idempotency.parameter(
                        "Send it again within 24 hours to get the same call; nothing more is dialled"
                    ),
                    dry_run.PARAMETER,
                ),
                body=_ORDER,
                answers={200: Answer("A dry run's verdicts", DryRun), 202: _PLACED},
                errors=(400, 401, 403, 409, 413, 415, 422, 429, 503),
            ),
            Operation(
                "GET",
                "listCalls",
                "Live and recent calls, newest first",
                list_calls,
                scopes=(READ, OWN_READ),
                parameters=(
                    in_query("state", status.State),
                    in_query("agent", str),
                    in_query("contact_ref", str),
                    in_query("metadata.NAME", str, "Only calls with this value of NAME in their metadata"),
                    *_PAGING.parameters,
                ),
                answers={200: Answer("A page", Page)},
                errors=(400, 401, 403, 422, 429, 503),
            ),
        ),
    ),
    Route(
        _CALLS + "/{ref}",
        (
            Operation(
                "GET",
                "getCall",
                "One call, with its timeline",
                get_call,
                scopes=(READ, OWN_READ),
                parameters=(in_path("ref", status.Ref),),
                answers={200: Answer("The call", Call)},
                errors=(401, 403, 404, 429, 503),
            ),
            Operation(
                "DELETE",
                "cancelCall",
                "Cancel or hang up, in any state",
                cancel_call,
                scopes=(CALL, OWN_CALL),
                parameters=(in_path("ref", status.Ref),),
                answers={
                    200: Answer("It had already ended; this is its record", Call),
                    202: Answer("It is being ended", Accepted),
                },
                errors=(401, 403, 404, 429, 503),
            ),
        ),
    ),
    *actions.ROUTES,
    *events.ROUTES,
    Route(
        "/click2dial/records",
        (
            Operation(
                "GET",
                "listRecords",
                "Records of calls that have ended, the latest call first, as JSON or (Accept: text/csv) as a table",
                list_records,
                scopes=(READ,),
                parameters=record_query.PARAMETERS,
                answers={200: Answer("A page", RecordPage, also=record_query.TABLE, headers=record_query.LINK)},
                errors=(400, 401, 403, 406, 422, 429, 503),
            ),
        ),
    ),
    *recordings.ROUTES,
    *agents.ROUTES,
    *phone_page.ROUTES,
    Route(
        "/call.php",
        (
            Operation(
                "GET",
                "createCallLegacy",
                "The deprecated form of createCall: off unless the integrator's legacy_get lists who may use it",
                create_call_legacy,
                scopes=(CALL,),
                admit=admit_listed_address,
                safe=False,
                security=({}, *TOKEN),
                deprecated=True,
                parameters=tuple(
                    in_query(name, {"$ref": f"#/components/schemas/Order/properties/{name}"}, required=required)
                    for name, required in _LEGACY.items()
                ),
                answers={202: _LOCATED},
                errors=(401, 403, 404, 422, 429, 503),
            ),
        ),
    ),
    Route("/openapi.json", (openapi.describing(describe),)),
    Route("/asyncapi.json", (asyncapi.describing(describe_messages),)),
)

API = Api(
    "esl_apps click-to-dial",
    "Ring an agent's phone and connect it to a callee. Each call's record arrives in a Redis list.",
    _ROUTES,
)
