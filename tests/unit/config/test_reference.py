"""Each key is described in the code, and the shipped file says the same."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import yaml

from esl_apps.config import explain
from esl_apps.config.fields import Section
from esl_apps.config.model import Admin, Config
from esl_apps.config.reference import descriptions
from tests.support.configurations import SHIPPED


def with_examples(text: str) -> str:
    """The shipped file with its examples in comments as if they weren't: a list behind ``[]``."""
    text = re.sub(r": \[\](.*)\n(?=((?: {10,}#.*\n)*) +# - \w)", r":   \1\n", text)
    return re.sub(r"(?m)^( +)# (?=- \w|  \w+: | {20,}#)", r"\1", text)


TEXT = with_examples(SHIPPED.read_text())
LINES = TEXT.split("\n")

#: Keys whose value in the shipped file is an example.
EXAMPLES = {
    "node.advertise",
    "integrators.redis",
    "integrators.record",
    "integrators.caller_ids",
    "integrators.campaigns",
    "integrators.webhooks",
    "cccp.cccp_cb_number",
    "cccp.cccp_cc_number",
    "cccp.last_number_redial_code",
    "cccp.default_caller_id_number",
    "cccp.allowed_callee_regex",
    "accounts.caller_id",
    "accounts.caller_id.name",
    "accounts.integrator",
    "accounts.caller_ids",
    "accounts.call_restriction",
    "accounts.users",
    "accounts.disa",
    "accounts.disa.numbers",
    "accounts.disa.pin",
    "accounts.disa.use_account_caller_id",
    "pin_key",
    "switches",
    "integrators",
    "accounts",
    "inbound",
}


def sections_in(kind: Any) -> Iterator[type[Section]]:
    """The sections that a type holds: itself, or what is in a list, a mapping, a union."""
    if explain.is_section(kind):
        yield kind
    for inner in typing.get_args(kind):
        yield from sections_in(inner)


def all_sections(kind: type[Section] = Config) -> Iterator[type[Section]]:
    yield kind
    for entry in msgspec.structs.fields(kind):
        for inside in sections_in(entry.type):
            yield from all_sections(inside)


def comment_of(key: yaml.Node) -> str:
    """The comment behind a key, and in the lines below it that hold nothing else."""
    line = key.start_mark.line
    behind = re.search(r"(?:^|\s)#\s(.*)$", LINES[line])
    found = [behind[1]] if behind else []
    for below in LINES[line + 1 :]:
        further = re.match(r"\s{20,}#\s(.*)$", below)
        if further is None:
            break
        found.append(further[1])
    return " ".join(found)


def keys_of(kind: type[Section], node: Any, path: str = "") -> Iterator[tuple[str, type[Section], str, str, Any]]:
    """Path, section, key, comment and value of each key in the shipped file."""
    for key, value in node.value:
        if key.value not in explain.fields(kind):
            continue
        here = f"{path}.{key.value}".lstrip(".")
        yield here, kind, key.value, comment_of(key), value
        for inside in sections_in(explain.fields(kind)[key.value].type):
            item = value.value[0] if isinstance(value, yaml.SequenceNode) and value.value else value
            named = isinstance(item, yaml.MappingNode) and item.value and not is_a(inside, item)
            if isinstance(item, yaml.MappingNode):
                yield from keys_of(inside, item.value[0][1] if named else item, here)


def is_a(kind: type[Section], node: yaml.MappingNode) -> bool:
    return node.value[0][0].value in explain.fields(kind)


SHIPPED_KEYS = list(keys_of(Config, yaml.compose(TEXT)))


def origin(kind: type[Section], key: str) -> tuple[type, str]:
    """A key, and the section that it is inherited from."""
    parents = [parent for parent in reversed(kind.__mro__) if issubclass(parent, Section)]
    return next(parent for parent in parents if key in explain.fields(parent)), key


@pytest.mark.parametrize("kind", sorted(set(all_sections()), key=repr))
def test_every_key_is_described_by_a_sentence(kind: type[Section]) -> None:
    for key, text in descriptions(kind).items():
        assert re.match(r"[^\s].*[.:…]$", text), f"{kind.__name__}.{key}: {text!r}"


def test_inherited_key_has_the_description_of_its_class() -> None:
    assert descriptions(Admin)["token"] == "The bearer token."


def test_shipped_comment_is_the_description() -> None:
    assert len(SHIPPED_KEYS) > 150
    for path, kind, key, comment, _node in SHIPPED_KEYS:
        inherited = key in ("token", "token_hash")
        if comment and not inherited:
            described = descriptions(kind)[key].rstrip(".")
            assert comment.rstrip(".").casefold() == described.casefold(), path


def test_shipped_file_has_every_key() -> None:
    """As a key, or named in a comment of a key that holds its section."""
    shown = {origin(kind, key) for _path, kind, key, _comment, _node in SHIPPED_KEYS}
    comments: dict[type[Section], str] = {}
    for _path, kind, key, comment, _node in SHIPPED_KEYS:
        for inside in sections_in(explain.fields(kind)[key].type):
            comments[inside] = f"{comments.get(inside, '')} {comment}"
    assert [
        f"{kind.__name__}.{key}"
        for kind in set(all_sections())
        for key in explain.fields(kind)
        if origin(kind, key) not in shown and not re.search(rf"\b{key}\b", comments.get(kind, ""))
    ] == []


def test_shipped_value_is_the_default() -> None:
    for path, kind, key, _comment, node in SHIPPED_KEYS:
        entry = explain.fields(kind)[key]
        if entry.required or key in ("token",) or path in EXAMPLES:
            continue
        default = entry.default_factory() if entry.default is msgspec.NODEFAULT else entry.default
        if isinstance(default, Section):
            continue  # Its keys are compared one by one.
        loader = yaml.SafeLoader("")
        assert loader.construct_document(node) == default, path
