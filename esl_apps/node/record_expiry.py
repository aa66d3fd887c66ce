"""Drop the records of calls that are older than ``records.keep_days``."""

from __future__ import annotations

import logging

import gevent

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.node.services import Services
from esl_apps.process import background
from esl_apps.store.errors import Fault

log = logging.getLogger(__name__)

#: Seconds between two looks. Each drops some thousandths of what a history keeps for a week.
EVERY = 300.0


class RecordExpiry(background.Kept):
    TASK = "record_keeping"

    def __init__(self, services: Services) -> None:
        self._services = services

    def _run(self) -> None:
        while True:
            try:
                self.trim()
            except Fault as error:
                log.warning("records_not_trimmed", extra={"reason": str(error)})
            except StoreUnavailable:
                # ``CallStore`` says so. What is too old stays until the next look.
                log.debug("records_not_trimmed")
            gevent.sleep(EVERY)

    def trim(self) -> None:
        """:raises StoreUnavailable: Redis is down."""
        # Redis's time: a node whose clock is ahead would drop everybody's records.
        now = self._services.membership.redis_time()
        if now is None:
            return
        config = self._services.policy.config
        names = ["", *(integrator.name for integrator in config.integrators)]
        self._services.record_history.trim(names, config.records.keep_days, now)
