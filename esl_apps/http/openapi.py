"""``/openapi.json``: the integrator's API, with the patterns that this integrator's requests are read by."""

from __future__ import annotations

from typing import Any

from esl_apps import __version__
from esl_apps.core import terms
from esl_apps.core.order import CONTACT_REF_LENGTH, Client

_REF = {"type": "string", "pattern": "^[0-9a-f-]{36}$", "description": "A call's reference: a UUID, version 7."}
_JSON = "application/json"
_RECORDING = {
    "name": "name",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": r"^[0-9a-f-]{36}\.wav$"},
}


def _response(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {_JSON: {"schema": schema}}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _errors(*statuses: int) -> dict[str, Any]:
    text = {
        400: "Not JSON, or a parameter that can't be read",
        401: "No token, or a wrong one",
        403: "The token lacks the scope that this needs; message names it",
        404: "Not there, or another integrator's",
        405: "No such method",
        409: "The idempotency key came with another body, or its first request is still running",
        413: "The body is too large",
        415: "Not application/json",
        416: "A range that the recording does not have",
        422: "A field is wrong: nothing was dialled",
        429: "Too many requests of this token or address, too many wrong tokens from it, or a limit "
        "of calls or minutes is reached: nothing was dialled; Retry-After says in how many seconds to ask again",
        503: "No switch, no Redis, or a breaker has tripped; Retry-After says when to ask again",
    }
    return {str(status): _response(text[status], _ref("Errors")) | _retry(status) for status in statuses}


def _retry(status: int) -> dict[str, Any]:
    if status not in (429, 503):
        return {}
    schema = {"type": "integer", "minimum": 1}
    return {"headers": {"Retry-After": {"schema": schema, "description": "Whole seconds"}}}


def describe(client: Client) -> dict[str, Any]:
    """The document (OpenAPI 3.0.3, which most generators read)."""
    ref_parameter = {"name": "ref", "in": "path", "required": True, "schema": _REF}
    accepted = _response("Accepted", _ref("Accepted"))
    accepted["headers"] = {"Location": {"schema": {"type": "string"}, "description": "The call's resource"}}
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "esl_apps click-to-dial",
            "version": __version__,
            "description": "Ring an agent's phone and connect it to a callee. "
            "Each call's record arrives in a Redis list.",
        },
        "security": [{"bearer": []}, {"token": []}],
        "paths": {
            "/click2dial/calls": {
                "post": {
                    "operationId": "createCall",
                    "summary": "Ring the agent; when it answers, dial the callee",
                    "parameters": [
                        {
                            "name": "Idempotency-Key",
                            "in": "header",
                            "required": False,
                            "schema": {"type": "string", "pattern": "^[!-~]{1,200}$"},
                            "description": "Again within 24 hours: the same call, none dialled",
                        },
                        {
                            "name": "dry_run",
                            "in": "query",
                            "required": False,
                            "schema": {"type": "string", "enum": ["1", "true"]},
                            "description": "Every check and its verdict; nothing is dialled",
                        },
                    ],
                    "requestBody": {"required": True, "content": {_JSON: {"schema": _ref("Order")}}},
                    "responses": {
                        "200": _response("A dry run's verdicts", _ref("DryRun")),
                        "202": accepted,
                        **_errors(400, 401, 403, 409, 413, 415, 422, 429, 503),
                    },
                },
                "get": {
                    "operationId": "listCalls",
                    "summary": "Live and recent calls, newest first",
                    "parameters": [
                        {"name": "state", "in": "query", "schema": {"type": "string", "enum": list(terms.STATES)}},
                        {"name": "agent", "in": "query", "schema": {"type": "string"}},
                        {"name": "contact_ref", "in": "query", "schema": {"type": "string"}},
                        {
                            "name": "limit",
                            "in": "query",
                            "schema": {"type": "integer", "minimum": 1, "maximum": 500, "default": 50},
                        },
                        {"name": "before", "in": "query", "schema": _REF, "description": "`next` of the page before"},
                    ],
                    "responses": {"200": _response("A page", _ref("Page")), **_errors(400, 401, 403, 422, 429, 503)},
                },
            },
            "/click2dial/calls/{ref}": {
                "get": {
                    "operationId": "getCall",
                    "summary": "One call, with its timeline",
                    "parameters": [ref_parameter],
                    "responses": {"200": _response("The call", _ref("Call")), **_errors(401, 403, 404, 429, 503)},
                },
                "delete": {
                    "operationId": "cancelCall",
                    "summary": "Cancel or hang up, in any state",
                    "parameters": [ref_parameter],
                    "responses": {
                        "200": _response("It had ended already: the record", _ref("Call")),
                        "202": _response("It is being ended", _ref("Accepted")),
                        **_errors(401, 403, 404, 429, 503),
                    },
                },
            },
            "/click2dial/recordings/{name}": {
                "get": {
                    "operationId": "getRecording",
                    "summary": "A recording: stereo WAV, the agent left; Range is understood",
                    "security": [{"bearer": []}, {"token": []}, {"link": []}],
                    "parameters": [
                        _RECORDING,
                        {
                            "name": "expires",
                            "in": "query",
                            "schema": {"type": "string", "pattern": "^[0-9]{1,12}$"},
                            "description": "Of a signed link, with `signature`: until when it is good (Unix seconds)",
                        },
                    ],
                    "responses": {
                        "200": {"description": "The whole", "content": {"audio/wav": {}}},
                        "206": {"description": "The range", "content": {"audio/wav": {}}},
                        **_errors(401, 403, 404, 416, 429),
                    },
                }
            },
            "/click2dial/recordings/{name}/link": {
                "post": {
                    "operationId": "createRecordingLink",
                    "summary": "An address of a recording that needs no token, until it expires",
                    "parameters": [_RECORDING],
                    "requestBody": {"required": True, "content": {_JSON: {"schema": _ref("LinkOrder")}}},
                    "responses": {
                        "200": _response("The link", _ref("Link")),
                        **_errors(400, 401, 403, 404, 413, 415, 422, 429),
                    },
                }
            },
            "/call.php": {"get": _legacy(accepted)},
            **_OPERATORS,
        },
        "components": {"securitySchemes": _SECURITY, "schemas": _schemas(client)},
    }


def _legacy(accepted: dict[str, Any]) -> dict[str, Any]:
    fields = ("agent", "callee", "outbound_id", "contact_ref", "call_ref")
    return {
        "operationId": "createCallLegacy",
        "summary": "The deprecated form of createCall: off unless the integrator's legacy_get lists who may use it",
        "deprecated": True,
        "security": [{}, {"bearer": []}, {"token": []}],
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": name in fields[:3],
                "schema": {"$ref": f"#/components/schemas/Order/properties/{name}"},
            }
            for name in fields
        ],
        "responses": {"202": accepted, **_errors(401, 403, 404, 422, 429, 503)},
    }


def _status(code: str) -> dict[str, Any]:
    reasons = {"type": "array", "items": {"type": "string"}}
    schema = {"type": "object", "properties": {"status": {"type": "string"}, "reasons": reasons}}
    return _response(code, schema)


#: What the operator's port has beside the cards; the description itself is on every port.
_OPERATORS: dict[str, Any] = {
    "/healthz": {
        "get": {
            "operationId": "getHealth",
            "summary": "Operator's port: this process answers",
            "security": [],
            "responses": {"200": _status("Alive"), **_errors(429)},
        }
    },
    "/readyz": {
        "get": {
            "operationId": "getReadiness",
            "summary": "Operator's port: a switch and Redis can be reached, and the node is not draining",
            "security": [],
            "responses": {
                "200": _status("Calls are taken"),
                "503": _status("No calls are taken; reasons says why"),
                **_errors(429),
            },
        }
    },
    "/metrics": {
        "get": {
            "operationId": "getMetrics",
            "summary": "Operator's port: Prometheus",
            "security": [],
            "responses": {
                "200": {"description": "Text", "content": {"text/plain": {"schema": {"type": "string"}}}},
                **_errors(429),
            },
        }
    },
    "/openapi.json": {
        "get": {
            "operationId": "getDescription",
            "summary": "This document",
            "security": [],
            "responses": {"200": _response("OpenAPI 3.0", {"type": "object"}), **_errors(429)},
        }
    },
}

_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
    "link": {"type": "apiKey", "in": "query", "name": "signature", "description": "Of a signed link, with `expires`"},
}


def _schemas(client: Client) -> dict[str, Any]:
    def text(field: str) -> dict[str, Any]:
        return {
            "type": "string",
            "pattern": f"^(?:{client.patterns[field]})$",
            "description": client.expected(field),
        }

    contact_ref = text("contact_ref")
    contact_ref["description"] += f"; cut at {CONTACT_REF_LENGTH} characters; made when absent"
    time = {"type": "number", "nullable": True, "description": "Unix seconds"}
    string = {"type": "string", "nullable": True}
    return {
        "Order": {
            "type": "object",
            "required": ["agent", "callee", "outbound_id"],
            "additionalProperties": False,
            "properties": {
                "agent": text("agent"),
                "callee": text("callee"),
                "outbound_id": text("outbound_id"),
                "contact_ref": contact_ref,
                "call_ref": {**contact_ref, "description": "contact_ref in the form before v3.0.0"},
            },
        },
        "Accepted": {
            "type": "object",
            "required": ["call_ref", "contact_ref", "state"],
            "properties": {
                "call_ref": _REF,
                "contact_ref": {"type": "string"},
                "state": {"type": "string", "enum": list(terms.STATES)},
            },
        },
        "DryRun": {
            "type": "object",
            "required": ["dry_run", "ok", "checks"],
            "properties": {
                "dry_run": {"type": "boolean"},
                "ok": {"type": "boolean"},
                "checks": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["check", "ok", "message"],
                        "properties": {
                            "check": {"type": "string"},
                            "ok": {"type": "boolean"},
                            "message": {"type": "string"},
                        },
                    },
                },
            },
        },
        "Call": {
            "type": "object",
            "required": ["call_ref", "contact_ref", "state", "timeline"],
            "properties": {
                "call_ref": _REF,
                "contact_ref": {"type": "string"},
                "state": {"type": "string", "enum": list(terms.STATES)},
                "agent": string,
                "callee": string,
                "outbound_id": string,
                "call_dir": {"type": "string"},
                "switch": string,
                "dialed_at": time,
                "answered_at": time,
                "bridged_at": time,
                "timeline": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["state", "at"],
                        "properties": {
                            "state": {"type": "string", "enum": list(terms.STATES)},
                            "at": {"type": "number"},
                            "detail": {"type": "string"},
                        },
                    },
                },
                "record": {"type": "object", "description": "The CDR, once the call has ended"},
            },
        },
        "Page": {
            "type": "object",
            "required": ["calls", "next"],
            "properties": {
                "calls": {"type": "array", "items": _ref("Call")},
                "next": {**_REF, "nullable": True},
            },
        },
        "LinkOrder": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "expires_in": {
                    "type": "integer",
                    "minimum": 1,
                    "description": "Seconds; an hour where nothing is said, recordings.link_longest at most",
                }
            },
        },
        "Link": {
            "type": "object",
            "required": ["url", "expires_at"],
            "properties": {
                "url": {"type": "string", "description": "Below this port"},
                "expires_at": {"type": "integer", "description": "Unix seconds"},
            },
        },
        "Errors": {
            "type": "object",
            "required": ["errors"],
            "properties": {
                "errors": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["field", "code", "message"],
                        "properties": {
                            "field": {"type": "string"},
                            "code": {"type": "string"},
                            "message": {"type": "string"},
                        },
                    },
                }
            },
        },
    }
