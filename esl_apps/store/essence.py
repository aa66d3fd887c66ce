"""The part of a call that another process needs to follow it to its end, as JSON in Redis and in the call log."""

from __future__ import annotations

from typing import Any

from esl_apps.core.attempt import Attempt
from esl_apps.core.call_fields import CallFields, values_of
from esl_apps.core.terms import AGENT_ANSWERED, BRIDGED, QUEUED, STATES


class Essence(CallFields, omit_defaults=True):
    """A call's fields, and where it was."""

    core_uuid: str | None = None
    """The FreeSWITCH process that had the call: if another one answers, the call is gone."""


def essence(attempt: Attempt, core_uuid: str | None) -> Essence:
    fields: tuple[Any, ...] = (*values_of(attempt), core_uuid)
    return Essence(*fields)


def restored(known: Essence) -> Attempt:
    """The attempt of a process that can no longer end it."""
    fields = dict(zip(CallFields.__struct_fields__, values_of(known), strict=True))
    if known.state not in STATES:
        # Another version's: go on from the last state that its times prove.
        fields["state"] = BRIDGED if known.bridged_at else AGENT_ANSWERED if known.answered_at else QUEUED
    return Attempt(**fields)
