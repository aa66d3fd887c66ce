"""The order in which disturbances come."""

from __future__ import annotations

import random

from tests.chaos.mischief import WEIGHTS, Deck


def test_deck_deals_each_kind_before_any_twice() -> None:
    deck = Deck(WEIGHTS, random.Random(1))
    first = [deck.draw() for _ in WEIGHTS]
    assert sorted(first) == sorted(WEIGHTS)
    assert deck.draw() in WEIGHTS


def test_deck_deals_what_had_no_victim_again() -> None:
    deck = Deck(WEIGHTS, random.Random(1))
    missed = deck.draw()
    deck.put_back(missed)
    assert missed in [deck.draw() for _ in WEIGHTS]


def test_deck_is_the_same_for_the_same_seed() -> None:
    one, other = (Deck(WEIGHTS, random.Random("deck 7")) for _ in range(2))
    assert [one.draw() for _ in range(40)] == [other.draw() for _ in range(40)]
