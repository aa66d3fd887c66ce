"""Delete recordings that are older than ``recordings.keep_days``: whole days, file by file, and nothing else."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime
from itertools import islice
from pathlib import Path

import gevent

from esl_apps.core.status import is_ref
from esl_apps.node.services import Services
from esl_apps.process import background

log = logging.getLogger(__name__)

#: Seconds between two looks. Several nodes look at one folder: each deletes what the others have left.
LOOK_EVERY = 3600.0
#: Files that one piece of work in a thread deletes.
_BATCH = 200
_DAY = re.compile(r"\d{8}")


class Expiry(background.Kept):
    TASK = "recordings_expiry"

    def __init__(self, services: Services) -> None:
        self._services = services

    def _run(self) -> None:
        while True:
            self.tidy(datetime.now(UTC).date())
            gevent.sleep(LOOK_EVERY)

    def tidy(self, today: date) -> None:
        """Delete what is too old. A folder that can't be read is tried again at the next look."""
        config = self._services.policy.config.recordings
        if config.keep_days is None:
            return
        disk = self._services.recordings
        try:
            for folder in disk.run(_expired, config.dir, today, config.keep_days):
                deleted = 0
                while count := disk.run(_delete, folder):
                    deleted += count
                # Left if it holds anything else.
                with suppress(OSError):
                    disk.run(os.rmdir, folder)
                if deleted:
                    integrator, day = Path(folder).parts[-2:]
                    found = {"integrator": integrator, "day": day, "files": deleted}
                    log.info("recordings_expired", extra=found)
        except OSError as error:
            log.warning("recordings_not_expired", extra={"reason": str(error)})


def _expired(root: str, today: date, keep: int) -> list[str]:
    """Return the folders of days that are too old. A call's day is that of its request."""
    return [
        day.path
        for integrator in _folders(root)
        for day in _folders(integrator.path)
        if _DAY.fullmatch(day.name) and (at := _date(day.name)) is not None and (today - at).days > keep
    ]


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
    """Delete some recordings, by the form of their names; return how many."""
    with os.scandir(folder) as entries:
        ours = (entry.path for entry in entries if entry.name.endswith(".wav") and is_ref(entry.name[:-4]))
        batch = list(islice(ours, _BATCH))
    deleted = 0
    for path in batch:
        # Another node may be faster.
        with suppress(FileNotFoundError):
            os.unlink(path)
            deleted += 1
    return deleted
