"""The outbox: records on their way to a Redis list, never lost and never twice.

A record is appended to a file on this machine before anything else happens to it, and pushed by one greenlet
a Redis, in order. One script pushes: it remembers the record's id beside the list, so that a push whose
answer was lost is no second push, whoever repeats it, and numbers the list's records (``seq``) on the
Redis that holds them. A call never waits: ``push`` writes to the file's buffer cache and returns.

What was pushed is kept in memory until Redis has it on disk, or the client has taken it: a Redis that comes back
without it, or a replica that never had it, is given it again.
"""

from __future__ import annotations

import fcntl
import logging
import os
import random
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import msgspec
import redis
from gevent.event import Event as Flag

from esl_apps.redisclient import ERRORS, Client

log = logging.getLogger(__name__)

#: Seconds for which a Redis remembers what was pushed: longer than any node stays away with a push unanswered.
REMEMBER = 7 * 86400
BATCH = 200
SEGMENT = 1 << 20
SYNC_EVERY = 0.2
BACKOFF_FIRST, BACKOFF_LAST = 0.05, 1.0
#: Seconds between two looks at what Redis may still lose.
LOOK_EVERY = 1.0
#: Seconds after which an append-only file (``everysec``) is surely synced.
SYNCED = 3.0
#: Entries a list that are kept for a Redis that loses them: where nothing is ever saved, and no client takes them.
KEPT = 10000

# One list's records, in order, all in one step. KEYS: the list, its counter, a mark for each record's id. ARGV: the
# seconds to remember a mark, then of each record the text before its seq, the text after it, and the side.
# What can fail is done before the first write: a record is pushed and marked, or neither. The seqs of all of them,
# of those that were pushed before, too.
_SCRIPT = """
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'list' and kind ~= 'none' then return redis.error_reply('WRONGTYPE ' .. KEYS[1] .. ' is a ' .. kind) end
local seqs = {}
for i = 3, #KEYS do
  local seq = redis.call('GET', KEYS[i])
  if not seq then
    local head, tail, side = ARGV[3 * i - 7], ARGV[3 * i - 6], ARGV[3 * i - 5]
    seq = redis.call('INCR', KEYS[2])
    if tail ~= '' then head = head .. seq .. tail end
    redis.call(side == 'right' and 'RPUSH' or 'LPUSH', KEYS[1], head)
    redis.call('SET', KEYS[i], seq, 'EX', ARGV[1])
  end
  seqs[i - 2] = tonumber(seq)
end
return seqs
"""


class Entry(msgspec.Struct, array_like=True):
    """One notification: its id is the same whoever pushes it, and however often."""

    id: str
    list: str
    side: str
    head: str
    tail: str
    """``head`` and ``tail`` are the JSON around its ``seq``; no ``tail``: no ``seq``."""
    owner: str = ""
    """The integrator whose it is: where it goes once its Redis is configured no more."""


def entry(id: str, list: str, body: dict[str, Any], side: str = "left", owner: str = "") -> Entry:
    """A body as an entry. ``seq`` becomes the last field of ``payload``, where the body has one."""
    payload = body.get("payload")
    if isinstance(payload, dict):
        body = {**body, "payload": {**payload, "seq": 0}}
        text = msgspec.json.encode(body).decode()
        if text.endswith('"seq":0}}'):
            return Entry(id, list, side, text[:-3], "}}", owner)
        raise ValueError("payload is not the last field of the notification")
    return Entry(id, list, side, msgspec.json.encode(body).decode(), "", owner)


def _sync_and_close(fd: int) -> None:
    """By one hand: who waits for the thread may be killed meanwhile, and must not close what it works on."""
    try:
        os.fdatasync(fd)
    finally:
        os.close(fd)


class Journal:
    """Entries in files of about a megabyte, and how many of them are done. One process at a time."""

    def __init__(self, folder: Path) -> None:
        """:raises OSError: the folder can't be made or written, or another process holds it."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock = open(folder / "lock", "w")  # noqa: SIM115 - held for the life of the journal
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise BlockingIOError(f"{folder}: another process holds it; is a node of this name running?") from None
        self._done_fd = os.open(folder / "done", os.O_RDWR | os.O_CREAT, 0o600)
        self._fd = -1
        self._size = 0
        self._dirty = False
        self._unsynced: list[int] = []
        """Files that are full and not on the disk yet."""
        self._undone: deque[int] = deque()
        """Which entries, by their count, are not done; the caller has them in the same order."""
        self.written, self.done = 0, int.from_bytes(os.pread(self._done_fd, 8, 0), "big")

    def open(self) -> list[Entry]:
        """What an earlier process left undone, in order."""
        left: list[Entry] = []
        self.written = self.done
        for segment in self._segments():
            index = int(segment.stem)
            size = 0
            for line in segment.read_bytes().splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    # Cut by a power loss: it was never acknowledged to anybody. The next line must not go on there.
                    log.warning("journal line cut", extra={"file": str(segment)})
                    os.truncate(segment, size)
                    break
                size += len(line)
                index += 1
                if index > self.done:
                    try:
                        left.append(msgspec.json.decode(line, type=Entry))
                        self._undone.append(index)
                    except (msgspec.DecodeError, UnicodeDecodeError):
                        log.error("journal line unreadable", extra={"file": str(segment), "line": index})
            self.written = max(self.written, index)
        self._rotate()
        return left

    def append(self, item: Entry) -> None:
        """:raises OSError: the disk is full or gone."""
        try:
            if self._size > SEGMENT:
                self._rotate()
            line = msgspec.json.encode(item) + b"\n"
            if os.write(self._fd, line) < len(line):
                os.ftruncate(self._fd, self._size)
                raise OSError("the disk is full")
            self._size += len(line)
            self._dirty = True
        except OSError:
            # The next line begins a new file, whose name says how many came before it, this one included.
            self._size = SEGMENT + 1
            raise
        finally:
            self.written += 1
            self._undone.append(self.written)

    def finish(self, count: int) -> None:
        """The oldest ``count`` undone entries are done."""
        for _ in range(count):
            self.done = self._undone.popleft()
        if not self._undone:
            self.done = self.written
        os.pwrite(self._done_fd, self.done.to_bytes(8, "big"), 0)
        if self.done == self.written and self._size > SEGMENT // 4:
            self._rotate()

    def sync(self, run: Callable[[Callable[[int], None], tuple[int]], object] = lambda do, args: do(*args)) -> None:
        """To the disk. ``run`` may do it in a thread: it gets a descriptor of its own.

        :raises OSError: the disk says no.
        """
        fds, self._unsynced = self._unsynced, []
        if self._dirty:
            self._dirty = False
            fds.append(os.dup(self._fd))
        failed: OSError | None = None
        for fd in fds:
            try:
                run(_sync_and_close, (fd,))
            except OSError as error:
                failed = error
        if failed is not None:
            raise failed

    def close(self) -> None:
        for fd in [self._fd, *self._unsynced]:
            os.close(fd)
        os.close(self._done_fd)
        self._lock.close()

    def _segments(self) -> list[Path]:
        return sorted(self._folder.glob("*.log"), key=lambda path: int(path.stem))

    def _rotate(self) -> None:
        """A new file; those that are done go."""
        path = self._folder / f"{self.written:016d}.log"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if self._fd >= 0 and self._dirty:
            self._unsynced.append(self._fd)
        elif self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self._dirty = False
        self._size = os.fstat(fd).st_size
        segments = [segment for segment in self._segments() if segment != path]
        ends = [int(segment.stem) for segment in segments[1:]] + [self.written]
        for segment, end in zip(segments, ends, strict=False):
            if end <= self.done:
                segment.unlink()


class _Kept(msgspec.Struct):
    """An entry that was pushed, and when (``time.monotonic``)."""

    entry: Entry
    seq: int
    at: float


def _persistence(client: Client) -> tuple[tuple[str, ...], float]:
    """Which processes the masters are; and since when (``time.monotonic``) what they took may not be on disk.

    :raises redis.RedisError: one is away.
    """
    masters = (
        [node.redis_connection for node in client.get_primaries()] if hasattr(client, "get_primaries") else [client]
    )
    run_ids, ages = [], []
    for master in masters:
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
        self._script: Any = None
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
                    unforeseen = None if isinstance(error, ERRORS) else error
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
            if self._script is None:
                self._script = self._client.script_load(_SCRIPT)
            # One hash tag: all keys stand on the list's own slot of a cluster.
            tag = f"esl_apps:{{{name}}}"
            keys = [name, f"{tag}:seq", *(f"{tag}:done:{item.id}" for item in items)]
            texts = [text for item in items for text in (item.head, item.tail, item.side)]
            try:
                seqs = self._client.evalsha(self._script, len(keys), *keys, REMEMBER, *texts)
            except redis.exceptions.NoScriptError:
                # Redis came back without it, or another master of the cluster never had it.
                self._script = None
                raise
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
                except ERRORS:
                    # Away: the next look is at whatever comes back.
                    pass
                except Exception:
                    log.exception("what was pushed is not watched", extra={"outbox": self.name})
            gevent.sleep(LOOK_EVERY)

    def _look(self) -> None:
        """Let go of what Redis can't lose any more; where it is another process than it was, or another server
        that was made the master, push again what that one does not have. :raises redis.RedisError: it is away."""
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
            pipeline = self._client.pipeline(transaction=False)
            pipeline.get(f"esl_apps:{{{name}}}:seq")
            pipeline.llen(name)
            seq, length = pipeline.execute()
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
