"""The operator's port: its tokens, and what its handlers need."""

from __future__ import annotations

from typing import Any

import falcon
from prometheus_client import CollectorRegistry

from esl_apps.http.crossbar_port import CrossbarPort
from esl_apps.node.outgoing import Outgoing
from esl_apps.node.services import Services


class AdminPort(CrossbarPort):
    def __init__(self, services: Services, outgoing: Outgoing, registry: CollectorRegistry) -> None:
        super().__init__(services, outgoing)
        self.registry = registry

    def admit_operator(self, req: falcon.Request, scopes: tuple[str, ...], params: dict[str, Any]) -> None:
        """Admit a request with a token of this port, and give the handler its name as ``by``. An account's token
        counts as wrong.

        :raises Problem: as ``Door.check``.
        """
        params["by"] = self.door.check(req, self.holders(), *scopes).name.removeprefix("+")
