"""How many calls and clients this process has descriptors for. Beyond its limit, the kernel goes on completing TCP, and
a caller would wait in silence instead of being refused or sent to the next node."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress

import msgspec

from esl_apps.config.model import Config, ReadConfig, sections
from esl_apps.config.problems import Problem

#: Connections of clients on each HTTP port.
CLIENTS = 1000
#: Connections of the event socket above ``max_calls``: of calls that are being refused, and those that calls which were
#: transferred have left behind.
REFUSED = 512
#: Those, and for Redis, switches, webhooks and files, and for 512 peers of the event socket that have not said who they
#: are (``esl.server.STRANGERS``).
_OTHERS = REFUSED + 612


def limit() -> int:
    """Raise the limit of this process as far as it may, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # A filter of system calls may refuse it.
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def fit(config: Config, most: int) -> Config:
    """Return the configuration; with a lower ``max_calls`` and a warning if ``most`` descriptors aren't enough."""
    wanted, ports = config.node.max_calls, len(sections(config))
    needed = wanted + CLIENTS * ports + _OTHERS
    if most >= needed:
        return config
    spare = _spare(most)
    # Calls first: a client is told that the port is full, and comes again.
    max_calls = max(1, min(wanted, max(spare - CLIENTS * ports, spare * 3 // 4)))
    fitted = msgspec.structs.replace(config, node=msgspec.structs.replace(config.node, max_calls=max_calls))
    if not isinstance(fitted, ReadConfig):
        return fitted
    message = (
        f"{needed} files and sockets may be needed, but a process may have {most}: it takes {max_calls} calls, and "
        f"{clients(fitted, most)} HTTP clients on each port; raise LimitNOFILE of the service, or ulimit -n"
    )
    return msgspec.structs.replace(fitted, notes=(*fitted.notes, Problem(message, "node.max_calls")))


def clients(config: Config, most: int) -> int:
    """Return how many clients an HTTP port takes at once, next to the calls of a configuration that fits."""
    return max(1, min(CLIENTS, (_spare(most) - config.node.max_calls) // len(sections(config))))


def _spare(most: int) -> int:
    return max(most // 2, most - _OTHERS)
