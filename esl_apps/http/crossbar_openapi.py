"""Describe the operator's port in OpenAPI."""

from __future__ import annotations

from typing import Any

from esl_apps.http.autodial import _LONGEST_DELAY
from esl_apps.http.desk import _CARDS, _MESSAGES, _MOST
from esl_apps.store.card_fields import CARD_ID, COMMENT_LENGTH, MOST_CONCURRENT_CALLS, NAME, PIN


def describe() -> dict[str, Any]:
    """The paths and schemas (OpenAPI 3.0.3) of what is answered here."""
    card = {
        "user_id": {"type": "string", "pattern": f"^{NAME.pattern}$", "nullable": True},
        "active": {"type": "boolean", "default": False},
        "retain_cid": {"type": "boolean", "default": False, "description": "Show the caller's own number"},
        "max_concurrent_calls_per_user": {
            "type": "integer",
            "minimum": 0,
            "maximum": MOST_CONCURRENT_CALLS,
            "default": 1,
        },
        "comment": {"type": "string", "maxLength": COMMENT_LENGTH, "default": ""},
        "cid": {"type": "string", "description": "The caller number that it is known by; unique over all accounts"},
    }
    pin = {"type": "string", "pattern": f"^{PIN.pattern}$", "writeOnly": True}
    schemas = {
        "CardFields": {
            "type": "object",
            "description": "Exactly one of pin and cid",
            "properties": {**card, "pin": {**pin, "description": "Unique over all accounts, and never shown"}},
        },
        "Card": {"type": "object", "properties": {"id": _ID, **card}},
        "Autodial": {
            "type": "object",
            "required": ["a_leg_number", "b_leg_number"],
            "properties": {
                "a_leg_number": {"type": "string"},
                "b_leg_number": {"type": "string", "description": "A number, or conference:NAME"},
                "callback_delay": {"type": "number", "minimum": 0, "maximum": _LONGEST_DELAY},
                "retain_cid": {"type": "boolean", "default": False},
                "media_id": {"type": "string", "description": "What A hears first: a prompt, or a listed URL"},
            },
        },
        "CrossbarErrors": {
            "type": "object",
            "required": ["data", "error", "message", "status", "request_id"],
            "properties": {
                "data": {"type": "object", "description": "Field, in it a code, in it a message"},
                "error": {"type": "string"},
                "message": {"type": "string"},
                "status": {"type": "string", "enum": ["error"]},
                "request_id": {"type": "string"},
            },
        },
    }
    one_card = _ref("Card")
    several = {"type": "array", "items": one_card}
    paths = {
        _CARDS: {
            "parameters": [_ACCOUNT_ID],
            "get": _operation("listCards", "An account's cards, a page at a time", 200, several, paged=True),
            "put": _operation("createCard", "A new card", 201, one_card, body="CardFields"),
        },
        _CARDS + "/{card_id}": {
            "parameters": [_ACCOUNT_ID, {"name": "card_id", "in": "path", "required": True, "schema": _ID}],
            "get": _operation("getCard", "One card", 200, one_card),
            "post": _operation("replaceCard", "Replace a card's fields", 200, one_card, body="CardFields"),
            "patch": _operation("updateCard", "Change some of a card's fields", 200, one_card, body="CardFields"),
            "delete": _operation("deleteCard", "Delete a card", 200, one_card),
        },
        _CARDS + "/autodial": {
            "parameters": [_ACCOUNT_ID],
            "put": _operation(
                "autodial",
                "Ring A, then join it with B",
                201,
                {"type": "object", "properties": {"call_ref": {"type": "string"}, "state": {"type": "string"}}},
                body="Autodial",
            ),
        },
    }
    return {"paths": paths, "schemas": schemas}


_ID = {"type": "string", "pattern": f"^{CARD_ID.pattern}$"}
_ACCOUNT_ID = {
    "name": "account_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": f"^{NAME.pattern}$"},
}
_PAGING = [
    {"name": "start_key", "in": "query", "schema": _ID, "description": "`next_start_key` of the page before"},
    {"name": "page_size", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": _MOST}},
]


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _operation(
    name: str, summary: str, status: int, data: dict[str, Any], *, body: str | None = None, paged: bool = False
) -> dict[str, Any]:
    def content(schema: dict[str, Any]) -> dict[str, Any]:
        return {"application/json": {"schema": schema}}

    envelope = {
        "type": "object",
        "required": ["data", "status", "request_id"],
        "properties": {
            "data": data,
            "status": {"type": "string", "enum": ["success"]},
            "request_id": {"type": "string"},
            **({"page_size": {"type": "integer"}, "next_start_key": _ID} if paged else {}),
        },
    }
    failures = (400, 401, 403, 404, 429, 503) if body is None else (400, 401, 403, 404, 413, 415, 429, 503)
    result: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "responses": {
            str(status): {"description": "Done", "content": content(envelope)},
            **{
                str(code): {"description": _MESSAGES[code], "content": content(_ref("CrossbarErrors"))}
                for code in failures
            },
        },
    }
    if body is not None:
        wrapped = {"type": "object", "required": ["data"], "properties": {"data": _ref(body)}}
        result["requestBody"] = {"required": True, "content": content(wrapped)}
    if paged:
        result["parameters"] = _PAGING
    return result
