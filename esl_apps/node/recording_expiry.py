"""Delete recordings that are older than ``recordings.keep_days``: whole days, file by file, and nothing else. Report a
folder in which that, or a client's ``DELETE``, will fail."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime
from glob import escape, glob
from itertools import islice
from pathlib import Path

from gevent.event import Event

from esl_apps.config.fields import NAME
from esl_apps.config.model import Config
from esl_apps.core.status import is_ref
from esl_apps.node.services import Services
from esl_apps.process import background
from esl_apps.process.folder import Hangs

log = logging.getLogger(__name__)

#: Seconds between two looks. Several nodes look at one folder: each deletes what the others have left.
LOOK_EVERY = 3600.0
#: Files that one piece of work in a thread deletes.
_BATCH = 200
_DAY = re.compile(r"\d{8}")


class RecordingExpiry(background.Kept):
    TASK = "recordings_expiry"

    def __init__(self, services: Services) -> None:
        self._services = services
        self._changed = Event()

    def look(self) -> None:
        """Look now: the configuration has changed."""
        self._changed.set()

    def _run(self) -> None:
        while True:
            # Redis's time: this node's clock may be ahead, most of all at the start.
            now = self._services.membership.redis_time()
            self.tidy(None if now is None else datetime.fromtimestamp(now, UTC).date())
            self._changed.wait(LOOK_EVERY)
            self._changed.clear()

    def tidy(self, today: date | None) -> None:
        """Delete what is too old; ``today`` is None if Redis is away. A folder that can't be read is tried again at the
        next look."""
        config = self._services.policy.config
        if not deletes(config):
            self._services.metrics.recordings_not_deleted.set(False)
            return
        failed: OSError | None = None
        try:
            closed = self._services.recordings.run(closed_folder, config)
            if closed is not None:
                failed = PermissionError(errno.EACCES, "no recording can be deleted in it", closed)
            if config.recordings.keep_days is not None and today is not None:
                failed = self._delete_old(config.recordings.dir, today, config.recordings.keep_days) or failed
        except OSError as error:
            failed = error
        # The switch makes the folder with the first recording.
        is_fault = failed is not None and not isinstance(failed, FileNotFoundError)
        self._services.metrics.recordings_not_deleted.set(is_fault)
        if failed is not None:
            log.warning("recordings_not_expired", extra={"reason": str(failed)})

    def _delete_old(self, root: str, today: date, keep: int) -> OSError | None:
        """Return what was wrong with the first folder that couldn't be read or deleted. :raises OSError: with all."""
        folders, failed = self._services.recordings.run(_expired, root, today, keep)
        for folder in folders:
            try:
                self._delete_all(folder)
            except Hangs:
                raise
            except OSError as error:
                # One that this user may not touch keeps no other.
                failed = failed or error
        return failed

    def _delete_all(self, folder: str) -> None:
        """Delete the recordings of a day. :raises OSError: some are left."""
        disk, deleted = self._services.recordings, 0
        try:
            while count := disk.run(_delete, folder):
                deleted += count
        finally:
            if deleted:
                integrator, day = Path(folder).parts[-2:]
                log.info("recordings_expired", extra={"integrator": integrator, "day": day, "files": deleted})
        # Left if it holds anything else.
        with suppress(OSError):
            disk.run(os.rmdir, folder)


def deletes(config: Config) -> bool:
    """Return whether a node is to delete recordings: old ones, or those that a client deletes."""
    scopes = [scope for integrator in config.integrators for token in integrator.tokens for scope in token.scopes]
    return config.recordings.keep_days is not None or "record_delete" in scopes


def closed_folder(config: Config) -> str | None:
    """Return a folder of recordings in which this process can't delete, if recordings are to be deleted."""
    root = config.recordings.dir
    if not deletes(config) or not os.path.isdir(root):
        return None
    if os.statvfs(root).f_flag & os.ST_RDONLY:
        return root
    # The switch makes the folders of days. The newest has the rights that it gives now.
    days = [
        max(found) for integrator in config.integrators if (found := glob(f"{escape(root)}/{integrator.name}/[0-9]*"))
    ]
    return next((day for day in days if not os.access(day, os.W_OK | os.X_OK)), None)


def _expired(root: str, today: date, keep: int) -> tuple[list[str], OSError | None]:
    """Return the folders of days that are too old, and what is wrong with the first that can't be read. A call's day is
    that of its request."""
    found: list[str] = []
    failed: OSError | None = None
    for integrator in _folders(root):
        # A disk of its own has a lost+found, which is root's.
        if not NAME.fullmatch(integrator.name):
            continue
        try:
            days = list(_folders(integrator.path))
        except OSError as error:
            failed = failed or error
            continue
        dated = [(day.path, _date(day.name)) for day in days if _DAY.fullmatch(day.name)]
        found += [path for path, at in dated if at is not None and (today - at).days > keep]
    return found, failed


def _folders(path: str) -> Iterator[os.DirEntry[str]]:
    """Yield the folders in a folder; no links, which may lead anywhere."""
    with os.scandir(path) as entries:
        yield from [entry for entry in entries if entry.is_dir(follow_symlinks=False)]


def _date(text: str) -> date | None:
    try:
        return datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None


def _delete(folder: str) -> int:
    """Delete some recordings, by the form of their names; return how many. :raises OSError: one can't be deleted."""
    with os.scandir(folder) as entries:
        ours = (entry for entry in entries if entry.name.endswith(".wav") and is_ref(entry.name[:-4]))
        files = (entry.path for entry in ours if not entry.is_dir(follow_symlinks=False))
        batch = list(islice(files, _BATCH))
    deleted = 0
    for path in batch:
        # Another node may be faster.
        with suppress(FileNotFoundError):
            os.unlink(path)
            deleted += 1
    return deleted
