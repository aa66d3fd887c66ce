"""Alerts for a person: each is a log line, a metric and a ``CUSTOM esl_apps::alert`` event on a switch.

Callers must raise an alert only once. If several nodes notice the same thing, a script in Redis picks the one that
raises it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable

from esl_apps.esl import wire
from esl_apps.esl.switch import Switch
from esl_apps.observe.metrics import Metrics

log = logging.getLogger(__name__)

#: Every kind of alert.
KINDS = (
    "breaker",
    "node_clock",
    "node_name",
    "pin_lock",
    "records_waiting",
    "switch_clock",
    "webhook_off",
    "webhook_set_aside",
)

#: Replaced in values before they go on the wire, as they may contain text from a caller.
_UNSAFE = re.compile(r"[^ -~]")


class Alerts:
    def __init__(self, metrics: Metrics, switches: Callable[[], Iterable[Switch]]) -> None:
        self._metrics = metrics
        self._switches = switches
        for kind in KINDS:
            # From 0: Prometheus sees no increase in a series that begins with 1.
            metrics.alerts.labels(kind)

    def tell(self, kind: str, **details: object) -> None:
        """Raise an alert. Never raises an exception and never waits.

        :param kind: one of ``KINDS``.
        :param details: facts that the operator needs to find the cause; never a PIN.
        """
        self._metrics.alerts.labels(kind).inc()
        log.warning("alert_raised", extra={"alert": kind, **details})
        headers = {"esl_alert": kind} | {f"esl_{name}": _UNSAFE.sub("?", str(value)) for name, value in details.items()}
        event = wire.custom_event("esl_apps::alert", headers)
        # On one switch only: a listener to all of them must see one event.
        for switch in self._switches():
            if switch.connected:
                switch.post_raw(event)
                return
