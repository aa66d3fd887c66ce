"""The soak in its short form: the same as ``make soak``, with fewer calls.

Memory is the long form's: in the first two thousand calls it grows to what it then stays at.
"""

from __future__ import annotations

import pytest

from tests.chaos.soak import Reading, Soak, soaking

HALF = 150
#: What is as it was, to the last one, when nobody calls.
EXACT = ("files", "sockets", "connections", "esl_apps_greenlets")


def rest(soak: Soak, first: Reading) -> Reading:
    """A reading when the last connections have been closed, if they ever are."""
    for _ in range(50):
        reading = soak.read()
        if all(reading[name] == first[name] for name in EXACT):
            break
        soak.pause()
    return reading


@pytest.mark.timeout(300)
def test_a_node_holds_after_its_calls_what_it_held_before() -> None:
    with soaking() as soak:
        first = soak.warm_up()
        soak.run(HALF)
        middle = rest(soak, first)
        soak.run(HALF)
        last = rest(soak, first)
        assert soak.live() == 0
    for reading in (middle, last):
        assert {name: reading[name] for name in EXACT} == {name: first[name] for name in EXACT}
        assert reading.live == 0
        # A caller whom an overloaded machine made hear "unavailable" was no call.
        assert reading.calls * 0.9 < reading.records <= reading.calls
