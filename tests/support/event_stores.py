"""A store of events in memory, for tests without Redis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store.call_events import Id, Span, Stored


class FakeEventStore:
    """``events`` by integrator. While ``down``, every method raises."""

    def __init__(self) -> None:
        self.events: dict[str, list[Stored]] = {}
        self.down = False
        self.listening: list[str] = []
        self.notes = 0

    def put(self, id: Id, integrator: str = "acme", kind: str = "call", **fields: object) -> Stored:
        stored = Stored(id, kind.encode(), msgspec.json.encode(fields))
        self.events.setdefault(integrator, []).append(stored)
        return stored

    def span(self, integrator: str) -> Span:
        self._ask()
        kept = self.events.get(integrator)
        return Span(kept[0].id, kept[-1].id) if kept else Span(None, None)

    def after(self, integrator: str, id: Id, count: int) -> list[Stored]:
        self._ask()
        return [stored for stored in self.events.get(integrator, []) if stored.id > id][:count]

    def after_each(self, wanted: Sequence[tuple[str, Id]], count: int) -> list[list[Stored]]:
        return [self.after(integrator, id, count) for integrator, id in wanted]

    @property
    def listened(self) -> frozenset[str]:
        return frozenset(self.listening)

    def note_listening(self, integrators: Iterable[str]) -> None:
        self._ask()
        self.notes += 1
        self.listening = list(integrators)

    def _ask(self) -> None:
        if self.down:
            raise StoreUnavailable("redis: no answer")
