"""The order for ``event_source``. In a module of its own, as ``event_source`` patches its process for gevent."""

from __future__ import annotations

import dataclasses

#: Events of a call: queued, four more states of an answered call, ended.
EACH = 6


@dataclasses.dataclass(frozen=True)
class Written:
    redis: str
    integrator: str
    rate: int
    """Events a second."""
    count: int
    """Events; whole calls."""
    agents: int = 100
    """Agents whose calls these are, in turn."""
