"""Whether a node takes calls, and why not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from gevent.event import Event as Flag

from esl_apps.esl.switch import Switch
from esl_apps.node.live import Live
from esl_apps.store import documents
from esl_apps.store.calls import CallStore


class Readiness:
    def __init__(
        self,
        switches: Sequence[Switch],
        store: CallStore,
        live: Mapping[str, Live],
        max_calls: int,
        refusals: Callable[[], Sequence[str]] = lambda: (),
        overflows: Callable[[], Sequence[str]] = lambda: (),
        faults: Callable[[], Sequence[str]] = lambda: (),
    ) -> None:
        """``refusals``: the keys of records that the top-level Redis refuses. ``overflows``: why the records of further
        calls could be kept nowhere. ``faults``: of the call log."""
        self._faults = faults
        self._refusals = refusals
        self._overflows = overflows
        self._switches = switches
        self._store = store
        self._live = live
        self._max_calls = max_calls
        self.draining = False
        self.paused: Collection[str] = frozenset()
        """The switches on which an operator has no calls placed."""
        self.stopped = Flag()
        self.sockets = 0
        """Connections on the event socket, as its server counts them."""

    def reasons(self) -> list[str]:
        """Why this node takes no calls; empty if it does."""
        reasons = ["draining"] if self.draining else []
        if not [switch for switch in self._switches if switch.connected and switch.name not in self.paused]:
            for switch in self._switches:
                reasons.append(f"switch {switch.name}: {'paused' if switch.connected else switch.last_error}")
        return [*reasons, *self._store.reasons, *self._overflows()]

    def problems(self) -> list[str]:
        """The reasons, and what a person has to mend although calls go on: keys that Redis refuses, documents
        of versions that this node doesn't read, a state folder that is gone."""
        kept = [*self._store.faults, *self._refusals(), *self._faults()]
        return [*self.reasons(), *kept, *documents.refusals.current()]

    @property
    def full(self) -> bool:
        """Whether ``max_calls`` are up, counting those whose first leg still rings, or records can't be kept."""
        return self.has_most_calls or bool(self._overflows())

    @property
    def has_most_calls(self) -> bool:
        """Whether ``max_calls`` are up, counting those whose first leg still rings."""
        return len(self._live) >= self._max_calls or self.sockets > self._max_calls
