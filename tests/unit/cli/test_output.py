"""Text that is safe for a terminal."""

from __future__ import annotations

import errno

import pytest

from esl_apps.cli.output import explain, print_error, printable


def test_printable_escapes_control_characters() -> None:
    assert printable("a\x1b[2J\u202eb\nc é") == "a\\u001b[2J\\u202eb\\u000ac é"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EACCES, "Permission denied", "/x"), "/x: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError("odd"), "odd"),
        (OSError(), "OSError"),
    ],
)
def test_explain_names_the_file_and_the_reason(error: OSError, words: str) -> None:
    assert explain(error) == words


def test_print_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_error("first\nsecond")
    assert capsys.readouterr().err == "esl-apps: first\\u000asecond\n"
