"""The outbox: records on their way to a Redis list, never lost and never twice.

A record is appended to a file on this machine before anything else happens to it, and pushed by one greenlet
a Redis, in order. One script pushes: it remembers the record's id beside the list, so that a push whose
answer was lost is no second push, whoever repeats it, and numbers the list's records (``seq``) on the
Redis that holds them. A call never waits: ``push`` writes to the file's buffer cache and returns.
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

# KEYS: the list, the id's mark, the list's counter. ARGV: text before the seq, after it, side, seconds to remember.
_SCRIPT = """
if not redis.call('SET', KEYS[2], '1', 'NX', 'EX', ARGV[4]) then return 0 end
local seq = redis.call('INCR', KEYS[3])
local body = ARGV[1]
if ARGV[2] ~= '' then body = body .. seq .. ARGV[2] end
redis.call(ARGV[3] == 'right' and 'RPUSH' or 'LPUSH', KEYS[1], body)
return seq
"""


class Entry(msgspec.Struct, array_like=True):
    """One notification: its id is the same whoever pushes it, and however often."""

    id: str
    list: str
    side: str
    head: str
    tail: str
    """``head`` and ``tail`` are the JSON around its ``seq``; no ``tail``: no ``seq``."""


def entry(id: str, list: str, body: dict[str, Any], side: str = "left") -> Entry:
    """A body as an entry. ``seq`` becomes the last field of ``payload``, where the body has one."""
    payload = body.get("payload")
    if isinstance(payload, dict):
        body = {**body, "payload": {**payload, "seq": 0}}
        text = msgspec.json.encode(body).decode()
        if text.endswith('"seq":0}}'):
            return Entry(id, list, side, text[:-3], "}}")
        raise ValueError("payload is not the last field of the notification")
    return Entry(id, list, side, msgspec.json.encode(body).decode(), "")


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
        self.written, self.done = 0, int.from_bytes(os.pread(self._done_fd, 8, 0), "big")

    def open(self) -> list[Entry]:
        """What an earlier process left undone, in order."""
        left: list[Entry] = []
        self.written = self.done
        for segment in self._segments():
            index = int(segment.stem)
            for line in segment.read_bytes().splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    # Cut by a power loss: it was never acknowledged to anybody.
                    log.warning("journal line cut", extra={"file": str(segment)})
                    break
                index += 1
                if index > self.done:
                    try:
                        left.append(msgspec.json.decode(line, type=Entry))
                    except msgspec.DecodeError:
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

    def finish(self, count: int) -> None:
        """The oldest ``count`` undone entries are done."""
        self.done += count
        os.pwrite(self._done_fd, self.done.to_bytes(8, "big"), 0)
        if self.done == self.written and self._size > SEGMENT // 4:
            self._rotate()

    def sync(self) -> None:
        """To the disk; meant for a thread."""
        if self._dirty:
            self._dirty = False
            os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)
        os.close(self._done_fd)
        self._lock.close()

    def _segments(self) -> list[Path]:
        return sorted(self._folder.glob("*.log"), key=lambda path: int(path.stem))

    def _rotate(self) -> None:
        """A new file; those that are done go."""
        path = self._folder / f"{self.written:016d}.log"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self._size = os.fstat(fd).st_size
        segments = [segment for segment in self._segments() if segment != path]
        ends = [int(segment.stem) for segment in segments[1:]] + [self.written]
        for segment, end in zip(segments, ends, strict=False):
            if end <= self.done:
                segment.unlink()


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
        # What could not be written to disk is pushed all the same, but is not the journal's to finish.
        self._wake = Flag()
        self._idle = Flag()
        self._on_pushed = on_pushed or (lambda _entry: None)
        self._greenlets: list[gevent.Greenlet[..., None]] = []
        self._script: Any = None
        self.failing_since: float | None = None
        if self._queue:
            log.info("outbox has entries of an earlier run", extra={"outbox": name, "entries": len(self._queue)})
            self._wake.set()

    @property
    def depth(self) -> int:
        return len(self._queue)

    def start(self) -> None:
        self._greenlets = [gevent.spawn(self._run), gevent.spawn(self._sync)]

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
                self._send(batch)
            except ERRORS as error:
                if self.failing_since is None:
                    self.failing_since = time.time()
                    log.warning("Redis away", extra={"outbox": self.name, "reason": str(error)})
                gevent.sleep(delay * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret
                delay = min(delay * 2, BACKOFF_LAST)
                continue
            if self.failing_since is not None:
                away = round(time.time() - self.failing_since, 1)
                log.info("Redis back", extra={"outbox": self.name, "away": away, "waiting": len(self._queue)})
                self.failing_since = None
            delay = BACKOFF_FIRST
            for item in batch:
                self._queue.popleft()
                self._on_pushed(item)
            try:
                self._journal.finish(len(batch))
            except OSError as error:
                log.error("journal not written", extra={"outbox": self.name, "reason": str(error)})

    def _send(self, batch: list[Entry]) -> None:
        """All of the batch, in order, or an error; what went through before the error will not go twice."""
        if self._script is None:
            self._script = self._client.script_load(_SCRIPT)
        if len(batch) == 1:
            calls: Any = self._client
            results = [self._one(calls, batch[0], catch=True)]
        else:
            pipeline = self._client.pipeline(transaction=False)
            for item in batch:
                self._one(pipeline, item, catch=False)
            results = pipeline.execute(raise_on_error=False)
        for result in results:
            if isinstance(result, redis.exceptions.NoScriptError):
                # Redis came back without it; what is pushed already is remembered.
                self._script = None
            if isinstance(result, Exception):
                raise result

    def _one(self, calls: Any, item: Entry, *, catch: bool) -> Any:
        # One hash tag: the three keys stand on the list's own slot of a cluster.
        tag = f"esl_apps:{{{item.list}}}"
        try:
            return calls.evalsha(
                self._script, 3, item.list, f"{tag}:done:{item.id}", f"{tag}:seq",
                item.head, item.tail, item.side, REMEMBER,
            )  # fmt: skip
        except redis.exceptions.NoScriptError as error:
            if not catch:
                raise
            return error

    def _sync(self) -> None:
        pool = gevent.get_hub().threadpool
        while True:
            gevent.sleep(SYNC_EVERY)
            try:
                pool.apply(self._journal.sync)
            except OSError as error:
                log.error("journal not synced", extra={"outbox": self.name, "reason": str(error)})
