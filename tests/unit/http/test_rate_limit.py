"""Token buckets, and the grouping of addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_apps.http.rate_limit import Buckets, source_of
from tests.support.clock import Clock

STEPS = st.lists(st.tuples(st.floats(0, 5), st.booleans()), min_size=1, max_size=60)


@given(st.floats(0.01, 1000), st.floats(1, 5000), STEPS)
def test_take_after_the_wait_it_named_succeeds(rate: float, capacity: float, steps: list[tuple[float, bool]]) -> None:
    clock = Clock()
    buckets = Buckets(clock=clock)
    taken, began = 0, clock.now
    for pause, patient in steps:
        clock.now += pause
        wait = buckets.take("a", rate, capacity)
        if not wait:
            taken += 1
        elif patient:
            # A client that waits as long as it was told is let in, and not before.
            clock.now += wait * 0.99
            assert buckets.wait("a", rate, capacity) > 0
            clock.now += wait * 0.01
            assert buckets.take("a", rate, capacity) == 0
            taken += 1
    assert taken <= capacity + (clock.now - began) * rate + 1e-3


def test_buckets_past_their_number_drop_the_longest_unused() -> None:
    clock = Clock()
    buckets = Buckets(most=100, clock=clock)
    assert buckets.take("guesser", 0.001, 1) == 0
    for number in range(10_000):
        buckets.take(f"a{number}", 1, 1)
        if not number % 50:
            assert buckets.take("guesser", 0.001, 1) > 0
    assert len(buckets) == 100


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("::1", "127.0.0.1", False),
    ],
)
def test_source_of_groups_ipv6_addresses_by_network(one: str, other: str, same: bool) -> None:
    assert (source_of(one) == source_of(other)) is same
