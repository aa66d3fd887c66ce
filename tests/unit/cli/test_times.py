"""Times as a person types them."""

from __future__ import annotations

import argparse
from datetime import datetime

import pytest

from esl_apps.cli.times import read_time

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("24h", NOW - 86400),
        ("7d", NOW - 7 * 86400),
        ("90s", NOW - 90),
        ("1700000000", 1700000000.0),
        ("1700000000.5", 1700000000.5),
        ("2026-11-29", datetime(2026, 11, 29).astimezone().timestamp()),
        ("2026-11-29T12:30", datetime(2026, 11, 29, 12, 30).astimezone().timestamp()),
        ("2026-11-29T12:30+00:00", 1795955400.0),
    ],
)
def test_time_is_read_in_each_form(text: str, at: float) -> None:
    assert read_time(text, NOW) == at


@pytest.mark.parametrize("text", ["", "yesterday", "7", "1w", "\u0667d", "2026-13-01", "-1h", "0001-01-01"])
def test_time_in_no_form_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a time"):
        read_time(text)
