"""What the nodes share in Redis: calls, live and recent.

Calls are written behind: a call's latest state is kept until the writer has taken it, so a slow Redis makes
the picture late, never a call.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import gevent
import msgspec
from gevent.event import Event as Flag
from gevent.lock import Semaphore

from esl_apps.core.status import CallStatus
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store import keys
from esl_apps.store.essence import Essence
from esl_apps.store.redis_client import Client
from esl_apps.store.redis_py import Command

log = logging.getLogger(__name__)

#: Seconds for which an ended call can be asked for.
KEEP = 86400
#: Entries looked at for one page of a filtered list: a rare filter costs pages, not the server.
SCAN = 1000
PING_EVERY = 1.0
#: While Redis is away: how soon it is seen to be back.
PING_AWAY = 0.2
#: And how soon what could not be written is tried again.
AGAIN = 0.5


Snapshot = Callable[[], dict[str, Any]]
"""A call as clients see it."""


class Store:
    def __init__(
        self,
        client: Client,
        boot: str = "",
        on_back: Callable[[], None] = lambda: None,
        make_known: Callable[[], None] = lambda: None,
    ) -> None:
        """``boot``: this process's own name in ``roster``, under which its live calls stand. ``on_back`` is called
        when Redis is back, perhaps without what was not on its disk yet; ``make_known`` before a call is written:
        nobody looks for the calls of a process that the roster does not know."""
        self._client = client
        self._live = keys.live(boot)
        self._on_back = on_back
        self._make_known = make_known
        self._pending: dict[str, tuple[Snapshot, bytes | None]] = {}
        self._on_its_way: dict[str, tuple[Snapshot, bytes | None]] = {}
        self._wake = Flag()
        # Two writers at once could leave a call's older state behind its newer one.
        self._writing = Semaphore()
        self._greenlets: list[gevent.Greenlet[..., None]] = []
        self.healthy = False
        """Whether Redis answered last time it was asked, a second ago at most, and has kept its line open since."""

    def start(self) -> None:
        self.check()
        self._greenlets = [gevent.spawn(self._write), gevent.spawn(self._watch)]

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
            log.warning("Redis away", extra={"reason": str(error)})
        self.healthy = False

    def _watch(self) -> None:
        while True:
            try:
                closed = self._wait()
                self.check()
            except Exception as error:
                # Whatever it was, Redis is watched on: nobody else sees it come back.
                log.exception("Redis not watched")
                self._away(error)
                closed = True
            if closed:
                # A Redis that closes every line at once is not asked without a pause.
                gevent.sleep(PING_AWAY)

    def _wait(self) -> bool:
        """Until the next look at Redis: a second, or until it closes an idle line (True). A Redis that was killed
        is so seen when it happens: a request right behind it dials nothing."""
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
        """A call has changed. ``snapshot`` is asked when it is written: changes in a burst are one write.
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
                # Whatever it was, what is written next is: without it no other node knows of this one's calls.
                log.exception("calls not written")
                written = False
            if not written:
                gevent.sleep(AGAIN)
                self._wake.set()
            # Changes of one call come in bursts; a moment's wait makes one write of them.
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
                    # References sort by time: what lies before a day ago goes by name.
                    oldest = f"{int((time.time() - KEEP) * 1000):012x}"
                    commands.append(("ZREMRANGEBYLEX", index, "-", f"({oldest[:8]}-{oldest[8:]}"))
                else:
                    commands.append(("HSET", self._live, ref, essence))
            self._client.send_all(commands)
        except BaseException as error:
            # Whatever it is, to be stopped among it: it is still to be written.
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
        """Newest first, and where the next page begins (None: there is none).

        ``wanted``: field → value that must be equal. :raises StoreUnavailable: Redis is down.
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
        """Whether a call is this process's. :raises StoreUnavailable: Redis is down."""
        if ref in self._pending or ref in self._on_its_way:
            return True
        return bool(self._client.hexists(self._live, ref))

    def forget(self, ref: str) -> None:
        """A call that was taken over had ended. :raises StoreUnavailable: Redis is down."""
        self._client.hdel(self._live, ref)

    def take_over(self, call: Essence, boot: str) -> bool:
        """Make a dead process's call this one's; False where another process was faster.

        One that dies between the two steps leaves the call to both, and a record that is pushed twice is one.
        :raises StoreUnavailable: Redis is down.
        """
        self._client.hset(self._live, call.call_ref, msgspec.json.encode(call))
        if self._client.hdel(keys.live(boot), call.call_ref):
            return True
        self._client.hdel(self._live, call.call_ref)
        return False

    def _values(self, refs: Iterable[bytes]) -> list[bytes | None]:
        # Not MGET: in a cluster the calls stand on many slots.
        answers: list[bytes | None] = self._client.send_all(
            [("GET", keys.call(ref.decode("utf-8", "replace"))) for ref in refs]
        )
        return answers


def _read(raw: bytes | None) -> dict[str, Any] | None:
    """A call's snapshot; None where there is none, or (which is logged) what stands there is none of ours."""
    if raw is None:
        return None
    try:
        msgspec.json.decode(raw, type=CallStatus)
        # Read whole: what the type does not name is passed over there, and may be no text.
        call: dict[str, Any] = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        log.error("a call in Redis can't be read", extra={"reason": str(error)})
        return None
    return call


def _essence(raw: bytes) -> Essence | None:
    """A live call as its process wrote it; None (which is logged) where what stands there is none."""
    try:
        return msgspec.json.decode(raw, type=Essence)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        log.error("a live call in Redis can't be read", extra={"reason": str(error)})
        return None
