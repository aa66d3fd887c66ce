"""The ``api`` commands, with the texts that FreeSWITCH answers."""

from __future__ import annotations

from esl_apps.sandbox.commands import calls, listing, running, scheduling, server, variables
from esl_apps.sandbox.commands.registry import table

__all__ = ["calls", "listing", "running", "scheduling", "server", "table", "variables"]
