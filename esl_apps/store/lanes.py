"""The outboxes of one Redis, one for each list or history: one that Redis refuses holds up only itself."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from zlib import crc32

import gevent

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.process import background
from esl_apps.store import server
from esl_apps.store.journal import Entry
from esl_apps.store.outbox import Outbox
from esl_apps.store.redis_client import Client

log = logging.getLogger(__name__)


class Lanes:
    """Used like an :class:`Outbox`."""

    def __init__(
        self,
        name: str,
        folder: Path,
        client: Client,
        open_lane: Callable[[Path], Outbox],
    ) -> None:
        """Take up what an earlier process left in ``folder``. ``open_lane``: makes the outbox of a folder.

        :raises OSError: as :class:`Journal`.
        """
        self.name = name
        self._folder = folder
        self._client = client
        self._open = open_lane
        self._started = False
        self._lanes: dict[str, Outbox] = {}
        # Its lock is that of the whole folder. Earlier versions wrote all lists' entries here. It also takes those of
        # a new list for which a full disk has no folder.
        self._shared = self._open(folder)
        for journal in journals(folder)[1:]:
            self._lanes[journal.name] = self._open(journal)

    def __iter__(self) -> Iterator[Outbox]:
        return iter([self._shared, *self._lanes.values()])

    @property
    def depth(self) -> int:
        return sum(lane.depth for lane in self)

    @property
    def failing_seconds(self) -> float:
        return max(lane.failing_seconds for lane in self)

    @property
    def refusals(self) -> list[str]:
        """The keys that Redis refuses now, and why."""
        return [f"{lane.refused}; its records wait" for lane in self if lane.refused]

    def examine(self, *, records_only: bool) -> None:
        """Log what makes this Redis unfit; ``records_only``: as :func:`server.examine`."""
        try:
            for _fatal, message in server.examine(self._client, records_only=records_only):
                log.warning("redis_unfit", extra={"outbox": self.name, "reason": message})
        except StoreUnavailable as error:
            # It is down. If it is the shared one, it is examined when it comes.
            log.info("redis_not_examined", extra={"outbox": self.name, "reason": str(error)})

    @property
    def overflows(self) -> bool:
        return self._shared.overflows or any(lane.overflows for lane in self._lanes.values())

    def start(self) -> None:
        self._started = True
        for lane in self:
            lane.start()

    def push(self, item: Entry) -> None:
        """As :meth:`Outbox.push`."""
        name = folder_of(item.list)
        lane = self._lanes.get(name)
        earlier = self._lanes.get(_slug(item.list))
        if earlier is not None and earlier.depth:
            # Records of this list may wait there: none overtakes them.
            lane = earlier
        elif lane is None:
            try:
                lane = self._lanes[name] = self._open(self._folder / name)
            except OSError as error:
                log.error("journal_not_written", extra={"outbox": self.name, "reason": str(error)})
                lane = self._shared
            else:
                if self._started:
                    lane.start()
        lane.push(item)

    def drain(self, timeout: float) -> bool:
        """As :meth:`Outbox.drain`, for all of them at the same time."""
        draining = [background.once("outbox_drain", lane.drain, timeout) for lane in self]
        gevent.joinall(draining)
        return all(greenlet.value for greenlet in draining)

    def stop(self) -> None:
        # At the same time: each may wait for a bad disk.
        gevent.joinall([background.once("outbox_stop", lane.stop) for lane in self])


def folder_of(key: str) -> str:
    """The name of a list's folder. Its checksum tells lists apart whose names differ in ``.``, ``_`` or ``-`` only."""
    return f"{_slug(key)}-{crc32(key.encode()):08x}"


def _slug(key: str) -> str:
    """The name of a list's folder in earlier releases."""
    return re.sub(r"[^A-Za-z0-9]+", "-", key)


def journals(folder: Path) -> list[Path]:
    """The folders of a Redis's journals: its own, and one for each list."""
    inner = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return [folder, *inner]
