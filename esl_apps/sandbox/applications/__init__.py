"""The dialplan applications, which ``execute`` runs. Each takes the channel and its expanded argument.

An application that waits loops on `Execution.idle`, which runs the commands that came in meanwhile. That makes a
second ``execute`` run *inside* the first, as on FreeSWITCH.
"""

from __future__ import annotations

from esl_apps.sandbox.applications import (
    call_control,
    digits,
    events,
    outbound_socket,
    playing,
    recording,
    scheduling,
    variables,
)
from esl_apps.sandbox.applications.registry import table

__all__ = [
    "call_control",
    "digits",
    "events",
    "outbound_socket",
    "playing",
    "recording",
    "scheduling",
    "table",
    "variables",
]
