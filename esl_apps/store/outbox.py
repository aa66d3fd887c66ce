"""The outbox: push records to a Redis list or stream, losing none and pushing none twice.

A record is first appended to a file on this machine. One greenlet per list then pushes records in order. The script
that pushes marks each record's id in Redis, so repeating a push whose answer was lost pushes nothing twice, from any
node; and it numbers the records of the list (``seq``). A call never waits: ``push`` writes to the file's buffer cache
and returns. While Redis stays away, only the oldest records are in memory; the rest is read from the file when its
turn comes.

Pushed records stay in memory until Redis has them on disk or the client has taken them; for some minutes at least if
Redis has replicas. If Redis comes back without them, or a replica that never had them becomes the master, they are
pushed again. Their marks are the
witnesses: Redis loses the latest writes, so if it has a record's mark it has those before, too. This needs no right to
INFO, and shows what a run id doesn't: a Redis behind a proxy, FLUSHALL, a replica that was synced with an empty master.
"""

from __future__ import annotations

import logging
import math
import random
import re
import time
from collections import deque
from collections.abc import Callable, Iterable
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

import gevent
import msgspec
from gevent.event import Event as Flag

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.net.turns import take_turn
from esl_apps.process import background
from esl_apps.process.folder import Folder
from esl_apps.store import keys
from esl_apps.store.documents import WrongVersion
from esl_apps.store.errors import Fault, RedisRefused, Reply, Unreadable, read_count
from esl_apps.store.journal import Entry, Journal
from esl_apps.store.redis_client import Client
from esl_apps.store.script import Script

log = logging.getLogger(__name__)

_Item = TypeVar("_Item")

#: Seconds for which Redis keeps the mark of a pushed record: longer than any node is down with a push unanswered.
REMEMBER = 7 * 86400
#: Seconds for which a missing mark means that Redis lost it. Later it may have expired.
TRUSTED = REMEMBER / 2
BATCH = 200
#: Entries in memory; more are in the journal alone. And how many are read from there at a time.
WINDOW, READ = 2000, 400
#: Entries waiting at which an alert is raised, and again at each tenfold.
MANY = 10_000
#: Entries in memory that the disk had no room for, above which the node takes no more calls.
UNWRITTEN = 10_000
SYNC_EVERY = 0.2
#: Seconds for a sync; a busy disk may take some.
SYNC_PATIENCE = 5.0
BACKOFF_FIRST, BACKOFF_LAST = 0.05, 1.0
#: Seconds between two looks at which records Redis may still lose.
LOOK_EVERY = 1.0
#: How our scripts name a key of another type.
_WRONG_KEY = re.compile(r"redis: WRONGTYPE (\S+) is a ")
#: Seconds after which Redis has certainly synced an append-only file (``everysec``).
SYNCED = 3.0
#: Seconds by which a replica that becomes the master may lag. Sentinel and a cluster choose none that was cut off for
#: longer than ten of their time-outs, which are 30 and 15 s unless configured.
LAG = 600.0
#: Entries kept per list in case Redis loses them. Reached if Redis never saves, or has replicas and gets 16 a second.
KEPT = 10000
#: Characters of the entries in memory: of those that wait, and of those that are kept per list. That many entries have
#: 10 to 35 million; but clients choose what their calls carry, and 10,000 could have a gigabyte.
WINDOW_CHARACTERS, KEPT_CHARACTERS = 16 << 20, 48 << 20


class _Kept(msgspec.Struct):
    """An entry that was pushed."""

    entry: Entry
    seq: int
    at: float
    """When it was pushed first (``time.monotonic``): its mark may be as old."""
    last_at: float
    """When it was pushed last."""
    seen: bool = False
    """Whether Redis was found to have its mark."""


class _Measured(deque[_Item]):
    """Knows how many characters its entries have."""

    def __init__(self, entry_of: Callable[[_Item], Entry]) -> None:
        super().__init__()
        self._entry_of = entry_of
        self.characters = 0

    def append(self, item: _Item) -> None:
        super().append(item)
        self.characters += self._size_of(item)

    def extend(self, items: Iterable[_Item]) -> None:
        for item in items:
            self.append(item)

    def popleft(self) -> _Item:
        item = super().popleft()
        self.characters -= self._size_of(item)
        return item

    def _size_of(self, item: _Item) -> int:
        entry = self._entry_of(item)
        return len(entry.head) + len(entry.tail) + len(entry.part)


def _durable(client: Client) -> float:
    """Since when (``time.monotonic``) the masters' writes may not be on disk. Always, if INFO is refused: hosted Redis
    often gives no right to it.

    :raises StoreUnavailable: one is down.
    """
    asked, ages = time.monotonic(), []
    for master in client.masters():
        try:
            info = master.info("persistence")
        except RedisRefused:
            return -math.inf
        if info["aof_enabled"] and info["aof_last_write_status"] == "ok":
            ages.append(SYNCED)
        elif info["rdb_last_bgsave_status"] != "ok":
            # How long the last good save took isn't known any more.
            return -math.inf
        else:
            # The last dump is the newest copy on disk, as Redis was when the save began. The time is that of its end,
            # in whole seconds.
            took = max(0, info["rdb_last_bgsave_time_sec"])
            ages.append(master.time()[0] - info["rdb_last_save_time"] + took + 1)
    return asked - max(ages)


def _has_replicas(client: Client) -> bool:
    """:raises StoreUnavailable: Redis is down."""
    try:
        return any(master.info("replication").get("connected_slaves") for master in client.masters())
    except RedisRefused:
        return False


class Outbox:
    """Delivers the entries of one Redis."""

    script = "outbox_push"

    def __init__(
        self,
        name: str,
        folder: Path,
        client: Client,
        on_pushed: Callable[[Entry], None] | None = None,
        tell: Callable[..., None] = lambda *_what, **_details: None,
        disk: Folder | None = None,
    ) -> None:
        """``tell``: ``Alerts.tell``. ``disk``: threads that outboxes on one disk share.

        :raises OSError: as :class:`Journal`.
        """
        self.name = name
        self._client = client
        self._tell = tell
        self._many = MANY
        self._journal = Journal(folder)
        self._journal.open()
        self._disk = disk or Folder("journal", patience=SYNC_PATIENCE)
        self._unsynced = self._unwritable = False
        self._queue: _Measured[Entry] = _Measured(lambda item: item)
        """The oldest entries."""
        self._wake = Flag()
        self._idle = Flag()
        self._on_pushed = on_pushed or (lambda _entry: None)
        self._greenlets: list[gevent.Greenlet[..., None]] = []
        self._replicated = client.fails_over
        """Whether a replica may become the master, which has what is on its own disk."""
        self._script = Script(client, self.script)
        self._kept: dict[str, _Measured[_Kept]] = {}
        """Pushed entries that Redis may still lose, by list, in the order of their ``seq``."""
        self.failing_since: float | None = None
        self.refused = ""
        """The answer of a Redis that takes no records; empty if it takes them or doesn't answer."""
        if self.depth:
            log.info("outbox_resumed", extra={"outbox": name, "entries": self.depth})
            self._wake.set()

    @property
    def depth(self) -> int:
        """How many entries are not in Redis yet."""
        return len(self._queue) + self._journal.waiting

    @property
    def failing_seconds(self) -> float:
        """For how long pushes have failed; 0.0 if the last one succeeded."""
        return 0.0 if self.failing_since is None else max(0.0, time.time() - self.failing_since)

    @property
    def overflows(self) -> bool:
        """Whether the disk and Redis both take nothing, and too many records are in memory alone."""
        return self._journal.unwritten > UNWRITTEN

    def start(self) -> None:
        self._greenlets = [
            background.keep("outbox", self._run, outbox=self.name),
            background.keep("outbox_sync", self._sync, outbox=self.name),
            background.keep("outbox_watch", self._watch, outbox=self.name),
        ]

    def push(self, item: Entry) -> None:
        """Take an entry; from now on the outbox is responsible for its delivery."""
        try:
            self._journal.append(item)
            self._unwritable = False
        except OSError as error:
            # The disk is full. The record is in memory alone, and goes out unless this process dies.
            if not self._unwritable:
                log.error("journal_not_written", extra={"outbox": self.name, "reason": str(error)})
            self._unwritable = True
        has_room = len(self._queue) < WINDOW and self._queue.characters < WINDOW_CHARACTERS
        if has_room and self._journal.hold_newest():
            self._queue.append(item)
        if self.depth >= self._many:
            self._many = 10 * self.depth
            self._tell("records_waiting", outbox=self.name, list=item.list, waiting=self.depth)
        self._idle.clear()
        self._wake.set()

    def drain(self, timeout: float) -> bool:
        """Wait until all entries are pushed. False: time ran out, and the rest is in the journal."""
        if not self.depth:
            return True
        return bool(self._idle.wait(timeout))

    def stop(self) -> None:
        """Leave what waits to the next run. Never raises: a bad disk must not keep a node from ending."""
        gevent.killall(self._greenlets)
        self._sync_once()
        try:
            self._journal.close()
        except OSError as error:
            log.error("journal_not_written", extra={"outbox": self.name, "reason": str(error)})

    def _refill(self) -> None:
        """Read more entries from the journal.

        :raises OSError: it can't be read now.
        :raises WrongVersion: its next entry is of a version that isn't read here.
        """
        if len(self._queue) < BATCH and self._journal.waiting:
            take_turn("journal")
            self._queue.extend(self._journal.read(READ))

    def _run(self) -> None:
        delay = BACKOFF_FIRST
        while True:
            try:
                self._refill()
            except WrongVersion as error:
                if not self._queue:
                    # Those behind it wait in the journal, too, for a run of a later version.
                    self._failed(error, "")
                    gevent.sleep(BACKOFF_LAST)
                    continue
            if not self._queue:
                if self._journal.waiting:
                    # None of those that were read was readable.
                    continue
                self._many = MANY
                self._idle.set()
                self._wake.clear()
                self._wake.wait()
                continue
            batch = [self._queue[i] for i in range(min(BATCH, len(self._queue)))]
            try:
                pushed = self._send(batch)
            except Exception as error:
                # Keep trying, whatever was raised: the records are still to be delivered.
                self._failed(error, batch[0].list)
                gevent.sleep(delay * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret
                delay = min(delay * 2, BACKOFF_LAST)
                continue
            if self.failing_since is not None:
                away = round(time.time() - self.failing_since, 1)
                log.info("redis_back", extra={"outbox": self.name, "away": away, "waiting": self.depth})
                self.failing_since = None
                self.refused = ""
            delay = BACKOFF_FIRST
            self._keep(pushed)
            for item in batch:
                self._queue.popleft()
                try:
                    self._on_pushed(item)
                except Exception:
                    log.exception("push_callback_failed", extra={"outbox": self.name})
            try:
                self._journal.finish(len(batch))
            except OSError as error:
                log.error("journal_not_written", extra={"outbox": self.name, "reason": str(error)})

    def _failed(self, error: Exception, list: str) -> None:
        """Log a failure once, and again if another kind follows."""
        refused = ""
        if isinstance(error, Reply):
            # Not always the list: a history has a key for its events, too.
            named = _WRONG_KEY.match(str(error))
            refused = error.summary.replace("redis: ", f"redis: {named[1] if named else list}: ", 1)
        if self.failing_since is None or refused != self.refused:
            unforeseen = None if isinstance(error, StoreUnavailable) else error
            details = {"outbox": self.name, "list": list, "reason": str(error)}
            if refused:
                log.warning("records_refused", extra=details)
            elif isinstance(error, WrongVersion):
                log.error("journal_entry_refused", extra={"outbox": self.name, "reason": str(error)})
            else:
                log.warning("redis_lost", extra=details, exc_info=unforeseen)
        self.failing_since = self.failing_since or time.time()
        self.refused = refused

    def _send(self, batch: list[Entry]) -> list[_Kept]:
        """Push a batch, each list in order. Entries pushed before an error are not pushed twice by the next try."""
        lists: dict[str, list[Entry]] = {}
        pushed: list[_Kept] = []
        for item in batch:
            lists.setdefault(item.list, []).append(item)
        for name, items in lists.items():
            seqs = self._push(name, items)
            now = time.monotonic()
            pushed += [_Kept(item, seq, now, now) for item, seq in zip(items, seqs, strict=True)]
        return pushed

    def _push(self, name: str, items: list[Entry]) -> list[int]:
        """Push entries of one list and return the ``seq`` of each."""
        # All keys have the list's hash tag, so they are on one slot of a cluster.
        names = [name, keys.seq(name), *(keys.pushed(name, item.id) for item in items)]
        records = [part for item in items for part in (item.head, item.tail, item.side, item.longest)]
        seqs: list[int] = self._script(names, [REMEMBER, *records])
        return seqs

    # Entries that Redis may lose ----------------------------------------------------------------------

    def _keep(self, pushed: list[_Kept]) -> None:
        for sent in pushed:
            kept = self._kept.get(sent.entry.list)
            if kept is None:
                kept = self._kept[sent.entry.list] = _Measured(attrgetter("entry"))
            kept.append(sent)
            while len(kept) > KEPT or (kept.characters > KEPT_CHARACTERS and len(kept) > 1):
                kept.popleft()

    def _watch(self) -> None:
        while True:
            if any(self._kept.values()) and self.failing_since is None:
                try:
                    self._look()
                except StoreUnavailable:
                    # Redis is down: look again when it is back.
                    pass
                except Exception:
                    log.exception("outbox_watch_failed", extra={"outbox": self.name})
            gevent.sleep(LOOK_EVERY)

    def _look(self) -> None:
        """Drop the entries that Redis can't lose any more, and push again what it has lost.

        :raises StoreUnavailable: Redis is down.
        """
        # Before the marks are read: what is on disk now had its mark then.
        durable, now = _durable(self._client), time.monotonic()
        # One that isn't connected just now may become the master all the same.
        self._replicated = self._replicated or _has_replicas(self._client)
        if self._replicated:
            durable = min(durable, now - LAG)
        for name, kept in list(self._kept.items()):
            if not kept:
                continue
            try:
                if self._is_lost(name, kept):
                    self._push_again(name, kept)
                taken = self._taken(name, kept[-1].entry.side)
            except (Fault, Unreadable) as error:
                # Said when something is pushed to it. The other lists may have lost entries, too.
                log.debug("list_not_looked_at", extra={"list": name, "reason": str(error)})
                continue
            while kept and (kept[0].seq <= taken or kept[0].last_at < durable or kept[0].at < now - TRUSTED):
                kept.popleft()

    def _taken(self, name: str, side: str) -> int:
        """The ``seq`` of the last entry that no client needs any more. :raises StoreUnavailable: Redis is down."""
        measure = "XLEN" if side == "stream" else "LLEN"
        seq, length = self._client.send_all([("GET", keys.seq(name)), (measure, name)])
        # Clients take, and streams drop, the oldest first: everything older than the contents is done with.
        return read_count(seq) - int(length)

    def _is_lost(self, name: str, kept: _Measured[_Kept]) -> bool:
        """Whether a mark is missing: of the entries pushed since the last look, and of the latest before them."""
        asked: list[_Kept] = []
        for sent in reversed(kept):
            asked.append(sent)
            if sent.seen or sent.at < time.monotonic() - TRUSTED:
                break
        for i in range(0, len(asked), BATCH):
            batch = asked[i : i + BATCH]
            marks = self._client.send_all([("GET", keys.pushed(name, sent.entry.id)) for sent in batch])
            for sent, mark in zip(batch, marks, strict=True):
                if mark is None and sent.at > time.monotonic() - TRUSTED:
                    return True
                sent.seen = True
        return False

    def _push_again(self, name: str, kept: _Measured[_Kept]) -> None:
        """Push what Redis may lack. :raises StoreUnavailable: Redis is down."""
        lacking = list(kept)
        for i in range(0, len(lacking), BATCH):
            batch = lacking[i : i + BATCH]
            for sent, again in zip(batch, self._send([sent.entry for sent in batch]), strict=True):
                sent.seq, sent.last_at, sent.seen = again.seq, again.last_at, False
        log.info("redis_changed", extra={"outbox": self.name, "list": name, "asked again": len(lacking)})

    def _sync(self) -> None:
        while True:
            gevent.sleep(SYNC_EVERY)
            self._sync_once()

    def _sync_once(self) -> None:
        """Sync the journal, in a thread. Log the first of several failures."""
        try:
            self._journal.sync(self._disk.run)
            self._unsynced = False
        except OSError as error:
            if not self._unsynced:
                log.error("journal_not_synced", extra={"outbox": self.name, "reason": str(error)})
            self._unsynced = True
