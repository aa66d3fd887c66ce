"""Whether a node takes calls, and why not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from gevent.event import Event as Flag

from esl_apps.esl.switch import Switch
from esl_apps.node.call_log import CallLog
from esl_apps.node.descriptors import REFUSED
from esl_apps.node.live import Live
from esl_apps.node.outboxes import Outboxes
from esl_apps.store import documents
from esl_apps.store.calls import CallStore


class Readiness:
    def __init__(
        self,
        switches: Sequence[Switch],
        store: CallStore,
        live: Mapping[str, Live],
        max_calls: int,
        outboxes: Outboxes,
        call_log: CallLog,
    ) -> None:
        self._outboxes = outboxes
        self._call_log = call_log
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
        return [*reasons, *self._store.watch.reasons, *self._outboxes.overflows]

    def problems(self) -> list[str]:
        """The reasons, and what a person has to mend although calls go on: keys that Redis refuses, documents
        of versions that this node doesn't read, a state folder that is gone."""
        kept = [*self._store.faults, *self._outboxes.refusals, *self._call_log.faults]
        return [*self.reasons(), *kept, *documents.refusals.current()]

    @property
    def full(self) -> bool:
        """Whether ``max_calls`` are up, counting those whose first leg still rings, or records can't be kept."""
        return self.has_most_calls or bool(self._outboxes.overflows)

    @property
    def has_most_calls(self) -> bool:
        """Whether ``max_calls`` are up, counting those whose first leg still rings."""
        return len(self._live) >= self._max_calls or self.sockets > self._max_calls

    @property
    def has_most_sockets(self) -> bool:
        """Whether a transferred leg may find the event socket full: the call that it leaves keeps its own socket
        until the A-leg ends. The rest of its room is for legs on their way, and for callers who are being refused."""
        return self.sockets >= self._max_calls + REFUSED // 2
