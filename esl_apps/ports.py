"""A node's HTTP ports, and what a signal does to a node: reload, drain, stop."""

from __future__ import annotations

import logging

import gevent
from gevent.pywsgi import WSGIServer

from esl_apps.config import Config, ConfigError, load, split_address
from esl_apps.http import admin, integrator
from esl_apps.http.server import serve
from esl_apps.service import Node

log = logging.getLogger(__name__)


class Ports:
    def __init__(self, node: Node) -> None:
        self._node = node
        self._servers: list[WSGIServer] = []
        self._stopping = False

    def open(self) -> None:
        """:raises ConfigError: an address can't be listened on."""
        config = self._node.config
        apps = [("admin.listen", config.admin.listen, admin.build(self._node))]
        apps += [
            (f"integrators[{i}].listen", one.listen, integrator.build(self._node, one.name))
            for i, one in enumerate(config.integrators)
        ]
        for path, listen, app in apps:
            try:
                self._servers.append(serve(split_address(listen), app))
            except OSError as error:
                raise ConfigError(f"can't listen on {listen}: {error.strerror}", path) from None

    def reload(self, file: str) -> None:
        """The whole file or nothing of it; calls that are up keep what they began with."""
        try:
            config = load(file)
            _same_ports(self._node.config, config)
        except ConfigError as error:
            log.error("reload refused", extra={"reason": str(error)})
            return
        before = self._node.config
        try:
            self._node.apply(config)
        except Exception:
            # A fault of ours, past all checks: half of a file is no configuration.
            log.exception("reload refused", extra={"reason": "it could not be applied"})
            self._node.apply(before)
            return
        log.info("reloaded", extra={"file": file})

    def shut_down(self) -> None:
        """Refuse new work (HTTP answers 503, the event socket's listener closes), let calls end, stop."""
        if self._stopping:
            return
        self._stopping = True
        log.info("draining", extra={"live": len(self._node.calls.live)})
        self._node.stop()
        gevent.joinall([gevent.spawn(server.stop, 1.0) for server in self._servers], timeout=2.0)


def _same_ports(old: Config, new: Config) -> None:
    """:raises ConfigError: something changed that only a start can change."""
    fixed = [
        ("node", old.node, new.node),
        ("redis", old.redis, new.redis),
        ("switches", old.switches, new.switches),
        ("admin.listen", old.admin.listen, new.admin.listen),
        (
            "integrators",
            [(one.name, one.listen, one.redis) for one in old.integrators],
            [(one.name, one.listen, one.redis) for one in new.integrators],
        ),
    ]
    for path, before, after in fixed:
        if before != after:
            raise ConfigError("changes a name, port or connection, which takes a restart", path)
