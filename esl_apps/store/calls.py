"""Live and recent calls in Redis, shared by all nodes.

Calls are written behind: a call's latest state waits in memory for the writer. A slow Redis delays what other nodes
and clients see, never a call; one that refuses writes is not ready, and what waits for it is bounded.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import gevent
import msgspec
from gevent.event import Event as Flag
from gevent.lock import Semaphore

from esl_apps.core import terms
from esl_apps.core.status import CallStatus, values_by
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.core.versions import CALL
from esl_apps.net.turns import in_turns
from esl_apps.process import background
from esl_apps.store import documents, keys
from esl_apps.store.connection import Command
from esl_apps.store.documents import WrongVersion
from esl_apps.store.ended_calls import EndedCalls
from esl_apps.store.errors import Unreadable
from esl_apps.store.essence import Essence, FoundCall, own_version, read_essence
from esl_apps.store.gone_calls import End, GoneCalls
from esl_apps.store.hourly_quota import HourlyQuota
from esl_apps.store.lenient_reads import LenientReads
from esl_apps.store.list_trim import KEEP, ListTrim
from esl_apps.store.paging import PAGE_BYTES, ReadCount
from esl_apps.store.redis_client import Client
from esl_apps.store.redis_watch import RedisWatch
from esl_apps.store.write_behind import WriteBehind

log = logging.getLogger(__name__)

#: Entries scanned for one page of a filtered list. A rare match costs the client more pages, not the server more time.
SCAN = 1000
#: Seconds for which the cancel of a call is known: longer than it takes to adopt it and to see it end.
CANCELLED = 600
#: Seconds for which it is known that a call was taken over: longer than a first leg rings.
TAKEN = 600
#: Seconds until a failed write is tried again.
AGAIN = 0.5
#: Seconds between two looks for calls that Redis has again.
LOOK_EVERY = 30.0
#: Calls written between two looks at what else there is to do.
_TURN = 50
#: Refused calls of an hour, of one process, that can be read for a day. Strangers cause them: of more, only the records
#: tell. 300 calls are some 600 KB.
REFUSED_PER_HOUR = 300
_LISTED_MOST = 50_000
#: The group of the calls' own keys.
_CALLS = keys.call("*")
_GONE_ON = keys.gone_on("*")
_CANCELLERS = {by.encode(): by for by in (terms.API, terms.SYSTEM)}


Take = Callable[[], Any]
"""Returns a call as clients see it (``status.document``)."""


class Change(NamedTuple):
    take: Take
    essence: bytes | None
    refused: bool


class CallStore:
    def __init__(
        self,
        client: Client,
        boot: str = "",
        on_back: Callable[[], None] = lambda: None,
        make_known: Callable[[], None] = lambda: None,
        now: Callable[[], float | None] = time.time,
    ) -> None:
        """``boot``: this process's name in ``membership``, under which its live calls are stored. ``on_back``: called
        when Redis is back, perhaps without data that it had not synced. ``make_known``: called before a call is
        written, to make this process a member: others look only for the calls of members. ``now``: as `ListTrim`'s."""
        self._client = client
        self._reads = LenientReads(client)
        self.unreadable = self._reads.unreadable
        self._boot = boot
        self._live = keys.live(boot)
        self._on_back = on_back
        self._make_known = make_known
        self._pending: dict[str, Change] = {}
        self._listed: dict[str, str] = {}
        """The list in which Redis has a live call, unless it has lost it."""
        self._trim = ListTrim(now)
        self._writes = WriteBehind(client)
        self.watch = RedisWatch(client, self._writes, self._is_back)
        self._gone = GoneCalls(client, self._live)
        self._wake = Flag()
        self._back = Flag()
        """Set when Redis is back."""
        # Two writers at once could overwrite a call's newer state with its older one.
        self._writing = Semaphore()
        self._ended = EndedCalls()
        self._greenlets: list[gevent.Greenlet[..., None]] = []
        self._refused = HourlyQuota("status")
        self.unanswered: dict[str, Essence] = {}
        """Calls that this process may have taken over: Redis didn't say."""

    def start(self) -> None:
        self._greenlets = [
            self.watch.start(),
            background.keep("calls_writing", self._write),
            background.keep("gone_calls", self._watch_gone),
        ]

    def stop(self) -> None:
        gevent.killall(self._greenlets)
        if self.watch.healthy:
            # The next run would take them over.
            with suppress(StoreUnavailable):
                self.remove_gone()
        self.flush()

    @property
    def faults(self) -> list[str]:
        """The keys that can't be written. Calls go on without them, but a person has to mend them."""
        return self._writes.faults

    def _is_back(self) -> None:
        # Redis may have lost the lists.
        self._listed.clear()
        self._wake.set()
        self._back.set()
        self._on_back()

    # Calls --------------------------------------------------------------------------------------------

    def save(self, ref: str, take: Take, essence: bytes | None, *, refused: bool = False) -> None:
        """Note that a call has changed. ``take`` is called when it is written, so a burst of changes is one write.
        ``essence``: as JSON; None once the call has ended. ``refused``: as ``Attempt.refused``."""
        if essence is not None:
            self._gone.discard(ref)
        self._pending[ref] = Change(take, essence, refused)
        self._wake.set()

    def _write(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            try:
                written = self.flush()
            except Exception:
                # Keep writing, whatever was raised: otherwise no other node knows of this one's calls.
                log.exception("calls_not_written")
                written = False
            if not written:
                gevent.sleep(AGAIN)
                self._wake.set()
            # Changes of a call come in bursts. Waiting a moment makes them one write.
            gevent.sleep(0.02)

    def flush(self) -> bool:
        """Write what is pending now. Return False if Redis is down, or refuses."""
        with self._writing:
            return self._write_pending()

    def _write_pending(self) -> bool:
        count = 0
        while self._pending:
            ref = next(iter(self._pending))
            self._queue(ref, *self._pending.pop(ref))
            count += 1
            if count % _TURN == 0:
                gevent.sleep(0)
        if self._is_all_written():
            return True
        try:
            self._make_known()
            self._writes.flush()
        except StoreUnavailable:
            return False
        return self._is_all_written()

    def _is_all_written(self) -> bool:
        # A refusal is forgotten by a flush: without one, a node to which no call comes would never be ready again.
        return not self._writes.waiting and self._writes.refusal is None

    def _queue(self, ref: str, take: Take, essence: bytes | None, refused: bool) -> None:
        document = take()
        call, index = keys.call(ref), keys.calls(document.integrator or "")
        live = self._live
        self._writes.put(live, ref, ("HDEL", live, ref) if essence is None else ("HSET", live, ref, essence))
        if (listed := self._listed.get(ref, index)) != index:
            self._writes.put(listed, ref, ("ZREM", listed, ref))
        if refused and not self._refused.take(REFUSED_PER_HOUR):
            if self._listed.pop(ref, None):
                self._gone.add(ref)
            self._writes.put(_CALLS, ref, ("DEL", call))
            self._writes.put(index, ref, ("ZREM", index, ref))
            return
        status = ("SET", call, documents.encode(CALL, document), "EX", KEEP)
        self._writes.put(_CALLS, ref, status)
        if self._listed.get(ref) != index:
            self._writes.put(index, ref, ("ZADD", index, 0, ref))
            if len(self._listed) >= _LISTED_MOST:
                # Calls that went on in other processes are still here. The rest is listed again, which does no harm.
                self._listed.clear()
            self._listed[ref] = index
        if essence is None:
            del self._listed[ref]
            self._gone.ended(End(ref, index, status))
            if trim := self._trim.due(index):
                self._writes.put(index, "", trim)

    def _watch_gone(self) -> None:
        while True:
            self._back.wait(LOOK_EVERY)
            self._back.clear()
            with suppress(StoreUnavailable):
                self.remove_gone()

    def remove_gone(self) -> None:
        """Remove calls that Redis has again as this process's, and write that they have ended.

        :raises StoreUnavailable: Redis is down.
        """

        def is_written(ref: str) -> bool:
            return self._writes.get(self._live, ref) is None

        for end in self._gone.remove(is_written):
            self._writes.put(_CALLS, end.ref, end.status)
            self._writes.put(end.list, end.ref, ("ZADD", end.list, 0, end.ref))
        self._wake.set()

    def call(self, ref: str) -> dict[str, Any] | None:
        """:raises StoreUnavailable: Redis is down."""
        changed = self._pending.get(ref)
        if changed is not None:
            taken: dict[str, Any] = msgspec.to_builtins(changed.take())
            return taken
        waiting = self._writes.get(_CALLS, ref)
        if waiting is not None:
            return _read(waiting[2]) if waiting[0] == "SET" else None
        return _read(self._client.get(keys.call(ref)))

    def is_written(self, ref: str) -> bool:
        """Whether Redis has a call as `call` returns it: other nodes see only what Redis has."""
        return ref not in self._pending and self._writes.get(_CALLS, ref) is None

    def calls(
        self, integrator: str, wanted: dict[str, str], limit: int, before: str | None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """An integrator's calls, newest first, and where the next page begins (None: no more).

        ``wanted``: the values that fields, or ``metadata.NAME``, must have. :raises StoreUnavailable: Redis is down.
        """
        self.flush()
        found: list[dict[str, Any]] = []
        top = f"({before}" if before else "+"
        scanned = size = 0
        reads = ReadCount(20, 200 if wanted else limit)
        while scanned < SCAN:
            refs = self._client.zrevrangebylex(keys.calls(integrator), top, "-", 0, reads.count)
            if not refs:
                return found, None
            names = [raw.decode("utf-8", "replace") for raw in refs]
            asked = [ref for ref in names if not self._ended.excludes(ref, wanted)]
            values = dict(zip(asked, self._values(asked), strict=True)) if asked else {}
            reads.learn([raw for raw in values.values() if raw])
            for ref in names:
                scanned += 1
                top = f"({ref}"
                call = _read(values.get(ref))
                if call is None:
                    continue
                if wanted:
                    self._ended.remember(call)
                if all(text in values_by(field, call) for field, text in wanted.items()):
                    found.append(call)
                    size += len(values[ref] or b"")
                    if len(found) == limit or size >= PAGE_BYTES:
                        return found, ref
        return found, top[1:]

    def live(self, boots: Iterable[str]) -> dict[str, list[Essence]]:
        """The live calls of processes, by process. :raises StoreUnavailable: Redis is down."""
        listed = list(boots)
        answers = self._reads.ask([("HVALS", keys.live(boot)) for boot in listed], [])
        return {
            boot: [call for raw in in_turns("redis", found) if isinstance(call := own_version(raw), Essence)]
            for boot, found in zip(listed, answers, strict=True)
        }

    def leaves_calls(self, boot: str) -> bool:
        """Whether a process has calls that only a node of another version can take over.

        :raises StoreUnavailable: Redis is down.
        """
        (found,) = self._reads.ask([("HVALS", keys.live(boot))], [])
        return any(isinstance(own_version(raw), WrongVersion) for raw in found)

    def essence(self, ref: str, boots: Iterable[str]) -> FoundCall | None:
        """A live call, and the one of these processes that has it.

        :raises StoreUnavailable: Redis is down, or the call is of a version that isn't read here (``WrongVersion``).
        """
        listed = list(boots)
        answers = self._reads.ask([("HGET", keys.live(boot), ref) for boot in listed], None)
        for boot, raw in zip(listed, answers, strict=True):
            if raw is not None and (call := read_essence(raw)) is not None:
                return FoundCall(boot, call)
        return None

    def has(self, ref: str) -> bool:
        """Whether this process has a live call. If another has taken it over, what is saved meanwhile isn't written: it
        would be given back. :raises StoreUnavailable: Redis is down."""
        with self._writing:
            if ref in self._pending:
                return True
            waiting = self._writes.get(self._live, ref)
            if waiting is None and not self._client.hexists(self._live, ref):
                self._pending.pop(ref, None)
                return False
            return waiting is None or bool(waiting[0] == "HSET")

    def forget(self, ref: str) -> None:
        """Remove a call that was taken over but had ended, or that goes back. :raises StoreUnavailable: Redis is
        down."""
        with self._writing:
            # Waiting for a write that is under way: it would bring the call back.
            self._pending.pop(ref, None)
            self._writes.drop(self._live, ref)
            self._gone.add(ref)
            self._client.hdel(self._live, ref)

    def drop(self, ref: str, boot: str) -> None:
        """Remove a call that a dead process had ended, with its status, which is older. :raises StoreUnavailable: Redis
        is down."""
        self._client.delete(keys.call(ref))
        self._client.hdel(keys.live(boot), ref)

    def note_cancel(self, ref: str, by: str) -> None:
        """Note that a call is being cancelled. :raises StoreUnavailable: Redis is down."""
        self._client.set(keys.cancelled(ref), by, ex=CANCELLED)

    def cancelled(self, refs: Sequence[str]) -> dict[str, str]:
        """Those of these calls that were cancelled, and by which party. :raises StoreUnavailable: Redis is down."""
        answers = self._reads.ask([("GET", keys.cancelled(ref)) for ref in refs], None)
        return {ref: _CANCELLERS[raw] for ref, raw in zip(refs, answers, strict=True) if raw in _CANCELLERS}

    def note_gone_on(self, ref: str, new: str) -> None:
        """Note that this process goes on with a call's caller, in the call ``new``, perhaps the same: others that have
        had the call leave the record to it. Written behind."""
        key = keys.gone_on(ref)
        self._writes.put(_GONE_ON, ref, ("SET", key, f"{new} {self._boot}", "EX", KEEP))
        self._wake.set()

    def gone_on(self, ref: str, had_by: Sequence[str]) -> str | None:
        """The call in which a caller goes on; None: in none, or in the same one with this process or one of ``had_by``,
        from which this one has the call. :raises StoreUnavailable: Redis is down."""
        new, _, boot = (self._client.get(keys.gone_on(ref)) or b"").decode("ascii", "replace").partition(" ")
        return None if not new or (new == ref and boot in (self._boot, *had_by)) else new

    def refresh(self, calls: Sequence[tuple[str, str]]) -> None:
        """Keep live calls known, however long they last. ``calls``: references, each with its integrator ('': none).

        :raises StoreUnavailable: Redis is down.
        """
        commands: list[Command] = []
        for ref, integrator in calls:
            commands.append(("EXPIRE", keys.call(ref), KEEP))
            commands.append(("ZADD", keys.calls(integrator), 0, ref))
        if commands:
            self._reads.ask(commands, None)

    def take_over(self, call: Essence, boot: str) -> bool:
        """Take over a dead process's call. False: another process was faster.

        If this process dies between the two steps, two processes have the call, and Redis takes one of their records.
        :raises StoreUnavailable: Redis is down.
        """
        ref = call.call_ref
        self._gone.discard(ref)
        # Before it is here: its process may come back at any moment, and must know.
        self._client.set(keys.taken(ref), self._boot, ex=TAKEN)
        call.had_by = [*call.had_by, boot]
        try:
            self._client.hset(self._live, ref, call.encode())
        except StoreUnavailable:
            # It may be there all the same, and another process may take the call over now.
            self._gone.add(ref)
            raise
        try:
            if self._client.hdel(keys.live(boot), ref):
                return True
        except StoreUnavailable:
            self.unanswered[ref] = call
            raise
        self._gone.add(ref)
        self._client.hdel(self._live, ref)
        return False

    def was_taken(self, ref: str) -> bool:
        """Return whether a process has taken over a call, which this one may have had before or since.

        :raises StoreUnavailable: Redis is down.
        """
        return bool(self._client.get(keys.taken(ref)))

    def _values(self, refs: Iterable[str]) -> list[bytes | None]:
        # Not MGET: in a cluster the calls are on many slots.
        return self._reads.ask([("GET", keys.call(ref)) for ref in refs], None)


def _read(raw: bytes | None) -> dict[str, Any] | None:
    """Decode a call's snapshot. None if there is none or, with a log line, if it can't be read."""
    if raw is None:
        return None
    try:
        return documents.decode_checked(CALL, raw, CallStatus)
    except WrongVersion:
        return None
    except Unreadable as error:
        log.error("call_unreadable", extra={"reason": str(error)})
        return None
