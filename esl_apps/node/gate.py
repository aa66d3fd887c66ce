"""Which peers of ``node.listen`` are switches: by their address and, if there is one, by ``node.secret``."""

from __future__ import annotations

import ipaddress
import logging
import time
from collections.abc import Callable, Sequence
from functools import lru_cache

from esl_apps.config.model import Node
from esl_apps.esl.switch import Switch
from esl_apps.net.address import is_loopback, plain, within

log = logging.getLogger(__name__)

#: Seconds in which one address that is refused is logged once, and the most addresses that are remembered for it.
_SAY_EVERY, _REMEMBERED = 60.0, 1000


class SwitchGate:
    """``esl.server.Gate`` by the configuration in force."""

    def __init__(self, node: Callable[[], Node], switches: Sequence[Switch]) -> None:
        """``node``: returns that section of the configuration, which a reload replaces."""
        self._node = node
        self._switches = switches
        #: Refused address → when that was logged.
        self._said: dict[str, float] = {}

    @property
    def secrets(self) -> Sequence[str]:
        node = self._node()
        return [secret for secret in (node.secret, node.secret_old) if secret is not None]

    def allows(self, address: str) -> bool:
        allow = self._node().allow
        if allow is None:
            address = plain(address)
            allowed = is_loopback(address) or any(address in switch.addresses for switch in self._switches)
        else:
            allowed = within(address, _networks(tuple(allow)))
        if not allowed:
            self._say(address)
        return allowed

    def _say(self, address: str) -> None:
        now = time.monotonic()
        if now - self._said.get(address, -_SAY_EVERY) < _SAY_EVERY:
            return
        if len(self._said) >= _REMEMBERED:
            self._said.clear()
        self._said[address] = now
        log.warning("event_socket_refused", extra={"address": address, "reason": "not in node.allow"})


@lru_cache(maxsize=4)
def _networks(allow: tuple[str, ...]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(text) for text in allow]
