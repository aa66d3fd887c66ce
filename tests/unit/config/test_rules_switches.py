"""Switches."""

from __future__ import annotations

import pytest

from tests.support.configurations import instead

ONE = '[{name: fs1, address: "127.0.0.1:8021", password: s3cret}]'


@pytest.mark.parametrize(
    ("switches", "told"),
    [
        ("[]", "switches: expected at least one switch"),
        (
            '[{name: a, address: "h:1", password: s}, {name: a, address: "h:2", password: s}]',
            "switches[1].name: a switch above has this name",
        ),
        (
            '[{name: a, address: "h:1", password: s}, {name: b, address: "h:1", password: s}]',
            "switches[1].address: a switch above has this address",
        ),
    ],
)
def test_switches_that_are_missing_or_alike_are_refused(switches: str, told: str) -> None:
    assert instead(ONE, switches) == f"f.yml:1: {told}"
