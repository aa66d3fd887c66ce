"""Describe a table of routes for ``/openapi.json`` (OpenAPI 3.0.3, which most generators read)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from esl_apps import __version__
from esl_apps.http import described
from esl_apps.http.errors import ErrorForm
from esl_apps.http.routes import SIGNATURE, TOKEN, Answer, Api, Body, Component, Operation, Route

_REF = "#/components/schemas/"
_JSON = "application/json"
_NULL = {"type": "null"}
_SECURITY: dict[str, dict[str, str]] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
    "link": {
        "type": "apiKey",
        "in": "query",
        "name": SIGNATURE,
        "description": "The signature of a signed link; goes with `expires`",
    },
}
#: Statuses of answers that may say when to ask again.
_LATER = (409, 429, 503)
_RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Whole seconds"}}


def document(api: Api, components: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """:param components: a schema for each ``Component`` of the table."""
    paths = {route.path: _path(route, api.form(route.path)) for route in api.routes}
    schemes = {
        scheme for route in api.routes for operation in route.operations for way in _ways(operation) for scheme in way
    }
    return {
        "openapi": "3.0.3",
        "info": {"title": api.title, "version": __version__, "description": api.description},
        "security": list(TOKEN),
        "paths": paths,
        "components": {
            "securitySchemes": {name: _SECURITY[name] for name in sorted(schemes)},
            "schemas": {**(components or {}), **_schemas(api)},
        },
    }


def describing(make: Callable[[Any], Any]) -> Operation:
    """Return the operation ``GET /openapi.json``; ``make`` returns a port's ``document``."""
    return described.describing("getDescription", "This document", "OpenAPI 3.0", make)


def _schemas(api: Api) -> dict[str, Any]:
    """Return the schema of every Struct that a table uses, directly or within another."""
    structs: dict[type[msgspec.Struct], None] = {}
    for route in api.routes:
        for operation in route.operations:
            bodies = [operation.body, *(answer.body for answer in operation.answers.values())]
            bodies.append(api.form(route.path).body)
            structs.update(dict.fromkeys(struct for body in bodies for struct in _structs_of(body)))
    _refs, schemas = msgspec.json.schema_components(structs, ref_template=_REF + "{name}")
    return {name: _as_3_0(schema) for name, schema in schemas.items()}


def _structs_of(body: Any) -> Iterator[type[msgspec.Struct]]:
    if isinstance(body, type):
        yield body
    elif isinstance(body, Mapping):
        for inner in body.values():
            yield from _structs_of(inner)


def _as_3_0(schema: Any) -> Any:
    """Translate JSON Schema to OpenAPI 3.0, which has ``nullable`` and no type "null"."""
    if isinstance(schema, list):
        return [_as_3_0(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    translated = {key: _as_3_0(inner) for key, inner in schema.items()}
    if isinstance(translated.get("title"), str):
        # It repeats the Struct's name.
        del translated["title"]
    if translated.get("required") == []:
        # Only JSON Schema allows an empty list.
        del translated["required"]
    if _NULL in translated.get("anyOf", []):
        others = [inner for inner in translated.pop("anyOf") if inner != _NULL]
        if len(others) == 1 and "$ref" not in others[0]:
            return {**others[0], **translated, "nullable": True}
        # Next to no ``type``, ``nullable`` allows nothing (OpenAPI 3.0.3).
        return {"anyOf": [*others, {"enum": [None], "nullable": True}], **translated}
    return translated


def _body(body: Body) -> Any:
    """Return a body with references in place of Structs."""
    if isinstance(body, Component):
        return {"$ref": _REF + body.name}
    if isinstance(body, type):
        return {"$ref": _REF + body.__name__}
    if isinstance(body, Mapping):
        return {key: _body(inner) for key, inner in body.items()}
    return body


def _path(route: Route, form: ErrorForm) -> dict[str, Any]:
    item: dict[str, Any] = {"parameters": list(route.parameters)} if route.parameters else {}
    for operation in route.operations:
        item[operation.method.lower()] = _operation(operation, form)
    return item


def _operation(operation: Operation, form: ErrorForm) -> dict[str, Any]:
    described: dict[str, Any] = {"operationId": operation.name, "summary": operation.summary}
    if operation.deprecated:
        described["deprecated"] = True
    ways = _ways(operation)
    if ways != TOKEN:
        described["security"] = list(ways)
    if operation.scopes:
        described["x-scopes"] = list(operation.scopes)
    if operation.parameters:
        described["parameters"] = list(operation.parameters)
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": {_JSON: {"schema": _body(operation.body)}}}
    described["responses"] = {str(status): _answer(answer) for status, answer in operation.answers.items()}
    for status in sorted({*operation.errors, form.wrong}):
        error = _answer(Answer(form.meanings[status], form.body, headers=_RETRY_AFTER if status in _LATER else {}))
        described["responses"].setdefault(str(status), error)
    return described


def _ways(operation: Operation) -> tuple[Mapping[str, list[str]], ...]:
    return () if operation.scopes is None else operation.security


def _answer(answer: Answer) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.meaning}
    if answer.headers:
        described["headers"] = dict(answer.headers)
    content = {} if answer.body is None else {"schema": _body(answer.body)}
    described["content"] = {answer.media: content} | {media: {"schema": {"type": "string"}} for media in answer.also}
    return described
