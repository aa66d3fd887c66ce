"""Remove the switch's CDR files of calls that have their record, and those that no record will ever need."""

from __future__ import annotations

import logging
import time
from contextlib import suppress

import gevent

from esl_apps.core import terms
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.node.services import Services
from esl_apps.process import background
from esl_apps.store.errors import Fault

log = logging.getLogger(__name__)

#: Seconds between two looks for new CDR files.
LOOK_EVERY = 5.0
#: Seconds for which the files of a call stay that neither Redis nor the call log knows, for a person to look at. Redis
#: itself knows an ended call for a day.
FORGOTTEN = 7 * 86400.0
#: Seconds until Redis is asked again for a call that it didn't know.
_ASK_AGAIN = 600.0


class CdrFiles(background.Kept):
    TASK = "cdr_files"

    def __init__(self, services: Services) -> None:
        self._services = services
        self._strangers: dict[str, float] = {}
        """Calls that Redis didn't know, and when to ask for them again (``time.monotonic``)."""

    def _run(self) -> None:
        while True:
            gevent.sleep(LOOK_EVERY)
            # Logged by ``CallStore``. The files wait.
            with suppress(StoreUnavailable):
                self.tidy()

    def tidy(self) -> None:
        """:raises StoreUnavailable: Redis is down."""
        services, switch_cdr = self._services, self._services.switch_cdr
        switch_cdr.look()
        calls = switch_cdr.calls()
        self._strangers = {ref: at for ref, at in self._strangers.items() if ref in calls}
        for ref, written_at in calls.items():
            if ref in services.calls.live or self._strangers.get(ref, 0.0) > time.monotonic():
                continue
            try:
                known = services.store.call(ref)
            except Fault:
                # A key that is something else keeps the files of no other call.
                known = None
            if known is None:
                self._keep_for_a_while(ref, written_at)
            elif known["state"] == terms.ENDED and services.store.is_written(ref):
                # Before Redis knows that it has ended, another node may adopt it and need its files.
                switch_cdr.remove(ref)

    def _keep_for_a_while(self, ref: str, written_at: float) -> None:
        # Redis's time: this node's clock may be ahead.
        now = self._services.membership.redis_time()
        if now is not None and now - written_at > FORGOTTEN:
            log.warning("unknown_call_removed", extra={"call_ref": ref})
            self._services.switch_cdr.remove(ref)
            return
        if ref not in self._strangers:
            log.error("unknown_call_in_switch_cdrs", extra={"call_ref": ref})
        self._strangers[ref] = time.monotonic() + _ASK_AGAIN
