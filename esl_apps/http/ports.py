"""Open a node's HTTP ports, and do what signals ask for: reload, drain, stop."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import NamedTuple

import gevent
from gevent import ssl
from gevent.lock import Semaphore

from esl_apps.config import warnings
from esl_apps.config.model import Config, Rate, sections
from esl_apps.config.problems import ConfigError
from esl_apps.http import admin, integrator
from esl_apps.http.connection import Bounds, Wsgi
from esl_apps.http.server import Server, serve
from esl_apps.net import tls
from esl_apps.net.address import split_address
from esl_apps.net.turns import take_turn
from esl_apps.node import descriptors
from esl_apps.node.config_process import load_apart
from esl_apps.node.node import Node
from esl_apps.process import background
from esl_apps.process.folder import Folder, Hangs

log = logging.getLogger(__name__)


class Ports:
    def __init__(self, node: Node) -> None:
        self._node = node
        #: In the order of ``config.model.sections``.
        self._servers: list[Server] = []
        self._stopping = False
        # Of two reloads, the later one must win.
        self._reloading = Semaphore()
        self._certificates = Folder("certificates")

    def open(self) -> None:
        """:raises ConfigError: an address can't be listened on, a certificate can't be used."""
        config = self._node.services.policy.config
        contexts = _contexts(config)
        services, outgoing = self._node.services, self._node.outgoing
        registry = (self._node.scrapes or services.metrics).registry
        apps: list[Wsgi] = [admin.build(services, outgoing, registry, self._node.history)]
        apps += [integrator.build(services, outgoing, configured.name) for configured in config.integrators]
        for (path, section), secured, app in zip(sections(config), contexts, apps, strict=True):
            address = split_address(section.listen)
            try:
                listener = address if self._node.share is None else self._node.share.socket(section.listen)
                bounds = _bounds(config, section.rate)
                server = serve(listener, app, bounds=bounds, tls=secured.context, on_refused=services.refused)
            except OSError as error:
                message = f"can't listen on {section.listen}: {error.strerror}"
                raise ConfigError(message, f"{path}.listen") from None
            self._servers.append(server)
            self._watch(section.listen, secured)
        self._log_warnings(config)

    def _log_warnings(self, config: Config) -> None:
        # With several workers, only the first logs them.
        if self._node.share is None or self._node.share.number == 1:
            for problem in warnings(config):
                take_turn("configuration")
                log.warning(
                    "config_warning", extra={"key": problem.key, "line": problem.line, "reason": problem.message}
                )

    def reload(self, file: str) -> str | None:
        """Put a file in force, whole or not at all, and return why not. Calls in progress keep the settings that they
        began with."""
        with self._reloading:
            refused = self._reload(file)
            self._node.services.metrics.reload_refused.set(refused is not None)
            return refused

    def _reload(self, file: str) -> str | None:
        try:
            config = descriptors.fit(load_apart(file), descriptors.limit())
            if self._node.share is not None:
                config = self._node.share.of(config)
            _same_ports(self._node.services.policy.config, config)
            contexts = self._read_contexts(config)
            self._node.apply(config)
        except ConfigError as error:
            log.error("config_reload_refused", extra={"reason": str(error)})
            return str(error)
        except Exception:
            # Our own fault, past all checks. The policy before stays in force, whole.
            log.exception("config_reload_refused", extra={"reason": "it could not be applied"})
            return "it could not be applied"
        for server, secured, (_path, section) in zip(self._servers, contexts, sections(config), strict=True):
            # For new connections. Open ones keep the certificate that they began with.
            server.tls = secured.context
            self._watch(section.listen, secured)
            server.bounds = _bounds(config, section.rate)
        log.info("config_reloaded", extra={"file": file})
        self._log_warnings(config)
        return None

    def _watch(self, listen: str, secured: _Secured) -> None:
        """Let a scrape read how long the certificate in use is good: a renewed file helps only once it is loaded."""
        if secured.context is not None:
            metrics, validity = self._node.services.metrics, secured.validity
            metrics.certificate_expires.labels(listen).set_function(partial(_left, validity.end))
            metrics.certificate_lifetime.labels(listen).set(validity.lifetime)

    def _read_contexts(self, config: Config) -> list[_Secured]:
        """:raises ConfigError: as ``_contexts``, or the certificates are on a disk that hangs."""
        try:
            return self._certificates.run(_contexts, config)
        except Hangs as error:
            raise ConfigError(str(error)) from None

    def shut_down(self) -> None:
        """Refuse new calls (HTTP answers 503, the event socket stops listening), let calls end, and stop."""
        if self._stopping:
            return
        self._stopping = True
        log.info("node_draining", extra={"live": len(self._node.services.calls.live)})
        self._node.stop()
        gevent.joinall([background.once("http_stop", server.stop, 1.0) for server in self._servers], timeout=2.0)


class _Secured(NamedTuple):
    context: ssl.SSLContext | None = None
    """None for plain HTTP."""
    validity: tls.Validity = tls.Validity()


def _left(expires: float) -> float:
    return expires - time.time()


def _contexts(config: Config) -> list[_Secured]:
    """Return the TLS context of each port.

    :raises ConfigError: a certificate that was usable when the file was read no longer is.
    """
    contexts: list[_Secured] = []
    for path, section in sections(config):
        if section.tls is None:
            contexts.append(_Secured())
            continue
        try:
            context = tls.context(section.tls.cert, section.tls.key, ssl.SSLContext)
            contexts.append(_Secured(context, tls.validity(section.tls.cert)))
        except tls.Unusable as error:
            raise ConfigError(str(error), f"{path}.tls.{error.key}") from None
    return contexts


def _bounds(config: Config, rate: Rate) -> Bounds:
    clients = descriptors.clients(config, descriptors.limit())
    return Bounds(clients, per_address=rate.connections, rate=rate.per_address, burst=rate.burst)


def _same_ports(old: Config, new: Config) -> None:
    """:raises ConfigError: the new configuration changes something that takes a restart."""
    fixed = [
        (
            # Before ``node``: with few descriptors, ``max_calls`` depends on how many ports there are.
            "integrators",
            [(each.name, each.listen, each.redis, each.tls is None) for each in old.integrators],
            [(each.name, each.listen, each.redis, each.tls is None) for each in new.integrators],
        ),
        ("node", old.node, new.node),
        ("redis", old.redis, new.redis),
        ("switches", old.switches, new.switches),
        ("spool", old.spool, new.spool),
        ("admin.listen", old.admin.listen, new.admin.listen),
        ("admin.console", old.admin.console, new.admin.console),
        ("admin.tls", old.admin.tls is None, new.admin.tls is None),
    ]
    for path, before, after in fixed:
        if before != after:
            raise ConfigError("a change takes a restart", path)
