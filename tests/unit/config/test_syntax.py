"""A text that isn't YAML is refused in our words, with the line to look at and nothing of the text."""

from __future__ import annotations

import pytest

from tests.support.configurations import LEAST, problems_of


@pytest.mark.parametrize(
    ("more", "line", "told"),
    [
        ("dial:\n\tregion: ZA\n", 7, "a tab; YAML takes spaces only"),
        ("dial:\n  region: ZA\n\textension: x\n", 8, "a tab; YAML takes spaces only"),
        ("pin_key: @s3cret\n", 6, "a value can't begin with @; put it in quotes"),
        ("pin_key: %s3cret\n", 6, "a value can't begin with %; put it in quotes"),
        ("pin_key: `s3cret\n", 6, "a value can't begin with `; put it in quotes"),
        ("pin_key: s3cret: x\n", 6, "a second colon in one line; put a text that holds a colon and a space in quotes"),
        (
            "dial:\n  region:ZA\n  extension: s3cret\n",
            8,
            "a key can't begin here; check the indentation, and that the line above has a space after its colon",
        ),
        (
            "callback:\n  retries: 1\n    per_day: 2\n",
            8,
            "a key can't begin here; check the indentation, and that the line above has a space after its colon",
        ),
        (
            "callback:\n  retries: 1\n per_day: 2\n",
            8,
            "this line doesn't belong to what begins in line 1; check its indentation",
        ),
        ("s3cret\n", 6, "expected KEY: VALUE; this line has no colon with a space behind it"),
        ("trust: []\npin_key:s3cret\n", 7, "expected KEY: VALUE; this line has no colon with a space behind it"),
        ("pin_key: 's3cret\ntrust: []\n", 6, "a quote is opened here and never closed"),
        ('pin_key: "s3cret\ntrust: []\n', 6, "a quote is opened here and never closed"),
        (
            "pin_key: 's3cret' x\n",
            6,
            "text behind a value that has ended; is a quote too many, or one missing in a line above?",
        ),
        (
            "pin_key: 's3cret\nspool: {dir: 'x'}\n",
            7,
            "text behind a value that has ended; is a quote too many, or one missing in a line above?",
        ),
        ("trust: [a\npin_key: s3cret\n", 7, "expected , or ]: the list that [ opens in line 6 goes on"),
        ("dial: {region: ZA]\n", 6, "expected , or }: the mapping that { opens in line 6 goes on"),
        ("dial: {region: ZA\n", 7, "expected , or }: the mapping that { opens in line 6 goes on"),
        ("trust: ]\n", 6, "this line closes a bracket that was never opened"),
        ("trust: }\n", 6, "this line closes a bracket that was never opened"),
        ("trust: []]\n", 6, "] closes a bracket that was never opened"),
        ("trust: - a\n", 6, "a list's item can't begin here; put each - in a line of its own"),
        ("- a\n", 6, "this line doesn't belong to what begins in line 1; check its indentation"),
        (
            'dial: {extensions: "\\d{3}"}\n',
            6,
            "a \\ with a character that means nothing behind it; use single quotes, or write \\\\",
        ),
        (
            'dial: {extensions: "\\xzz"}\n',
            6,
            "\\x, \\u and \\U take 2, 4 and 8 hex digits; use single quotes, or write \\\\",
        ),
        ("pin_key: &\n", 6, "& and * have a meaning of their own in YAML; put the value in quotes"),
        ("pin_key: *\n", 6, "& and * have a meaning of their own in YAML; put the value in quotes"),
        ("pin_key: |s3cret\n", 6, "| and > have a meaning of their own in YAML; put the value in quotes"),
        ("pin_key: >0\n", 6, "| and > have a meaning of their own in YAML; put the value in quotes"),
        ("pin_key: !<s3cret\n", 6, "this line can't be read; put texts with special characters in quotes"),
        ("trust: [,]\n", 6, "expected a value"),
        ("pin_key: a\x07b\n", 6, "the character U+0007 can't be printed; remove it"),
        ("\x00", 6, "the character U+0000 can't be printed; remove it"),
        ("pin_key: \ud83d\n", 6, "the character U+D83D can't be printed; remove it"),
        ("%YAML 1.1\n", 7, "this doesn't belong to the mapping above; check brackets and indentation"),
    ],
)
def test_syntax_error_is_explained(more: str, line: int, told: str) -> None:
    assert problems_of(LEAST + more) == [f"f.yml:{line}: not YAML: {told}"]


@pytest.mark.parametrize("text", ["a: [", "a: 'x", "'\n", "a:\n\t- b", "{a: 1", "%FOO"])
def test_syntax_error_of_a_short_text_has_a_line(text: str) -> None:
    (told,) = problems_of(text)
    assert told.startswith(("f.yml:1: not YAML: ", "f.yml:2: not YAML: ")), told
