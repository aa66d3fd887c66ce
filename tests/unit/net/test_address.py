"""Addresses and networks."""

from __future__ import annotations

import ipaddress

import pytest

from esl_apps.net.address import here_towards, is_elsewhere, within


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


@pytest.mark.parametrize(
    ("host", "elsewhere"),
    [("127.0.0.1", False), ("::1", False), ("localhost", False), ("192.0.2.7", True), ("fs1.example", True)],
)
def test_another_machine_has_an_address_that_is_not_here(host: str, elsewhere: bool) -> None:
    assert is_elsewhere(host, 8021) is elsewhere


def test_here_is_the_address_that_another_sees() -> None:
    assert here_towards("127.0.0.1", 8021) == "127.0.0.1"
    assert here_towards("fs1.example", 8021) is None
