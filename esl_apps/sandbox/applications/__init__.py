"""The dialplan applications: what ``execute`` runs. Each takes the channel and its expanded argument.

A waiting application loops on `Execution.idle`, which runs whatever commands came in meanwhile: that is what
makes a second ``execute`` run *inside* the first, as on FreeSWITCH.
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
