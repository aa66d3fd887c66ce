"""The routes of ``/v1``, on the operator's port: each reads a request, and writes what ``http/operator.py`` returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import falcon

from esl_apps.apps import callback
from esl_apps.core import status, terms
from esl_apps.http import operator, record_query, schemas
from esl_apps.http.access import OPERATE, READ
from esl_apps.http.admin_port import AdminPort
from esl_apps.http.body import answer, read_json
from esl_apps.http.errors import problem
from esl_apps.http.paging import Paging
from esl_apps.http.parameters import in_path, in_query
from esl_apps.http.routes import Answer, Body, Operation, Route
from esl_apps.operations import breakers, calls, waiting
from esl_apps.store.pin_guard import Locks

_PAGING = Paging(50, 500)
#: Unix seconds: the year 2286.
_LATEST = 10_000_000_000
_TRUE = {"true": True, "1": True, "false": False, "0": False}


def _answer(resp: falcon.Response, data: Any, status_code: int = 200, **more: Any) -> None:
    answer(resp, status_code, {"data": data, **more})


# Nodes and switches ---------------------------------------------------------------------------------------


def get_status(port: AdminPort, _req: falcon.Request, resp: falcon.Response, by: str) -> None:
    _answer(resp, operator.overview(port))


def list_nodes(port: AdminPort, _req: falcon.Request, resp: falcon.Response, by: str) -> None:
    _answer(resp, operator.processes(port))


def list_switches(port: AdminPort, _req: falcon.Request, resp: falcon.Response, by: str) -> None:
    _answer(resp, operator.all_switches(port))


def pause_switch(port: AdminPort, req: falcon.Request, resp: falcon.Response, name: str, by: str) -> None:
    _answer(resp, {"name": name, "changed": operator.pause_switch(port, name, by)})


def resume_switch(port: AdminPort, req: falcon.Request, resp: falcon.Response, name: str, by: str) -> None:
    _answer(resp, {"name": name, "changed": operator.resume_switch(port, name, by)})


# Calls ----------------------------------------------------------------------------------------------------


def list_calls(port: AdminPort, req: falcon.Request, resp: falcon.Response, by: str) -> None:
    wanted = {field: value for field in calls.FILTERS if (value := req.get_param(field)) is not None}
    if wanted.get("state", terms.ENDED) not in terms.STATES:
        raise problem(422, "value", f"expected one of {', '.join(terms.STATES)}", "state")
    only_live = _TRUE.get(req.get_param("live", default="false"))
    if only_live is None:
        raise problem(422, "value", "expected true or false", "live")
    limit, before = _PAGING.read(req)
    page, more = (operator.live_calls if only_live else operator.recent_calls)(port, wanted, limit, before)
    _answer(resp, page, next=more)


def get_call(port: AdminPort, _req: falcon.Request, resp: falcon.Response, ref: str, by: str) -> None:
    _answer(resp, operator.find_call(port, ref))


def end_call(port: AdminPort, _req: falcon.Request, resp: falcon.Response, ref: str, by: str) -> None:
    call = operator.end_call(port, ref, by)
    if call["state"] == terms.ENDED:
        _answer(resp, call)
    else:
        _answer(resp, {"call_ref": ref, "state": call["state"]}, 202)


def list_records(port: AdminPort, req: falcon.Request, resp: falcon.Response, by: str) -> None:
    as_csv = record_query.wants_csv(req)
    chosen = record_query.chosen(req, port.services.policy.settings.plan)
    limit, before = record_query.PAGING.read(req)
    account = req.get_param("account_id")
    if account is not None:
        chosen = chosen._replace(fields=[*chosen.fields, ("account_id", account)])
    page = operator.past_records(port, chosen, limit, before, req.get_param("integrator"))
    if as_csv:
        record_query.answer_csv(req, resp, page, ("integrator",))
    else:
        _answer(resp, page[0], next=page[1])


# Locks, breakers, waiting calls, webhooks -----------------------------------------------------------------


def list_locks(port: AdminPort, _req: falcon.Request, resp: falcon.Response, by: str) -> None:
    _answer(resp, [asdict(lock) for lock in Locks(port.services.redis).list()])


def lift_lock(port: AdminPort, _req: falcon.Request, resp: falcon.Response, key: str, by: str) -> None:
    operator.lift_lock(port, key, by)
    _answer(resp, {"key": key, "lifted": True})


def list_breakers(port: AdminPort, _req: falcon.Request, resp: falcon.Response, by: str) -> None:
    _answer(resp, breakers.listed(port.services.policy.config, port.services.redis))


def trip_breaker(
    port: AdminPort, req: falcon.Request, resp: falcon.Response, key: str, by: str, destination: str = ""
) -> None:
    scope = f"{key}/{destination}" if destination else key
    changed = operator.trip_breaker(port, scope, by, end_calls=_end_calls(req))
    _answer(resp, {"scope": scope, "tripped": True, "changed": changed})


def _end_calls(req: falcon.Request) -> bool:
    if not req.content_length:
        return False
    _raw, body = read_json(req)
    end_calls = body.pop("end_calls", False)
    if body:
        raise problem(422, "unknown", "unknown field; expected end_calls", next(iter(body))[:64])
    if not isinstance(end_calls, bool):
        raise problem(422, "type", "expected true or false", "end_calls")
    return end_calls


def reset_breaker(
    port: AdminPort, req: falcon.Request, resp: falcon.Response, key: str, by: str, destination: str = ""
) -> None:
    scope = f"{key}/{destination}" if destination else key
    operator.reset_breaker(port, scope, by)
    _answer(resp, {"scope": scope, "tripped": False, "changed": True})


def list_waiting(port: AdminPort, _req: falcon.Request, resp: falcon.Response, by: str) -> None:
    _answer(resp, waiting.listed(port.services.timed_calls))


def drop_waiting(port: AdminPort, _req: falcon.Request, resp: falcon.Response, key: str, by: str) -> None:
    # A number alone is a callback's, as the contract has it. Digits are E.164 before they are as dialled.
    number = port.services.policy.settings.plan.find(key)
    if number is not None and port.services.timed_calls[callback.REF].find(key) is None:
        key = number.subscriber
    full = key if "/" in key else f"{callback.REF}/{key}"
    operator.drop_waiting(port, full, by)
    _answer(resp, {"key": full, "dropped": True})


def list_webhooks(port: AdminPort, _req: falcon.Request, resp: falcon.Response, by: str) -> None:
    _answer(resp, operator.all_webhooks(port))


def replay_webhook(port: AdminPort, req: falcon.Request, resp: falcon.Response, name: str, by: str) -> None:
    _raw, body = read_json(req)
    since = body.pop("since", None)
    if body:
        raise problem(422, "unknown", "unknown field; expected since", next(iter(body))[:64])
    if isinstance(since, bool) or not isinstance(since, int | float) or not 0 <= since < _LATEST:
        raise problem(422, "value", "expected a time in Unix seconds", "since")
    _answer(resp, {"name": name, "since": since, "waiting": operator.replay_webhook(port, name, since, by)})


# Routes ---------------------------------------------------------------------------------------------------


def _data(data: Body) -> dict[str, Any]:
    return {"type": "object", "required": ["data"], "properties": {"data": data}}


def _list_of(item: Body) -> Body:
    return {"type": "array", "items": item}


def _read(name: str, summary: str, handler: Callable[..., None], data: Body, *parameters: dict[str, Any]) -> Operation:
    return Operation(
        "GET",
        name,
        summary,
        handler,
        scopes=(READ,),
        admit=AdminPort.admit_operator,
        parameters=parameters,
        answers={200: Answer("Done", _data(data))},
        errors=(401, 403, 404, 422, 429, 503),
    )


def _act(
    method: str, name: str, summary: str, handler: Callable[..., None], answers: dict[int, Answer], body: Any = None
) -> Operation:
    return Operation(
        method,
        name,
        summary,
        handler,
        scopes=(OPERATE,),
        admit=AdminPort.admit_operator,
        answers=answers,
        body=body,
        errors=(400, 401, 403, 404, 409, 413, 415, 422, 429, 503),
    )


_OBJECT = {"type": "object"}
_DONE = {200: Answer("Done", _data(_OBJECT))}
_KEY = (in_path("key", str),)
_NAME = (in_path("name", str),)
_REF = (in_path("ref", status.Ref),)
_CALL_FILTERS = (
    *(in_query(field, status.State if field == "state" else str) for field in calls.FILTERS),
    in_query("live", bool, "only live calls, each with its age in seconds"),
    *_PAGING.parameters,
)


def _breaker(action: str, operation: Operation) -> Route:
    # A scope is a level, or a level and a destination with a slash between them.
    return Route(
        f"/v1/breakers/{{key}}/{action}",
        (operation,),
        _KEY,
        (f"/v1/breakers/{{key}}/{action}", f"/v1/breakers/{{key}}/{{destination}}/{action}"),
    )


ROUTES = (
    Route("/v1/status", (_read("getStatus", "This node and the whole installation", get_status, schemas.Overview),)),
    Route("/v1/nodes", (_read("listNodes", "All processes, as they report", list_nodes, _list_of(schemas.Process)),)),
    Route("/v1/switches", (_read("listSwitches", "As each node sees them", list_switches, _list_of(_OBJECT)),)),
    Route(
        "/v1/switches/{name}/pause",
        (_act("POST", "pauseSwitch", "Place no calls on it, on any node", pause_switch, _DONE),),
        _NAME,
    ),
    Route(
        "/v1/switches/{name}/resume",
        (_act("POST", "resumeSwitch", "Place calls on it again", resume_switch, _DONE),),
        _NAME,
    ),
    Route(
        "/v1/calls",
        (
            _read(
                "listAllCalls",
                "Live and recent calls of all applications, newest first",
                list_calls,
                _list_of(_OBJECT),
                *_CALL_FILTERS,
            ),
        ),
    ),
    Route(
        "/v1/calls/{ref}",
        (
            _read("getAnyCall", "One call, with its timeline and decisions", get_call, schemas.Call),
            _act(
                "DELETE",
                "endCall",
                "Hang up a call of any application, in any state",
                end_call,
                {
                    200: Answer("It had already ended; this is its record", _data(schemas.Call)),
                    202: Answer("It is being ended", _data(_OBJECT)),
                },
            ),
        ),
        _REF,
    ),
    Route(
        "/v1/records",
        (
            replace(
                _read(
                    "listAllRecords",
                    "Records of all applications, the latest call first, as JSON or (Accept: text/csv) as a table",
                    list_records,
                    _list_of(_OBJECT),
                    in_query("integrator", str, "Empty: calls of no integrator"),
                    in_query("account_id", str),
                    *record_query.PARAMETERS,
                ),
                answers={
                    200: Answer("Done", _data(_list_of(_OBJECT)), also=record_query.TABLE, headers=record_query.LINK)
                },
                errors=(401, 403, 406, 422, 429, 503),
            ),
        ),
    ),
    Route("/v1/locks", (_read("listLocks", "What wrong PINs have locked", list_locks, _list_of(_OBJECT)),)),
    Route(
        "/v1/locks/{key}",
        (_act("DELETE", "liftLock", "Open a lock", lift_lock, _DONE),),
        _KEY,
        ("/v1/locks/{key:path}",),
    ),
    Route("/v1/breakers", (_read("listBreakers", "Tripped, ready, and the log", list_breakers, _OBJECT),)),
    _breaker("trip", _act("POST", "tripBreaker", "Trip a breaker by hand", trip_breaker, _DONE, schemas.Trip)),
    _breaker("reset", _act("POST", "resetBreaker", "Let a breaker count from zero", reset_breaker, _DONE)),
    Route(
        "/v1/callbacks",
        (_read("listCallbacks", "Callbacks and autodials that wait", list_waiting, _list_of(_OBJECT)),),
    ),
    Route(
        "/v1/callbacks/{key}",
        (_act("DELETE", "dropCallback", "Drop a waiting call: a number, or APPLICATION/KEY", drop_waiting, _DONE),),
        _KEY,
        ("/v1/callbacks/{key:path}",),
    ),
    Route(
        "/v1/webhooks",
        (
            _read(
                "listWebhooks", "What waits for each webhook, and how it goes", list_webhooks, _list_of(schemas.Webhook)
            ),
        ),
    ),
    Route(
        "/v1/webhooks/{name}/replay",
        (
            _act(
                "POST",
                "replayWebhook",
                "Deliver what was pushed since a time again, and switch the webhook on",
                replay_webhook,
                {200: Answer("Done; waiting: how many notifications wait now", _data(_OBJECT))},
                schemas.Replay,
            ),
        ),
        _NAME,
    ),
)
