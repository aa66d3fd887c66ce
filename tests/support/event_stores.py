"""A store of events in memory, for tests without Redis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store.call_events import Comparison, Id, Stored


class FakeEventStore:
    """``events`` by integrator. While ``down``, every method raises; an integrator in ``away`` is answered with its
    error, as a cluster does."""

    def __init__(self) -> None:
        self.events: dict[str, list[Stored]] = {}
        self.down = False
        self.refused = 0
        self.away: dict[str, StoreUnavailable] = {}
        self.listening: list[str] = []
        self.notes = 0

    def put(self, id: Id, integrator: str = "acme", kind: str = "call", **fields: object) -> Stored:
        stored = Stored(id, kind.encode(), msgspec.json.encode(fields))
        self.events.setdefault(integrator, []).append(stored)
        return stored

    def compare(self, integrator: str, id: Id) -> Comparison:
        self._ask()
        kept = [stored.id for stored in self.events.get(integrator, [])]
        return Comparison(kept[-1] if kept else None, id in kept)

    def compare_each(self, wanted: Sequence[tuple[str, Id]]) -> list[Comparison | StoreUnavailable]:
        return [self.away.get(integrator) or self.compare(integrator, id) for integrator, id in wanted]

    def after(self, integrator: str, id: Id, count: int) -> list[Stored]:
        self._ask()
        return [stored for stored in self.events.get(integrator, []) if stored.id > id][:count]

    def after_each(self, wanted: Sequence[tuple[str, Id]], count: int) -> list[list[Stored] | StoreUnavailable]:
        return [self.away.get(integrator) or self.after(integrator, id, count) for integrator, id in wanted]

    @property
    def listened(self) -> frozenset[str]:
        return frozenset(self.listening)

    def note_listening(self, integrators: Iterable[str]) -> None:
        self._ask()
        self.notes += 1
        self.listening = list(integrators)

    def say_refused(self, key: str, answer: object) -> None:
        pass

    def _ask(self) -> None:
        if self.down:
            self.refused += 1
            raise StoreUnavailable("redis: no answer")
