"""Names next to numbers: any text, which stays between its quotes in one header."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_apps.core import dialstring, display_name
from esl_apps.sandbox.wire.strings import brackets, separate
from tests.support.dial_strings import ATTACKS

LINES = ("a\nb", "a\n", "\r", "\0", "\x7f", "\x85", "\u2028", "\u202e")
NAMES = (
    "Jane Doe",
    "O'Brien, Zo\u00eb (sales)",
    "\u5c71\u7530 \u592a\u90ce",
    "\u05d3\u05d5\u05d3",
    "100% & more",
    "a" * 64,
    "%0AX: 1@b",
)


def on_the_phone(name: str) -> str:
    """The name as mod_sofia has it between the quotes of From, after both tokenisers of an originate."""
    (_command, arguments, _application) = separate(
        dialstring.originate({"n": dialstring.Raw(display_name.encoded(name) or "-"), "x": "y"}, "user/1000", "park"),
        " ",
    )
    found = brackets(arguments, "{", "}", ",")
    assert found is not None
    assert found[0].keys() == {"n", "x"}
    assert found[1] == "user/1000"
    return unquote(found[0]["n"])


@pytest.mark.parametrize("name", NAMES)
def test_name_arrives_as_it_was(name: str) -> None:
    assert display_name.is_name(name)
    assert on_the_phone(name) == name


@pytest.mark.parametrize("name", ["", "a" * 65, *LINES])
def test_text_with_a_control_character_is_no_name(name: str) -> None:
    assert not display_name.is_name(name)


def test_quotes_and_backslashes_are_replaced() -> None:
    assert on_the_phone('the "boss" \\') == "the \u201dboss\u201d \uff3c"


@given(st.text() | st.sampled_from(ATTACKS) | st.builds("{}{}".format, st.text(), st.sampled_from(ATTACKS)))
def test_any_text_stays_between_its_quotes(text: str) -> None:
    header = on_the_phone(text)
    assert not set('"\\\r\n\0') & set(header)
    assert 1 <= len(header) <= 64
    assert len(header.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (None, ""),
        ("", ""),
        ("\r\n", ""),
        (" Jane\r\nX: 1 ", "Jane X: 1"),
        ("b" * 70, "b" * 64),
        ("Zo\u00eb", "Zo\u00eb"),
    ],
)
def test_strangers_name_is_cut_and_cleaned(text: str | None, shown: str) -> None:
    assert display_name.shown(text) == shown
