"""``inbound`` of the configuration: numbers that ring agents."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from esl_apps.config.fields import Section, Timeout


class Inbound(Section, frozen=True):
    integrator: str
    """Integrator that is notified."""
    agents: Annotated[list[str], Meta(min_length=1)]
    """Extensions, or numbers outside."""
    strategy: Literal["all", "in_order", "random"] = "all"
    """All at once; or one after the other, in this order or in random order."""
    ring_timeout: Timeout = 20
    """For each agent; after the last one the caller hears a message and gets 480."""
