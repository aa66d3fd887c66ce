"""``serve --workers N``: N processes on the same ports, and the supervisor that keeps them.

The supervisor opens the ports and hands them down, so that each port has one queue and any free worker serves it. If a
worker is killed, connections waiting in the queue survive and the other workers answer them. Each worker is a node of
its own, named after the node with its number (``app1-2``), so its next run or another node adopts the calls it had
(``adoption``). Legs that a worker rings must come back to the same worker, so each also has an event-socket port of its
own.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import time
from collections import Counter
from contextlib import suppress

import gevent
import msgspec
from gevent import os as gevent_os
from gevent import socket, subprocess
from gevent.event import Event as Flag

from esl_apps.config.model import Config, sections
from esl_apps.config.problems import ConfigError
from esl_apps.net.address import split_address
from esl_apps.net.listening import listen
from esl_apps.process import background
from esl_apps.process.service_manager import ServiceManager

log = logging.getLogger(__name__)

#: The environment variable that holds a worker's :class:`Share`, as JSON.
VARIABLE = "ESL_APPS_WORKER"
#: Connections that may wait in a common port's queue until a worker accepts them.
_BACKLOG = 1024
#: Seconds before a worker that died young is restarted, doubled each time up to the second value; a worker that lived
#: for the third value isn't young.
_AGAIN_FIRST, _AGAIN_LAST, _YOUNG = 0.25, 5.0, 10.0
#: Seconds between two signs of life of a worker, and how many may be missing in a row. They are counted, so that a
#: machine that was suspended, or a supervisor that was stopped, waits for one more.
_BEAT, _MISSED = 5.0, 6
#: The exit status of a configuration that can't be used.
_UNUSABLE = 2


class Share(msgspec.Struct, frozen=True):
    """A worker's part of a node."""

    number: int
    """From 1."""
    sockets: dict[str, int]
    """The common ports, by address as it is configured: inherited, and listening."""
    ready: int
    """A pipe to write to once this worker takes calls, and from then on as long as its loop turns."""
    alive: int
    """A pipe that ends when the supervisor does."""
    scrapes: list[str]
    """Abstract Unix sockets on which workers ask each other for metrics, by number."""
    restarts: int = 0
    """How often this worker was started again after its end."""

    @classmethod
    def inherited(cls) -> Share | None:
        """This process's share, or None if it isn't a worker."""
        text = os.environ.pop(VARIABLE, None)
        if text is None:
            return None
        share = msgspec.json.decode(text, type=cls)
        for fd in (*share.sockets.values(), share.ready, share.alive):
            os.set_inheritable(fd, False)
        return share

    def of(self, config: Config) -> Config:
        """The node's configuration as this worker has it."""
        host, port = split_address(config.advertise)
        node = config.node
        # Offset by the distance of its own port from the common one, so that one forwarding rule can cover all ports.
        port += self._own_port(config) - split_address(node.listen)[1]
        return msgspec.structs.replace(
            config,
            node=msgspec.structs.replace(node, name=f"{node.name}-{self.number}", advertise=_join(host, port)),
        )

    def own_address(self, config: Config) -> tuple[str, int]:
        """The address to which legs rung by this worker come back."""
        return split_address(config.node.listen)[0], self._own_port(config)

    def _own_port(self, config: Config) -> int:
        first = config.node.worker_ports or split_address(config.node.listen)[1] + 1
        return first + self.number - 1

    def socket(self, address: str) -> socket.socket:
        """A common port's socket. Call it once: closing it must close this process's part."""
        return socket.socket(fileno=self.sockets[address])

    def keep_telling(self) -> None:
        """Tell the supervisor that this worker takes calls, then that its loop turns. Runs until it is killed."""
        # A supervisor that was stopped reads nothing: its pipe may be full.
        os.set_blocking(self.ready, False)
        while True:
            with suppress(OSError):
                os.write(self.ready, b"1")
            gevent.sleep(_BEAT)

    def wait_alone(self) -> None:
        """Return once the supervisor has ended."""
        gevent_os.make_nonblocking(self.alive)
        while gevent_os.nb_read(self.alive, 1):
            pass


class Supervisor:
    """Starts the workers, restarts those that die, and passes signals on."""

    def __init__(self, config: Config, count: int, service: ServiceManager) -> None:
        """:raises ConfigError: an address can't be listened on."""
        self._config = config
        self._count = count
        self._service = service
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._starts: Counter[int] = Counter()
        self._stopping = False
        self._unusable = False
        self._all_ready = Flag()
        self._was_ready: set[int] = set()
        self._alive = os.pipe()
        prefix = f"esl_apps.{secrets.token_hex(8)}"
        self._scrapes = [f"{prefix}.{number}" for number in range(1, count + 1)]
        self._sockets: dict[str, socket.socket] = {}
        listed = [("node", config.node.listen), *((path, section.listen) for path, section in sections(config))]
        for path, address in listed:
            try:
                self._sockets[address] = listen(split_address(address), _BACKLOG)
            except OSError as error:
                raise ConfigError(f"can't listen on {address}: {error.strerror}", f"{path}.listen") from None

    def run(self) -> int:
        """Run until SIGTERM, or until a worker's first start fails for good; return the exit status."""
        gevent.signal_handler(signal.SIGTERM, self._stop)
        gevent.signal_handler(signal.SIGINT, self._stop)
        gevent.signal_handler(signal.SIGHUP, self._signal, signal.SIGHUP)
        keepers = [background.keep("worker", self._keep, number) for number in range(1, self._count + 1)]
        teller = background.once("workers_ready", self._tell)
        gevent.joinall(keepers)
        teller.kill()
        if self._unusable:
            return _UNUSABLE
        # SIGTERM ends a worker that still starts, before it has a handler: it was stopped, and has not failed.
        ends = [keeper.value or 0 for keeper in keepers]
        return max((abs(status) for status in ends if status != -signal.SIGTERM), default=0)

    def _tell(self) -> None:
        self._all_ready.wait()
        print(f"esl-apps: node {self._config.node.name} ready", file=sys.stderr)
        self._service.ready(self._status())
        self._service.keep_telling(self._status)

    def _status(self) -> str:
        return f"{len(self._children)} of {self._count} workers run"

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._service.stopping()
        # The workers close theirs as they drain. Left open here, the port would accept switches that no worker answers.
        for sock in self._sockets.values():
            sock.close()
        self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        for child in self._children.values():
            # A worker that has just ended is restarted and reads the new file then, or is not wanted any more.
            with suppress(ProcessLookupError):
                child.send_signal(number)

    def _keep(self, number: int) -> int:
        """Run one worker again and again; return the exit status of its last run."""
        pause = _AGAIN_FIRST
        while True:
            began = time.monotonic()
            status = self._run(number)
            if self._stopping:
                return status
            if status == _UNUSABLE and number not in self._was_ready:
                # It has logged why. Starting with fewer workers would hide the fault.
                self._unusable = True
                self._stop()
                return status
            lived = time.monotonic() - began
            pause = _AGAIN_FIRST if lived > _YOUNG else min(pause * 2, _AGAIN_LAST)
            log.error("worker_ended", extra={"worker": number, "status": status, "again in": pause})
            gevent.sleep(pause)
            if self._stopping:
                return status

    def _run(self, number: int) -> int:
        heard, told = os.pipe()
        try:
            share = Share(
                number,
                {address: sock.fileno() for address, sock in self._sockets.items()},
                told,
                self._alive[0],
                self._scrapes,
                self._starts[number],
            )
            child = subprocess.Popen(
                [sys.executable, *sys.orig_argv[1:]],
                pass_fds=[*share.sockets.values(), told, self._alive[0]],
                env={**os.environ, VARIABLE: msgspec.json.encode(share).decode()},
            )
        finally:
            os.close(told)
        self._children[number] = child
        self._starts[number] += 1
        if self._stopping:
            child.terminate()
        listener = background.once("worker_watch", self._hear, number, heard, child)
        try:
            return int(child.wait())
        finally:
            del self._children[number]
            listener.join()
            os.close(heard)

    def _hear(self, number: int, heard: int, child: subprocess.Popen[bytes]) -> None:
        """Wait until a worker says that it takes calls. From then on, kill it if it falls silent: while it is stopped,
        or its loop hangs, the kernel goes on accepting connections for it. Return once it ends."""
        gevent_os.make_nonblocking(heard)
        if not gevent_os.nb_read(heard, 1):
            return
        self._was_ready.add(number)
        if len(self._was_ready) == self._count:
            self._all_ready.set()
        missed = 0
        while missed < _MISSED:
            told = None
            with gevent.Timeout(_BEAT, False):  # type: ignore[arg-type]
                told = gevent_os.nb_read(heard, 64)
            if told == b"":
                return
            missed = 0 if told else missed + 1
        log.error("worker_silent", extra={"worker": number})
        child.kill()


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
