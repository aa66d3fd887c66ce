"""Checks with JSON Schema and OpenAPI. The libraries are imported late: each worker that collects tests would take half
a second for them."""

from __future__ import annotations

from typing import Any


def validate(value: object, schema: dict[str, Any]) -> None:
    """:raises jsonschema.ValidationError: the value isn't as the schema says."""
    import jsonschema

    jsonschema.validate(value, schema)


def validator(schema: dict[str, Any]) -> Any:
    """A validator of a schema of draft 2020-12."""
    import jsonschema

    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def described(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    """A validator of a schema in an OpenAPI document."""
    from openapi_schema_validator import OAS30Validator

    return OAS30Validator({**schema, "components": document["components"]})


def check_openapi(document: dict[str, Any]) -> None:
    """:raises Exception: the document isn't one of OpenAPI 3.0."""
    from openapi_spec_validator import OpenAPIV30SpecValidator

    OpenAPIV30SpecValidator(document).validate()
