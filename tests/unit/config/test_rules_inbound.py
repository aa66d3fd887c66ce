"""Numbers that ring agents."""

from __future__ import annotations

import pytest

from tests.support.configurations import LEAST, problems_of, refusal


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("'x': {integrator: acme, agents: ['1000']}", "x: not a telephone number"),
        ("'27115550000': {integrator: none, agents: ['1000']}", "27115550000.integrator: no such integrator"),
        (
            "'27115550000': {integrator: acme, agents: ['1000', 'x']}",
            "27115550000.agents[1]: not a telephone number",
        ),
        (
            "'27115550000': {integrator: acme, agents: ['0900123456']}",
            "27115550000.agents[0]: numbers of class premium are not rung",
        ),
        (
            "'27115550000': {integrator: acme, agents: ['112']}",
            "27115550000.agents[0]: numbers of class emergency are not rung",
        ),
    ],
)
def test_wrong_inbound_value_is_refused(more: str, told: str) -> None:
    assert refusal(f"inbound: {{{more}}}\n").startswith(f"f.yml:6: inbound.{told}")


def test_agent_that_nothing_can_ring_is_refused() -> None:
    inbound = "inbound: {'27115550000': {integrator: acme, agents: ['1000', '0820001234']}}\n"
    assert refusal("dial: {external: []}\n" + inbound) == (
        "f.yml:7: inbound.27115550000.agents[1]: is not an extension, and dial.external is empty: nothing can ring it"
    )


def test_number_in_two_spellings_is_refused() -> None:
    told = problems_of(
        LEAST
        + "inbound: {'27115550000': {integrator: acme, agents: ['1000']},\n"
        + "  '0115550000': {integrator: acme, agents: ['1001']}, x: {integrator: acme, agents: ['1001']}}\n"
    )
    assert told == [
        "f.yml:7: inbound.x: not a telephone number: expected digits, with an optional + before them",
        "f.yml:7: inbound.0115550000: is the same number as 27115550000 above",
    ]
