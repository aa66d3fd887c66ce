"""What a person should hear of now: one log line, one metric, one ``CUSTOM esl_apps::alert`` event on the switch.

Whoever raises an alert says it once: where several nodes see the same thing, a script in Redis says who tells.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable

from esl_apps.esl import wire
from esl_apps.esl.switch import Switch
from esl_apps.observe.metrics import Metrics

log = logging.getLogger(__name__)

#: What of a value goes on the wire: it may hold what a caller sent.
_UNSAFE = re.compile(r"[^ -~]")


class Alerts:
    def __init__(self, metrics: Metrics, switches: Callable[[], Iterable[Switch]]) -> None:
        self._metrics = metrics
        self._switches = switches

    def tell(self, kind: str, **details: object) -> None:
        """``kind``: a word for what happened (``pin_lock``, ``breaker``); ``details``: what the operator needs to find
        it. Never a PIN. Never raises, and waits for nobody."""
        self._metrics.alerts.labels(kind).inc()
        log.warning("alert", extra={"alert": kind, **details})
        headers = {"esl_alert": kind} | {f"esl_{name}": _UNSAFE.sub("?", str(value)) for name, value in details.items()}
        event = wire.custom_event("esl_apps::alert", headers)
        # One event, so that who listens to all switches counts one.
        for switch in self._switches():
            if switch.connected:
                switch.post_raw(event)
                return
