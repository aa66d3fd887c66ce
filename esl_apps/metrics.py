"""What a node counts, for Prometheus. One registry a node, so that two in one process do not mix."""

from __future__ import annotations

import weakref

from gevent import Greenlet
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_MILLISECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_RINGING = (0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 12, 20, 30, 60)


#: All greenlets of this process that somebody still holds: what grows here without calls is a leak.
_greenlets: weakref.WeakSet[Greenlet[..., object]] = weakref.WeakSet()
Greenlet.add_spawn_callback(_greenlets.add)


class Metrics:
    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.calls = Counter(
            "esl_apps_calls", "Calls ended, by application and end_reason", ["app", "end_reason"], registry=registry
        )
        self.live = Gauge("esl_apps_live_calls", "Calls being handled", ["app"], registry=registry)
        self.sockets = Gauge("esl_apps_outbound_sockets", "Outbound event sockets open", registry=registry)
        self.refused = Counter(
            "esl_apps_requests_refused", "HTTP requests that dialled nothing", ["status"], registry=registry
        )
        self.time_to_ring = Histogram(
            "esl_apps_time_to_ring_seconds", "From a request to the first phone ringing", ["app"],
            buckets=_RINGING, registry=registry,
        )  # fmt: skip
        self.round_trip = Histogram(
            "esl_apps_esl_round_trip_seconds", "An event-socket command and its reply", ["switch"],
            buckets=_MILLISECONDS, registry=registry,
        )  # fmt: skip
        self.switch_up = Gauge("esl_apps_switch_up", "Whether a switch is connected", ["switch"], registry=registry)
        self.reconnects = Counter(
            "esl_apps_switch_reconnects", "Connections to a switch that were lost", ["switch"], registry=registry
        )
        self.outbox = Gauge(
            "esl_apps_outbox_depth", "Notifications not yet in Redis", ["outbox"], registry=registry
        )
        self.pushed = Counter("esl_apps_notifications", "Notifications in Redis", ["list"], registry=registry)
        self.breakers = Gauge(
            "esl_apps_breakers_tripped", "Breakers that are tripped, as this node knows", registry=registry
        )
        self.greenlets = Gauge("esl_apps_greenlets", "Greenlets, one or more a call", registry=registry)
        self.greenlets.set_function(_greenlets.__len__)
        ProcessCollector(registry=registry)
        self.adopted = Counter("esl_apps_calls_adopted", "Calls taken over from a node that died", registry=registry)
        self.alerts = Counter("esl_apps_alerts", "Alerts raised, by kind", ["alert"], registry=registry)
