"""The outbox: records on their way to a Redis list, never lost and never twice.

A record is appended to a file on this machine before anything else happens to it, and pushed by one greenlet
a Redis, in order. One script pushes: it remembers the record's id beside the list, so that a push whose
answer was lost is no second push, whoever repeats it, and numbers the list's records (``seq``) on the
Redis that holds them. A call never waits: ``push`` writes to the file's buffer cache and returns.

What was pushed is kept in memory until Redis has it on disk, or the client has taken it: a Redis that comes back
without it, or a replica that never had it, is given it again.
"""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import gevent
import msgspec
from gevent.event import Event as Flag

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store import keys
from esl_apps.store.errors import translating
from esl_apps.store.journal import Entry, Journal
from esl_apps.store.redis_client import Client
from esl_apps.store.script import Script

log = logging.getLogger(__name__)

#: Seconds for which a Redis remembers what was pushed: longer than any node stays away with a push unanswered.
REMEMBER = 7 * 86400
BATCH = 200
SYNC_EVERY = 0.2
BACKOFF_FIRST, BACKOFF_LAST = 0.05, 1.0
#: Seconds between two looks at what Redis may still lose.
LOOK_EVERY = 1.0
#: Seconds after which an append-only file (``everysec``) is surely synced.
SYNCED = 3.0
#: Entries a list that are kept for a Redis that loses them: where nothing is ever saved, and no client takes them.
KEPT = 10000


class _Kept(msgspec.Struct):
    """An entry that was pushed, and when (``time.monotonic``)."""

    entry: Entry
    seq: int
    at: float


def _persistence(client: Client) -> tuple[tuple[str, ...], float]:
    """Which processes the masters are; and since when (``time.monotonic``) what they took may not be on disk.

    :raises StoreUnavailable: one is down.
    """
    run_ids, ages = [], []
    with translating():
        for master in client.masters():
            info = master.info()
            run_ids.append(str(info["run_id"]))
            if info["aof_enabled"] and info["aof_last_write_status"] == "ok":
                ages.append(SYNCED)
            else:
                # What the last dump has; it says its time in whole seconds.
                ages.append(master.time()[0] - info["rdb_last_save_time"] + 1)
    return tuple(sorted(run_ids)), time.monotonic() - max(ages)


class Outbox:
    """The way to one Redis."""

    def __init__(
        self, name: str, folder: Path, client: Client, on_pushed: Callable[[Entry], None] | None = None
    ) -> None:
        """:raises OSError: as :class:`Journal`."""
        self.name = name
        self._client = client
        self._journal = Journal(folder)
        self._queue: deque[Entry] = deque(self._journal.open())
        self._wake = Flag()
        self._idle = Flag()
        self._on_pushed = on_pushed or (lambda _entry: None)
        self._greenlets: list[gevent.Greenlet[..., None]] = []
        self._push = Script(client, "outbox_push")
        self._kept: dict[str, deque[_Kept]] = {}
        """What was pushed and may be lost with its Redis, by list, in the order of its ``seq``."""
        self._run_ids: tuple[str, ...] = ()
        self.failing_since: float | None = None
        if self._queue:
            log.info("outbox has entries of an earlier run", extra={"outbox": name, "entries": len(self._queue)})
            self._wake.set()

    @property
    def depth(self) -> int:
        return len(self._queue)

    def start(self) -> None:
        self._greenlets = [gevent.spawn(self._run), gevent.spawn(self._sync), gevent.spawn(self._watch)]

    def push(self, item: Entry) -> None:
        """Take an entry over. From here on it is this outbox's to deliver."""
        try:
            self._journal.append(item)
        except OSError as error:
            # The disk is full: memory is all there is. The record still goes out unless this process dies.
            log.error("journal not written", extra={"outbox": self.name, "reason": str(error)})
        self._queue.append(item)
        self._idle.clear()
        self._wake.set()

    def drain(self, timeout: float) -> bool:
        """Wait until all is pushed; False when time ran out (the rest is in the journal)."""
        if not self._queue:
            return True
        return bool(self._idle.wait(timeout))

    def stop(self) -> None:
        gevent.killall(self._greenlets)
        self._journal.sync()
        self._journal.close()

    def _run(self) -> None:
        delay = BACKOFF_FIRST
        while True:
            if not self._queue:
                self._idle.set()
                self._wake.clear()
                self._wake.wait()
            batch = [self._queue[i] for i in range(min(BATCH, len(self._queue)))]
            try:
                pushed = self._send(batch)
            except Exception as error:
                # Whatever it is, the records are still to be delivered.
                if self.failing_since is None:
                    self.failing_since = time.time()
                    unforeseen = None if isinstance(error, StoreUnavailable) else error
                    log.warning("Redis away", extra={"outbox": self.name, "reason": str(error)}, exc_info=unforeseen)
                gevent.sleep(delay * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret
                delay = min(delay * 2, BACKOFF_LAST)
                continue
            if self.failing_since is not None:
                away = round(time.time() - self.failing_since, 1)
                log.info("Redis back", extra={"outbox": self.name, "away": away, "waiting": len(self._queue)})
                self.failing_since = None
            delay = BACKOFF_FIRST
            self._keep(pushed)
            for item in batch:
                self._queue.popleft()
                try:
                    self._on_pushed(item)
                except Exception:
                    log.exception("a push could not be told", extra={"outbox": self.name})
            try:
                self._journal.finish(len(batch))
            except OSError as error:
                log.error("journal not written", extra={"outbox": self.name, "reason": str(error)})

    def _send(self, batch: list[Entry]) -> list[_Kept]:
        """All of the batch, in the order of each list, or an error; what went through before the error will not
        go twice."""
        lists: dict[str, list[Entry]] = {}
        pushed: list[_Kept] = []
        for item in batch:
            lists.setdefault(item.list, []).append(item)
        for name, items in lists.items():
            # One hash tag: all keys stand on the list's own slot of a cluster.
            names = [name, keys.seq(name), *(keys.pushed(name, item.id) for item in items)]
            texts = [text for item in items for text in (item.head, item.tail, item.side)]
            seqs = self._push(names, [REMEMBER, *texts])
            now = time.monotonic()
            pushed += [_Kept(item, seq, now) for item, seq in zip(items, seqs, strict=True)]
        return pushed

    # What Redis may still lose ------------------------------------------------------------------------

    def _keep(self, pushed: list[_Kept]) -> None:
        for one in pushed:
            kept = self._kept.setdefault(one.entry.list, deque(maxlen=KEPT))
            kept.append(one)

    def _watch(self) -> None:
        while True:
            if (any(self._kept.values()) or not self._run_ids) and self.failing_since is None:
                try:
                    self._look()
                except StoreUnavailable:
                    # Away: the next look is at whatever comes back.
                    pass
                except Exception:
                    log.exception("what was pushed is not watched", extra={"outbox": self.name})
            gevent.sleep(LOOK_EVERY)

    def _look(self) -> None:
        """Let go of what Redis can't lose any more; where it is another process than it was, or another server
        that was made the master, push again what that one does not have. :raises StoreUnavailable: it is down."""
        run_ids, durable = _persistence(self._client)
        if run_ids != self._run_ids and not self._run_ids:
            self._run_ids = run_ids
        elif run_ids != self._run_ids:
            again = [one.entry for kept in self._kept.values() for one in kept]
            for i in range(0, len(again), BATCH):
                seqs = {(one.entry.list, one.entry.id): one.seq for one in self._send(again[i : i + BATCH])}
                for kept in self._kept.values():
                    for one in kept:
                        one.seq = seqs.get((one.entry.list, one.entry.id), one.seq)
            self._run_ids = run_ids
            log.info("another Redis", extra={"outbox": self.name, "asked again": len(again)})
        for name, kept in self._kept.items():
            if not kept:
                continue
            seq, length = self._client.send_all([("GET", keys.seq(name)), ("LLEN", name)])
            # A client takes the oldest first: what is older than all that is there was taken.
            taken = int(seq or 0) - int(length)
            while kept and (kept[0].seq <= taken or kept[0].at < durable):
                kept.popleft()

    def _sync(self) -> None:
        pool = gevent.get_hub().threadpool
        while True:
            gevent.sleep(SYNC_EVERY)
            try:
                self._journal.sync(pool.apply)
            except OSError as error:
                log.error("journal not synced", extra={"outbox": self.name, "reason": str(error)})
