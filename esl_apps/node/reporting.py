"""Report what this process is and does to Redis, for operators, and learn which switches they have paused."""

from __future__ import annotations

import logging
import os
import time

import gevent

from esl_apps import __version__
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.node.services import Services
from esl_apps.node.switch_pool import Health
from esl_apps.operations import reports, switches
from esl_apps.operations.reports import Report, SwitchReport
from esl_apps.process import background
from esl_apps.store import keys, unreadable
from esl_apps.store.errors import Fault, Unreadable

log = logging.getLogger(__name__)


class Reporter(background.Kept):
    TASK = "reporting"

    def __init__(self, services: Services) -> None:
        self._services = services
        self._started_at = time.time()
        self._seconds = 0.0

    def _run(self) -> None:
        while True:
            try:
                self.beat()
            except StoreUnavailable:
                # ``CallStore`` says so. A pause holds until Redis is back.
                log.debug("report_not_written")
            gevent.sleep(reports.EVERY)

    def beat(self) -> None:
        """Write a report, and read the pauses. :raises StoreUnavailable: Redis is down."""
        services = self._services
        began = time.monotonic()
        reports.write(services.redis, services.membership.boot, self.report())
        self._seconds = time.monotonic() - began
        heed_pauses(services)

    def report(self) -> Report:
        services = self._services
        config = services.policy.config
        return Report(
            node=services.membership.name,
            advertise=config.advertise,
            version=__version__,
            pid=os.getpid(),
            started_at=self._started_at,
            at=time.time(),
            live=dict(services.calls.counts()),
            max_calls=config.node.max_calls,
            draining=services.readiness.draining,
            reasons=services.readiness.problems(),
            outbox={outbox.name: outbox.depth for outbox in services.outboxes},
            redis_seconds=round(self._seconds, 6),
            switches=[_switch(health) for health in services.switch_pool.health.values()],
        )


def heed_pauses(services: Services) -> None:
    """Place no calls on the switches that are paused now. :raises StoreUnavailable: Redis is down, or it can't be read
    which ones are: the pauses stay as they were."""
    try:
        paused = frozenset(switches.pauses(services.redis))
    except (Fault, Unreadable) as error:
        unreadable.say(keys.PAUSED, error, [keys.PAUSED])
        raise
    unreadable.mended(keys.PAUSED)
    services.switch_pool.paused = services.readiness.paused = paused


def _switch(health: Health) -> SwitchReport:
    switch = health.switch
    sessions, most = health.sessions
    return SwitchReport(
        name=switch.name,
        connected=switch.connected,
        ready=health.ready,
        out=health.out,
        sessions=sessions,
        max_sessions=most,
        load=round(health.load, 4),
        clock_ahead=switch.clock.ahead if switch.connected else None,
        error="" if switch.connected else str(switch.last_error),
    )
