"""The ``api`` commands, with FreeSWITCH's own outputs."""

from __future__ import annotations

from esl_apps.sandbox.commands import calls, listing, running, scheduling, server, variables
from esl_apps.sandbox.commands.registry import table

__all__ = ["calls", "listing", "running", "scheduling", "server", "table", "variables"]
