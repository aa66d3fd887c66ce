"""Turn a decoding error into file, line, key and what was expected."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import inspect

from esl_apps.config.model import Config

_Step = str | int
_STEP = re.compile(r"\.(callflow\.disa|[^.\[\]]+)|\[(\d+)\]|(\[\.\.\.\])")


def _resolve(where: str, data: Any) -> list[_Step]:
    """msgspec's path as steps. It writes ``[...]`` for whichever key of a mapping: that is the first one that,
    alone in its mapping, gives an error at the same place."""
    template: list[_Step | None] = [
        name or (int(index) if index else None) for name, index, _any in _STEP.findall(where.removeprefix("$"))
    ]
    steps: list[_Step] = []
    for depth, step in enumerate(template):
        if step is not None:
            steps.append(step)
            continue
        mapping = _at(data, steps)
        for key in mapping:
            alone = _replaced(data, steps, {key: mapping[key]})
            found = _error_path(alone)
            if found is not None and found.startswith(_upto(where, depth + 1)):
                data = alone
                steps.append(key)
                break
        else:
            break
    return steps


def _upto(where: str, count: int) -> str:
    """The first steps of msgspec's path."""
    ends = [found.end() for found in _STEP.finditer(where)]
    return where[: ends[count - 1]]


def _error_path(data: Any) -> str | None:
    try:
        msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        return str(error).partition(" - at ")[2].strip("`")
    return None


def _at(data: Any, steps: list[_Step]) -> Any:
    for step in steps:
        data = data[step]
    return data


def _replaced(data: Any, steps: list[_Step], value: Any) -> Any:
    """A copy of the data with another value at a place; what lies beside it is shared."""
    if not steps:
        return value
    copy = data.copy()
    copy[steps[0]] = _replaced(data[steps[0]], steps[1:], value)
    return copy


def _kind_at(steps: list[_Step]) -> Any:
    """The type of a place, as ``msgspec.inspect`` has it."""
    kind: Any = inspect.type_info(Config)
    for step in steps:
        for one in _alternatives(kind):
            if isinstance(one, inspect.StructType):
                found = [entry.type for entry in one.fields if entry.encode_name == step]
                if found:
                    kind = found[0]
            elif isinstance(one, inspect.DictType):
                kind = one.value_type
            elif isinstance(one, inspect.ListType):
                kind = one.item_type
    return kind


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return kind.types if isinstance(kind, inspect.UnionType) else (kind,)


def _known_keys(kind: Any) -> list[str]:
    structs = [one for one in _alternatives(kind) if isinstance(one, inspect.StructType)]
    return [entry.encode_name for one in structs for entry in one.fields]


def _choices(kind: Any) -> list[str]:
    """What may stand at a place that takes words: ``left``, ``right``, or a mapping."""
    found: list[str] = []
    for one in _alternatives(kind):
        if isinstance(one, inspect.LiteralType):
            found += [str(value).lower() if isinstance(value, bool) else str(value) for value in one.values]
        elif isinstance(one, inspect.StructType):
            found.append("a mapping of " + ", ".join(entry.encode_name for entry in one.fields))
    return found
