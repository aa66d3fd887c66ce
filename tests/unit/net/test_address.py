"""Addresses and networks."""

from __future__ import annotations

import ipaddress

import pytest

from esl_apps.net.address import within


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("2001:db8::5", True),
        ("11.1.2.3", False),
        ("::1", False),
        ("", False),
        ("10.1.2.3.4", False),
        ("10.1.2.3\n", False),
        ("localhost", False),
    ],
)
def test_within_compares_addresses_instead_of_text(address: str, inside: bool) -> None:
    networks = [ipaddress.ip_network(text) for text in ("10.0.0.0/8", "2001:db8::/32")]
    assert within(address, networks) is inside
