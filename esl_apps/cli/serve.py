"""``esl-apps serve``: one node, or several workers of one."""

from __future__ import annotations

import argparse
import gc
import signal
import sys

import gevent
from gevent.event import Event as Flag

from esl_apps.cli.exit_status import Exit
from esl_apps.config.model import Config
from esl_apps.http.ports import Ports
from esl_apps.node import descriptors
from esl_apps.node.node import Node
from esl_apps.node.workers import Share, Supervisor
from esl_apps.observe import logs
from esl_apps.process import background
from esl_apps.process.service_manager import ServiceManager


def run(config: Config, arguments: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT. :raises ConfigError: an address or a folder can't be used."""
    logs.setup(arguments.log_level, arguments.log_format)
    background.log_all()
    config = descriptors.fit(config, descriptors.limit())
    share = Share.inherited()
    service = ServiceManager.inherited()
    if arguments.workers > 1 and share is None:
        return Supervisor(config, arguments.workers, service).run()
    # Which greenlet spawned which is for debugging, and costs at each spawn.
    gevent.config.track_greenlet_tree = False
    node = Node(config, share)
    ports = Ports(node)
    started = Flag()

    def reload() -> None:
        background.once("reload", _reload, started, ports, arguments.config, node, service)

    # gevent runs this in its hub, which must not wait: it only starts a greenlet. Before the node starts, which may
    # take seconds if its last run left calls: without a handler, the signal would end it.
    gevent.signal_handler(signal.SIGHUP, reload)
    # First, so that a node whose ports are taken never takes a call. Until it is ready, requests get 503.
    ports.open()
    node.start()
    # Everything built so far lives as long as the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    # And seldom at new objects: a call leaves no cycle behind, and is freed by its last reference.
    gc.set_threshold(5000)

    def stop() -> None:
        service.stopping()
        background.once("shut_down", ports.shut_down)

    gevent.signal_handler(signal.SIGTERM, stop)
    gevent.signal_handler(signal.SIGINT, stop)
    if share is None:
        print(f"esl-apps: node {config.node.name} ready", file=sys.stderr)
        service.ready(_status(node))
        background.keep("service_manager", service.keep_telling, lambda: _status(node))
    else:
        background.keep("supervisor_beat", share.keep_telling)
        background.once("supervisor_watch", share.wait_alone).link(lambda _greenlet: stop())
    started.set()
    node.services.readiness.stopped.wait()
    return Exit.OK


def _reload(started: Flag, ports: Ports, file: str, node: Node, service: ServiceManager) -> None:
    started.wait()
    service.reloading()
    refused = ports.reload(file)
    service.reloaded(refused, _status(node))


def _status(node: Node) -> str:
    """The node's calls and its health, in a line for ``systemctl status``."""
    live = len(node.services.calls.live)
    calls = "1 call" if live == 1 else f"{live} calls"
    problems = node.services.readiness.problems()
    state = "ready" if not node.services.readiness.reasons() else "not ready"
    return f"{state}, {calls}" + (f": {'; '.join(problems)}" if problems else "")
