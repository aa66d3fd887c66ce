"""The operator's port: its tokens, and what its handlers need."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import falcon
from prometheus_client import CollectorRegistry, generate_latest

from esl_apps.http.crossbar_port import CrossbarPort
from esl_apps.node.outgoing import Outgoing
from esl_apps.node.services import Services


class Exposition:
    """The metrics as text. Anyone may ask for them, and they take some milliseconds with many integrators: making them
    takes a tenth of a core at most, and what is asked for meanwhile is what was made last."""

    def __init__(
        self,
        registry: CollectorRegistry,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self._registry = registry
        self._clock, self._cpu = clock, cpu
        self._text = b""
        self._fresh_until = -math.inf

    def text(self) -> bytes:
        if self._clock() >= self._fresh_until:
            began = self._cpu()
            self._text = generate_latest(self._registry)
            self._fresh_until = self._clock() + 9 * (self._cpu() - began)
        return self._text


class AdminPort(CrossbarPort):
    def __init__(self, services: Services, outgoing: Outgoing, registry: CollectorRegistry) -> None:
        super().__init__(services, outgoing)
        self.exposition = Exposition(registry)

    def admit_operator(self, req: falcon.Request, scopes: tuple[str, ...], params: dict[str, Any]) -> None:
        """Admit a request with a token of this port, and give the handler its name as ``by``. An account's token
        counts as wrong.

        :raises Problem: as ``Door.check``.
        """
        params["by"] = self.door.check(req, self.tokens(), *scopes).name.removeprefix("+")
