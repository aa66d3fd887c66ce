"""YAML as data: values, the environment, aliases, and what is wrong with a single value."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from msgspec.structs import replace

from esl_apps.config import parse, reader
from tests.support.configurations import LEAST, SECRETS, SHIPPED, problems_of, read, refusal

# Accepted texts -------------------------------------------------------------------------------------------


def test_json_is_read_as_yaml() -> None:
    text = json.dumps(yaml.safe_load(SHIPPED.read_text()), indent=1)
    as_json, as_yaml = parse(text, SECRETS), parse(SHIPPED.read_text(), SECRETS)
    # Warnings have lines.
    assert replace(as_json, notes=()) == replace(as_yaml, notes=())


def test_json_escaped_pair_is_one_character() -> None:
    assert read(f"pin_key: {json.dumps('a😀')}\n").pin_key == "a😀"


def test_json_half_of_a_pair_is_refused() -> None:
    told = "half a character: \\ud800 to \\udfff are written in pairs"
    assert refusal('pin_key: "\\ud83d"\n') == f"f.yml:6: pin_key: {told}"
    assert refusal('accounts: {"\\ud83d": {}}\n') == f"f.yml:6: accounts: {told}"


def test_key_that_yaml_reads_as_false_stays_text() -> None:
    assert "NO" in read("accounts: {NO: {}}\n").accounts


def test_parser_without_libyaml_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = reader.read(SHIPPED.read_text(), SECRETS, "f.yml")
    monkeypatch.setattr(reader, "FAST_LOADER", yaml.SafeLoader)
    slow = reader.read(SHIPPED.read_text(), SECRETS, "f.yml")
    assert (slow.data, slow.lines) == (fast.data, fast.lines)


# The environment ------------------------------------------------------------------------------------------


def test_variables_are_replaced() -> None:
    made = read(
        'pin_key: "${A}"\nredis: {url: "redis://:${B}@${HOST_1}:6379/0"}\n', {"A": "k", "B": "p", "HOST_1": "h"}
    )
    assert (made.pin_key, made.redis.url) == ("k", "redis://:p@h:6379/0")


@pytest.mark.parametrize(
    "value", ["a: b", "x\ninjected: 1", "${OTHER}", "{", "'\"", "# no comment", "5", "true", "null"]
)
@pytest.mark.parametrize("quoted", ["'${A}'", '"${A}"', "${A}"])
def test_variable_is_text_not_yaml(value: str, quoted: str) -> None:
    assert read(f"pin_key: {quoted}\n", {"A": value, "OTHER": "x"}).pin_key == value


@pytest.mark.parametrize("environ", [{}, {"PIN_KEY": ""}])
def test_unset_variable_is_refused(environ: dict[str, str]) -> None:
    told = "the environment variable PIN_KEY is not set, or is empty"
    assert refusal('pin_key:\n  "${PIN_KEY}"\n', environ) == f"f.yml:7: pin_key: {told}"


def test_all_unset_variables_are_reported() -> None:
    told = problems_of(SHIPPED.read_text())
    assert [re.search(r"[A-Z_]{5,}", line)[0] for line in told] == [  # type: ignore[index]
        "PIN_KEY",
        "FS_PASSWORD",
        "ADMIN_TOKEN",
        "ACME_TOKEN",
        "ACME_ADMIN_TOKEN",
    ]


def test_two_unset_variables_in_one_value_are_reported() -> None:
    told = problems_of(LEAST + "pin_key: '${A}${B}${A}'\n")
    assert told == [f"f.yml:6: pin_key: the environment variable {name} is not set, or is empty" for name in "AB"]


def test_dollar_that_names_nothing_stays() -> None:
    assert read("pin_key: 'a$b$$$(c)$1{'\n").pin_key == "a$b$$$(c)$1{"


@pytest.mark.parametrize(
    "value",
    [
        "${A:-0123456789abcdef}",
        "${A-default}",
        "${A:?unset}",
        "${ADMIN-TOKEN}",
        "${ADMIN TOKEN}",
        "${1}",
        "${}",
        "${ A }",
        "${A",
        "${A}${B",
        "${${A}}",
        "redis://:${A:-secret}@127.0.0.1:6379/0",
    ],
)
def test_variable_in_a_form_that_is_not_read_is_refused(value: str) -> None:
    told = "expected ${NAME}; defaults (:-) and other forms aren't supported"
    assert refusal(f"pin_key:\n  '{value}'\n", {"A": "k", "B": "p"}) == f"f.yml:7: pin_key: {told}"


def test_variable_in_a_comment_is_not_needed() -> None:
    assert read("# ${NOT_THERE}\n").pin_key is None


# Single values --------------------------------------------------------------------------------------------


def test_duplicate_key_names_the_first() -> None:
    assert refusal("callback:\n  retries: 1\n  retries: 2\n") == (
        "f.yml:8: callback.retries: duplicate key; it is in line 7 already"
    )


def test_duplicate_key_does_not_hide_other_problems() -> None:
    told = problems_of(LEAST + "trust: []\ntrust: [x]\ncallback: {retries: x}\n")
    assert [line.split(":")[1:3] for line in told] == [["7", " trust"], ["8", " callback.retries"]]


def test_list_as_key_is_refused() -> None:
    assert refusal("accounts:\n  ? [a, {b: c}]\n  : 1\n  x: {}\n") == "f.yml:7: accounts: expected a plain text as key"


@pytest.mark.parametrize("value", ["!!python/name:os.system x", "!x y", "!!int x", "!!timestamp 2024-99-99"])
def test_tagged_value_is_refused(value: str) -> None:
    assert refusal(f"pin_key: {value}\n") == ("f.yml:6: pin_key: isn't a plain value; put it in quotes if it is a text")


# Aliases --------------------------------------------------------------------------------------------------


def test_alias_is_the_value_it_names() -> None:
    made = read("accounts: {a: {caller_ids: &ids ['0115550000']}, b: {caller_ids: *ids}}\n")
    assert made.accounts["b"].caller_ids == ["0115550000"]


def test_problem_in_an_alias_has_the_line_of_the_alias() -> None:
    told = problems_of(LEAST + "accounts:\n  a: &a\n    realm: 5\n  b: *a\n")
    assert [line.split(":")[1:3] for line in told] == [["8", " accounts.a.realm"], ["9", " accounts.b.realm"]]


def test_alias_of_nothing_is_refused() -> None:
    told = refusal("cccp:\n  last_number_redial_code: *0\n")
    assert told == (
        "f.yml:7: cccp.last_number_redial_code: a value that begins with * refers to another, marked with &; "
        "put it in quotes if it is a text"
    )


def test_alias_inside_its_own_value_is_refused() -> None:
    assert refusal("accounts: &x\n  b: *x\n") == "f.yml:7: accounts.b: refers to itself"


def test_aliases_of_aliases_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_VALUES", 1000)
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 6)]
    assert problems_of("\n".join(lines)) == ["f.yml:3: a2[7]: expected at most 1,000 values"]


def test_values_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_VALUES", 10)
    assert problems_of("trust: [a, b, c, d, e, f, g, h, i, j]") == ["f.yml:1: trust[8]: expected at most 10 values"]


# Texts that are read whole or not at all ------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "~"])
def test_empty_text_is_refused(text: str) -> None:
    assert problems_of(text) == ["f.yml:1: the file is empty; expected a configuration"]


@pytest.mark.parametrize("text", ["- 1\n", "just text", "${X}"])
def test_text_without_sections_is_refused(text: str) -> None:
    assert problems_of(text)[-1] == "f.yml:1: expected a mapping of sections, as node:, switches:, admin:"


@pytest.mark.parametrize("text", ["[" * 900, "[" * 10_000, "a: " + "{b: " * 30 + "}" * 30])
def test_deep_nesting_is_refused(text: str) -> None:
    (told,) = problems_of(text)
    assert re.match(r"f\.yml:1: \S+: nested too deep$", told), told


def test_second_document_is_refused() -> None:
    assert problems_of("a: 1\n---\nb: 2\n") == ["f.yml:2: not YAML: a second document begins here; remove ---"]
