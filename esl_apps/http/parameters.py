"""Parameters of a request as OpenAPI describes them. A schema is a type that msgspec knows, or JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


def in_path(name: str, schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": _schema(schema)}


def in_query(name: str, schema: Any, description: str = "", *, required: bool = False) -> dict[str, Any]:
    return _optional("query", name, schema, description) | ({"required": True} if required else {})


def in_header(name: str, schema: Any, description: str = "") -> dict[str, Any]:
    return _optional("header", name, schema, description)


def _optional(where: str, name: str, schema: Any, description: str) -> dict[str, Any]:
    described = {"name": name, "in": where, "schema": _schema(schema)}
    return described | ({"description": description} if description else {})


def _schema(schema: Any) -> Any:
    return schema if isinstance(schema, Mapping) else msgspec.json.schema(schema)
