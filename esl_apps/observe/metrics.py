"""A node's metrics for Prometheus. Each node has its own registry, so that two in one process don't mix."""

from __future__ import annotations

import weakref
from collections import Counter as Counts
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import Any

import gevent
import msgspec
from gevent import Greenlet, socket
from gevent.server import StreamServer
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from esl_apps.observe import logs
from esl_apps.observe.call_quality import QualityMetrics
from esl_apps.observe.durations import Durations
from esl_apps.process import background, folder

_MILLISECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_RINGING = (0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 12, 20, 30, 60)
#: Fewer than for a switch: each route has a series for each.
_REQUESTS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
#: A local Redis answers in 0.1 ms, and one that takes 2 s counts as down.
_REDIS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2)


#: All living greenlets of this process. If their number grows without calls, there is a leak.
_greenlets: weakref.WeakSet[Greenlet[..., object]] = weakref.WeakSet()
Greenlet.add_spawn_callback(_greenlets.add)


class Metrics:
    def __init__(self) -> None:
        # Long: a list, each metric once.
        self.registry = registry = CollectorRegistry()
        self.build = Gauge(
            "esl_apps_build_info", "1, with the versions in use", ["node", "version", "python"], registry=registry
        )
        # Metrics of every call: cached, as looking up the labels is expensive.
        self.calls = cache(
            Counter(
                "esl_apps_calls", "Calls ended, by application and end_reason", ["app", "end_reason"], registry=registry
            ).labels
        )
        self.end_codes = cache(
            Counter("esl_apps_end_codes", "Calls ended, by Q.850 cause", ["app", "end_code"], registry=registry).labels
        )
        self.quality = QualityMetrics(registry)
        self.live = Gauge("esl_apps_live_calls", "Calls being handled", ["app"], registry=registry)
        self.sockets = Gauge("esl_apps_outbound_sockets", "Outbound event sockets open", registry=registry)
        self.max_calls = Gauge("esl_apps_max_calls", "Calls that this process takes at most", registry=registry)
        self.ready = Gauge("esl_apps_ready", "Whether calls are taken", registry=registry)
        self.requests = Durations(
            "esl_apps_http_request_seconds",
            "Time from an HTTP request until its answer is ready",
            ["method", "route", "status"],
            _REQUESTS,
            registry,
        )
        self.refused = Counter(
            "esl_apps_requests_refused", "HTTP requests refused, which placed no call", ["status"], registry=registry
        )
        self.time_to_ring = cache(
            Histogram(
                "esl_apps_time_to_ring_seconds",
                "Time from a request until the first phone rings",
                ["app"],
                buckets=_RINGING,
                registry=registry,
            ).labels
        )
        self.round_trip = Histogram(
            "esl_apps_esl_round_trip_seconds",
            "Time from an event-socket command to its reply",
            ["switch"],
            buckets=_MILLISECONDS,
            registry=registry,
        )
        self.switch_up = Gauge("esl_apps_switch_up", "Whether a switch is connected", ["switch"], registry=registry)
        self.switch_load = Gauge(
            "esl_apps_switch_load", "Share of a switch's sessions in use, 0 to 1", ["switch"], registry=registry
        )
        self.switch_out = Gauge(
            "esl_apps_switch_out", "Whether a switch is skipped: its originates fail", ["switch"], registry=registry
        )
        self.switch_clock = Gauge(
            "esl_apps_switch_clock_ahead_seconds",
            "By how much a switch's clock is ahead of the node's",
            ["switch"],
            registry=registry,
        )
        self.reconnects = Counter(
            "esl_apps_switch_reconnects", "Connections to a switch that were lost", ["switch"], registry=registry
        )
        self.redis_up = Gauge("esl_apps_redis_up", "Whether the main Redis takes writes", registry=registry)
        self.redis_round_trip = Durations(
            "esl_apps_redis_round_trip_seconds", "Time from a command to Redis's answer", ["redis"], _REDIS, registry
        )
        self.outbox = Gauge("esl_apps_outbox_depth", "Notifications not yet in Redis", ["outbox"], registry=registry)
        self.outbox_failing = Gauge(
            "esl_apps_outbox_failing_seconds", "Time since pushes to Redis fail", ["outbox"], registry=registry
        )
        self.event_readers = Gauge("esl_apps_event_readers", "Clients that listen to events", registry=registry)
        self.event_readers_cut = Counter(
            "esl_apps_event_readers_cut", "Event streams that the node ended, by why", ["reason"], registry=registry
        )
        self.pushed = cache(
            Counter("esl_apps_notifications", "Notifications pushed to Redis", ["list"], registry=registry).labels
        )
        self.webhook_depth = Gauge(
            "esl_apps_webhook_depth", "Notifications that wait for a webhook", ["webhook"], registry=registry
        )
        self.webhook_oldest = Gauge(
            "esl_apps_webhook_oldest_seconds",
            "Age of the oldest notification that waits for a webhook",
            ["webhook"],
            registry=registry,
        )
        self.webhook_attempts = Counter(
            "esl_apps_webhook_attempts", "Posts to a webhook, by outcome", ["webhook", "outcome"], registry=registry
        )
        self.webhook_failing = Gauge(
            "esl_apps_webhook_failing_seconds",
            "Time since a webhook's receiver fails; 0 if nothing waits for it",
            ["webhook"],
            registry=registry,
        )
        self.webhook_off = Gauge(
            "esl_apps_webhook_off", "Whether a webhook's receiver answered 410", ["webhook"], registry=registry
        )
        self.webhook_set_aside = Counter(
            "esl_apps_webhook_set_aside", "Notifications given up after three days", ["webhook"], registry=registry
        )
        self.breakers = Gauge("esl_apps_breakers_tripped", "Tripped breakers known to this node", registry=registry)
        self.reload_refused = Gauge(
            "esl_apps_config_reload_refused", "Whether the last reload was refused", registry=registry
        )
        self.certificate_expires = Gauge(
            "esl_apps_certificate_expires_seconds",
            "Time until the certificate that a port uses expires",
            ["listen"],
            registry=registry,
        )
        self.certificate_lifetime = Gauge(
            "esl_apps_certificate_lifetime_seconds",
            "Time from the beginning to the end of the certificate that a port uses",
            ["listen"],
            registry=registry,
        )
        self.recordings_not_deleted = Gauge(
            "esl_apps_recordings_not_deleted",
            "Whether recordings that are to be deleted could not be, or will not be",
            registry=registry,
        )
        ProcessCollector(registry=registry)
        registry.register(_Health())
        self.adopted = Counter("esl_apps_calls_adopted", "Calls taken over from a node that died", registry=registry)
        self.alerts = Counter("esl_apps_alerts", "Alerts raised, by kind", ["alert"], registry=registry)
        self.restarts = Counter(
            "esl_apps_worker_restarts", "Times that this worker was started again after its end", registry=registry
        )


class _Health(Collector):
    """Counts of the modules that can't import this one."""

    def describe(self) -> Iterable[Metric]:
        return (
            CounterMetricFamily(
                "esl_apps_background_failures", "Background work that raised an exception", labels=["task"]
            ),
            GaugeMetricFamily(
                "esl_apps_greenlets", "Living greenlets by their work; a call has one or more", labels=["task"]
            ),
            GaugeMetricFamily(
                "esl_apps_folder_hung_threads", "Threads that wait for a folder that doesn't answer", labels=["folder"]
            ),
            CounterMetricFamily(
                "esl_apps_log_lines_dropped", "Log lines dropped because standard error wasn't read", labels=()
            ),
        )

    def collect(self) -> Iterable[Metric]:
        failures, greenlets, hung, dropped = self.describe()
        living = [greenlet for greenlet in list(_greenlets) if not greenlet.dead]
        for task, count in Counts(map(background.task_of, living)).items():
            greenlets.add_sample(greenlets.name, {"task": task}, count)
        for task, count in background.failures.items():
            failures.add_sample(f"{failures.name}_total", {"task": task}, count)
        for name, threads in folder.stuck():
            hung.add_sample(hung.name, {"folder": name}, threads)
        dropped.add_sample(f"{dropped.name}_total", {}, logs.dropped())
        return failures, greenlets, hung, dropped


#: Seconds to wait for the metrics of another worker.
_PATIENCE = 1.0

_Sample = tuple[str, dict[str, str], float]
_Family = tuple[str, str, str, list[_Sample]]


class Scrapes(Collector):
    """The metrics of all workers of a node, each with the label ``worker``. A scrape may reach any worker."""

    def __init__(self, metrics: Metrics, number: int, names: list[str]) -> None:
        """:param number: this worker's, from 1. :param names: the abstract Unix socket of each worker."""
        self._registry = metrics.registry
        self._number = number
        self._names = names
        self.registry = CollectorRegistry()
        self.registry.register(self)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind("\0" + names[number - 1])
        listener.listen()
        self._server = StreamServer(listener, self._serve)
        self._server.start()

    def stop(self) -> None:
        self._server.close()

    def _serve(self, sock: socket.socket, _address: object) -> None:
        # The worker that asked may have given up by now.
        with suppress(OSError):
            sock.sendall(msgspec.msgpack.encode(self._own_families()))

    def _own_families(self) -> list[_Family]:
        return [
            (
                metric.name,
                metric.documentation,
                metric.type,
                [(sample.name, sample.labels, sample.value) for sample in metric.samples],
            )
            for metric in self._registry.collect()
        ]

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering this asks no other worker."""
        return ()

    def collect(self) -> Iterable[Metric]:
        answers: list[Any] = [
            background.once("worker_scrape", self._ask, number) for number in range(1, len(self._names) + 1)
        ]
        gevent.joinall(answers)
        up = Metric("esl_apps_worker_up", "Whether a worker answers", "gauge")
        families = {up.name: up}
        for number, answer in enumerate(answers, 1):
            worker = {"worker": str(number)}
            up.add_sample(up.name, worker, float(answer.value is not None))
            for name, documentation, type, samples in answer.value or ():
                family = families.setdefault(name, Metric(name, documentation, type))
                for sample, labels, value in samples:
                    family.add_sample(sample, {**labels, **worker}, value)
        return families.values()

    def _ask(self, number: int) -> list[_Family] | None:
        """Return the metrics of a worker, or None if it doesn't answer."""
        if number == self._number:
            return self._own_families()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with gevent.Timeout(_PATIENCE, OSError("no answer in time")):
                sock.connect("\0" + self._names[number - 1])
                data = bytearray()
                while part := sock.recv(1 << 16):
                    data += part
            return msgspec.msgpack.decode(data, type=list[_Family])
        except (OSError, msgspec.DecodeError):
            return None
        finally:
            sock.close()
