"""Live and recent calls in Redis, shared by all nodes.

Calls are written behind: a call's latest state waits in memory for the writer. A slow Redis delays what other nodes
and clients see, never a call.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gevent
import msgspec
from gevent.event import Event as Flag
from gevent.lock import Semaphore

from esl_apps.core.status import CallStatus
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.process import background
from esl_apps.store import keys
from esl_apps.store.essence import Essence
from esl_apps.store.redis_client import Client
from esl_apps.store.redis_py import Command

log = logging.getLogger(__name__)

#: Seconds for which an ended call can be read.
KEEP = 86400
#: Entries scanned for one page of a filtered list. A rare match costs the client more pages, not the server more time.
SCAN = 1000
PING_EVERY = 1.0
#: Seconds between pings while Redis is down.
PING_AWAY = 0.2
#: Seconds until a failed write is tried again.
AGAIN = 0.5


Snapshot = Callable[[], dict[str, Any]]
"""A call as clients see it."""


class CallStore:
    def __init__(
        self,
        client: Client,
        boot: str = "",
        on_back: Callable[[], None] = lambda: None,
        make_known: Callable[[], None] = lambda: None,
    ) -> None:
        """``boot``: this process's name in ``membership``, under which its live calls are stored. ``on_back``: called
        when Redis is back, perhaps without data that it had not synced. ``make_known``: called before a call is
        written, to make this process a member: others look only for the calls of members."""
        self._client = client
        self._live = keys.live(boot)
        self._on_back = on_back
        self._make_known = make_known
        self._pending: dict[str, tuple[Snapshot, bytes | None]] = {}
        self._on_its_way: dict[str, tuple[Snapshot, bytes | None]] = {}
        self._wake = Flag()
        # Two writers at once could overwrite a call's newer state with its older one.
        self._writing = Semaphore()
        self._greenlets: list[gevent.Greenlet[..., None]] = []
        self.healthy = False
        """Whether Redis answered the last ping, at most a second ago, and has kept the connection open since."""

    def start(self) -> None:
        self.check()
        self._greenlets = [background.keep("calls_writing", self._write), background.keep("redis_watch", self._watch)]

    def stop(self) -> None:
        gevent.killall(self._greenlets)
        self._flush()

    def check(self) -> bool:
        try:
            self._client.ping()
            if not self.healthy:
                self.healthy = True
                self._on_back()
        except StoreUnavailable as error:
            self._away(error)
        return self.healthy

    def _away(self, error: Exception) -> None:
        if self.healthy:
            log.warning("redis_lost", extra={"reason": str(error)})
        self.healthy = False

    def _watch(self) -> None:
        while True:
            try:
                closed = self._wait()
                self.check()
            except Exception as error:
                # Keep watching, whatever was raised: otherwise this node never sees Redis come back.
                log.exception("redis_watch_failed")
                self._away(error)
                closed = True
            if closed:
                # Back off, or a Redis that drops every connection is polled in a tight loop.
                gevent.sleep(PING_AWAY)

    def _wait(self) -> bool:
        """Wait a second, or until Redis closes an idle connection (True). A killed Redis is thus noticed at once, and
        the next request dials nothing."""
        if not self.healthy:
            gevent.sleep(PING_AWAY)
            return False
        try:
            return bool(self._client.closes_within(PING_EVERY))
        except StoreUnavailable as error:
            self._away(error)
            return True

    # Calls --------------------------------------------------------------------------------------------

    def save(self, ref: str, snapshot: Snapshot, essence: bytes | None) -> None:
        """Note that a call has changed. ``snapshot`` is called when it is written, so a burst of changes is one write.
        ``essence``: as JSON; None once the call has ended."""
        self._pending[ref] = snapshot, essence
        self._wake.set()

    def _write(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            try:
                written = self._flush()
            except Exception:
                # Keep writing, whatever was raised: otherwise no other node knows of this one's calls.
                log.exception("calls_not_written")
                written = False
            if not written:
                gevent.sleep(AGAIN)
                self._wake.set()
            # Changes of a call come in bursts. Waiting a moment makes them one write.
            gevent.sleep(0.02)

    def _flush(self) -> bool:
        with self._writing:
            return self._write_pending()

    def _write_pending(self) -> bool:
        if not self._pending:
            return True
        pending, self._pending = self._pending, {}
        self._on_its_way = pending
        try:
            self._make_known()
            commands: list[Command] = []
            for ref, (take, essence) in pending.items():
                snapshot = take()
                index = keys.calls(snapshot["integrator"] or "")
                commands.append(("SET", keys.call(ref), msgspec.json.encode(snapshot), "EX", KEEP))
                commands.append(("ZADD", index, 0, ref))
                if essence is None:
                    commands.append(("HDEL", self._live, ref))
                    # References sort by time, so calls of more than a day ago are a range of names.
                    oldest = f"{int((time.time() - KEEP) * 1000):012x}"
                    commands.append(("ZREMRANGEBYLEX", index, "-", f"({oldest[:8]}-{oldest[8:]}"))
                else:
                    commands.append(("HSET", self._live, ref, essence))
            self._client.send_all(commands)
        except BaseException as error:
            # Put them back whatever was raised, even if the writer was killed: they are still to be written.
            for ref, changed in pending.items():
                self._pending.setdefault(ref, changed)
            if isinstance(error, StoreUnavailable):
                return False
            raise
        finally:
            self._on_its_way = {}
        return True

    def call(self, ref: str) -> dict[str, Any] | None:
        """:raises StoreUnavailable: Redis is down."""
        changed = self._pending.get(ref) or self._on_its_way.get(ref)
        if changed is not None:
            return changed[0]()
        return _read(self._client.get(keys.call(ref)))

    def calls(
        self, integrator: str, wanted: dict[str, str], limit: int, before: str | None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """An integrator's calls, newest first, and where the next page begins (None: no more).

        ``wanted``: the values that fields must have. :raises StoreUnavailable: Redis is down.
        """
        self._flush()
        found: list[dict[str, Any]] = []
        top = f"({before}" if before else "+"
        scanned = 0
        while scanned < SCAN:
            refs = self._client.zrevrangebylex(keys.calls(integrator), top, "-", 0, 200 if wanted else limit)
            if not refs:
                return found, None
            for raw, value in zip(refs, self._values(refs), strict=True):
                scanned += 1
                ref = raw.decode("utf-8", "replace")
                top = f"({ref}"
                call = _read(value)
                if call is not None and all(call.get(field) == text for field, text in wanted.items()):
                    found.append(call)
                    if len(found) == limit:
                        return found, ref
        return found, top[1:]

    def live(self, boots: Iterable[str]) -> dict[str, list[Essence]]:
        """The live calls of processes, by process. :raises StoreUnavailable: Redis is down."""
        listed = list(boots)
        answers = self._client.send_all([("HVALS", keys.live(boot)) for boot in listed])
        return {
            boot: [one for raw in found if (one := _essence(raw)) is not None]
            for boot, found in zip(listed, answers, strict=True)
        }

    def essence(self, ref: str, boots: Iterable[str]) -> tuple[str, Essence] | None:
        """A live call's process and essence. :raises StoreUnavailable: Redis is down."""
        listed = list(boots)
        answers = self._client.send_all([("HGET", keys.live(boot), ref) for boot in listed])
        for boot, raw in zip(listed, answers, strict=True):
            if raw is not None and (one := _essence(raw)) is not None:
                return boot, one
        return None

    def has(self, ref: str) -> bool:
        """Whether this process has a live call. :raises StoreUnavailable: Redis is down."""
        if ref in self._pending or ref in self._on_its_way:
            return True
        return bool(self._client.hexists(self._live, ref))

    def forget(self, ref: str) -> None:
        """Remove a call that was taken over but had ended, or that goes back. :raises StoreUnavailable: Redis is
        down."""
        with self._writing:
            # Waiting for a write that is under way: it would bring the call back.
            self._pending.pop(ref, None)
            self._client.hdel(self._live, ref)

    def refresh(self, calls: Sequence[tuple[str, str]]) -> None:
        """Keep live calls known, however long they last. ``calls``: references, each with its integrator ('': none).

        :raises StoreUnavailable: Redis is down.
        """
        commands: list[Command] = []
        for ref, integrator in calls:
            commands.append(("EXPIRE", keys.call(ref), KEEP))
            commands.append(("ZADD", keys.calls(integrator), 0, ref))
        if commands:
            self._client.send_all(commands)

    def take_over(self, call: Essence, boot: str) -> bool:
        """Take over a dead process's call. False: another process was faster.

        If this process dies between the two steps, two processes have the call, and Redis takes one of their records.
        :raises StoreUnavailable: Redis is down.
        """
        call.had_by = [*call.had_by, boot]
        self._client.hset(self._live, call.call_ref, msgspec.json.encode(call))
        if self._client.hdel(keys.live(boot), call.call_ref):
            return True
        self._client.hdel(self._live, call.call_ref)
        return False

    def _values(self, refs: Iterable[bytes]) -> list[bytes | None]:
        # Not MGET: in a cluster the calls are on many slots.
        answers: list[bytes | None] = self._client.send_all(
            [("GET", keys.call(ref.decode("utf-8", "replace"))) for ref in refs]
        )
        return answers


def _read(raw: bytes | None) -> dict[str, Any] | None:
    """Decode a call's snapshot. None if there is none or, with a log line, if it can't be read."""
    if raw is None:
        return None
    try:
        msgspec.json.decode(raw, type=CallStatus)
        # Decode all of it: the type skips fields that it doesn't name, and they may not be UTF-8.
        call: dict[str, Any] = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        log.error("call_unreadable", extra={"reason": str(error)})
        return None
    return call


def _essence(raw: bytes) -> Essence | None:
    """Decode a live call as its process wrote it. None, with a log line, if it can't be read."""
    try:
        return msgspec.json.decode(raw, type=Essence)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        log.error("live_call_unreadable", extra={"reason": str(error)})
        return None
