"""Reference pages that are read from the code: configuration, metrics, HTTP, command line, records.

Each directive writes reStructuredText and has Sphinx parse it. A difference between the code and a data file of
``reference/`` is a warning.
"""

from __future__ import annotations

import argparse
import ast
import csv
import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import phonenumbers
from docutils import nodes
from repository import ROOT
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

_log = logging.getLogger(__name__)


def text(plain: str) -> str:
    """Plain text, with `code` in backticks, as reStructuredText."""
    parts = plain.split("`")
    marked = [
        re.sub(r"([*|_\\])", r"\\\1", part) if number % 2 == 0 else f"``{part}``" for number, part in enumerate(parts)
    ]
    return "".join(marked)


def table(headings: list[str], rows: list[list[str]], widths: str = "auto") -> list[str]:
    """A list-table; a cell is one line of reStructuredText."""
    lines = ["", ".. list-table::", "   :header-rows: 1", f"   :widths: {widths}", ""]
    for row in [headings, *rows]:
        lines += [f"   {'* -' if number == 0 else '  -'} {cell}".rstrip() for number, cell in enumerate(row)]
    return [*lines, ""]


def heading(title: str, underline: str) -> list[str]:
    return ["", title, underline * max(4, len(title)), ""]


class Generated(SphinxDirective):
    """A directive whose content is lines of reStructuredText."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # the code isn't a file of the site, so look each time
        return self.parse_text_to_nodes("\n".join(self.lines()), allow_section_headings=True)

    def lines(self) -> Iterator[str]:
        raise NotImplementedError


# Configuration ------------------------------------------------------------------------------------


#: The placeholder in a path for a key of a mapping by name.
_NAMES = {
    "accounts": "ACCOUNT",
    "users": "USER",
    "disa": "NAME",
    "inbound": "NUMBER",
    "destinations": "DESTINATION",
}
#: Sections that are the same in several places, and the place where they are described.
_SHARED = {
    "Rate": "admin.rate",
    "Tls": "admin.tls",
    "Limits": "spending.limits",
    "DestinationLimits": "spending.limits",
    "Breaker": "spending.breaker",
    "DestinationBreaker": "spending.breaker",
}


class ConfigKeys(Generated):
    """Every key: its type, its default, and the docstring below its field."""

    def lines(self) -> Iterator[str]:
        from esl_apps.config.model import Config

        for name, note, item in self._fields(msgspec.inspect.type_info(Config)):
            self._rows: list[list[str]] = []
            self._add(name, note, item)
            yield f".. _config-{re.sub(r'[^a-z]+', '-', name)}:"
            yield from ["", f".. index:: pair: configuration; {name}", ""]
            yield from heading(name, "~")
            if isinstance(self._struct(item.type)[0], msgspec.inspect.StructType):
                yield text(note)
            rows = [row for row in self._rows if row[1] or len(self._rows) == 1]
            yield from table(["Key", "Type and default", "Meaning"], rows, "34 24 42")

    @staticmethod
    def _fields(struct: msgspec.inspect.StructType) -> Iterator[tuple[str, str, msgspec.inspect.Field]]:
        from esl_apps.config.reference import descriptions

        notes = descriptions(struct.cls)  # type: ignore[arg-type]
        for item in struct.fields:
            yield item.encode_name, notes[item.encode_name], item

    def _struct(self, kind: Any) -> tuple[Any, str]:
        """Return the type that a key holds, and the next step of its path: ``[]`` in a list, ``.NAME`` in a mapping."""
        if isinstance(kind, msgspec.inspect.UnionType):
            kinds = [one for one in kind.types if isinstance(one, msgspec.inspect.StructType)]
            return (kinds[0], "") if kinds else (kind, "")
        if isinstance(kind, msgspec.inspect.ListType):
            return (kind.item_type, "[]") if isinstance(kind.item_type, msgspec.inspect.StructType) else (kind, "")
        if isinstance(kind, msgspec.inspect.DictType):
            return (kind.value_type, ".") if isinstance(kind.value_type, msgspec.inspect.StructType) else (kind, "")
        return kind, ""

    def _add(self, path: str, note: str, item: msgspec.inspect.Field) -> None:
        kind, step = self._struct(item.type)
        name = kind.cls.__name__ if isinstance(kind, msgspec.inspect.StructType) else ""
        shared = _SHARED.get(name, path)
        whole = not name or name == "Rule" or (shared != path and "tls" in path)
        if whole or shared != path:
            shown = self._kind(item) if whole else f"as ``{shared}``"
            self._rows.append([f"``{path}``", shown, text(note)])
            return
        optional = step or item.required or isinstance(item.type, msgspec.inspect.UnionType)
        self._rows.append([f"``{path}``", self._kind(item) if optional else "", text(note)])
        if step == ".":
            step = "." + _NAMES.get(path.rpartition(".")[2], "NAME")
        for inner, inner_note, field in self._fields(kind):
            self._add(f"{path}{step}.{inner}", inner_note, field)

    def _kind(self, item: Any) -> str:
        kind = self._type(item.type)
        if item.required:
            return f"{kind}, required"
        default = item.default if item.default is not msgspec.NODEFAULT else item.default_factory
        if callable(default):
            default = default()
        if isinstance(default, msgspec.Struct) or default in ([], {}):
            return kind if isinstance(default, msgspec.Struct) else f"{kind}; empty"
        shown = default if isinstance(default, str) else json.dumps(default, ensure_ascii=False)
        return f"{kind}; ``{shown}``" if shown else f"{kind}; empty"

    def _type(self, kind: Any) -> str:
        i = msgspec.inspect
        match kind:
            case i.Metadata():
                expected = (kind.extra or {}).get("expected")
                return text(expected) if expected else self._type(kind.type)
            case i.BoolType():
                return "true or false"
            case i.IntType() | i.FloatType():
                name = "integer" if isinstance(kind, i.IntType) else "number"
                low = f"{kind.ge:g}" if kind.ge is not None else f"over {kind.gt:g}" if kind.gt is not None else ""
                if kind.le is not None:
                    return f"{name}, {low or 'at most'}{' to ' if low else ' '}{kind.le:g}"
                return f"{name}, {low}{'' if low.startswith('over') else ' or more'}" if low else name
            case i.StrType():
                return "text"
            case i.LiteralType():
                return " or ".join("false" if value is False else f"``{value}``" for value in kind.values)
            case i.NoneType():
                return "null"
            case i.UnionType():
                return " or ".join(
                    dict.fromkeys(self._type(one) for one in kind.types if not isinstance(one, i.NoneType))
                )
            case i.ListType():
                return "list" if isinstance(kind.item_type, i.StructType) else f"list of {self._type(kind.item_type)}"
            case i.DictType():
                return "mapping"
            case i.StructType():
                return "``{" + ", ".join(field.encode_name for field in kind.fields) + "}``"
        return type(kind).__name__


# Metrics ------------------------------------------------------------------------------------------


class MetricsTable(Generated):
    def lines(self) -> Iterator[str]:
        from esl_apps.observe.metrics import Metrics

        rows = []
        for collector in Metrics().registry._collector_to_names:
            if hasattr(collector, "_name"):
                described = [(collector._name, collector._type, collector._documentation, collector._labelnames)]
            elif type(collector).__module__.startswith("esl_apps."):
                described = [(one.name, one.type, one.documentation, one._labelnames) for one in collector.describe()]
            else:  # the process's own, which prometheus_client documents
                continue
            for name, kind, documentation, labels in described:
                rows.append([
                    f"``{name}{'_total' if kind == 'counter' else ''}``",
                    kind,
                    ", ".join(f"``{label}``" for label in labels),
                    text(documentation) + ".",
                ])  # fmt: skip
        yield from ["", ".. index::", *(f"   pair: metric; {row[0].strip('`')}" for row in sorted(rows)), ""]
        yield from table(["Metric", "Type", "Labels", "Meaning"], sorted(rows), "38 12 16 34")


# Command line -------------------------------------------------------------------------------------


class CommandLine(Generated):
    def lines(self) -> Iterator[str]:
        from esl_apps.cli.parser import parser

        for name, sub in parser().commands.items():
            yield f".. _command-{name}:"
            yield from ["", f".. index:: pair: command; {name}", ""]
            yield from heading(f"esl-apps {name}", "~")
            yield text((sub.description or "")[:1].upper() + (sub.description or "")[1:]).rstrip(".") + "."
            yield from self._usage(sub)
            rows = [row for action in sub._actions if (row := self._row(action))]
            if rows:
                yield from table(["Argument", "Meaning"], rows, "35 65")

    def _usage(self, sub: argparse.ArgumentParser) -> Iterator[str]:
        usage = " ".join(sub.format_usage().removeprefix("usage: ").replace(" [-h]", "").split())
        yield from ["", ".. code-block:: none", "", f"   {usage}", ""]

    @staticmethod
    def _row(action: argparse.Action) -> list[str] | None:
        if isinstance(action, argparse._HelpAction) or action.dest == "config":  # the page describes -c once
            return None
        value = action.metavar or (
            None if action.nargs == 0 else (action.dest if not action.option_strings else action.dest.upper())
        )
        if action.choices is not None:
            value = "|".join(map(str, action.choices))
        shown = ", ".join(f"{option} {value}" if value else option for option in action.option_strings) or str(value)
        default = "" if action.default in (None, False, argparse.SUPPRESS) else str(action.default)
        meaning = (action.help or "").replace("%(default)s", default)
        if default and default not in meaning:
            meaning = f"{meaning} (default: `{default}`)" if meaning else f"default: `{default}`"
        meaning = re.sub(r"(?<![\w`/:])(\$?[A-Z_]{2,}:[A-Z]+|--[a-z-]+)(?![\w`])", r"`\1`", meaning)
        return [f"``{shown}``", text(meaning[:1].upper() + meaning[1:]) + "."] if meaning else None


class ExitStatuses(Generated):
    def lines(self) -> Iterator[str]:
        from esl_apps.cli.exit_status import MEANING

        rows = [
            [f"``{status.value}``", text(f"{meaning[:1].upper()}{meaning[1:]}.")] for status, meaning in MEANING.items()
        ]
        yield from table(["Status", "Meaning"], rows, "10 90")


# HTTP ---------------------------------------------------------------------------------------------


def documents() -> dict[str, dict[str, Any]]:
    """The OpenAPI documents of an integrator's port and of the admin port, with the default patterns."""
    from esl_apps.core.numbers import NumberPlan
    from esl_apps.core.order import IntegratorRules
    from esl_apps.http import admin, integrator, openapi, schemas

    client = IntegratorRules("acme", NumberPlan("ZA", r"^\d{3,4}$", {}, []))
    return {
        "integrator": openapi.document(integrator.API, {"Order": schemas.order(client)}),
        "admin": openapi.document(admin.API),
    }


def _scopes(port: str) -> dict[str, tuple[str, ...] | None]:
    """The scopes of each operation, by its name; None: open to everyone."""
    from esl_apps.http import admin, integrator

    api = {"integrator": integrator.API, "admin": admin.API}[port]
    return {one.name: one.scopes for route in api.routes for one in route.operations}


class OpenApi(Generated):
    """``.. openapi:: integrator``: each request of that port."""

    required_arguments = 1

    def lines(self) -> Iterator[str]:
        document = documents()[self.arguments[0]]
        scopes = _scopes(self.arguments[0])
        self._schemas = document["components"]["schemas"]
        for path, item in document["paths"].items():
            for method, operation in item.items():
                if method == "parameters":
                    continue
                yield from heading(f"{method.upper()} {path}", "~")
                needed = scopes[operation["operationId"]]
                told = "No token" if needed is None else f"Scope: {' or '.join(f'``{scope}``' for scope in needed)}"
                yield f"{text(operation['summary'])}. {told}."
                if operation.get("deprecated"):
                    yield from ["", "*Deprecated.*", ""]
                parameters = [*item.get("parameters", []), *operation.get("parameters", [])]
                rows = [
                    self._field(
                        one["name"],
                        one["schema"],
                        one.get("description", ""),
                        f"{one['in']}{', required' if one.get('required') else ''}",
                    )
                    for one in parameters
                ]
                if body := operation.get("requestBody"):
                    rows += self._body(body["content"]["application/json"]["schema"])
                if rows:
                    yield from table(["Name", "In", "Accepted"], rows, "24 20 56")
                fine = {status: one for status, one in operation["responses"].items() if status < "400"}
                answers = [
                    [f"``{status}``", text(one["description"]), self._shape(one)] for status, one in fine.items()
                ]
                yield from table(["Status", "When", "Body"], answers, "10 52 38")
                if errors := [f"``{status}``" for status in operation["responses"] if status >= "400"]:
                    yield from ["", f":ref:`Errors <http-errors>`: {', '.join(errors)}.", ""]

    def _resolve(self, schema: dict[str, Any]) -> dict[str, Any]:
        if "$ref" in schema:
            found: Any = self._schemas
            for part in schema["$ref"].split("/")[3:]:
                found = found[part]
            return found  # type: ignore[no-any-return]
        return schema

    def _body(self, schema: dict[str, Any], prefix: str = "") -> list[list[str]]:
        schema = self._resolve(schema)
        properties = schema.get("properties", {})
        if set(properties) == {"data"}:
            return self._body(properties["data"], "data.")
        required = schema.get("required", [])
        return [
            self._field(
                prefix + name, one, one.get("description", ""), "body, required" if name in required else "body"
            )
            for name, one in properties.items()
        ]

    def _field(self, name: str, schema: dict[str, Any], note: str, where: str) -> list[str]:
        schema = self._resolve(schema)
        note = note or schema.get("description", "")
        kind = schema.get("type", "")
        said = [text(note)] if note else []
        if "enum" in schema:
            said.append(", ".join(f"``{value}``" for value in schema["enum"]))
        elif "pattern" in schema:
            said.append(f"``{schema['pattern']}``")
        elif kind and kind != "string":
            low, high = schema.get("minimum"), schema.get("maximum")
            bounds = (
                f" from {low} to {high}"
                if low is not None and high is not None
                else f", {low} or more"
                if low is not None
                else ""
            )
            said.append(kind + bounds)
        if "default" in schema and schema["default"] != "":
            said.append(f"default ``{json.dumps(schema['default'])}``")
        return [f"``{name}``", where, "; ".join(said)]

    def _shape(self, answer: dict[str, Any]) -> str:
        for kind, content in answer.get("content", {}).items():
            schema = content.get("schema", {})
            if "$ref" in schema:
                return f":ref:`schema-{schema['$ref'].rpartition('/')[2].lower()}`"
            names = schema.get("properties", {}).get("data", {})
            if "$ref" in names:
                return f"``data``: :ref:`schema-{names['$ref'].rpartition('/')[2].lower()}`"
            if "$ref" in names.get("items", {}):
                return f"``data``: list of :ref:`schema-{names['items']['$ref'].rpartition('/')[2].lower()}`"
            return "JSON" if kind == "application/json" else f"``{kind}``"
        return ""


class OpenApiSchemas(Generated):
    """The bodies that answers name."""

    def lines(self) -> Iterator[str]:
        merged = {name: schema for one in documents().values() for name, schema in one["components"]["schemas"].items()}
        for name, schema in merged.items():
            yield f".. _schema-{name.lower()}:"
            yield from heading(name, "~")
            if schema.get("description"):
                yield text(schema["description"]) + "."
            yield from ["", ".. code-block:: json", ""]
            yield from (f"   {line}" for line in json.dumps(schema, indent=2, ensure_ascii=False).split("\n"))
            yield ""


# Redis --------------------------------------------------------------------------------------------


def _redis_keys() -> Iterator[tuple[str, str, str]]:
    """The name, the key with capitals for its parameters, and the meaning of each key of ``store/keys.py``."""
    from esl_apps.store import keys

    source = (ROOT / "esl_apps" / "store" / "keys.py").read_text()
    lines = source.split("\n")
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            parameters = [argument.arg.upper() for argument in node.args.args]
            meaning = (ast.get_docstring(node) or "").replace("``", "`")
            yield node.name, getattr(keys, node.name)(*parameters), " ".join(meaning.split())
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            meaning = lines[node.lineno - 2].removeprefix("#: ").replace("``", "`")
            yield node.targets[0].id, getattr(keys, node.targets[0].id), meaning


class RedisKeys(Generated):
    """Every key in Redis; ``reference/redis_keys.csv`` says how long each is kept."""

    def lines(self) -> Iterator[str]:
        with (ROOT / "docs/reference/redis_keys.csv").open(encoding="utf-8") as file:
            kept = {row["name"]: row["kept"] for row in csv.DictReader(file)}
        rows = []
        from esl_apps.core.versions import KINDS

        versions = {name: str(kind.version) for kind in KINDS for name in kind.keys}
        for name, key, meaning in _redis_keys():
            if name not in kept:
                _log.warning("reference/redis_keys.csv doesn't say how long %s (store/keys.py) is kept", name)
            rows.append([f"``{key}``", kept.pop(name, ""), versions.get(name, ""), text(meaning)])
        for name in kept:
            _log.warning("reference/redis_keys.csv: store/keys.py has no %s", name)
        yield from table(["Key", "Kept", "Version", "Contents"], rows, "38 14 8 40")


# Applications -------------------------------------------------------------------------------------


class ApplicationsTable(Generated):
    """The registry, as other parts of esl_apps read it."""

    def lines(self) -> Iterator[str]:
        from esl_apps.apps import APPLICATIONS

        rows = []
        for ref, one in APPLICATIONS.items():
            traits = [
                *(["begun by a caller"] if one.arrive else []),
                *(["placed by a node"] if one.placed else []),
                *(["begun later, at its time"] if one.timed else []),
                *(["several numbers, a record for each"] if one.session else []),
                *(["recorded if the integrator asks for it"] if one.recorded else []),
            ]
            rows.append(
                [f":ref:`application-{ref}`", f"``{ref}``", f"``/{one.path}``", text(one.title), "; ".join(traits)]
            )
        yield from table(["Application", "``ref``", "Path", "What it does", "Traits"], rows, "14 14 16 30 26")


# Records ------------------------------------------------------------------------------------------


class RecordFields(Generated):
    """The fields of a CDR; ``reference/record_fields.csv`` says what each is."""

    def lines(self) -> Iterator[str]:
        from esl_apps.core.notification import CDR_KEYS, CallRecord

        with (ROOT / "docs/reference/record_fields.csv").open(encoding="utf-8") as file:
            meanings = {row["field"]: row["meaning"] for row in csv.DictReader(file)}
        fields = [*CallRecord.__struct_fields__, "seq"]
        for missing in set(fields) ^ set(meanings):
            _log.warning("reference/record_fields.csv and the record differ: %s", missing)
        rows = [
            [f"``{name}``", "``v3``" if name in (*CDR_KEYS, "seq") else "``v4``", meanings.get(name, "")]
            for name in fields
        ]
        yield from table(["Field", "From", "Meaning"], rows, "22 8 70")


class QualityFields(Generated):
    """The fields of a leg's quality, with their descriptions."""

    def lines(self) -> Iterator[str]:
        from esl_apps.core.quality import LegQuality

        properties = msgspec.json.schema_components([LegQuality])[1]["LegQuality"]["properties"]
        rows = [[f"``{name}``", text(about["description"])] for name, about in properties.items()]
        yield from table(["Field", "Meaning"], rows, "24 76")


class OrderOptions(Generated):
    """The optional fields of a click-to-dial request."""

    def lines(self) -> Iterator[str]:
        from esl_apps.core import call_options

        schemas = call_options.schemas()
        rows = [
            [f"``{name}``", text(schemas[name]["description"]), text(call_options.expected(name))]
            for name in call_options.OPTIONS
        ]
        yield from table(["Field", "Meaning", "Expected"], rows, "18 46 36")


class Notification(Generated):
    """``.. notification:: cdr_v3/click-dial-answered-internal``: a golden file of the tests, broken into lines."""

    required_arguments = 1

    def lines(self) -> Iterator[str]:
        golden = (ROOT / "tests" / "golden" / f"{self.arguments[0]}.json").read_text()
        yield from [".. code-block:: json", ""]
        for line in golden.splitlines():
            yield from (f"   {part}" for part in json.dumps(json.loads(line), indent=2, ensure_ascii=False).split("\n"))
        yield ""


def code_block(value: Any) -> Iterator[str]:
    yield from [".. code-block:: json", ""]
    yield from (f"   {line}" for line in json.dumps(value, indent=2, ensure_ascii=False).split("\n"))
    yield ""


class NotificationSchema(Generated):
    """``.. notification-schema:: cdr v4``: a JSON Schema, made of the Structs."""

    required_arguments = 1
    optional_arguments = 2

    def lines(self) -> Iterator[str]:
        from esl_apps.core import notification_shapes as shapes

        name, *arguments = self.arguments
        shape = shapes.C2dNotification if name == "c2d" else getattr(shapes, name)(*arguments)
        (schema,), defined = shapes.schemas(shape)
        yield from code_block({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "$defs": defined})


class AsyncApi(Generated):
    """``.. asyncapi::``: the document of a client that has everything switched on, in the form v4."""

    def lines(self) -> Iterator[str]:
        from esl_apps.http import asyncapi

        yield from code_block(asyncapi.document(asyncapi.Choices()))


# Numbers and faults -------------------------------------------------------------------------------


class EmergencyNumbers(Generated):
    """The short numbers that are emergency numbers, by region."""

    def lines(self) -> Iterator[str]:
        regions: dict[str, list[str]] = {}
        for region in sorted(phonenumbers.SUPPORTED_SHORT_REGIONS):
            metadata = phonenumbers.PhoneMetadata.short_metadata_for_region(region)
            emergency = metadata and metadata.emergency
            if not emergency:
                continue
            pattern = re.compile(emergency.national_number_pattern or "")
            numbers = [f"{n:0{length}}" for length in emergency.possible_length or () for n in range(10**length)]
            found = ", ".join(number for number in numbers if pattern.fullmatch(number))
            regions.setdefault(found, []).append(region)
        rows = sorted((", ".join(names), numbers) for numbers, names in regions.items())
        yield from table(["Regions", "Emergency numbers"], [list(row) for row in rows], "60 40")


class FaultsTable(Generated):
    """``reference/faults.csv``: what attacks and bug reports showed, and the tests that hold it."""

    def lines(self) -> Iterator[str]:
        with (ROOT / "docs" / "reference" / "faults.csv").open(encoding="utf-8") as file:
            faults = list(csv.DictReader(file))
        rows = [
            [fault["entry"], text(fault["case"]), ", ".join(f":test:`{test}`" for test in fault["tests"].split())]
            for fault in sorted(faults, key=lambda fault: int(fault["entry"]))
        ]
        yield from table(["Entry", "Case", "Tests"], rows, "8 42 50")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("emergency-numbers", EmergencyNumbers)
    app.add_directive("faults-table", FaultsTable)
    app.add_directive("notification", Notification)
    app.add_directive("quality-fields", QualityFields)
    app.add_directive("redis-keys", RedisKeys)
    app.add_directive("notification-schema", NotificationSchema)
    app.add_directive("asyncapi", AsyncApi)
    app.add_directive("applications-table", ApplicationsTable)
    app.add_directive("config-keys", ConfigKeys)
    app.add_directive("metrics-table", MetricsTable)
    app.add_directive("command-line", CommandLine)
    app.add_directive("exit-statuses", ExitStatuses)
    app.add_directive("openapi", OpenApi)
    app.add_directive("openapi-schemas", OpenApiSchemas)
    app.add_directive("record-fields", RecordFields)
    app.add_directive("order-options", OrderOptions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
