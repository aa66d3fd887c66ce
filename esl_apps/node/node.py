"""One node: builds its parts, starts them, drains them and stops them. Nothing else is decided here."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable
from functools import partial

import gevent

from esl_apps import __version__
from esl_apps.apps import APPLICATIONS
from esl_apps.config.model import Config
from esl_apps.config.problems import ConfigError
from esl_apps.core import terms
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.esl.server import OutboundServer
from esl_apps.esl.switch import Switch
from esl_apps.net.address import split_address
from esl_apps.node import descriptors
from esl_apps.node.adoption import Adoption
from esl_apps.node.call_parts import build_call_parts
from esl_apps.node.cdr_files import CdrFiles
from esl_apps.node.gate import SwitchGate
from esl_apps.node.metric_history import MetricHistory
from esl_apps.node.record_expiry import RecordExpiry
from esl_apps.node.recording_expiry import RecordingExpiry
from esl_apps.node.reporting import Reporter
from esl_apps.node.services import Services, build_services
from esl_apps.node.state_folder import state_folder
from esl_apps.node.workers import Share
from esl_apps.observe.metrics import Scrapes
from esl_apps.process import background
from esl_apps.process.mounts import remote_type

log = logging.getLogger(__name__)


class Node:
    """``esl-apps serve`` without its HTTP ports, which ``http.ports`` builds from ``services`` and ``outgoing``."""

    def __init__(self, config: Config, share: Share | None = None) -> None:
        """``share``: a worker's part of a node; ``config`` is the node's.

        :raises ConfigError: a folder or an address of the configuration can't be used.
        """
        own = split_address(config.node.listen)
        if share is not None:
            own, config = share.own_address(config), share.of(config)
        self.share = share
        self.services: Services = build_services(config)
        metrics, readiness = self.services.metrics, self.services.readiness
        self.scrapes = None
        if share is not None:
            self.scrapes = Scrapes(metrics, share.number, share.scrapes)
            metrics.restarts.inc(share.restarts)
        parts = build_call_parts(self.services)
        self.outgoing = parts.outgoing
        self._pollers = parts.pollers
        self.history: MetricHistory | None = None
        """For the console; None without one."""
        self._recording_expiry = RecordingExpiry(self.services)
        self._tasks: list[background.Kept] = [
            self.services.clocks,
            Adoption(self.services, parts.following),
            CdrFiles(self.services),
            Reporter(self.services),
            RecordExpiry(self.services),
            self._recording_expiry,
        ]
        if config.admin.console:
            self.history = MetricHistory((self.scrapes or metrics).registry.collect)
            self._tasks.append(self.history)

        def count_sockets(count: int) -> None:
            readiness.sockets = count
            metrics.sockets.set(count)

        try:
            self._server = OutboundServer(
                own,
                parts.incoming.handle,
                # Incoming enforces max_calls: legs this node placed already hold a slot.
                config.node.max_calls + descriptors.REFUSED,
                shared=None if share is None else share.socket(config.node.listen),
                on_count=count_sockets,
                gate=SwitchGate(lambda: self.services.policy.config.node, self.services.switches),
            )
        except OSError as error:
            key = "node.listen" if share is None else "node.worker_ports"
            raise ConfigError(f"can't listen on {own[0]}:{own[1]}: {error.strerror}", key) from None

    def apply(self, config: Config) -> None:
        """Put another configuration in force, whole. :raises ConfigError: it can't be, and nothing has changed."""
        self.services.policies.now = self.services.read_policy(config)
        self.services.webhooks.start()
        self._recording_expiry.look()
        for switch in self.services.switches:
            self.services.sounds.look(switch)

    def start(self) -> None:
        services = self.services
        self._watch()
        folder = state_folder(services.policy.config)
        if kind := remote_type(folder):
            # Written before a call goes on, so not in a thread that may be given up.
            log.warning("state_folder_remote", extra={"folder": str(folder), "type": kind})
        self._claim_name()
        services.store.start()
        for outbox in services.outboxes:
            outbox.start()
        services.event_writer.start()
        for switch in services.switches:
            switch.start()
        # The first request should find its switch connected, but an unreachable one must not delay the start.
        gevent.wait([background.once("switch_wait", switch.wait_up, 2.0) for switch in services.switches])
        services.breakers.start()
        services.usage.start()
        for task in self._tasks:
            task.start()
        services.webhooks.start()
        for poller in self._pollers.values():
            poller.start()
        self._server.listen()

    def _claim_name(self) -> None:
        """:raises ConfigError: another process lives under this node's name: each would take the other's calls for
        those of its own last run."""
        membership = self.services.membership
        try:
            boot = membership.watch_namesakes(gevent.sleep)
        except StoreUnavailable as error:
            # Adoption.beat looks again.
            log.warning("node_name_not_checked", extra={"reason": str(error)})
            return
        if boot is not None:
            raise ConfigError(
                f"another process runs as node {membership.name} on this Redis; stop it, or give this one another name",
                "node.name",
            )

    def _watch(self) -> None:
        """Let a scrape of the metrics read what is known only now."""
        services, metrics = self.services, self.services.metrics
        node = services.policy.config.node
        metrics.build.labels(node.name, __version__, platform.python_version()).set(1)
        metrics.max_calls.set(node.max_calls)
        metrics.ready.set_function(lambda: not services.readiness.reasons())
        metrics.redis_up.set_function(lambda: services.store.watch.healthy)
        for app in APPLICATIONS:
            metrics.live.labels(app).set_function(partial(services.calls.count, app))
            # From 0: Prometheus sees no increase in a series that begins with 1.
            metrics.calls(app, terms.LOST)
        metrics.event_readers.set_function(lambda: services.event_feeds.readers)
        metrics.breakers.set_function(lambda: services.breakers.count)
        for name, health in services.switch_pool.health.items():
            metrics.switch_load.labels(name).set_function(partial(getattr, health, "load"))
            metrics.switch_out.labels(name).set_function(partial(getattr, health, "out"))
        for switch in services.switches:
            metrics.switch_clock.labels(switch.name).set_function(partial(_ahead, switch))
        for outbox in services.outboxes:
            metrics.outbox.labels(outbox.name).set_function(partial(getattr, outbox, "depth"))
            metrics.outbox_failing.labels(outbox.name).set_function(partial(getattr, outbox, "failing_seconds"))

    def stop(self) -> None:
        """Drain for ``drain_timeout`` seconds, then leave: records go out or stay in the journal."""
        services = self.services
        services.readiness.draining = True
        stops: list[Callable[[], object]] = [services.usage.stop, services.breakers.stop]
        stops += [task.stop for task in self._tasks]
        stops += [services.store.stop, services.webhooks.stop, services.event_writer.stop, services.event_feeds.stop]
        # Leave the cluster late: from here on other nodes, or our next run, own the calls still up.
        stops += [services.membership.leave, services.call_log.close, *(switch.stop for switch in services.switches)]
        for step in [self._drain, self._stop_outboxes, *stops]:
            try:
                step()
            except StoreUnavailable:
                # Redis is down: the other nodes notice that this one has gone.
                continue
            except Exception:
                # A bad disk, or a fault of ours, must not keep the node from ending.
                log.exception("stop_failed", extra={"step": getattr(step, "__qualname__", str(step))})
        services.readiness.stopped.set()

    def _drain(self) -> None:
        services = self.services
        for poller in self._pollers.values():
            poller.stop()
        deadline = time.monotonic() + services.policy.config.node.drain_timeout
        # Legs that still ring for this node come to the event socket when they answer: it stays open for them alone
        # (Incoming refuses everyone else). Once it closes, switches go on to the next node of their list.
        while services.calls.expected() and time.monotonic() < deadline:
            gevent.sleep(0.02)
        self._server.close_listener()
        while services.calls.live and time.monotonic() < deadline:
            gevent.sleep(0.05)
        services.outboxes.drain(max(0.5, min(5.0, deadline - time.monotonic())))

    def _stop_outboxes(self) -> None:
        self.services.records.closed = True
        # At the same time: each may wait for a bad disk.
        gevent.joinall([background.once("outbox_stop", outbox.stop) for outbox in self.services.outboxes])


def _ahead(switch: Switch) -> float:
    return switch.clock.ahead_of_system
