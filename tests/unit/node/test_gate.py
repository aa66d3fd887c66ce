"""Which addresses may connect to ``node.listen``."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import pytest

from esl_apps.config.model import Node
from esl_apps.node.gate import SwitchGate


@dataclass
class Resolved:
    """A switch, as far as the gate asks."""

    addresses: frozenset[str]


SWITCHES: Any = [Resolved(frozenset({"10.0.0.5", "2001:db8::5"})), Resolved(frozenset({"10.0.0.6"}))]


def gate(**node: Any) -> SwitchGate:
    return SwitchGate(lambda: Node(**node), SWITCHES)


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("127.0.0.1", True),
        ("127.5.5.5", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.5", True),
        ("::ffff:10.0.0.5", True),
        ("2001:db8::5", True),
        ("10.0.0.6", True),
        ("10.0.0.7", False),
        ("::ffff:10.0.0.7", False),
        ("0.0.0.0", False),
        ("", False),
    ],
)
def test_gate_by_default_is_open_to_switches_and_loopback(address: str, allowed: bool) -> None:
    assert gate().allows(address) is allowed


def test_gate_with_a_list_is_open_to_that_alone() -> None:
    listed = gate(allow=["192.0.2.0/24", "2001:db8::/32"])
    assert [listed.allows(address) for address in ("192.0.2.77", "::ffff:192.0.2.77", "2001:db8::1")] == [True] * 3
    assert [listed.allows(address) for address in ("127.0.0.1", "10.0.0.5", "192.0.3.1")] == [False] * 3


def test_gate_follows_a_reload() -> None:
    current = [Node(allow=["192.0.2.1"], secret="second-secret-of-a-node", secret_old="first-secret-of-a-node")]
    changing = SwitchGate(lambda: current[0], SWITCHES)
    assert (changing.allows("192.0.2.2"), changing.secrets) == (
        False,
        ["second-secret-of-a-node", "first-secret-of-a-node"],
    )
    current[0] = Node(allow=["192.0.2.2"])
    assert (changing.allows("192.0.2.2"), changing.secrets) == (True, [])


def test_gate_logs_each_refused_address_once(caplog: pytest.LogCaptureFixture) -> None:
    refusing = gate()
    with caplog.at_level(logging.WARNING):
        for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.1"):
            assert not refusing.allows(address)
    assert [(line.message, vars(line)["address"]) for line in caplog.records] == [
        ("event_socket_refused", "192.0.2.1"),
        ("event_socket_refused", "192.0.2.2"),
    ]


def test_gate_remembers_a_bounded_number_of_addresses() -> None:
    refusing = gate()
    for number in range(3000):
        refusing.allows(f"192.0.{2 + number // 256}.{number % 256}")
    assert len(refusing._said) <= 1000
