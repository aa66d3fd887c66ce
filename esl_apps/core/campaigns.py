"""Campaigns: groups of an integrator's caller IDs, of which each order shows the next one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from esl_apps.core.numbers import Number, NumberPlan


class Campaigns:
    def __init__(self, plan: NumberPlan, numbers: Mapping[str, str | Sequence[str]]) -> None:
        """``numbers``: one or several, by the campaign's name."""
        self._plan = plan
        self._numbers = {name: [own] if isinstance(own, str) else list(own) for name, own in numbers.items()}
        self._turns = dict.fromkeys(self._numbers, 0)
        self._returned: dict[str, deque[int]] = {name: deque() for name in self._numbers}
        """Turns of orders that weren't dialled."""

    def __contains__(self, name: str) -> bool:
        return name in self._numbers

    def __iter__(self) -> Iterator[Number]:
        """Yield the numbers of all. :raises NotDialable: one can't be dialled."""
        for numbers in self._numbers.values():
            yield from map(self._plan.read, numbers)

    def next(self, name: str) -> tuple[Number, int]:
        """Return the number that a campaign's next order shows, and its turn.

        :raises NotDialable: it can't be dialled.
        """
        numbers, returned = self._numbers[name], self._returned[name]
        turn = returned[0] if returned else self._turns[name]
        return self._plan.read(numbers[turn % len(numbers)]), turn

    def take(self, name: str) -> None:
        """Go on to the turn after the next one."""
        returned = self._returned[name]
        if returned:
            returned.popleft()
        else:
            self._turns[name] += 1

    def give_back(self, name: str, turn: int) -> None:
        """Let the next order have the turn of one that wasn't dialled."""
        self._returned[name].append(turn)
