"""Which Redis lists a record goes to, and in which form: the integrator's choice."""

from __future__ import annotations

from esl_apps.config.model import Integrator
from esl_apps.config.records import RecordsConfig
from esl_apps.core import notification
from esl_apps.core.attempt import Attempt
from esl_apps.core.record import Record
from esl_apps.store.journal import Entry, entry


def entries(record: Record, one: Integrator | None, others: RecordsConfig) -> list[Entry]:
    """A record's notifications; their ids are the record's, so that any node may push them again.

    ``others``: the choices for calls that belong to no integrator.
    """
    if one is None:
        body = notification.cdr_payload(record, payload=others.payload)
        return [entry(record.call_ref, notification.CDR_LIST, body)]
    body = notification.cdr_payload(record, payload=one.payload, dispositions=one.dispositions)
    result = [entry(record.call_ref, notification.CDR_LIST, body, one.push, one.name)]
    if one.legacy_c2d:
        result.append(
            entry(record.call_ref, notification.C2D_LIST, notification.c2d_payload(record), one.push, one.name)
        )
    return result


def answered(attempt: Attempt, agent: str, hold_time: int, one: Integrator | None, others: RecordsConfig) -> Entry:
    """The notification of an answered inbound call."""
    payload, side = (one.payload, one.push) if one is not None else (others.payload, "left")
    body = notification.inbound_payload(attempt, agent, hold_time, payload=payload)
    return entry(attempt.call_ref, notification.INBOUND_LIST, body, side, one.name if one is not None else "")
