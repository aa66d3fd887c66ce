"""Whatever is in a file, it is read, or refused with file and line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_apps.config import parse
from esl_apps.config.problems import ConfigError
from tests.support.configurations import SECRETS, SHIPPED

_SHIPPED = yaml.safe_load(SHIPPED.read_text())


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield from _places(value[key], (*path, key))


_ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["", ".", "..", "a.b", "${X}", "[0]", "112", "+27112", "0900123456", "127.0.0.1:1", "(", "\n"]),
    st.dictionaries(
        st.sampled_from(["action", "pin", "a.b", "[...]", "url", "default", "_id"]), st.text(max_size=5), max_size=2
    ),
    st.lists(st.text(max_size=5), max_size=2),
)


@settings(deadline=None, max_examples=40)
@given(place=st.sampled_from(list(_places(_SHIPPED))), value=_ODD, key=st.one_of(st.none(), st.text(max_size=8)))
def test_any_value_anywhere_is_read_or_refused_with_a_line(place: tuple[Any, ...], value: Any, key: str | None) -> None:
    data = json.loads(json.dumps(_SHIPPED))
    holder = data
    for step in place[:-1]:
        holder = holder[step]
    if key is not None and isinstance(holder, dict):
        holder[key] = value
    else:
        holder[place[-1]] = value
    try:
        parse(json.dumps(data, indent=1), {**SECRETS, "X": "x"}, "f.yml")
    except ConfigError as error:
        told = str(error)
    else:
        return
    assert re.match(r"f\.yml:\d+: ", told), told


@settings(deadline=None, max_examples=40)
@given(at=st.integers(0, len(SHIPPED.read_text())), gone=st.integers(0, 40), new=st.text(max_size=10))
def test_damaged_file_is_read_or_refused_with_a_line(at: int, gone: int, new: str) -> None:
    text = SHIPPED.read_text()
    try:
        parse(text[:at] + new + text[at + gone :], SECRETS, "f.yml")
    except ConfigError as error:
        told = str(error)
    else:
        return
    assert re.match(r"f\.yml:\d+: ", told), told
