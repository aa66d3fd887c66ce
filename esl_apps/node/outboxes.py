"""A node's outboxes: for each Redis that records go to, and for the histories."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import gevent

from esl_apps.config.model import Config
from esl_apps.config.problems import ConfigError
from esl_apps.core.notification import SessionRecord
from esl_apps.process import background
from esl_apps.process.folder import Folder
from esl_apps.store import redis_client
from esl_apps.store.connection import Observe, ignore
from esl_apps.store.journal import Entry, Journal
from esl_apps.store.lanes import Lanes, journals
from esl_apps.store.outbox import READ, SYNC_PATIENCE, Outbox
from esl_apps.store.record_history import HistoryOutbox

log = logging.getLogger(__name__)

#: The names of the top-level Redis and of the outboxes of histories, in logs and metrics.
MAIN, HISTORY = "main", "history"


class Outboxes:
    def __init__(
        self,
        config: Config,
        folder: Path,
        on_pushed: Callable[[Entry], None],
        tell: Callable[..., None] = lambda *_what, **_details: None,
        observer: Callable[[str], Observe] = lambda _name: ignore,
    ) -> None:
        """``folder``: the node's state folder. ``on_pushed`` is called with each entry that its Redis has taken.
        ``tell``: ``Alerts.tell``. ``observer`` makes a client's ``observe``, by the name of its outbox.

        :raises ConfigError: a journal can't be opened.
        """
        self.on_whole: Callable[[SessionRecord, str], None] = lambda _closing, _integrator: None
        """As :class:`HistoryOutbox`'s."""
        # A thread for each list would be hundreds with many integrators.
        disk = Folder("journal", patience=SYNC_PATIENCE)
        by_url: dict[str, Lanes] = {}
        self._by_integrator: dict[str | None, Lanes] = {}
        targets: list[tuple[str | None, str]] = [(None, config.redis.url)]
        targets += [
            (integrator.name, integrator.redis.url if integrator.redis else config.redis.url)
            for integrator in config.integrators
        ]
        try:
            for name, url in targets:
                if url not in by_url:
                    journal = folder / _folder_of(url)
                    foreign = url != config.redis.url
                    client = redis_client.connect(url, observe=observer(name or MAIN), foreign=foreign)
                    open_lane = partial(Outbox, name or MAIN, client=client, on_pushed=on_pushed, tell=tell, disk=disk)
                    by_url[url] = Lanes(name or MAIN, journal, client, open_lane)
                self._by_integrator[name] = by_url[url]
            client = redis_client.connect(config.redis.url, observe=observer(HISTORY))
            open_history = partial(
                HistoryOutbox, HISTORY, client=client, tell=tell, disk=disk, on_whole=self._close_session
            )
            self.history = Lanes(HISTORY, folder / HISTORY, client, open_history)
            """The outboxes of the histories, which are in the top-level Redis."""
            self._each: tuple[Lanes, ...] = (*by_url.values(), self.history)
            self._push_leftovers(folder, {HISTORY, *(_folder_of(url) for url in by_url)})
        except OSError as error:
            raise ConfigError(f"the outbox can't be opened: {error}", "node.state_dir") from None

    def __iter__(self) -> Iterator[Lanes]:
        """Each outbox once."""
        return iter(self._each)

    @property
    def lanes(self) -> set[Lanes]:
        """The outboxes of lists."""
        return set(self._by_integrator.values())

    def of(self, integrator: str | None) -> Lanes:
        """The outbox of an integrator's records, or of calls that belong to none."""
        return self._by_integrator.get(integrator) or self._by_integrator[None]

    def examine(self) -> None:
        """Log what makes a Redis unfit. It may have come only now, or be another one than before."""
        shared = self.of(None)
        for outbox in self.lanes:
            background.once("redis_examination", partial(outbox.examine, records_only=outbox is not shared))

    @property
    def refusals(self) -> list[str]:
        """The keys of records that the top-level Redis refuses, and why."""
        return [*self.of(None).refusals, *self.history.refusals]

    @property
    def overflows(self) -> list[str]:
        """Why no more calls can be taken: their records could be kept nowhere."""
        return [
            f"outbox {outbox.name}: the disk is full and Redis takes no records"
            for outbox in self._each
            if outbox.overflows
        ]

    def drain(self, seconds: float) -> None:
        """Wait until every Redis has taken its records; each has ``seconds``, all at the same time."""
        gevent.joinall([background.once("outbox_drain", outbox.drain, seconds) for outbox in self])

    def _close_session(self, closing: SessionRecord, integrator: str) -> None:
        self.on_whole(closing, integrator)

    def _push_leftovers(self, folder: Path, used: set[str]) -> None:
        """Send records for a Redis that was taken out of the configuration to their integrator's, or the top-level one.

        :raises OSError: a journal can't be read.
        """
        for path in sorted(folder.iterdir()):
            if path.name in used or not path.is_dir():
                continue
            for inner in journals(path):
                self._redirect(inner)

    def _redirect(self, path: Path) -> None:
        journal = Journal(path)
        journal.open()
        if journal.waiting:
            log.warning("records_redirected", extra={"folder": str(path), "records": journal.waiting})
        while journal.waiting:
            left = journal.read(READ)
            for item in left:
                self.of(item.owner).push(item)
            journal.finish(len(left))
        journal.close()


def _folder_of(url: str) -> str:
    """The name of a Redis's journal folder. It depends on the URL alone, so a renamed integrator finds its records."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]
