"""The events of calls in Redis: a stream for each integrator, which all nodes write and any node reads.

Events of a live call wait in memory for the writer (``event_writer``). Those that are not written when the call ends go
into the outbox with its record (``record_history``): so none is lost with its node, and Redis may stay away for days.
The scripts know how far each call's events are written, so that none comes twice or out of order, whichever node writes
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from esl_apps.store import keys
from esl_apps.store.connection import Command
from esl_apps.store.redis_client import Client

#: Seconds for which events can be read. Clients are promised an hour.
KEEP = 4200

#: An event's place in its stream: Redis's milliseconds, and a count within one.
Id = tuple[int, int]
START: Id = (0, 0)


class Stored(NamedTuple):
    id: Id
    kind: bytes
    json: bytes


class Span(NamedTuple):
    """The first and the last event that are kept; None: there are none."""

    first: Id | None
    last: Id | None


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

    def span(self, integrator: str) -> Span:
        key = keys.events(keys.history(integrator))
        first, last = self._client.send_all(
            [("XRANGE", key, "-", "+", "COUNT", 1), ("XREVRANGE", key, "+", "-", "COUNT", 1)]
        )
        return Span(*(_stored(found[0]).id if found else None for found in (first, last)))

    def after(self, integrator: str, id: Id, count: int) -> list[Stored]:
        """The next events behind one, oldest first."""
        (found,) = self.after_each([(integrator, id)], count)
        return found

    def after_each(self, wanted: Sequence[tuple[str, Id]], count: int) -> list[list[Stored]]:
        """As :meth:`after`, for several integrators in one round trip."""
        commands: list[Command] = [
            ("XRANGE", keys.events(keys.history(integrator)), f"({text_of(id)}", "+", "COUNT", count)
            for integrator, id in wanted
        ]
        return [[_stored(entry) for entry in found or ()] for found in self._client.send_all(commands)]


def _stored(entry: tuple[bytes, dict[bytes, bytes] | list[bytes]]) -> Stored:
    id, fields = entry
    if isinstance(fields, list):
        # As Redis answers; redis-py makes a mapping of it.
        fields = dict(zip(fields[::2], fields[1::2], strict=True))
    ms, _, count = id.partition(b"-")
    return Stored((int(ms), int(count)), fields.get(b"event", b""), fields.get(b"json", b"{}"))
