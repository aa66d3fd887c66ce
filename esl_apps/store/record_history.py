"""The records of the last days in Redis, for clients that ask for them: a sorted set for each integrator.

A member is a call's reference and its record as JSON. References sort by time, so the set is in the order in which the
calls began, and a span of time is a range of members.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from esl_apps.core.attempt import Attempt
from esl_apps.core.call_events import Noted, written
from esl_apps.core.notification import CallRecord, SessionRecord
from esl_apps.core.reference import LENGTH
from esl_apps.core.session_parts import Part, whole
from esl_apps.core.versions import RECORD, SESSION_PART
from esl_apps.net.turns import in_turns
from esl_apps.store import documents, keys
from esl_apps.store.call_events import KEEP
from esl_apps.store.errors import Fault, Unreadable
from esl_apps.store.journal import Entry
from esl_apps.store.outbox import REMEMBER, Outbox
from esl_apps.store.paging import PAGE_BYTES, ReadCount
from esl_apps.store.redis_client import Client
from esl_apps.store.script import Script

log = logging.getLogger(__name__)

#: Records looked at for one page. A rare match costs the client more pages, not the server more time.
SCAN = 2000
#: How many records one counts for that is decoded in vain, as one whose metadata hold what another field should.
_IN_VAIN = 10
#: Read at first, and at a time.
_FIRST, _READ = 50, 500
_DAY = 86400


def entry(
    attempt: Attempt,
    events: Iterable[Noted],
    record: dict[str, Any] | None,
    *,
    keep: bool,
    part: Part | None = None,
) -> Entry:
    """Make the outbox's entry of a call that has ended.

    ``events``: those that may not be in Redis. ``record``: None if the call has none. ``keep``: whether the history
    keeps it. ``part``: what it adds to its session, if other nodes may have others of its calls.
    """
    text = "" if record is None else documents.encode(RECORD, record).decode()
    side = "history" if keep and record is not None else "events"
    integrator = attempt.integrator or ""
    kept = "" if part is None else documents.encode(SESSION_PART, part).decode()
    events_text = written(attempt, events)
    return Entry(attempt.call_ref, keys.history(integrator), side, text, events_text, integrator, part=kept)


class HistoryOutbox(Outbox):
    """Delivers records to a history, each with the call's last events, and the parts of sessions.

    ``on_whole`` is called with the closing entry of a session all of whose parts are in Redis, and its integrator. If
    this process dies in this moment, it is called again by the next run.
    """

    script = "history_add"

    def __init__(
        self,
        *args: Any,
        on_whole: Callable[[SessionRecord, str], None] = lambda _closing, _integrator: None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._add_part = Script(self._client, "session_part")
        self._on_whole = on_whole

    def _push(self, name: str, items: list[Entry]) -> list[int]:
        names = [name, keys.seq(name), keys.events(name)]
        texts: list[str] = []
        for item in items:
            names += keys.pushed(name, item.id), keys.reached(name, item.id)
            texts += item.id, item.head, item.side, item.tail
        seqs: list[int] = self._script(names, ["", KEEP, REMEMBER, *texts])
        for item in items:
            if item.part:
                self._push_part(item)
        return seqs

    def _push_part(self, item: Entry) -> None:
        """:raises StoreUnavailable: Redis is down."""
        part = _part(item.part.encode())
        if part is None:
            return
        try:
            kept = self._add_part([keys.session_parts(part.closing.session_ref)], [item.id, item.part, REMEMBER])
        except Fault:
            # The script has said so. This session has no closing entry, and holds up no other.
            return
        closing = whole(part for raw in kept if (part := _part(raw)) is not None)
        if closing is not None:
            self._on_whole(closing, item.owner)

    def _taken(self, name: str, side: str) -> int:
        # No client takes records from a history.
        return 0


class Chosen(NamedTuple):
    """The records that a client wants; None: any."""

    since: float | None = None
    """Unix seconds: calls that began then or later."""
    until: float | None = None
    """Calls that began before."""
    fields: Sequence[tuple[str, str]] = ()
    """Names of the record's fields, each with the text that it must be."""
    numbers: Sequence[str] = ()
    """B's, as it was dialled or in E.164: one of these texts."""
    metadata: Sequence[tuple[str, str]] = ()
    agents: Sequence[str] = ()
    """A's party, as ``numbers``."""

    def takes(self, record: dict[str, Any]) -> bool:
        if any(record.get(name) != text for name, text in self.fields):
            return False
        for name, texts in (("number", self.numbers), ("extension", self.agents)):
            if texts and not {record.get(name), record.get(f"{name}_e164")}.intersection(texts):
                return False
        given = record.get("metadata") or {}
        return all(given.get(name) == text for name, text in self.metadata)

    def fragments(self) -> list[bytes]:
        """Parts of the JSON of every record that is wanted: those that lack one need no decoding."""
        pairs = [*self.fields, *self.metadata]
        fragments = [msgspec.json.encode({name: text})[1:-1] for name, text in pairs]
        for texts in filter(None, (self.numbers, self.agents)):
            # All writings of a number end alike.
            ending = texts[0]
            while not all(text.endswith(ending) for text in texts):
                ending = ending[1:]
            fragments.append(msgspec.json.encode(ending)[1:])
        return fragments


class RecordHistory:
    """Reads the records. Every method raises ``StoreUnavailable`` if Redis is down."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def page(
        self, integrator: str, chosen: Chosen, limit: int, before: str | None = None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """An integrator's records, the latest call first, and where the next page begins (None: no more).

        ``before``: the reference of a call; only older ones are looked at.
        """
        found: list[dict[str, Any]] = []
        fragments = chosen.fragments()
        top = "+" if chosen.until is None else f"({_edge(chosen.until)}"
        if before is not None and (top == "+" or before < top[1:]):
            top = f"({before}"
        bottom = "-" if chosen.since is None else f"[{_edge(chosen.since)}"
        scanned = size = 0
        # If the wanted ones are rare, it asks in fewer round trips.
        reads = ReadCount(min(_FIRST, limit + 1), _READ)
        while scanned < SCAN:
            members = self._client.zrevrangebylex(keys.history(integrator), top, bottom, 0, reads.count)
            if not members:
                return found, None
            reads.learn(members)
            for member in in_turns("history", members):
                ref = member[:LENGTH].decode("ascii", "replace")
                if len(found) == limit or size >= PAGE_BYTES:
                    return found, top[1:]
                scanned += 1
                top = f"({ref}"
                if not all(fragment in member for fragment in fragments):
                    continue
                record = _decoded(member[LENGTH:])
                if record is not None and chosen.takes(record):
                    found.append(record)
                    size += len(member)
                else:
                    scanned += _IN_VAIN
                    if scanned >= SCAN:
                        return found, top[1:]
        return found, top[1:]

    def trim(self, integrators: Iterable[str], days: float, now: float) -> None:
        """Drop the records of calls that began more than some days ago. ``now``: by Redis's clock."""
        oldest = _edge(now - days * _DAY)
        refused: Exception | None = None
        for integrator in integrators:
            key = keys.history(integrator)
            # An integrator that is taken out of the configuration leaves nothing behind for ever.
            commands = [("ZREMRANGEBYLEX", key, "-", f"({oldest}"), ("EXPIRE", key, int(days * _DAY) + _DAY)]
            try:
                self._client.send_all(commands)
            except Fault as error:
                # A key of another type keeps no other history.
                refused = refused or error
        if refused is not None:
            raise refused


def _part(raw: bytes) -> Part | None:
    try:
        return documents.decode(SESSION_PART, raw, Part)
    except Unreadable as error:
        log.error("session_part_unreadable", extra={"reason": str(error)})
        return None


def _edge(at: float) -> str:
    """The beginning of the references of calls that began at a time."""
    # Compared before it is made whole: a thousand times the largest number is infinite.
    text = f"{int(max(0, min(at * 1000, (1 << 48) - 1))):012x}"
    return f"{text[:8]}-{text[8:]}"


def _decoded(raw: bytes) -> dict[str, Any] | None:
    try:
        return documents.decode_checked(RECORD, raw, CallRecord)
    except Unreadable:
        return None
