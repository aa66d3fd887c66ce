"""The events of calls in Redis: a stream for each integrator, which all nodes write and any node reads.

Events of a live call wait in memory for the writer (``event_writer``). Those that are not written when the call ends go
into the outbox with its record (``record_history``): so none is lost with its node, and Redis may stay away for days.
The scripts know how far each call's events are written, so that none comes twice or out of order, whichever node writes
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store import keys
from esl_apps.store.connection import Command
from esl_apps.store.redis_client import Client

_Answer = TypeVar("_Answer")

#: Seconds for which events can be read. Clients are promised an hour.
KEEP = 4200

#: An event's place in its stream: Redis's milliseconds, and a count within one.
Id = tuple[int, int]
START: Id = (0, 0)


class Stored(NamedTuple):
    id: Id
    kind: bytes
    json: bytes


class Comparison(NamedTuple):
    """The events in Redis, compared with one that was read earlier."""

    newest: Id | None
    """None: there are none."""
    kept: bool
    """Whether the earlier one is there."""

    def has_lost(self, id: Id) -> bool:
        """Whether Redis has less than it had: it lacks the earlier event, which can't have expired."""
        if self.kept or self.newest is None or id == START:
            return False
        return self.newest[0] - id[0] < (KEEP - 1) * 1000


def text_of(id: Id) -> str:
    return f"{id[0]}-{id[1]}"


def read_id(text: str) -> Id | None:
    """Read an id that a client sends back; None if it is none of ours."""
    ms, dash, count = text.partition("-")
    if not (dash and text.isascii() and ms.isdigit() and count.isdigit() and len(text) <= 40):
        return None
    id = int(ms), int(count)
    return id if max(id) < 1 << 64 else None


class EventStore:
    """Reads the events of integrators. Every method raises ``StoreUnavailable`` if Redis is down."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def compare(self, integrator: str, id: Id) -> Comparison:
        return _sure(self.compare_each([(integrator, id)])[0])

    def compare_each(self, wanted: Sequence[tuple[str, Id]]) -> list[Comparison | StoreUnavailable]:
        """As :meth:`compare`, for several integrators in one round trip. An error is of one integrator's events."""
        commands: list[Command] = []
        for integrator, id in wanted:
            key, text = keys.events(keys.history(integrator)), text_of(id)
            commands += ("XREVRANGE", key, "+", "-", "COUNT", 1), ("XRANGE", key, text, text)
        answers = self._client.send_all(commands, raise_on_error=False)
        return [_comparison(answers[i], answers[i + 1]) for i in range(0, len(answers), 2)]

    def after(self, integrator: str, id: Id, count: int) -> list[Stored]:
        """The next events behind one, oldest first."""
        return _sure(self.after_each([(integrator, id)], count)[0])

    def after_each(self, wanted: Sequence[tuple[str, Id]], count: int) -> list[list[Stored] | StoreUnavailable]:
        """As :meth:`after`, for several integrators in one round trip. An error is of one integrator's events."""
        commands: list[Command] = [
            ("XRANGE", keys.events(keys.history(integrator)), f"({text_of(id)}", "+", "COUNT", count)
            for integrator, id in wanted
        ]
        answers = self._client.send_all(commands, raise_on_error=False)
        return [
            found if isinstance(found, StoreUnavailable) else [_stored(entry) for entry in found or ()]
            for found in answers
        ]


def _sure(answer: _Answer | StoreUnavailable) -> _Answer:
    if isinstance(answer, StoreUnavailable):
        raise answer
    return answer


def _comparison(newest: Any, same: Any) -> Comparison | StoreUnavailable:
    for answer in (newest, same):
        if isinstance(answer, StoreUnavailable):
            return answer
    return Comparison(_stored(newest[0]).id if newest else None, bool(same))


def _stored(entry: tuple[bytes, dict[bytes, bytes] | list[bytes]]) -> Stored:
    id, fields = entry
    if isinstance(fields, list):
        # As Redis answers; redis-py makes a mapping of it.
        fields = dict(zip(fields[::2], fields[1::2], strict=True))
    ms, _, count = id.partition(b"-")
    return Stored((int(ms), int(count)), fields.get(b"event", b""), fields.get(b"json", b"{}"))
